"""The key Secret as a folder of files."""

from __future__ import annotations

import base64
import multiprocessing
import os
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lethe.adapters.keys.files import NAMES, FileKeyring
from lethe.ports.keys import Keyring, KeysUnusable
from tests.contracts.keyring_contract import KeyringContract

NOBODY = 65534


class TestFileKeyring(KeyringContract):
    @pytest.fixture
    def keyring(self, tmp_path: Path) -> Keyring:
        (tmp_path / "keys").mkdir()
        return FileKeyring(tmp_path / "keys")

    @pytest.fixture
    def other(self, tmp_path: Path) -> Keyring:
        (tmp_path / "other").mkdir()
        return FileKeyring(tmp_path / "other")


def test_new_keys_are_three_files_of_32_bytes_that_only_their_owner_reads(tmp_path: Path) -> None:
    FileKeyring(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(NAMES)
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(base64.b64decode(path.read_text().rstrip("\n"), validate=True)) == 32


def test_keys_are_made_once_and_found_again(tmp_path: Path) -> None:
    assert FileKeyring(tmp_path).check_value == FileKeyring(tmp_path).check_value


def test_the_fingerprint_is_hmac_sha256_of_the_length_prefixed_parts(tmp_path: Path) -> None:
    keyring = FileKeyring(tmp_path)
    reference = hmac.HMAC(base64.b64decode((tmp_path / "fingerprint").read_text()), hashes.SHA256())
    reference.update(b"\0\0\0\5email\0\0\0\4J\xc3\xb6e")
    assert keyring.fingerprint("email", "Jöe") == reference.finalize()


def test_a_signature_verifies_with_the_public_key(tmp_path: Path) -> None:
    keyring = FileKeyring(tmp_path)
    public = Ed25519PublicKey.from_public_bytes(keyring.public_key)
    public.verify(keyring.sign(b"checkpoint"), b"checkpoint")
    with pytest.raises(InvalidSignature):
        public.verify(keyring.sign(b"checkpoint"), b"another")


@pytest.mark.parametrize("name", NAMES)
def test_any_other_key_changes_the_check_value(tmp_path: Path, name: str) -> None:
    before = FileKeyring(tmp_path).check_value
    (tmp_path / name).write_bytes(base64.b64encode(os.urandom(32)))
    assert FileKeyring(tmp_path).check_value != before


@pytest.mark.parametrize("name", NAMES)
def test_a_half_set_is_refused_and_never_completed(tmp_path: Path, name: str) -> None:
    FileKeyring(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(KeysUnusable, match=rf"{name} is missing.*backup"):
        FileKeyring(tmp_path)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("text", ["", "c2hvcnQ=", "not base64, but 44 characters long as a key's is"])
def test_a_file_that_is_no_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    FileKeyring(tmp_path)
    (tmp_path / "seal").write_text(text)
    with pytest.raises(KeysUnusable, match="seal is not the base64 text of 32 bytes") as refused:
        FileKeyring(tmp_path)
    assert not text or text not in str(refused.value)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeysUnusable, match=r"nowhere.*mount the key Secret"):
        FileKeyring(tmp_path / "nowhere")


def test_processes_that_start_at_once_agree_on_the_keys(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as processes:
        values = processes.map(_check_value, [tmp_path] * 16, chunksize=1)
    assert len(set(values)) == 1


def _check_value(directory: Path) -> str:
    return FileKeyring(directory).check_value


def test_a_folder_without_keys_that_may_not_be_written_names_file_and_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    (message,) = _as_nobody(tmp_path)
    assert "fingerprint does not exist and can't be made" in message
    assert "mount a Secret" in message


def test_a_mounted_secret_needs_no_writable_folder(tmp_path: Path) -> None:
    FileKeyring(tmp_path)
    for path in (*tmp_path.iterdir(), tmp_path):
        path.chmod(0o555)
    (found,) = _as_nobody(tmp_path)
    assert found == FileKeyring(tmp_path).check_value


def _as_nobody(directory: Path) -> list[str]:
    """Open the folder in a child without root's rights; return the check value, or the error."""
    for parent in directory.parents:
        if "pytest" in str(parent):  # pytest's own folders are closed to others
            parent.chmod(parent.stat().st_mode | 0o055)
    context = multiprocessing.get_context("fork")
    with context.Pool(1, initializer=_give_up_root) as child:
        return child.map(_check_value_or_error, [directory])


def _give_up_root() -> None:
    if os.geteuid() == 0:
        os.setuid(NOBODY)


def _check_value_or_error(directory: Path) -> str:
    try:
        return FileKeyring(directory).check_value
    except KeysUnusable as error:
        return str(error)

"""What every keyring must do. Subclass `KeyringContract` and give it the fixtures `keyring` and `other`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.ports.keys import Keyring, SealBroken, record_digest

TEXTS = st.lists(st.text(alphabet="ab\0", max_size=3), min_size=1, max_size=4)


class KeyringContract:
    """`keyring` and `other` are two keyrings of different keys."""

    def test_a_fingerprint_has_32_bytes_and_is_the_same_each_time(self, keyring: Keyring) -> None:
        digest = keyring.fingerprint("email", "site", "ada@example.org")
        assert len(digest) == 32
        assert keyring.fingerprint("email", "site", "ada@example.org") == digest

    def test_nobody_can_compute_a_fingerprint_with_other_keys(self, keyring: Keyring, other: Keyring) -> None:
        assert keyring.fingerprint("email", "ada") != other.fingerprint("email", "ada")

    @given(one=TEXTS, another=TEXTS)
    def test_no_two_different_lists_have_the_same_fingerprint(
        self, keyring: Keyring, one: list[str], another: list[str]
    ) -> None:
        assert (keyring.fingerprint(*one) == keyring.fingerprint(*another)) == (one == another)

    def test_a_record_is_told_apart_by_store_table_and_key(self, keyring: Keyring) -> None:
        digests = {
            record_digest(keyring, store, table, key)
            for store in ("site", "crm")
            for table in ("users", "users2")
            for key in ("1", "21")
        }
        assert len(digests) == 8

    def test_what_is_sealed_opens_again_and_shows_nothing(self, keyring: Keyring) -> None:
        sealed = keyring.seal(b"ada@example.org", "request:1")
        assert b"ada" not in sealed
        assert keyring.unseal(sealed, "request:1") == b"ada@example.org"
        assert keyring.seal(b"ada@example.org", "request:1") != sealed

    def test_a_seal_breaks_in_another_context(self, keyring: Keyring) -> None:
        with pytest.raises(SealBroken):
            keyring.unseal(keyring.seal(b"text", "request:1"), "request:2")

    def test_a_seal_breaks_with_other_keys(self, keyring: Keyring, other: Keyring) -> None:
        with pytest.raises(SealBroken):
            other.unseal(keyring.seal(b"text", "request:1"), "request:1")

    def test_a_seal_breaks_when_any_byte_is_changed_or_missing(self, keyring: Keyring) -> None:
        sealed = keyring.seal(b"text", "request:1")
        for place in range(len(sealed)):
            changed = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
            for broken in (changed, sealed[:place]):
                with pytest.raises(SealBroken):
                    keyring.unseal(broken, "request:1")

    def test_a_signature_has_64_bytes(self, keyring: Keyring) -> None:
        assert len(keyring.sign(b"checkpoint")) == 64

    def test_the_check_value_tells_other_keys(self, keyring: Keyring, other: Keyring) -> None:
        assert keyring.check_value != other.check_value

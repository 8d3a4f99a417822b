"""What image/trim.py leaves of the wheels is enough: for every module, every locale, a real ledger."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LOCKED = CHECKOUT / "requirements" / "run.txt"

IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
from lethe.import_trim import skip_unused_clients
skip_unused_clients()
import lethe
for module in pkgutil.walk_packages(lethe.__path__, "lethe."):
    if ".migrations." not in module.name:
        importlib.import_module(module.name)
outside = {name: one.__file__ for name, one in sys.modules.items() if getattr(one, "__file__", None)}
print(json.dumps(outside))
"""

USE_WHAT_LOADS_ITS_FILES_LATE = """
import asyncio, json, ssl, sys, tempfile
from datetime import datetime, UTC
from pathlib import Path
from lethe.import_trim import skip_unused_clients
skip_unused_clients()

from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
folder = Path(tempfile.mkdtemp())
(folder / "keys").mkdir()
ledger = open_ledger(f"sqlite:///{folder}/ledger.db", FileKeyring(folder / "keys"))
assert ledger.verify().sequence >= 0

import botocore.session
client = botocore.session.Session().create_client(
    "s3", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
assert "amazonaws.com" in client.meta.endpoint_url
botocore.session.Session().create_client("sts", region_name="eu-central-1")
assert "key" in client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "key"})

import psycopg
assert psycopg.pq.__impl__ == "binary"
import sqlalchemy
sqlalchemy.create_engine("postgresql+psycopg://localhost/x").dialect

from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
async def client_of_the_api_server():
    await ApiClient(Configuration()).close()
asyncio.run(client_of_the_api_server())
"""

EVERY_LOCALE = """
import json
from datetime import datetime, UTC
from zoneinfo import ZoneInfo
from babel import Locale, localedata
from lethe.adapters.notices.reading import country_name, in_words
at = [datetime(2026, 1, 31, 0, 5, tzinfo=UTC), datetime(2026, 10, 25, 12, 0, tzinfo=UTC)]
zones = [ZoneInfo(name) for name in ("Europe/Zurich", "America/St_Johns", "Asia/Kathmandu", "Etc/UTC")]
said = {}
for name in localedata.locale_identifiers():
    locale = Locale.parse(name)
    said[name] = []
    for one, zone in [(one, zone) for one in at for zone in zones]:
        try:
            said[name].append(repr(in_words(one, zone, locale)))
        except KeyError as unknown:  # CLDR has no word for an unknown place in all languages
            said[name].append(repr(unknown))
    said[name] += [country_name(code, locale) for code in ("CH", "us", "XX")]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The locked wheels of the image, and nothing else of what is installed here."""
    folder = tmp_path_factory.mktemp("whole")
    for name in re.findall(r"^([\w.-]+)==", LOCKED.read_text(), re.MULTILINE):
        for file in metadata.distribution(name).files or ():
            if file.parts[0] != "..":  # a script in bin/
                _link(Path(str(file.locate())), folder / file)
    return folder


@pytest.fixture(scope="module")
def trimmed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as the image has it."""
    folder = tmp_path_factory.mktemp("trimmed") / "site-packages"
    shutil.copytree(whole, folder, copy_function=_link)
    # As in the image's build: what is installed here beside it is not there to help.
    subprocess.run([sys.executable, "-I", "-S", CHECKOUT / "image" / "trim.py", folder], check=True)
    return folder


def _link(source: Path | str, target: Path | str) -> None:
    if not Path(source).exists():  # bytecode that nobody has needed so far
        return
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def run_with(site_packages: Path, program: str) -> str:
    """Run a program with the standard library, the checkout's `lethe` and these packages: its output."""
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys\nsys.path += {_paths(site_packages)}\n{program}"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=site_packages,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _paths(site_packages: Path) -> list[str]:
    return [str(site_packages), str(CHECKOUT / "operator")]


def test_every_module_of_the_operator_is_imported_from_what_is_left(trimmed: Path) -> None:
    loaded: dict[str, str] = json.loads(run_with(trimmed, IMPORT_EVERYTHING))
    assert "lethe.bootstrap" in loaded
    assert "lethe.cli.kubectl" in loaded
    assert "kopf" in loaded
    assert {name for name, file in loaded.items() if ".venv" in file} == set()


def test_what_loads_its_files_late_finds_them(trimmed: Path) -> None:
    run_with(trimmed, USE_WHAT_LOADS_ITS_FILES_LATE)


def test_in_every_locale_a_letter_says_the_same_as_with_all_of_babel(whole: Path, trimmed: Path) -> None:
    expected: dict[str, Any] = json.loads(run_with(whole, EVERY_LOCALE))
    assert len(expected) > 1000
    assert json.loads(run_with(trimmed, EVERY_LOCALE)) == expected


def test_a_third_of_the_bytes_is_left_at_most(whole: Path, trimmed: Path) -> None:
    assert sum(_sizes(trimmed)) < 0.36 * sum(_sizes(whole))


def _sizes(folder: Path) -> Iterator[int]:
    return (file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_a_pattern_that_matches_nothing_is_an_error(whole: Path, tmp_path: Path) -> None:
    """What it meant to leave out would be shipped again, and nobody would see it."""
    command: list[str | Path] = [sys.executable, CHECKOUT / "image" / "trim.py", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "nothing matches kubernetes/client" in ended.stderr

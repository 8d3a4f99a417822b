"""Backends of others, installed as a package would be."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lethe.adapters.backups.plugin import load_backend
from lethe.domain.facts import ListedSnapshot
from lethe.ports.backups import (
    BackendMisconfigured,
    BackendUnavailable,
    Deletion,
    DeletionResult,
    Listing,
    Pin,
)

MODULE = """
import datetime
from lethe.domain.facts import ListedSnapshot
from lethe.ports.backups import BackendMisconfigured, BackendUnavailable, Deletion, DeletionResult, Listing

NAIVE = datetime.datetime(2026, 1, 1)
NOON = NAIVE.replace(tzinfo=datetime.timezone.utc)
SEEN = ListedSnapshot("tape-1", ("serial 7",), NOON)


class Tape:
    def __init__(self, config, secret):
        if "drive" not in config:
            raise BackendMisconfigured("spec.plugin.config has no drive")
        self.answers = {
            "list": Listing([SEEN]),
            "delete": {"tape-1": Deletion(DeletionResult.ACCEPTED)},
            "gone": {},
        }

    def answer(self, method):
        found = self.answers[method]
        if isinstance(found, Exception):
            raise found
        return found

    def list(self):
        return self.answer("list")

    def delete(self, pins):
        return self.answer("delete")

    def gone(self, refs):
        return self.answer("gone")

    def close(self):
        pass


class Lying(Tape):
    def __init__(self, config, secret):
        self.answers = {config["method"]: eval(config["answer"])}


def raising(config, secret):
    raise RuntimeError("canary-secret-000374q")


def nothing(config, secret):
    return None


not_callable = 7
"""
ENTRY_POINTS = """
[lethe.backups]
tape = acme_tape:Tape
lying = acme_tape:Lying
raising = acme_tape:raising
nothing = acme_tape:nothing
seven = acme_tape:not_callable
absent = acme_tape:no_such_name
missing = no_such_module:Tape
twice = acme_tape:Tape

[console_scripts]
other = acme_tape:Tape
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "acme_tape.py").write_text(MODULE)
    for package, points in (
        ("acme_tape", ENTRY_POINTS),
        ("acme_second", "[lethe.backups]\ntwice = acme_tape:Lying\n"),
    ):
        metadata = tmp_path / f"{package}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("acme_tape", None)


def test_an_installed_plugin_is_a_backend() -> None:
    backend = load_backend("tape", {"drive": "1"}, {})
    (seen,) = backend.list().snapshots
    assert seen == ListedSnapshot("tape-1", ("serial 7",), datetime(2026, 1, 1, tzinfo=UTC))
    assert isinstance(backend.list(), Listing)
    assert backend.delete([Pin("tape-1", seen.pieces)]) == {"tape-1": Deletion(DeletionResult.ACCEPTED)}
    assert backend.gone(["tape-1"]) == {}
    backend.close()


def test_a_name_that_nobody_installed_is_told_with_those_that_are() -> None:
    with pytest.raises(BackendMisconfigured, match=r"'other'.*lying.*tape") as raised:
        load_backend("other", {}, {})
    assert "lethe.backups" in raised.value.remedy


def test_two_plugins_of_one_name_are_not_chosen_from() -> None:
    with pytest.raises(BackendMisconfigured, match="several packages"):
        load_backend("twice", {"drive": "1"}, {})


@pytest.mark.parametrize("name", ["nothing", "seven"])
def test_what_is_no_backend_is_refused(name: str) -> None:
    with pytest.raises(BackendMisconfigured, match=r"spec\.plugin\.name"):
        load_backend(name, {}, {})


@pytest.mark.parametrize("name", ["raising", "absent", "missing"])
def test_a_plugin_that_can_not_be_loaded_is_told_without_its_text(name: str) -> None:
    with pytest.raises(BackendUnavailable, match=name) as raised:
        load_backend(name, {}, {})
    error = raised.value
    assert "canary" not in f"{error!r} {error.__cause__!r} {error.__context__!r}"


def test_a_plugins_own_word_on_its_settings_is_passed_on() -> None:
    with pytest.raises(BackendMisconfigured, match="has no drive"):
        load_backend("tape", {}, {})


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("list", "None"),
        ("list", "[SEEN]"),
        ("list", "Listing(None)"),
        ("list", "Listing([None])"),
        ("list", "Listing([SEEN, SEEN])"),
        ("list", "Listing([ListedSnapshot('', ('x',), NOON)])"),
        ("list", "Listing([ListedSnapshot('x', (), NOON)])"),
        ("list", "Listing([ListedSnapshot('x', ('x',), NAIVE)])"),
        ("list", "Listing([ListedSnapshot('x', ('x',), '2026-01-01')])"),
        ("list", "Listing([ListedSnapshot('x', ('x',), NOON, (NAIVE,))])"),
        ("list", "RuntimeError('canary-secret-000374q')"),
        ("delete", "None"),
        ("delete", "{}"),
        ("delete", "{'tape-1': True}"),
        ("delete", "{'tape-1': Deletion('yes')}"),
        ("delete", "{'tape-2': Deletion(DeletionResult.ACCEPTED)}"),
        ("delete", "KeyError('canary-secret-000374q')"),
        ("gone", "None"),
        ("gone", "[]"),
        ("gone", "True"),
        ("gone", "{'tape-2': 'lies there'}"),
        ("gone", "{'tape-1': False}"),
        ("gone", "OSError('canary-secret-000374q')"),
    ],
)
def test_nonsense_is_not_believed_and_not_repeated(method: str, answer: str) -> None:
    backend = load_backend("lying", {"method": method, "answer": answer}, {})
    asked: dict[str, Callable[[], object]] = {
        "list": backend.list,
        "delete": lambda: backend.delete([Pin("tape-1", ("serial 7",))]),
        "gone": lambda: backend.gone(["tape-1"]),
    }
    with pytest.raises(BackendUnavailable, match="lying") as raised:
        asked[method]()
    error = raised.value
    assert "canary" not in f"{error!r} {error.__cause__!r} {error.__context__!r}"


def test_the_ports_errors_pass_as_they_are() -> None:
    backend = load_backend(
        "lying", {"method": "list", "answer": "BackendUnavailable('no drive is free')"}, {}
    )
    with pytest.raises(BackendUnavailable, match="no drive is free"):
        backend.list()

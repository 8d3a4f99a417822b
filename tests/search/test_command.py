"""`make search`: what it finds is small and can be pasted; without a fault it ends by its time."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

from tests.search import pasting

ROOT = Path(__file__).parents[2]
PLANTED = Path(__file__).parent / "planted.py"
EXPLICIT = """
import pytest
from hypothesis import HealthCheck, Phase, example, settings

pytestmark = pytest.mark.slow  # not each test, but all of them together
settings.register_profile("explicit", phases=[Phase.explicit], suppress_health_check=list(HealthCheck))
settings.load_profile("explicit")
"""


def search(*args: str, minutes: float) -> subprocess.CompletedProcess[str]:
    """Run the command, in one process, over tests that are named."""
    given = [f"MINUTES={minutes}", "TEST_WORKERS=1", f"PYTEST_ARGS={' '.join(args)}"]
    # `timeout` ends all that make has started. The environment is made already: this test runs in it.
    command = ["timeout", "240", "make", "--old-file=install", "search", *given]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def found_by(done: subprocess.CompletedProcess[str]) -> str:
    """Return what stands at the end of the output, without the line above and the line below."""
    assert done.returncode != 0, done.stdout
    _, separator, end = done.stdout.partition("search: 1 found")
    assert separator, done.stdout
    return end.split("\n", 3)[3].rpartition("\n\n")[0]


def replayed(code: str, tmp_path: Path, *, only: str) -> str:
    """Return the output of pytest over a file that must fail."""
    file = tmp_path / "test_pasted.py"
    file.write_text(code)
    options = ["-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", "-k", only]
    command = [sys.executable, "-m", "pytest", *options, str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    return done.stdout


@pytest.mark.slow
def test_what_a_machine_met_is_printed_small_as_a_test_that_fails_again(tmp_path: Path) -> None:
    code = found_by(search(str(PLANTED), "-k", "forgotten", minutes=0.05))
    assert code.startswith(
        "def test_found_by_search(machine: type[Register]) -> None:\n    state = Register()\n"
    )
    assert code.count("somebody_signs_up(") == 3
    assert code.count("somebody_waits(") == 1
    assert code.endswith("state.teardown()")
    told = replayed(f"{PLANTED.read_text()}\n\n{code}\n", tmp_path, only="found_by_search")
    assert "AssertionError: forgotten" in told


@pytest.mark.slow
def test_what_a_property_met_is_printed_as_an_example_that_fails_again(tmp_path: Path) -> None:
    code = found_by(search(str(PLANTED), "-k", "too_long", minutes=0.1))
    assert code.startswith("@example(\n    length=timedelta(days=5),\n    people=100,\n)\n")
    pasted = PLANTED.read_text().replace("@given(length", f"{code}\n@given(length")
    pasted = pasted.replace("\nimport time\n", f"\nimport time\n{EXPLICIT}")
    told = replayed(pasted, tmp_path, only="too_long")
    assert "AssertionError: too long" in told


@pytest.mark.slow
def test_a_search_that_finds_nothing_ends_by_its_time_and_well() -> None:
    done = search("tests/search/sound.py", minutes=0.05)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "search: 0 found" in done.stdout
    assert "examples of 3 tests in 0.05 minutes, 0 failed" in done.stdout, "and a plain test was not run"


def a_module(**known: object) -> ModuleType:
    module = ModuleType("a_module")
    vars(module).update(known)
    return module


def test_what_is_pasted_speaks_in_the_names_of_its_module() -> None:
    drawn = "@example(at=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc))"
    code, imports = pasting._in_terms_of(a_module(datetime=datetime, UTC=UTC), drawn)
    assert code == "@example(at=datetime(2026, 1, 1, tzinfo=UTC))"
    assert imports == []


def test_what_its_module_lacks_is_imported() -> None:
    drawn = (
        "def test(): state.step(by=datetime.timedelta(days=1), at=datetime.datetime(2026, 1, 1), way=Way.ONE)"
    )
    code, imports = pasting._in_terms_of(a_module(datetime=datetime), drawn)
    assert (
        code == "def test(): state.step(by=datetime_.timedelta(days=1), at=datetime(2026, 1, 1), way=Way.ONE)"
    )
    assert imports == ["import datetime as datetime_"]


def test_what_a_machine_draws_is_imported_from_where_the_machine_lives() -> None:
    machine = type("Machine", (), {"__module__": __name__})
    _, imports = pasting._in_terms_of(a_module(Machine=machine), "def test(): state = Machine(PLANTED)")
    assert imports == [f"from {__name__} import PLANTED"]

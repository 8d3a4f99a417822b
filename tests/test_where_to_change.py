"""What docs/dev/where-to-change.md says would complain does: omissions tried on a copy of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # not each test, but all of them together

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs" / "dev" / "where-to-change.md"
COPIED = ("bench", "charts", "crds", "devtools", "docs", "examples", "image", "operator", "tests")
LEFT = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")


def replaced(copy: Path, path: str, before: str, after: str) -> None:
    """Replace a text that stands once in a file of the copy."""
    file = copy / path
    text = file.read_text()
    assert text.count(before) == 1, f"{path} has changed: {before!r}"
    file.write_text(text.replace(before, after))


def a_setting_without_its_row(copy: Path) -> None:
    path, read = "operator/lethe/settings.py", "        lease=_lease(environment),\n"
    replaced(
        copy,
        path,
        "    lease: str | None = None\n",
        "    lease: str | None = None\n    zone: str | None = None\n",
    )
    replaced(copy, path, read, f'{read}        zone=_text(environment, "LETHE_ZONE"),\n')


def a_metric_without_its_row(copy: Path) -> None:
    path, after = (
        "operator/lethe/controllers/runtime/metrics.py",
        '        self.leader = Gauge("lethe_leader"',
    )
    added = '        self.rings = Counter("lethe_rings", "Doorbells", ["kind"], registry=r)\n'
    replaced(copy, path, after, added + after)


def an_alert_without_a_runbook(copy: Path) -> None:
    file = copy / "charts/lethe/files/alerts.yaml"
    (first, *_) = re.findall(r"^  - alert: \w+\n(?:    .*\n)+", file.read_text(), re.MULTILINE)
    name = re.findall(r"alert: (\w+)", first)[0]
    file.write_text(file.read_text().replace(first, first + first.replace(name, "LetheRungTooOften")))


def a_language_without_its_template(copy: Path) -> None:
    (copy / "operator/lethe/adapters/notices/templates/user.es.txt").unlink()


def a_language_that_no_test_knows(copy: Path) -> None:
    templates = copy / "operator/lethe/adapters/notices/templates"
    shutil.copy(templates / "user.en.txt", templates / "user.pt.txt")


def a_kind_of_personal_data_without_make_crds(copy: Path) -> None:
    path, after = "operator/lethe/domain/mapping.py", '    TIME_ZONE = "TimeZone"\n'
    replaced(copy, path, after, f'{after}    PHONE = "Phone"\n')


def a_kind_without_its_row(copy: Path) -> None:
    replaced(copy, "operator/lethe/handlers/table.py", '    Row("backupsnapshots"),\n', "")


def a_way_of_the_gate_that_its_page_does_not_know(copy: Path) -> None:
    replaced(copy, "docs/gate.md", "| `cnpgPooler` | new", "| Poolers | new")


@dataclass(frozen=True)
class Omission:
    """What is forgotten, in which section of the page, and the check that complains (a node id of pytest)."""

    forget: Callable[[Path], None]
    section: str
    check: str

    def __str__(self) -> str:
        return self.forget.__name__


OMISSIONS = (
    Omission(
        a_setting_without_its_row,
        "A setting",
        "tests/test_docs.py::test_the_table_of_settings_has_every_one_that_is_read_and_no_other",
    ),
    Omission(a_metric_without_its_row, "A metric with its alert", "tests/alerts/test_table.py"),
    Omission(
        an_alert_without_a_runbook,
        "A metric with its alert",
        "tests/alerts/test_rules.py::test_nothing_is_left_of_an_alert_that_is_no_more",
    ),
    Omission(
        a_language_without_its_template,
        "Notices: words, languages, channels",
        "tests/adapters/notices/test_letters.py::test_a_locale_finds_its_language",
    ),
    Omission(
        a_language_that_no_test_knows,
        "Notices: words, languages, channels",
        "tests/adapters/notices/test_letters.py::test_every_packaged_language_is_tested",
    ),
    Omission(
        a_kind_of_personal_data_without_make_crds,
        "A kind of personal data",
        "tests/api/test_crd.py::test_the_committed_files_are_what_the_models_say",
    ),
    Omission(
        a_way_of_the_gate_that_its_page_does_not_know,
        "A way to close the gate",
        "tests/test_architecture.py::test_every_way_to_close_the_gate_is_told_of_by_the_plugin_and_on_its_page",
    ),
    Omission(a_kind_without_its_row, "A kind", "tests/handlers/test_table.py::test_every_kind_has_one_row"),
)


def copy_to(folder: Path) -> Path:
    """Copy what tests need of the checkout."""
    for name in COPIED:
        shutil.copytree(CHECKOUT / name, folder / name, ignore=LEFT)
    for file in CHECKOUT.glob("*.*"):
        if file.is_file():
            shutil.copy(file, folder)
    return folder


def failed(copy: Path) -> set[str]:
    """Run all checks in a copy; return those that fail. In one process: each costs seconds to load."""
    checks = [omission.check for omission in OMISSIONS]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *checks]
    environment = {**os.environ, "PYTHONPATH": str(copy / "operator"), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode in {0, 1}, ended.stdout + ended.stderr  # tests ran; 1: some failed
    named = re.findall(r"^FAILED ([^\s\[]+)", ended.stdout, re.MULTILINE)
    return {check for check in checks if any(name.startswith(check) for name in named)}


@pytest.fixture(scope="module")
def sections() -> Mapping[str, str]:
    """The page's sections by title."""
    parts = re.split(r"^## (.+)\n", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_page_has_changes_each_with_its_files_and_what_complains(sections: Mapping[str, str]) -> None:
    assert len(sections) == 15
    for section in sections.values():
        assert re.search(r"^1\. `", section, re.MULTILINE)
        assert "| forgotten | who says so |" in section


@pytest.mark.parametrize("omission", OMISSIONS, ids=str)
def test_the_page_names_the_check(omission: Omission, sections: Mapping[str, str]) -> None:
    file = omission.check.partition("::")[0]
    assert file in sections[omission.section].partition("| forgotten |")[2]


def test_what_the_page_names_complains_of_what_was_forgotten(tmp_path: Path) -> None:
    copy = copy_to(tmp_path)
    assert failed(copy) == set()
    for omission in OMISSIONS:
        omission.forget(copy)
    assert failed(copy) == {omission.check for omission in OMISSIONS}

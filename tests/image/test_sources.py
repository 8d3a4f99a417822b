"""What the image is made of is where the Dockerfile and the bill of materials look for it."""

import re
from pathlib import Path
from runpy import run_path

CHECKOUT = Path(__file__).resolve().parents[2]
COPIED = re.compile(r"^COPY (?!--from)(.+) \S+$", re.MULTILINE)
RESTIC = re.compile(r"^\s*(?:require )?github\.com/restic/restic (v\S+)", re.MULTILINE)


def copied() -> list[str]:
    """Return what the Dockerfile copies from the checkout."""
    lines = COPIED.findall((CHECKOUT / "Dockerfile").read_text())
    return [path for line in lines for path in line.split()]


def test_every_file_that_the_dockerfile_copies_is_there() -> None:
    assert "pyproject.toml" in copied()
    assert [path for path in copied() if not (CHECKOUT / path).exists()] == []


def test_the_bill_of_materials_lists_the_restic_that_is_built() -> None:
    sbom = run_path(str(CHECKOUT / "image" / "sbom.py"))
    go_mod = next(path for path in copied() if path.endswith("/go.mod"))
    built = RESTIC.findall((CHECKOUT / go_mod).read_text())
    listed = sbom["_go_modules"](sbom["GO"].read_text())
    assert [one["version"] for one in listed if one["name"] == "github.com/restic/restic"] == built
    assert len(built) == 1

"""The image's bill of materials, as CycloneDX: the locked wheels, and restic with the modules in it.

`python image/sbom.py FILE`, run with what requirements/sbom.txt names. Two runs write the same bytes. What
the base image holds is for its own bill.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
PYTHON = CHECKOUT / "requirements" / "run.txt"
GO = CHECKOUT / "image" / "restic" / "go.mod"


def bill_of_materials() -> dict[str, Any]:
    """Return the bill as JSON."""
    command: list[str | Path] = [
        *(sys.executable, "-m", "cyclonedx_py", "requirements", PYTHON),
        *("--pyproject", CHECKOUT / "pyproject.toml", "--mc-type", "application"),
        *("--output-reproducible", "--output-format", "JSON", "--output-file", "-"),
    ]
    written = subprocess.run(command, capture_output=True, text=True, check=False)
    if written.returncode != 0:
        raise SystemExit(f"image/sbom.py: cyclonedx-py: {written.stderr}")
    bill: dict[str, Any] = json.loads(written.stdout)
    for component in bill["components"]:
        component.pop("description", None)  # the line of the file, with the hashes that are told beside it
    bill["components"] += _go_modules(GO.read_text())
    return bill


def _go_modules(go_mod: str) -> list[dict[str, str]]:
    found = re.findall(r"^\s*(?:require )?([\w./~-]+\.[\w./~-]+) (v\S+)", go_mod, re.MULTILINE)
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:golang/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:golang/{name}@{version}",
        }
        for name, version in sorted(set(found))
    ]


def _check(text: str) -> None:
    """Raise `SystemExit` for what is no valid CycloneDX."""
    # Only in the environment that requirements/sbom.txt makes.
    from cyclonedx.schema import SchemaVersion  # type: ignore[import-not-found]  # noqa: PLC0415
    from cyclonedx.validation.json import JsonStrictValidator  # type: ignore[import-not-found]  # noqa: PLC0415

    version = SchemaVersion.from_version(json.loads(text)["specVersion"])
    wrong = JsonStrictValidator(version).validate_str(text)
    if wrong is not None:
        raise SystemExit(f"image/sbom.py: not valid CycloneDX: {wrong}")


if __name__ == "__main__":
    bill = json.dumps(bill_of_materials(), indent=1, sort_keys=True) + "\n"
    _check(bill)
    Path(sys.argv[1]).write_text(bill)

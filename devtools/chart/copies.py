"""The chart's copies of crds/, which a test keeps equal to them."""

import shutil
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "charts" / "lethe"
CRDS = CHECKOUT / "crds"
COPIES = CHART / "files" / "crds"


def copy_crds() -> None:
    """Replace the chart's copies."""
    shutil.rmtree(COPIES, ignore_errors=True)
    for name, text in texts(CRDS).items():
        copy = COPIES / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text)


def texts(folder: Path) -> dict[str, str]:
    """Return the YAML files below a folder, by relative path."""
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*.yaml"))}

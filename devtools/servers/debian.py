"""The PostgreSQL of a Debian package, for what is only to be seen on a server of that version."""

import subprocess
from pathlib import Path

from devtools.node import packages


def postgres_programs(version: int) -> Path:
    """Return the folder of a version's programs, installing it where root may.

    Raises `SystemExit`, saying what is missing, where this Debian has no such version or nobody may install.
    """
    folder = Path("/usr/lib/postgresql") / str(version) / "bin"
    package = f"postgresql-{version}"
    try:
        packages.install({str(folder / "postgres"): package})
    except subprocess.CalledProcessError:
        raise SystemExit(f"Missing here: {package}, and this Debian has none") from None
    return folder

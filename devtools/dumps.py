"""Dumps in a directory, as a nightly job leaves them there: of any age."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from devtools.company import Api

PATTERN = "site-{takenAt:%Y%m%dT%H%M%SZ}.dump"


def dump_name(taken_at: datetime) -> str:
    """Return the name of the dump of a moment."""
    return f"site-{taken_at:%Y%m%dT%H%M%SZ}.dump"


def leave_dump(directory: Path, taken_at: datetime, content: bytes = b"a dump") -> Path:
    """Leave the dump of a moment, modified at that moment."""
    path = directory / dump_name(taken_at)
    path.write_bytes(content)
    os.utime(path, (taken_at.timestamp(), taken_at.timestamp()))
    return path


def days_ago(days: float) -> datetime:
    """Return the whole second that many days before now."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(days=days)


def apply_source(api: Api, directory: Path, **spec: Any) -> None:
    """Apply the BackupSource `nightly` of such a directory, with the dumps of the store `site`."""
    api.create(
        "backupsources",
        "nightly",
        {"stores": ["site"], "directory": {"path": str(directory), "name": PATTERN}, **spec},
    )


def snapshot_states(api: Api) -> dict[str, str]:
    """Return the state of each BackupSnapshot by what its source calls it."""
    return {one["spec"]["ref"]: one.get("status", {}).get("state", "") for one in api.list("backupsnapshots")}


def instant(moment: datetime) -> str:
    """Return a moment as the API writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

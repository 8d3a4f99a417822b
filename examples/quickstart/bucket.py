"""The company's bucket: seven months of nightly dumps, left there by a job that never deleted anything."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from devtools.servers.versitygw import VersityServer
from examples.quickstart.people import Person

BUCKET, PREFIX = "backups", "nightly/"
NIGHTS = 213
"""Seven months of nights."""


class Bucket:
    """A versioned bucket on a real S3 server, looked at by a client of our own."""

    def __init__(self, server: VersityServer) -> None:
        self._server = server
        server.bucket(BUCKET)

    def fill(self, people: Iterable[Person], now: datetime) -> int:
        """Leave the dumps of seven months of nights, the newest of last night; return how many there are.

        They hold the people of the story only: to dump 10,000 people 213 times would take the demo's time.
        """
        content = "".join(f"{person.name}\t{person.email}\n" for person in people).encode()
        last_night = now.replace(hour=3, minute=0, second=0, microsecond=0)
        if last_night > now:
            last_night -= timedelta(days=1)
        for night in range(NIGHTS):
            taken_at = last_night - timedelta(days=night)
            self.put(taken_at, content, modified_at=taken_at + timedelta(minutes=4))
        # Somebody has made room by hand once. In a bucket with versions, that only hides the dump.
        self._server.delete(BUCKET, PREFIX + dump_name(last_night - timedelta(days=NIGHTS - 1)))
        return NIGHTS

    def put(self, taken_at: datetime, content: bytes, modified_at: datetime | None = None) -> str:
        """Upload the dump of a moment, and return its name."""
        name = dump_name(taken_at)
        self._server.put(BUCKET, PREFIX + name, content, modified_at)
        return name

    def dates_on_disk(self) -> set[datetime]:
        """Return when those dumps were taken of which any byte, of any version, is on the server's disk."""
        kept = self._server.client.get_paginator("list_object_versions").paginate(Bucket=BUCKET)
        keys = {
            one["Key"]
            for page in kept
            for part in ("Versions", "DeleteMarkers")
            for one in page.get(part, ())
        }
        on_disk = {key for key in keys if self._server.bytes_of(BUCKET, key) is not None}
        shown = {name for name in self._server.files(BUCKET) if name.startswith(PREFIX)}
        return {_taken_at(key) for key in on_disk | shown}


def dump_name(taken_at: datetime) -> str:
    """Return the name of the dump of a moment, as 40-backups.yaml describes it."""
    return f"site-{taken_at:%Y%m%dT%H%M%SZ}.dump"


def _taken_at(key: str) -> datetime:
    stamp = key.removeprefix(PREFIX).removeprefix("site-").removesuffix(".dump")
    return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)

"""Snapshots that are objects of an S3 bucket: in AWS, or in anything that speaks its API.

One snapshot is one key with all of its versions: a plain DELETE in a versioned bucket removes nothing, and
what a version holds is readable until that very version is deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from lethe.adapters.backups.s3_bucket import NULL, Bucket, Declined, Version, WebIdentity
from lethe.adapters.hosts import ANYWHERE, Resolver
from lethe.domain.facts import ListedSnapshot
from lethe.domain.snapshot_names import NamePattern
from lethe.domain.snapshots import UnfinishedSnapshot, is_same
from lethe.ports.backups import Deletion, DeletionResult, Listing, Pin

MARKERS = "delete markers"
"""The piece that stands for all delete markers of a key, as many as there are, and which every key has.

A marker holds nothing, so one more is no other content; but a key of which only markers are left is not
clean, and still is the one that was pinned.
"""
_LONGEST_KEY = 1024  # bytes; S3 takes no longer one
MOST_NAMES = 10_000  # of those that are only reported
_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict", "412"}
_REPLACED = Deletion(
    DeletionResult.IDENTITY_MISMATCH, "the object was replaced a moment ago; it was not deleted"
)
NOT_LISTED = "is no name that this source lists; nothing was touched and nobody has looked for it"


@dataclass(slots=True)
class _Found:
    """What lies under one key."""

    versions: list[Version] = field(default_factory=list)
    markers: list[Version] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)

    def add(self, version: Version) -> None:
        (self.markers if version.etag is None else self.versions).append(version)

    @property
    def pieces(self) -> tuple[str, ...]:
        return (*sorted(map(piece_of, self.versions)), MARKERS)

    def __str__(self) -> str:
        counted = {
            "version": len(self.versions),
            "delete marker": len(self.markers),
            "unfinished upload": len(self.uploads),
        }
        return ", ".join(f"{count} {what}{'s' * (count != 1)}" for what, count in counted.items() if count)


class S3Backend:
    """The keys of `bucket` that begin with `prefix`; a snapshot's ref is the key behind it.

    `endpoint` and `region` are `None` for AWS and its default region, `ca_file` for the usual authorities.
    The credentials need s3:ListBucket, s3:ListBucketVersions and s3:ListBucketMultipartUploads; to prune,
    s3:DeleteObject, s3:DeleteObjectVersion and s3:AbortMultipartUpload; to tell when a lock ends,
    s3:GetObjectRetention and s3:GetObjectLegalHold. They need not be able to read a backup. Where `pattern`
    is `None`, no key tells when it was taken (see `S3Versions`), and `names` says what keys are like.
    """

    def __init__(
        self,
        endpoint: str | None,
        region: str | None,
        bucket: str,
        prefix: str,
        pattern: NamePattern | None,
        access_key: str | None,
        secret_key: str | None,
        session_token: str | None = None,
        ca_file: str | None = None,
        resolver: Resolver = ANYWHERE,
        *,
        allow_plaintext: bool = False,
        identity: WebIdentity | None = None,
        names: str = "",
    ) -> None:
        """Raise `BackendMisconfigured` for an endpoint or a bucket's name that can't be one."""
        self._bucket = Bucket(
            endpoint,
            region,
            bucket,
            access_key,
            secret_key,
            session_token,
            ca_file,
            resolver,
            allow_plaintext=allow_plaintext,
            identity=identity,
        )
        self._prefix = prefix
        self._pattern = pattern
        self._names = names

    def list(self) -> Listing:
        """Return every key that has a version or a delete marker left.

        A key's pieces are its versions and `MARKERS`. Evidence is when each version was written. Of what
        is only reported (`unparsable`, `partial`) the first 10,000 names are kept.
        """
        found, unparsable = dict[str, _Found](), dict[str, None]()
        taken_at = dict[str, datetime]()
        for version in self._bucket.versions(self._prefix):
            ref = self._ref(version.key)
            if ref is None or is_folder(version):
                continue
            if ref not in found:
                moment = self._taken_at(ref)
                if moment is None:
                    # Of a name that only has delete markers left nothing is there to be reported.
                    reported = version.etag is not None and not is_placeholder(version)
                    if reported and len(unparsable) < MOST_NAMES:
                        unparsable[ref] = None
                    continue
                taken_at[ref], found[ref] = moment, _Found()
            found[ref].add(version)
        snapshots = [_listed(ref, taken_at[ref], one) for ref, one in found.items()]
        return Listing(snapshots, tuple(unparsable), self._unfinished(), self._bucket.date)

    def delete(self, pins: Sequence[Pin]) -> Mapping[str, Deletion]:
        """Delete every version and every delete marker of keys, each looked at right before."""
        return {pin.ref: self._delete(pin) for pin in pins}

    def gone(self, refs: Collection[str]) -> Mapping[str, str]:
        """List the versions, delete markers and unfinished uploads of each key; return what there is."""
        remains = dict[str, str]()
        for ref in refs:
            key = self._listed_key(ref)
            left = NOT_LISTED if key is None else str(self._look(key))
            if left:
                remains[ref] = left
        return remains

    def close(self) -> None:
        """Give back every connection."""
        self._bucket.close()

    # Names

    def _ref(self, key: str) -> str | None:
        # A service that overlooks the prefix must not make anything ours.
        return key.removeprefix(self._prefix) if key.startswith(self._prefix) else None

    def _taken_at(self, ref: str) -> datetime | None:
        # `.` and `..` are resolved in a URL's path by whatever is on the way: that would be another key.
        if {".", ".."} & set((self._prefix + ref).split("/")):
            return None
        return self._pattern.taken_at(ref) if self._pattern is not None else None

    def _listed_key(self, ref: str) -> str | None:
        """Return the key of a ref; `None` if no listing could show it, when the bucket is there at all."""
        if self._taken_at(ref) is not None:
            try:
                if len((self._prefix + ref).encode()) <= _LONGEST_KEY:
                    return self._prefix + ref
            except UnicodeEncodeError:
                pass  # no key is written like this
        self._bucket.require(self._prefix)
        return None

    # Looking

    def _look(self, key: str) -> _Found:
        """Return what lies under exactly this key; what only begins like it is a sibling's."""
        # Uploads first: one that is completed meanwhile is seen as a version then, and never overlooked.
        found = _Found(uploads=[upload for name, upload, _ in self._bucket.uploads(key) if name == key])
        for version in self._bucket.versions(key):
            if version.key == key:
                found.add(version)
        return found

    def _unfinished(self) -> tuple[UnfinishedSnapshot, ...]:
        found = self._unfinished_under(self._prefix)
        if self._prefix and not found:
            # MinIO finds uploads by a whole key or in the whole bucket, never by a prefix.
            try:
                found = self._unfinished_under("")
            except Declined as declined:
                if not declined.denied:
                    raise
                # Credentials for this prefix alone: the service has heard of prefixes.
        return tuple(found.values())

    def _unfinished_under(self, prefix: str) -> dict[str, UnfinishedSnapshot]:
        """Return the uploads by ref; of several to one key the one that began first."""
        found = dict[str, UnfinishedSnapshot]()
        for key, _, initiated in self._bucket.uploads(prefix):
            ref = self._ref(key)
            if ref is None or (ref not in found and len(found) == MOST_NAMES):
                continue
            others = [found[ref].changed_at] if ref in found else []
            dates = [date for date in (initiated, *others) if date is not None]
            began = min(dates) if len(dates) == 1 + len(others) else None
            found[ref] = UnfinishedSnapshot(ref, began, self._taken_at(ref))
        return found

    # Deleting

    def _delete(self, pin: Pin) -> Deletion:
        key = self._listed_key(pin.ref)
        if key is None:
            return Deletion(DeletionResult.FAILED, NOT_LISTED)
        try:
            found = self._look(key)
            mismatch = self._mismatch(pin, found)
            if mismatch is not None:
                return mismatch
            # Uploads first: as long as a version is left, a later attempt knows that this key was meant.
            for upload in found.uploads:
                self._bucket.abort(key, upload)
            return self._delete_found(pin, key, found)
        except Declined as declined:
            return _not_done(declined)

    def _mismatch(self, pin: Pin, found: _Found) -> Deletion | None:
        if not found.versions and not found.markers:
            if not found.uploads:
                return None
            return Deletion(
                DeletionResult.IDENTITY_MISMATCH,
                "nothing but an unfinished upload lies under this name: a backup that is being written, or "
                "was given up",
            )
        if is_same(pin.pieces, found.pieces):
            return None
        return Deletion(
            DeletionResult.IDENTITY_MISMATCH,
            f"under this name lie {found} by now, not only what was listed; nothing was deleted",
        )

    def _delete_found(self, pin: Pin, key: str, found: _Found) -> Deletion:
        """Delete versions, then markers: without its marker, a version that stays would show again."""
        for version in found.versions:
            if version.mutable:
                mismatch = self._delete_mutable(pin, key, version)
                if mismatch is not None:
                    return mismatch
        declined = self._bucket.delete([one for one in found.versions if not one.mutable])
        if declined:
            return self._declined(declined)
        declined = self._bucket.delete(found.markers)
        return _not_done(declined[0][1]) if declined else Deletion(DeletionResult.ACCEPTED)

    def _delete_mutable(self, pin: Pin, key: str, version: Version) -> Deletion | None:
        """Delete what the id `null` names; return why not, `None` if it was done."""
        # S3 compares the ETag of the current version only.
        refusal = self._bucket.delete_mutable(version, conditional=version.latest)
        if refusal is not None and refusal.code in _CHANGED:
            return _REPLACED
        if refusal is not None and version.latest:
            # The condition needs s3:GetObject, and some services know none: then look once more, and delete.
            found = self._look(key)
            mismatch = self._mismatch(pin, found)
            if mismatch is not None or version not in found.versions:
                return mismatch or (_REPLACED if found.versions else None)
            refusal = self._bucket.delete_mutable(version, conditional=False)
        return self._declined([(version, refusal)]) if refusal is not None else None

    def _declined(self, declined: Sequence[tuple[Version, Declined]]) -> Deletion:
        """Tell why versions can't be deleted: a legal hold, a retention that ends, or a right that lacks."""
        locks = [(self._bucket.lock(version), refusal) for version, refusal in declined]
        if any(lock.legal_hold for lock, _ in locks):
            return Deletion(
                DeletionResult.LOCKED, "a legal hold of S3 Object Lock keeps it until somebody lifts that"
            )
        ends = [lock.until for lock, _ in locks if lock.until is not None]
        if ends:
            return Deletion(
                DeletionResult.LOCKED,
                f"S3 Object Lock retains it until {max(ends).isoformat(timespec='seconds')}",
                max(ends),
            )
        unknown = sorted({right for lock, _ in locks for right in lock.unknown})
        if any(refusal.lock for _, refusal in locks):
            hint = f"; allow {', '.join(unknown)} to learn until when" if unknown else ""
            return Deletion(DeletionResult.LOCKED, f"S3 Object Lock keeps it{hint}")
        hint = f"; unless a lock keeps it: allow {', '.join(unknown)} to learn that" if unknown else ""
        return _not_done(locks[0][1], hint)


def _not_done(declined: Declined, hint: str = "") -> Deletion:
    result = DeletionResult.NOT_PERMITTED if declined.denied else DeletionResult.FAILED
    return Deletion(result, f"{declined}{hint}")


def _listed(ref: str, taken_at: datetime, found: _Found) -> ListedSnapshot:
    return ListedSnapshot(
        ref,
        found.pieces,
        taken_at,
        tuple(sorted({version.modified_at for version in found.versions})),
        _size(found.versions),
    )


def _size(versions: Iterable[Version]) -> int | None:
    return sum(version.size for version in versions) or None


def piece_of(version: Version) -> str:
    """Return what makes a version itself."""
    return f"{version.version_id or NULL}:{version.etag}:{version.size}"


def is_placeholder(version: Version) -> bool:
    """Tell whether it is what keeps an empty folder in place: `.gitkeep` and the like."""
    return version.size == 0 and version.key.rpartition("/")[2].startswith(".")


def is_folder(version: Version) -> bool:
    """Tell whether it is what consoles make for an empty folder."""
    return version.key.endswith("/") and version.size == 0

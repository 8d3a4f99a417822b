"""Snapshots that are the versions of a key: a job that writes the same key each night, in a bucket that keeps
what was there.

A version tells when it was written and not when the backup began; how long one takes says the BackupSource.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from lethe.adapters.backups.s3 import MOST_NAMES, NOT_LISTED, S3Backend, is_folder, is_placeholder, piece_of
from lethe.adapters.backups.s3_bucket import Version
from lethe.domain.facts import ListedSnapshot
from lethe.domain.snapshot_names import fits
from lethe.domain.snapshots import is_same
from lethe.ports.backups import BackendMisconfigured, Deletion, DeletionResult, Listing, Pin

_ID = "?versionId="


class S3Versions(S3Backend):
    """Each version of the keys behind the prefix that are named like `names`, where `*` stands for anything
    but `/`.

    A snapshot's ref is the key behind the prefix with the version's id, as in `site.dump?versionId=3HL4`.
    """

    def list(self) -> Listing:
        """Return every version that is content. Delete markers hold nothing, and stay."""
        snapshots, unparsable = [], dict[str, None]()
        for version in self._bucket.versions(self._prefix):
            ref = self._ref(version.key)
            if ref is None or version.etag is None or is_folder(version):
                continue
            if fits(self._names, ref):
                size = version.size or None
                pieces = (piece_of(self._known(version)),)
                snapshots.append(ListedSnapshot(_ref_of(ref, version), pieces, version.modified_at, (), size))
            elif len(unparsable) < MOST_NAMES and not is_placeholder(version):
                unparsable[ref] = None
        return Listing(snapshots, tuple(unparsable), self._unfinished(), self._bucket.date)

    def delete(self, pins: Sequence[Pin]) -> Mapping[str, Deletion]:
        """Delete exactly these versions, each compared with what its key has now."""
        left = self._left([pin.ref for pin in pins])
        return {pin.ref: self._delete_version(pin, left) for pin in pins}

    def gone(self, refs: Collection[str]) -> Mapping[str, str]:
        """List the versions of each key; return those that are there still."""
        left = self._left(refs)
        return {
            ref: "the version is there still" if self._is_listed(ref) else NOT_LISTED
            for ref in refs
            if ref in left or not self._is_listed(ref)
        }

    def _delete_version(self, pin: Pin, left: Mapping[str, Version]) -> Deletion:
        if not self._is_listed(pin.ref):
            return Deletion(DeletionResult.FAILED, NOT_LISTED)
        version = left.get(pin.ref)
        if version is None:
            return Deletion(DeletionResult.ACCEPTED, "there is no such version any more")
        if not is_same(pin.pieces, (piece_of(version),)):
            return Deletion(DeletionResult.IDENTITY_MISMATCH, "the version holds something else by now")
        if version.mutable:
            refusal = self._bucket.delete_mutable(version, conditional=version.latest)
            declined = [] if refusal is None else [(version, refusal)]
        else:
            declined = [*self._bucket.delete([version])]
        return self._declined(declined) if declined else Deletion(DeletionResult.ACCEPTED)

    def _left(self, refs: Collection[str]) -> dict[str, Version]:
        """Return which of these versions are there now; each key is listed once."""
        wanted = defaultdict[str, set[str]](set)
        for ref in refs:
            if self._is_listed(ref):
                wanted[ref.rpartition(_ID)[0]].add(ref)
        if not wanted:
            self._bucket.require(self._prefix)
        found = {}
        for ref, of_key in wanted.items():
            for version in self._bucket.versions(self._prefix + ref):
                if version.key == self._prefix + ref and version.etag is not None:
                    named = _ref_of(ref, self._known(version))
                    if named in of_key:
                        found[named] = version
        return found

    def _known(self, version: Version) -> Version:
        """Return a version that has an id. Where none has, what is overwritten is lost and no history."""
        if version.version_id is None:
            raise BackendMisconfigured(
                f"bucket {self._bucket.name} keeps no versions, and spec.s3.name has no {{takenAt:…}}",
                "let the bucket keep versions, or let each backup have a name that tells when it was taken",
            )
        return version

    def _is_listed(self, ref: str) -> bool:
        key, separator, version_id = ref.rpartition(_ID)
        return bool(separator and version_id) and fits(self._names, key)


def _ref_of(ref: str, version: Version) -> str:
    return f"{ref}{_ID}{version.version_id}"

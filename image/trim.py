"""Take out of the installed wheels what the operator never reads: two thirds of their bytes.

`python image/trim.py SITE_PACKAGES`, in the image's build stage. tests/image/test_trim.py keeps the rest
sufficient.
"""

import pickle
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

UNUSED = (
    # The synchronous client, and models and methods of each kind: raw JSON goes in and out
    # (lethe.import_trim).
    "kubernetes/client",
    "kubernetes/dynamic",
    "kubernetes/informer",
    "kubernetes/leaderelection",
    "kubernetes/stream",
    "kubernetes/aio/client/api/*_api.py",
    "kubernetes/aio/client/models/[a-z]*.py",
    # Of the descriptions of all of AWS' services only S3's and the token service's are read.
    "botocore/data/[!s]*/",
    "botocore/data/s[!3t]*/",
    "botocore/data/st[!s]*/",
    "botocore/data/s3?*/",
    # What tests of other libraries would use.
    "alembic/testing",
    "sqlalchemy/testing",
    "pydantic/v1",
)
"""Patterns below site-packages. Each must match: one that doesn't was written for another version."""

UNREAD_LOCALE_DATA = (
    "compact_currency_formats",
    "compact_decimal_formats",
    "compound_unit_patterns",
    "currency_names",
    "currency_names_plural",
    "interval_formats",
    "languages",
    "scripts",
    "unit_display_names",
    "unit_patterns",
    "variants",
)
"""What Babel knows of each locale and no letter says: dates, hours, zones, numbers and countries stay."""


def trim(site_packages: Path) -> None:
    """Trim in place; raises `LookupError` for a pattern that matches nothing."""
    sys.path.insert(0, str(site_packages))  # Babel's files name classes of Babel's
    for pattern in UNUSED:
        for path in list(_matches(site_packages, pattern)):
            _remove(path)
    for file in _matches(site_packages, "babel/locale-data/*.dat"):
        _trim_locale(file)
    for file in _matches(site_packages, "**/*.so*"):
        _cut_symbols(file)


def _matches(site_packages: Path, pattern: str) -> Iterator[Path]:
    folders_only = pattern.endswith("/")  # a `glob` of Python 3.11 keeps to that, too; one of 3.10 doesn't
    found = [path for path in site_packages.glob(pattern) if path.is_dir() or not folders_only]
    if not found:
        raise LookupError(f"image/trim.py: nothing matches {pattern} below {site_packages}; correct UNUSED")
    yield from found


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        return
    path.unlink()
    for bytecode in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        bytecode.unlink()


def _trim_locale(file: Path) -> None:
    known = pickle.loads(file.read_bytes())  # noqa: S301  Babel's own file, checked by its wheel's hash
    for name in UNREAD_LOCALE_DATA:
        known.pop(name, None)
    _replace(file, pickle.dumps(known, protocol=5))


def _cut_symbols(file: Path) -> None:
    """Leave out what only a debugger and a linker read of a shared library: a third of their bytes.

    It follows the last segment that is loaded, and is found by the table of sections; the loader knows
    neither. There is no `strip` in the images that Python comes in.
    """
    library = bytearray(file.read_bytes())
    if library[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian: amd64 and arm64
        return
    (segments_at,) = struct.unpack_from("<Q", library, 0x20)
    size, number = struct.unpack_from("<HH", library, 0x36)
    loaded = 0
    for at in range(segments_at, segments_at + size * number, size):
        offset, length = struct.unpack_from("<Q16xQ", library, at + 8)
        loaded = max(loaded, offset + length)
    struct.pack_into("<Q", library, 0x28, 0)  # no table of sections,
    struct.pack_into("<HHH", library, 0x3A, 0, 0, 0)  # no sections, no names of sections
    _replace(file, library[:loaded])


def _replace(file: Path, content: bytes | bytearray) -> None:
    """Write a file anew, not in place: it may be another one's hard link."""
    fresh = file.with_name(f"{file.name}.trimmed")
    fresh.write_bytes(content)
    fresh.chmod(file.stat().st_mode)
    fresh.replace(file)


if __name__ == "__main__":
    trim(Path(sys.argv[1]))

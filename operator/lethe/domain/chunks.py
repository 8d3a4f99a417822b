"""What is too much for one go, in several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

_T = TypeVar("_T")


def chunked(values: Iterable[_T], size: int) -> Iterator[Sequence[_T]]:
    """Yield the values in lists of at most `size`."""
    listed = list(values)
    for start in range(0, len(listed), size):
        yield listed[start : start + size]

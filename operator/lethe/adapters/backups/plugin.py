"""Backends that others wrote: found by their entry point in the group `lethe.backups`.

A package offers one in its metadata:

    [project.entry-points."lethe.backups"]
    tape = "acme_tape:open_backend"

What it raises is not known to be fit to print; only the port's errors pass as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, cast

from lethe.domain.facts import ListedSnapshot
from lethe.domain.snapshots import UnfinishedSnapshot
from lethe.ports.backups import (
    Backend,
    BackendError,
    BackendMisconfigured,
    BackendUnavailable,
    Deletion,
    DeletionResult,
    Listing,
    Pin,
)

GROUP = "lethe.backups"


class BackendFactory(Protocol):
    """What an entry point of the group names."""

    def __call__(self, config: Mapping[str, str], secret: Mapping[str, str]) -> Backend:
        """Return a backend for `spec.plugin.config` and the fields of the Secret (empty: none is named).

        It may be called again for every scan, and should reach for nothing yet. Raises
        `BackendMisconfigured`, naming the field of `config` or of the Secret.
        """
        ...


def load_backend(name: str, config: Mapping[str, str], secret: Mapping[str, str]) -> Backend:
    """Return the backend that the installed plugin `name` makes.

    Raises `BackendMisconfigured` when there is none or two of that name, or it can't be loaded.
    """
    offered = entry_points(group=GROUP)
    factory = _factory(name, [one for one in offered if one.name == name], {one.name for one in offered})
    backend = cast("Backend", _asked(name, "be set up", lambda: factory(config, secret)))
    methods = (getattr(backend, method, None) for method in ("list", "delete", "gone", "close"))
    if not all(map(callable, methods)):
        raise BackendMisconfigured(
            f"spec.plugin.name: the plugin {name} does not make a backend", "correct its factory"
        )
    return _Guarded(name, backend)


def _factory(name: str, found: Sequence[EntryPoint], installed: Collection[str]) -> Callable[..., Backend]:
    if not found:
        names = ", ".join(sorted(installed)) or "none"
        raise BackendMisconfigured(
            f"spec.plugin.name: no plugin {name!r} is installed (there is: {names})",
            f"install a package with this entry point of the group {GROUP} into the operator's image",
        )
    if len({one.value for one in found}) > 1:
        raise BackendMisconfigured(
            f"spec.plugin.name: several packages offer a plugin {name}", "leave one of them installed"
        )
    factory = _asked(name, "be loaded", found[0].load)
    if not callable(factory):
        raise BackendMisconfigured(
            f"spec.plugin.name: the plugin {name} can't be called", "correct its entry point"
        )
    return factory


class _Guarded:
    """A plugin's backend of which every answer is looked at before it is believed."""

    def __init__(self, name: str, backend: Backend) -> None:
        self._name = name
        self._backend = backend

    def list(self) -> Listing:
        listing = self._asked("list", self._backend.list)
        if not isinstance(listing, Listing) or not _is_understood(listing):
            raise self._nonsense("list")
        return listing

    def delete(self, pins: Sequence[Pin]) -> Mapping[str, Deletion]:
        deletions = self._asked("delete", lambda: self._backend.delete(pins))
        if not isinstance(deletions, Mapping) or not all(map(_is_deletion, deletions.values())):
            raise self._nonsense("delete")
        if set(deletions) != {pin.ref for pin in pins}:
            raise self._nonsense("delete")
        return deletions

    def gone(self, refs: Collection[str]) -> Mapping[str, str]:
        remains = self._asked("gone", lambda: self._backend.gone(refs))
        # An answer of nothing means that all is gone: it is believed only where it is what was promised.
        if not isinstance(remains, Mapping) or not all(isinstance(one, str) for one in remains.values()):
            raise self._nonsense("gone")
        if not set(remains) <= set(refs):
            raise self._nonsense("gone")
        return remains

    def close(self) -> None:
        self._asked("close", self._backend.close)

    def _asked(self, method: str, ask: Callable[[], object]) -> object:
        return _asked(self._name, method, ask)

    def _nonsense(self, method: str) -> BackendUnavailable:
        return BackendUnavailable(
            f"the plugin {self._name} answered {method} with what the port does not know",
            "correct the plugin",
        )


def _asked(name: str, what: str, ask: Callable[[], object]) -> object:
    """Return a plugin's answer; what it raises beside the port's errors is told by its kind only."""
    try:
        return ask()
    except BackendError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin's code may raise anything, with anybody's data in it
        kind = type(error).__name__
    raise BackendUnavailable(
        f"the plugin {name} failed to {what} ({kind})", "its own log or its author may know more"
    )


def _is_understood(listing: Listing) -> bool:
    # Nothing is believed of its types: the plugin's author may have checked none.
    lists: tuple[object, ...] = (listing.snapshots, listing.unparsable, listing.partial)
    if not all(isinstance(one, Sequence) for one in lists):
        return False
    return (
        all(map(_is_sighting, listing.snapshots))
        and all(isinstance(name, str) for name in listing.unparsable)
        and all(map(_is_unfinished, listing.partial))
        and (listing.date is None or _is_instant(listing.date))
        and len({one.ref for one in listing.snapshots}) == len(listing.snapshots)
    )


def _is_sighting(one: object) -> bool:
    return (
        isinstance(one, ListedSnapshot)
        and _are_texts((one.ref,))
        and _are_tuples(one.pieces, one.evidence)
        and bool(one.pieces)
        and _are_texts(one.pieces)
        and all(map(_is_instant, (one.taken_at, *one.evidence)))
        and (one.size is None or isinstance(one.size, int))
    )


def _is_unfinished(one: object) -> bool:
    return (
        isinstance(one, UnfinishedSnapshot)
        and _are_texts((one.name,))
        and all(moment is None or _is_instant(moment) for moment in (one.changed_at, one.taken_at))
    )


def _are_tuples(*given: object) -> bool:
    return all(isinstance(one, tuple) for one in given)


def _are_texts(texts: Iterable[object]) -> bool:
    return all(isinstance(text, str) and text for text in texts)


def _is_instant(moment: object) -> bool:
    return isinstance(moment, datetime) and moment.utcoffset() == timedelta(0)


def _is_deletion(one: object) -> bool:
    return isinstance(one, Deletion) and isinstance(one.result, DeletionResult)

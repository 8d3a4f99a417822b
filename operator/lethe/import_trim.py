"""Keeping libraries out of the process that it never uses, although they are installed."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec


def skip_unused_clients() -> None:
    """Let `kubernetes.aio` be imported without the rest of `kubernetes`. To be called before Kopf is.

    `kubernetes` imports its whole synchronous client, with requests and OAuth, when any part of it is
    imported; Kopf imports every client that it finds, to recognise their objects. Lethe uses neither, and
    they would take a tenth of its memory and of its start.
    """
    if "kubernetes" in sys.modules:
        return
    found = find_spec("kubernetes")
    if found is None or found.submodule_search_locations is None:
        return
    bare = ModuleSpec(found.name, None, is_package=True)
    bare.submodule_search_locations = found.submodule_search_locations
    sys.modules["kubernetes"] = module_from_spec(bare)
    for unused in ("kubernetes.client", "kubernetes_asyncio", "pykube"):
        sys.modules.setdefault(unused, None)  # type: ignore[arg-type]  # as import itself says: not there

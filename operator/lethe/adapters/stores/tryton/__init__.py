"""Tryton as a store of persons, over its JSON-RPC."""

from lethe.adapters.stores.tryton.store import TrytonStore

__all__ = ["TrytonStore"]

"""How subjects are reached, asked by what the Primary's next pass is to look for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from lethe.controllers.datastore_questions import CONTACT_SECONDS, StoreBusy
from lethe.controllers.runtime.cache import ObjectCache
from lethe.workflows.reaching import SubjectContact


class PassQuestions:
    """Asks Primaries; `looked` is called whenever one was looked into."""

    def __init__(self, cache: ObjectCache, looked: Callable[[], None]) -> None:
        self._cache, self._looked = cache, looked
        self._waiting: dict[str, asyncio.Future[SubjectContact]] = {}

    async def find_contacts(self, namespace: str, legals: Collection[str]) -> Mapping[str, SubjectContact]:
        """Ask how subjects are reached. Raises `StoreBusy`."""
        primary = self._cache.primary_of(namespace)
        if primary is None:
            raise StoreBusy(
                "this namespace has no DataStore with role Primary, which holds the address; apply one"
            )
        name = primary.description.short_name
        trouble = primary.trouble[1] if primary.trouble else primary.store.trouble if primary.store else None
        if trouble:
            raise StoreBusy(f"waits for DataStore {name}: {trouble}")
        loop = asyncio.get_running_loop()
        answers = {legal: self._waiting.setdefault(legal, loop.create_future()) for legal in legals}
        primary.contacts_of.update(legals)
        primary.wake.set()
        try:
            async with asyncio.timeout(CONTACT_SECONDS):
                return {legal: await answer for legal, answer in answers.items()}
        except TimeoutError:
            raise StoreBusy(f"waits for DataStore {name}, which has not said yet how to reach them") from None
        finally:
            for legal in legals:
                self._waiting.pop(legal, None)

    def contacts_found(self, found: Mapping[str, SubjectContact]) -> None:
        """A pass has looked into a Primary, and tells how to reach some."""
        for legal, contact in found.items():
            answer = self._waiting.get(legal)
            if answer is not None and not answer.done():
                answer.set_result(contact)
        self._looked()

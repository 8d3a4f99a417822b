"""From the creation of a DeletionRequest until it is seen as Erased, with three stores.

The limit, measured in the same run, is the same work by hand for one person after the other: one
status PATCH, one Secret DELETE, the SQL in both databases and the calls to Tryton.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import psycopg

from bench.company import NAMESPACE, Company, company
from bench.figures import Figure, median_figure
from bench.measuring import percentile, resident
from devtools.servers.tryton import TrytonServer

BENCH = "requests"
_REQUESTS = f"/apis/lethe.dev/v1alpha1/namespaces/{NAMESPACE}/deletionrequests"
_SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
_CREATORS = 20
_PATIENCE = 600
_BY_HAND = 30


class Cluster:
    """The API server over one pool of connections, and when each request was seen as Erased."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.erased_at: dict[str, float] = {}
        self._news = asyncio.Event()

    async def call(self, verb: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Call the API server. Raises `aiohttp.ClientResponseError`."""
        content = None if body is None else json.dumps(body)
        async with self._session.request(verb, path, data=content, headers={"Content-Type": kind}) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise RuntimeError(f"{verb} {path}: {answer.status} {text[:300]}")
            return json.loads(text)

    async def ask_for_erasure(self, name: str, email: str) -> float:
        """Create Secret and DeletionRequest; return the moment before the latter."""
        await self.secret(name, email)
        began = time.perf_counter()
        await self.call("POST", _REQUESTS, _request(name))
        return began

    async def secret(self, name: str, email: str) -> None:
        """Create a Secret with an e-mail address."""
        encoded = base64.b64encode(email.encode()).decode()
        body = {"metadata": {"name": name}, "type": "lethe.dev/identifier", "data": {"email": encoded}}
        await self.call("POST", _SECRETS, body)

    async def watch(self) -> None:
        """Note when requests turn Erased, until cancelled."""
        listed = await self.call("GET", _REQUESTS)
        version = listed["metadata"]["resourceVersion"]
        path = f"{_REQUESTS}?watch=true&resourceVersion={version}"
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(path, timeout=timeout) as answer:
            async for line in answer.content:
                now = time.perf_counter()
                seen = json.loads(line)["object"]
                if seen.get("status", {}).get("state") == "Erased":
                    self.erased_at.setdefault(seen["metadata"]["name"], now)
                    self._news.set()

    async def until_erased(self, names: Sequence[str]) -> None:
        """Wait until all of these are Erased. Raises `TimeoutError`."""
        async with asyncio.timeout(_PATIENCE):
            while not all(name in self.erased_at for name in names):
                self._news.clear()
                await self._news.wait()


def bench_requests(*, one_by_one: int, at_once: int) -> list[Figure]:
    """Measure `one_by_one` requests, each created when the one before is Erased, then `at_once` together."""
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder, company(Path(folder)) as one:
        one.operator.start()
        one.apply_stores()
        one.wait_for_stores()
        counts = {"single": one_by_one, "burst": at_once, "hand": min(_BY_HAND, one_by_one)}
        people = {kind: [f"{kind}-{n}@example.org" for n in range(count)] for kind, count in counts.items()}
        one.employ([email for emails in people.values() for email in emails])
        figures = asyncio.run(_measure(one, people))
        figures.append(Figure(BENCH, "reads of Secrets", _reads_of_secrets(one, people), "per request"))
        figures.append(Figure(BENCH, "memory after it (RSS)", resident(one.operator.pid), "MiB"))
        return figures


def _reads_of_secrets(one: Company, people: dict[str, list[str]]) -> float:
    """Return how often the operator read each person's Secret; a status that it wrote is no reason to."""
    names = {email.partition("@")[0] for kind in ("single", "burst") for email in people[kind]}
    reads = 0
    for event in one.control_plane.audit_events():
        about = event.get("objectRef", {})
        by_operator = event["user"]["username"] == "operator" and event["verb"] == "get"
        reads += by_operator and about.get("resource") == "secrets" and about.get("name") in names
    return reads / len(names)


async def _measure(one: Company, people: dict[str, list[str]]) -> list[Figure]:
    authority = one.control_plane.directory / "certificates" / "ca.crt"
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=authority), limit=_CREATORS + 2)
    headers = {"Authorization": f"Bearer {one.control_plane.admin_token}"}
    url = one.control_plane.url
    async with aiohttp.ClientSession(url, connector=connector, headers=headers) as session:
        cluster = Cluster(session)
        watching = asyncio.create_task(cluster.watch())
        await asyncio.sleep(1)
        writes = one.operator.metric("lethe_api_writes_total")
        single = []
        for email in people["single"]:
            name = email.partition("@")[0]
            began = await cluster.ask_for_erasure(name, email)
            await cluster.until_erased([name])
            single.append(cluster.erased_at[name] - began)
        writes = (one.operator.metric("lethe_api_writes_total") - writes) / len(single)
        burst, throughput = await _burst(cluster, people["burst"])
        watching.cancel()
        by_hand = [await _by_hand(one, cluster, email) for email in people["hand"]]
    by_hand_median = percentile(by_hand, 50)
    return [
        Figure(BENCH, "one by one, median", percentile(single, 50), "s"),
        Figure(BENCH, "one by one, p99", percentile(single, 99), "s"),
        median_figure(BENCH, "by hand", by_hand, "s"),
        Figure(BENCH, "one by one / by hand", percentile(single, 50) / by_hand_median, "×"),
        Figure(BENCH, "writes to the API server", writes, "per request"),
        Figure(BENCH, f"{len(burst)} at once, median", percentile(burst, 50), "s"),
        Figure(BENCH, f"{len(burst)} at once, p99", percentile(burst, 99), "s"),
        Figure(BENCH, f"{len(burst)} at once", throughput, "requests/s"),
        Figure(BENCH, "at once, per request / by hand", 1 / throughput / by_hand_median, "×"),
    ]


async def _burst(cluster: Cluster, emails: Sequence[str]) -> tuple[list[float], float]:
    """Create all as fast as the API server takes them; return seconds of each, and requests a second."""
    names = {email.partition("@")[0]: email for email in emails}
    limit = asyncio.Semaphore(_CREATORS)
    began: dict[str, float] = {}

    async def prepare(name: str) -> None:
        async with limit:
            await cluster.secret(name, names[name])

    async def create(name: str) -> None:
        async with limit:
            began[name] = time.perf_counter()
            await cluster.call("POST", _REQUESTS, _request(name))

    await asyncio.gather(*map(prepare, names))
    await asyncio.gather(*map(create, names))
    await cluster.until_erased(list(names))
    ended = [cluster.erased_at[name] for name in names]
    seconds = [cluster.erased_at[name] - began[name] for name in names]
    return seconds, len(names) / (max(ended) - min(began.values()))


def _request(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "lethe.dev/v1alpha1",
        "kind": "DeletionRequest",
        "metadata": {"name": name},
        "spec": {"subject": {"identifierSecretRef": {"name": name, "key": "email"}}},
    }


# The same by hand


async def _by_hand(one: Company, cluster: Cluster, email: str) -> float:
    name = email.partition("@")[0]
    await cluster.secret(name, email)
    began = time.perf_counter()
    await cluster.call("DELETE", f"{_SECRETS}/{name}")
    await asyncio.to_thread(_stores_by_hand, one, email)
    body = {"metadata": {"annotations": {"bench": name}}}
    # An object that is there anyway: what a PATCH costs does not depend on whose it is.
    await cluster.call(
        "PATCH", f"/api/v1/namespaces/{NAMESPACE}/status", body, "application/merge-patch+json"
    )
    return time.perf_counter() - began


_SQL = (
    """
    DELETE FROM sessions AS d USING users AS u WHERE d.user_id = u.id AND u.email = %(email)s
    """,
    """
    UPDATE comments AS d SET signature = NULL FROM users AS u WHERE d.author_id = u.id AND u.email = %(email)s
    """,
    """
    UPDATE users SET first_name = NULL, last_name = NULL, email = %(erased)s, password_hash = '!',
           locale = 'en-US', time_zone = 'UTC' WHERE email = %(email)s
    """,
)


def _stores_by_hand(one: Company, email: str) -> None:
    values = {"email": email, "erased": f"erased-{email.partition('@')[0]}@erased.invalid"}
    for url in (one.site.url, one.shop.url):
        with psycopg.connect(url) as connection:
            for statement in _SQL:
                connection.execute(statement, values)
            connection.commit()
            connection.execute("SELECT id FROM users WHERE email = %(erased)s", values).fetchone()
    _tryton_by_hand(one.tryton, email)


def _tryton_by_hand(server: TrytonServer, email: str) -> None:
    everything = {"active_test": False}

    def call(method: str, *params: Any, context: dict[str, Any] | None = None) -> Any:
        return server.rpc("crm", method, *params, context=context)

    mechanism, wizard = "model.party.contact_mechanism", "wizard.party.erase"
    found = call(f"{mechanism}.search_read", [["value", "=", email]], 0, None, None, ["party"])
    (party,) = {row["party"] for row in found}
    call("model.party.party.write", [party], {"active": False})
    session = call(f"{wizard}.create")[0]
    active = {"active_model": "party.party", "active_id": party, "active_ids": [party]}
    call(f"{wizard}.execute", session, {"ask": {"party": party}}, "erase", context=active)
    call(f"{wizard}.delete", session)
    left = call(f"{mechanism}.search", [["party", "=", party]], 0, None, None, context=everything)
    call(f"{mechanism}.write", left, {"type": "other", "value": "erased"}, context=everything)
    call("model.party.party.read", [party], ["name"], context=everything)

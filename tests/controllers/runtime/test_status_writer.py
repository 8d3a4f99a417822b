"""A status is written where it says something new, and what is shown stays as it was where it was not."""

import time
from typing import Any

import pytest

from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.status_writer import (
    ShownDigest,
    ShownStatus,
    StatusKind,
    StatusWriter,
    Written,
    replacing,
    waits_for,
)
from lethe.ports.cluster import ClusterRefused
from tests.controllers.cluster_in_memory import ClusterInMemory

KEY = "shop", "site"
KIND = StatusKind(
    "datastores",
    "DataStore",
    essence=lambda status: status.get("state"),
    detail=lambda status: status.get("seen"),
    patience=60.0,
)


@pytest.fixture
def cluster() -> Any:
    """A DataStore of which nothing is said yet."""
    made = ClusterInMemory()
    made.apply("datastores", *KEY, {})
    return made


@pytest.fixture
def writer(cluster: Any) -> StatusWriter:
    """Write there."""
    return StatusWriter(cluster, Metrics())


def standing(cluster: Any) -> Any:
    return cluster.objects["datastores"][KEY]["status"]


async def test_what_says_nothing_new_is_not_written(cluster: Any, writer: StatusWriter) -> None:
    shown = ShownStatus("uid-1")
    assert await writer.write(KIND, KEY, shown, {"state": "Ready", "noise": 1}) is Written.WRITTEN
    assert await writer.write(KIND, KEY, shown, {"state": "Ready", "noise": 2}) is Written.SAME
    assert standing(cluster) == {"state": "Ready", "noise": 1} == shown.status
    assert await writer.write(KIND, KEY, shown, {"state": "Erased"}) is Written.WRITTEN
    assert cluster.writes["datastores", "site"] == 2


async def test_a_detail_waits_until_the_last_write_is_old_enough(cluster: Any, writer: StatusWriter) -> None:
    shown = ShownStatus("uid-1")
    await writer.write(KIND, KEY, shown, {"state": "Ready", "seen": 1})
    news = {"state": "Ready", "seen": 2}
    assert await writer.write(KIND, KEY, shown, news) is Written.SAME
    wait = waits_for(KIND, shown, news)
    assert wait is not None
    assert 59 < wait <= 60
    shown.written_at = time.monotonic() - 61
    assert await writer.write(KIND, KEY, shown, news) is Written.WRITTEN
    assert standing(cluster) == news


@pytest.mark.parametrize("gone", ["deleted", "another one"])
async def test_an_object_that_is_gone_is_told_as_such(cluster: Any, writer: StatusWriter, gone: str) -> None:
    cluster.remove("datastores", *KEY)
    if gone == "another one":
        cluster.apply("datastores", *KEY, {})
    shown = ShownStatus("uid-1")
    assert await writer.write(KIND, KEY, shown, {"state": "Ready"}) is Written.GONE
    assert shown.status == {}
    assert not cluster.writes


@pytest.mark.parametrize(
    "shown", [ShownStatus("uid-1"), ShownDigest.of("uid-1", {})], ids=["whole", "digest"]
)
async def test_a_status_that_waits_is_still_news_later(
    cluster: Any, writer: StatusWriter, shown: Any
) -> None:
    before = repr(shown)
    cluster.away = True
    assert await writer.write(KIND, KEY, shown, {"state": "Ready"}) is Written.WAITS
    assert repr(shown) == before
    cluster.away = False
    assert await writer.write(KIND, KEY, shown, {"state": "Ready"}) is Written.WRITTEN
    assert await writer.write(KIND, KEY, shown, {"state": "Ready"}) is Written.SAME


async def test_a_status_that_is_refused_waits(
    cluster: Any, writer: StatusWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> bool:
        raise ClusterRefused("no", 403)

    monkeypatch.setattr(cluster, "write_status", refuse)
    assert await writer.write(KIND, KEY, ShownStatus("uid-1"), {"state": "Ready"}) is Written.WAITS


def test_what_is_no_longer_said_is_removed_by_null_however_deep() -> None:
    before = {"a": 1, "b": {"x": 1, "y": {"p": 1, "q": 2}}, "gone": {"z": 1}, "list": [1]}
    status = {"a": 1, "b": {"y": {"q": 3}}, "list": [], "new": {"n": 1}}
    assert replacing(status, before) == {
        "a": 1,
        "b": {"x": None, "y": {"p": None, "q": 3}},
        "gone": None,
        "list": [],
        "new": {"n": 1},
    }


async def test_what_is_written_stands_there_as_it_was_said(cluster: Any, writer: StatusWriter) -> None:
    shown = ShownStatus("uid-1")
    first = {"state": "A", "journal": {"number": 3, "by": {"x": 1, "y": 2}}, "notes": ["one"]}
    second = {"state": "B", "journal": {"by": {"y": 3}}}
    for status in (first, second):
        await writer.write(KIND, KEY, shown, status)
        assert standing(cluster) == status == shown.status


async def test_in_a_digest_an_absent_field_counts_as_one_that_is_null(writer: StatusWriter) -> None:
    shown = ShownDigest.of("uid-1", {"state": "A"})
    assert await writer.write(KIND, KEY, shown, {"state": "A", "until": None}) is Written.SAME
    assert await writer.write(KIND, KEY, shown, {"state": "A", "until": "t"}) is Written.WRITTEN

"""What every ledger must do. Subclass `LedgerContract` and give it the fixture `url` (an empty database)."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, delete, select, text, update

from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.chain import chained
from lethe.adapters.ledger.ledger import SqlLedger, open_ledger
from lethe.adapters.ledger.schema import entries, period_keys
from lethe.domain.drill_facts import DrillEnded, DrillResult, DrillStarted
from lethe.domain.facts import (
    FACT_KINDS,
    Accepted,
    Completed,
    Confirmed,
    CopiesGone,
    DetectedBy,
    Fact,
    FoundAgain,
    IdentitiesDecided,
    Intended,
    IntentAbandoned,
    ListedSnapshot,
    MappingProved,
    NotAsked,
    NotFound,
    Outcome,
    Planned,
    PruneIntended,
    PrunesConfirmed,
    Reerased,
    Rejoined,
    Released,
    Replayed,
    RequestFact,
    RestoreDetected,
    RestoreExplained,
    RestoreFact,
    RewriteIntended,
    SafeToServe,
    SnapshotDeclared,
    SnapshotRewritten,
    SnapshotsDeleted,
    SnapshotsPurged,
    SnapshotsSeen,
    SnapshotsVanished,
    SourceDescribed,
    SourceSucceeded,
    Superseded,
    TookOver,
    Verified,
)
from lethe.domain.journal import Head, HeadMove, KnownHead, StoreIdentity, next_move
from lethe.domain.mapping import ClearRule, ClearTo, Constraint, PiiKind, ProvedMapping, SubjectMapping
from lethe.domain.requests import IllegalTransition, RequestRecord, StoreState, evolve
from lethe.domain.restores import RestoreEpisode, evolve_episode
from lethe.domain.tombstones import Tombstone
from lethe.ports.keys import Keyring, record_digest
from lethe.ports.ledger import (
    ChainBroken,
    Fenced,
    KeysDoNotMatch,
    Ledger,
    LedgerError,
    LedgerPosition,
    MoveIntended,
    MoveLost,
    MoveSettled,
)
from tests.contracts.ledger_backups_contract import BackupsInLedgerContract
from tests.contracts.ledger_facts import (
    NOW,
    STORES,
    Clock,
    accepted,
    erased,
    everything_shown,
    intended,
    require_hidden,
    tombstone,
)
from tests.contracts.ledger_legal_contract import ONE_OF_EACH_LEGAL, LegalInLedgerContract
from tests.search.drawing import examples

OPERATOR = Path(__file__).parents[2] / "operator"


ONE_OF_EACH: list[Fact] = [
    TookOver(7),
    MappingProved(
        "site",
        ProvedMapping(
            "m1",
            SubjectMapping(
                "public.users",
                "id",
                {"email": "email"},
                (ClearRule("email", PiiKind.EMAIL, ClearTo.TEMPLATE, "erased-{key}@example.invalid"),),
            ),
            (Constraint("public.users", ("id",)),),
        ),
    ),
    accepted("a"),
    Confirmed("a", ("NothingFound",)),
    intended("a", 3, 4),
    IntentAbandoned("a", "site", "Refused"),
    intended("a", 5, 6),
    Verified("a", "site", NOW, {"public.users": 2}),
    NotFound("a", "crm", NOW, "canary"),
    Completed("a", NOW, Outcome.ERASED),
    accepted("b"),
    NotAsked("b", "crm"),
    Planned("b", "site", {"public.users": 1}),
    RestoreDetected("site", "e1", NOW, DetectedBy.JOURNAL, {"table:public.users": 9}, 2, NOW),
    RestoreExplained("site", "e1", "restore-1", "a person says «why» — 日本"),
    Reerased("site", "e1", NOW, 7, (5, 6)),
    Replayed("site", "e1", NOW, 2, 0, 1, (("public.users", "users-key-5"),)),
    IdentitiesDecided("site", "e1", (("public.users", "users-key-5", "Erase"),)),
    SafeToServe("site", "e1", NOW, "e1", "verified", "dana"),
    RestoreDetected("crm", "e2", NOW, DetectedBy.SWEEP),
    Released("crm", "e2", NOW, "the night shift", "e2", 1, None, "a-uid", "dana"),
    RestoreDetected("hrm", "e3", NOW, DetectedBy.JOURNAL),
    Superseded("hrm", "e3", NOW, "e4"),
    SourceDescribed("shop/nightly", ("site",), "P6M", 60.0),
    SnapshotsSeen("shop/nightly", NOW, ("site",), (ListedSnapshot("one", ("v1",), NOW, (NOW,), 12),)),
    SnapshotDeclared("shop/nightly", "two", NOW, NOW, ("site",)),
    SnapshotsVanished("shop/nightly", NOW, ("one",)),
    PruneIntended("shop/nightly", NOW, ("one",)),
    RewriteIntended("shop/nightly", "one", NOW, "shop/site", ("v2",), 9, NOW, (NOW,)),
    SnapshotRewritten("shop/nightly", "one", NOW, "shop/site", NOW),
    SnapshotsDeleted("shop/nightly", NOW, ("one",)),
    SnapshotsPurged("shop/nightly", NOW, ("one",)),
    PrunesConfirmed("shop/nightly", NOW, 40),
    SourceSucceeded("shop/weekly", "shop/nightly", NOW),
    accepted("nobody"),
    Completed("nobody", NOW, Outcome.ERASED),
    CopiesGone(NOW, ("nobody",)),
    FoundAgain("a", "crm", NOW, (tombstone(8, "a"),)),
    Rejoined("site", "public.users", "users-key-5", NOW, NOW, "CRM-7", (5,)),
    DrillStarted("shop/sunday", NOW, "site", "shop/nightly", "one", NOW, "lethe_drill_ab", "now"),
    DrillEnded("shop/sunday", NOW, DrillResult.PASSED, "", 12, 1.5, 0.5, 0.25, 2, 1, 0, NOW),
    *ONE_OF_EACH_LEGAL,
]
"""All but `TombstonesExpired`, which takes others with it."""


class LedgerContract(BackupsInLedgerContract, LegalInLedgerContract):
    """The port's promises, against the database of the fixture `url`."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def keys(self, tmp_path: Path) -> Path:
        folder = tmp_path / "keys"
        folder.mkdir()
        return folder

    @pytest.fixture
    def keyring(self, keys: Path) -> Keyring:
        return FileKeyring(keys)

    @pytest.fixture
    def opened(self, url: str, keyring: Keyring, clock: Clock) -> Iterator[Callable[[], SqlLedger]]:
        """Return a function that opens the ledger, once more each time."""
        ledgers: list[SqlLedger] = []

        def reopen() -> SqlLedger:
            ledgers.append(open_ledger(url, keyring, now=clock))
            return ledgers[-1]

        yield reopen
        for ledger in ledgers:
            ledger.close()

    @pytest.fixture
    def ledger(self, opened: Callable[[], SqlLedger]) -> SqlLedger:
        ledger = opened()
        ledger.take_over()
        return ledger

    @pytest.fixture
    def behind(self, url: str, ledger: Ledger) -> Iterator[Connection]:
        """A connection of somebody who goes behind the ledger's back."""
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.connect() as connection:
            yield connection
        engine.dispose()

    # Identity and fencing

    def test_an_empty_ledger_stands_at_zero_and_verifies(self, opened: Callable[[], Ledger]) -> None:
        ledger = opened()
        assert ledger.position() == ledger.verify() == LedgerPosition(0, "0" * 64)

    def test_a_ledger_keeps_its_id(self, opened: Callable[[], Ledger]) -> None:
        assert opened().ledger_id == opened().ledger_id

    def test_a_ledger_of_other_keys_is_refused(self, ledger: Ledger, url: str, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        with pytest.raises(KeysDoNotMatch, match="LETHE_LEDGER_URL"):
            open_ledger(url, FileKeyring(tmp_path / "other"))

    @pytest.mark.parametrize("unknown", ["9999", "0003"])
    def test_a_ledger_of_an_unknown_schema_is_refused(
        self, opened: Callable[[], Ledger], behind: Connection, unknown: str
    ) -> None:
        behind.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": unknown})
        behind.commit()
        with pytest.raises(LedgerError, match=rf"has schema {unknown}, which this Lethe does not know"):
            opened()

    def test_a_ledger_that_lacks_a_table_is_refused_by_its_name(
        self, opened: Callable[[], Ledger], behind: Connection
    ) -> None:
        behind.execute(text("DROP TABLE clearings"))
        behind.commit()
        with pytest.raises(LedgerError, match="has schema 0001, but lacks the tables clearings"):
            opened()

    def test_who_was_taken_over_is_fenced_and_leaves_nothing(
        self, ledger: Ledger, opened: Callable[[], Ledger]
    ) -> None:
        successor = opened()
        token = successor.take_over()
        before = successor.position()
        with pytest.raises(Fenced):
            ledger.append([accepted("a")])
        with pytest.raises(Fenced):
            ledger.append(moves=[MoveLost("site")])
        with pytest.raises(Fenced):
            ledger.confirm()
        successor.confirm()
        assert successor.position() == before
        successor.append([accepted("a")])
        assert ledger.take_over() == token + 1
        with pytest.raises(Fenced):
            successor.append([accepted("b")])

    def test_processes_that_take_over_at_once_get_different_tokens(
        self, opened: Callable[[], SqlLedger]
    ) -> None:
        ledgers = [opened() for _ in range(4)]
        tokens: list[int] = []
        threads = [
            threading.Thread(
                target=lambda ledger=ledger: tokens.extend(ledger.take_over() for _ in range(10))
            )
            for ledger in ledgers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(tokens) == list(range(1, 41))
        assert ledgers[0].verify().sequence == 40

    def test_who_never_took_over_may_not_write(self, opened: Callable[[], Ledger]) -> None:
        with pytest.raises(Fenced, match="not taken"):
            opened().append([accepted("a")])

    # Facts and chain

    def test_every_kind_of_fact_comes_back_as_it_was_recorded(self, ledger: SqlLedger) -> None:
        assert {type(fact).__name__ for fact in ONE_OF_EACH} == set(FACT_KINDS) - {"TombstonesExpired"}
        assert set(FACT_KINDS.values()) == set(get_args(Fact))
        ledger.append(ONE_OF_EACH)
        assert [fact for _, _, fact in ledger.facts()] == [TookOver(1), *ONE_OF_EACH]

    def test_the_chain_verifies_after_everything(self, ledger: Ledger, opened: Callable[[], Ledger]) -> None:
        ledger.append(ONE_OF_EACH)
        for fact in (accepted("c"), intended("c", 8), Verified("c", "site", NOW)):
            ledger.append([fact])
        assert ledger.verify() == ledger.position() == opened().verify()
        assert ledger.position().sequence == len(ONE_OF_EACH) + 4

    @pytest.mark.parametrize("column", entries.columns.keys())
    def test_tampering_with_any_column_of_any_entry_is_found(
        self, ledger: Ledger, behind: Connection, column: str
    ) -> None:
        ledger.append(ONE_OF_EACH[1:9])
        for sequence in range(1, 10):
            at = entries.c.sequence == sequence
            value = behind.execute(select(entries.c[column]).where(at)).scalar_one()
            for forged in _forgeries(value, entries.c[column].type.python_type):
                behind.execute(update(entries).where(at).values({column: forged}))
                behind.commit()
                with pytest.raises(ChainBroken):
                    ledger.verify()
                where = entries.c.sequence == forged if column == "sequence" else at
                behind.execute(update(entries).where(where).values({column: value}))
                behind.commit()
        assert ledger.verify().sequence == 9

    @pytest.mark.parametrize("sequence", [1, 5, 9])
    def test_a_removed_entry_is_found(self, ledger: Ledger, behind: Connection, sequence: int) -> None:
        ledger.append(ONE_OF_EACH[1:9])
        behind.execute(text("DELETE FROM entries WHERE sequence = :at"), {"at": sequence})
        behind.commit()
        with pytest.raises(ChainBroken):
            ledger.verify()

    def test_a_payload_moved_to_another_entry_is_found(self, ledger: Ledger, behind: Connection) -> None:
        ledger.append([accepted("a"), accepted("b")])
        payload = behind.execute(select(entries.c.payload).where(entries.c.sequence == 2)).scalar_one()
        behind.execute(update(entries).where(entries.c.sequence == 3).values(payload=payload))
        behind.commit()
        with pytest.raises(ChainBroken):
            ledger.verify()

    def test_a_payload_that_is_gone_although_its_key_is_there_is_found(
        self, ledger: Ledger, behind: Connection
    ) -> None:
        ledger.append([accepted("a")])
        behind.execute(text("UPDATE entries SET payload = NULL WHERE sequence = 2"))
        behind.commit()
        with pytest.raises(ChainBroken, match="payload of entry 2 is gone"):
            ledger.verify()

    def test_an_entry_put_in_place_of_another_with_all_its_own_digests_is_found(
        self, ledger: SqlLedger, behind: Connection, clock: Clock
    ) -> None:
        ledger.append([accepted("a"), accepted("b")])
        key = ledger._keys.for_reading(behind, "2026-11")
        assert key is not None
        forged = chained([accepted("c")], after=(1, bytes(32)), at=clock.now, token=1, key=key)[0]
        behind.execute(update(entries).where(entries.c.sequence == 2).values(forged._asdict()))
        behind.commit()
        with pytest.raises(ChainBroken, match="Entry 2 does not follow"):
            ledger.verify()
        behind.execute(delete(entries).where(entries.c.sequence == 3))
        first = behind.execute(select(entries.c.digest).where(entries.c.sequence == 1)).scalar_one()
        forged = chained([accepted("c")], after=(1, first), at=clock.now, token=1, key=key)[0]
        behind.execute(update(entries).where(entries.c.sequence == 2).values(forged._asdict()))
        behind.commit()
        with pytest.raises(ChainBroken, match="does not end where"):
            ledger.verify()

    def test_a_payload_encrypted_anew_with_the_right_key_is_found(
        self, ledger: SqlLedger, behind: Connection, clock: Clock
    ) -> None:
        ledger.append([accepted("a")])
        key = ledger._keys.for_reading(behind, "2026-11")
        assert key is not None
        forged = chained([accepted("c")], after=(1, bytes(32)), at=clock.now, token=1, key=key)[0]
        behind.execute(update(entries).where(entries.c.sequence == 2).values(payload=forged.payload))
        behind.commit()
        with pytest.raises(ChainBroken, match="payload of entry 2 is not the one"):
            ledger.verify()

    def test_a_ledger_that_goes_back_in_time_while_it_is_in_use_takes_no_more(
        self, ledger: Ledger, opened: Callable[[], Ledger], behind: Connection
    ) -> None:
        ledger.append([accepted("a")])
        ledger.append([accepted("b")])
        behind.execute(text("DELETE FROM entries WHERE sequence = 3"))
        behind.commit()
        with pytest.raises(ChainBroken, match="went back in time"):
            ledger.append([accepted("c")])
        with pytest.raises(ChainBroken, match="does not end where"):
            opened().verify()

    def test_a_month_whose_first_facts_were_refused_is_readable(
        self, ledger: Ledger, opened: Callable[[], SqlLedger], clock: Clock
    ) -> None:
        clock.now = NOW + timedelta(days=31)
        with pytest.raises(IllegalTransition):
            ledger.append([accepted("a"), accepted("a")])
        ledger.append([accepted("a")])
        assert [fact for _, _, fact in opened().facts()] == [TookOver(1), accepted("a")]

    def test_destroying_a_months_key_destroys_its_payloads_and_the_chain_still_verifies(
        self, ledger: Ledger, opened: Callable[[], SqlLedger], behind: Connection, clock: Clock
    ) -> None:
        ledger.append(erased("a", 1, 2))
        clock.now = NOW + timedelta(days=60)
        ledger.append(erased("b", 3))
        behind.execute(
            update(period_keys)
            .where(period_keys.c.period == "2026-11")
            .values(wrapped_key=None, destroyed_at=clock.now.isoformat())
        )
        behind.commit()
        later = opened()
        assert later.verify() == ledger.position()
        assert [fact for _, _, fact in later.facts()] == [None] * 4 + erased("b", 3)
        assert [stone.number for chunk in later.tombstones("site") for stone in chunk] == [3]
        assert [number for chunk in later.tombstone_numbers("site") for number in chunk] == [3]
        behind.execute(text("UPDATE entries SET payload = NULL WHERE period = '2026-11'"))
        behind.commit()
        assert later.verify() == ledger.position()
        behind.execute(text("UPDATE entries SET store = 'crm' WHERE sequence = 3"))
        behind.commit()
        with pytest.raises(ChainBroken):
            later.verify()

    def test_fields_that_this_version_does_not_know_are_passed_over(
        self, ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # An entry as an older and a newer Lethe would have written it: no `answers` default, one field more.
        monkeypatch.setattr(
            "lethe.adapters.ledger.chain._encode",
            lambda value: b'{"token":4,"written_by":"v9"}' if isinstance(value, TookOver) else _json(value),
        )
        ledger.append([TookOver(99)])
        assert [fact for _, _, fact in ledger.facts()][-1] == TookOver(4)

    # Requests

    def test_a_request_is_known_by_its_name_from_acceptance_on(
        self, ledger: Ledger, opened: Callable[[], Ledger]
    ) -> None:
        ledger.append([accepted("a"), accepted("b")])
        wanted = [("shop", "forget-a"), ("shop", "unknown"), ("other", "forget-b")]
        records = ledger.requests_named(wanted)
        assert set(records) == {("shop", "forget-a")}
        assert records["shop", "forget-a"].accepted == accepted("a")
        assert opened().requests_named(wanted) == records

    def test_a_record_names_the_last_entry_of_its_request(self, ledger: Ledger) -> None:
        ledger.append([accepted("a")])
        ledger.append([intended("a", 1)])
        end = ledger.position()
        ledger.append([accepted("b")])
        record = ledger.requests_named([("shop", "forget-a")])["shop", "forget-a"]
        assert (record.sequence, record.digest) == (end.sequence, f"sha256:{end.digest}")

    def test_records_are_the_same_after_reopening(self, ledger: Ledger, opened: Callable[[], Ledger]) -> None:
        ledger.append(ONE_OF_EACH)
        again = opened()
        names = [("shop", "forget-a"), ("shop", "forget-b")]
        assert len(ledger.requests_named(names)) == 2
        assert again.requests_named(names) == ledger.requests_named(names)
        assert again.open_requests() == ledger.open_requests()
        assert again.episodes() == ledger.episodes()
        assert again.mappings("site") == ledger.mappings("site")

    def test_open_requests_come_oldest_first(self, ledger: Ledger) -> None:
        ledger.append([accepted(one) for one in "dacb"])
        ledger.append([intended("d", 1), Completed("c", NOW, Outcome.ERASED)])
        assert [record.request for record in ledger.open_requests()] == ["d", "a", "b"]

    def test_a_name_is_accepted_only_once(self, ledger: Ledger) -> None:
        ledger.append([accepted("a")])
        for again in (accepted("a"), accepted("b", name="forget-a")):
            with pytest.raises(IllegalTransition) as refused:
                ledger.append([again])
            assert "forget" not in str(refused.value)
        assert ledger.verify().sequence == 2

    def test_an_illegal_fact_among_others_leaves_nothing_behind(self, ledger: Ledger) -> None:
        ledger.append([accepted("a"), intended("a", 1)], seal={"a": b"ada@example.org"})
        before = ledger.position()
        with pytest.raises(IllegalTransition):
            ledger.append(
                [
                    Verified("a", "site", NOW),
                    Completed("a", NOW, Outcome.ERASED),
                    *ONE_OF_EACH[10:11],
                    NotFound("a", "crm", NOW, "canary"),
                ],
                seal={"b": b"bob"},
                moves=[MoveIntended("site", HeadMove(None, 1, "d", 1), reserve=5)],
            )
        assert ledger.verify() == ledger.position() == before
        assert [record.progress("site").state for record in ledger.open_requests()] == [StoreState.INTENDED]
        assert ledger.sealed(["a", "b"]) == {"a": b"ada@example.org"}
        assert ledger.tombstone_count("site") == 0
        assert ledger.known_head("site") == KnownHead()
        assert not ledger.erased_before([tombstone(1, "a").email or b""])

    def test_a_value_that_cannot_be_recorded_is_the_facts_fault_and_not_the_ledgers(
        self, ledger: Ledger
    ) -> None:
        """An error of the ledger ends the operator, at each start anew: for everybody."""
        before = ledger.position()
        with pytest.raises(IllegalTransition, match="can't be recorded"):
            ledger.append(moves=[MoveIntended("shop/site", HeadMove(None, 2**63, "ab", 1))])
        assert ledger.position() == before
        assert ledger.known_head("shop/site") == KnownHead()
        ledger.append([accepted("a")])

    def test_after_a_refusal_the_chain_goes_on_from_where_it_was(self, ledger: Ledger) -> None:
        with pytest.raises(IllegalTransition):
            ledger.append([accepted("a")], seal={"unknown": b"ada@example.org"})
        ledger.append([accepted("b")])
        assert ledger.verify().sequence == 2

    @examples(15)
    @given(
        appends=st.lists(
            st.lists(st.deferred(lambda: _FACTS), min_size=1, max_size=6), min_size=1, max_size=12
        )
    )
    def test_records_rebuilt_from_the_facts_equal_the_projection(
        self, ledger: SqlLedger, appends: list[list[Fact]]
    ) -> None:
        example = str(next(_EXAMPLES))
        ledger.append([_renamed(accepted(request), example) for request in "abc"])
        for drawn in appends:
            facts = [_renamed(fact, example) for fact in drawn]
            legal = _legal(ledger, facts)
            if legal != facts:
                with pytest.raises(IllegalTransition):
                    ledger.append(facts)
            ledger.append(legal)
        requests, episodes, verified = _rebuilt(ledger)
        names = [(one.accepted.namespace, one.accepted.name) for one in requests.values()]
        assert {one.request: one for one in ledger.requests_named(names).values()} == requests
        still_open = [one for one in requests.values() if one.open]
        assert list(ledger.open_requests()) == still_open
        assert list(ledger.episodes()) == list(episodes.values())
        assert list(ledger.episodes(open_only=True)) == [one for one in episodes.values() if one.open]
        for store in STORES:
            kept = [stone for chunk in ledger.tombstones(store, chunk=7) for stone in chunk]
            assert kept == verified[store]

    # Sealed texts

    def test_what_is_sealed_opens_until_the_request_ends(
        self, ledger: Ledger, opened: Callable[[], Ledger]
    ) -> None:
        ledger.append([accepted("a"), accepted("b")], seal={"a": b"ada@example.org", "b": b"bob@example.org"})
        ledger.append(seal={"b": b"robert@example.org"})
        assert opened().sealed(["a", "b", "c"]) == {"a": b"ada@example.org", "b": b"robert@example.org"}
        ledger.append([Completed("a", NOW, Outcome.ERASED)])
        assert ledger.sealed(["a", "b"]) == {"b": b"robert@example.org"}

    def test_nothing_is_sealed_for_a_request_that_is_not_open(self, ledger: Ledger) -> None:
        ledger.append([accepted("a"), Completed("a", NOW, Outcome.ERASED)])
        for request in ("a", "unknown"):
            with pytest.raises(IllegalTransition):
                ledger.append(seal={request: b"ada@example.org"})
        assert ledger.sealed(["a", "unknown"]) == {}

    # Tombstones

    def test_tombstones_count_once_they_are_verified(self, ledger: Ledger) -> None:
        ledger.append([accepted("a"), intended("a", 1, 2), intended("a", 3, 4, store="crm")])
        assert ledger.tombstone_count("site") == 0
        assert list(ledger.tombstones("site")) == []
        ledger.append([Verified("a", "site", NOW)])
        ledger.append([Verified("a", "site", NOW)])
        assert list(ledger.tombstones("site")) == [[tombstone(1, "a"), tombstone(2, "a")]]
        assert (ledger.tombstone_count("site"), ledger.tombstone_count("crm")) == (2, 0)

    def test_a_forsaken_intent_never_counts(self, ledger: Ledger) -> None:
        ledger.append(
            [accepted("a"), intended("a", 1), IntentAbandoned("a", "site", "Refused"), intended("a", 2)]
        )
        ledger.append([intended("a", 3), Verified("a", "site", NOW)])
        assert list(ledger.tombstones("site")) == [[tombstone(3, "a")]]

    def test_erasing_again_adds_no_tombstone(self, ledger: Ledger) -> None:
        ledger.append(erased("a", 1))
        ledger.append([Reerased("site", None, NOW, 2, (1,))])
        assert ledger.tombstone_count("site") == 1

    def test_who_was_erased_is_known_by_address_and_by_record(self, ledger: Ledger, keyring: Keyring) -> None:
        address = tombstone(1, "a").email or b""
        record = record_digest(keyring, "site", "public.users", "users-key-1")
        elsewhere = record_digest(keyring, "crm", "public.users", "users-key-1")
        ledger.append([accepted("a"), intended("a", 1)])
        assert ledger.erased_before([address, record]) == frozenset()
        ledger.append([Verified("a", "site", NOW)])
        assert ledger.erased_before([address, record, elsewhere, b"x" * 32]) == {address, record}
        ledger.append([*erased("b", 1, store="crm"), Completed("a", NOW, Outcome.ERASED)])
        assert ledger.erased_before([address, elsewhere]) == {address, elsewhere}

    def test_addresses_that_were_not_found_are_remembered_by_store(
        self, ledger: Ledger, opened: Callable[[], Ledger]
    ) -> None:
        one, two = b"1" * 32, b"2" * 32
        ledger.append([accepted("a"), accepted("b"), NotFound("a", "crm", NOW, "canary", (one, two))])
        ledger.append([NotFound("b", "crm", NOW, "canary", (two,)), NotFound("b", "hrm", NOW, "canary")])
        for known in (ledger, opened()):
            assert known.absent_addresses("crm") == {one: "a", two: "b"}
            assert known.absent_addresses("hrm") == known.absent_addresses("site") == {}

    def test_whom_a_restore_brought_back_counts_as_erased_from_then_on(self, ledger: Ledger) -> None:
        ledger.append([accepted("a"), NotFound("a", "crm", NOW, "canary")])
        ledger.append([Completed("a", NOW, Outcome.ERASED)])
        before = ledger.requests_by_id(["a"])["a"]
        ledger.append([FoundAgain("a", "crm", NOW, (tombstone(1, "a"), tombstone(2, "a")))])
        after = ledger.requests_by_id(["a"])["a"]
        assert replace(after, sequence=before.sequence, digest=before.digest) == before
        assert [one for part in ledger.tombstones("crm") for one in part] == [
            tombstone(1, "a"),
            tombstone(2, "a"),
        ]
        assert ledger.erased_before([tombstone(1, "a").email or b""])

    def test_who_has_come_back_is_remembered_by_tombstone_and_the_last_word_counts(
        self, ledger: Ledger, opened: Callable[[], Ledger]
    ) -> None:
        ledger.append([*erased("a", 1, 2), *erased("b", 3, store="crm")])
        later = NOW + timedelta(days=1)
        ledger.append([Rejoined("site", "public.users", "users-key-1", NOW, NOW, "CRM-7", (1, 2))])
        ledger.append([Rejoined("site", "public.users", "users-key-1", later, later, "CRM-8", (1,))])
        for known in (ledger, opened()):
            assert known.rejoined("site") == {1: (later, later), 2: (NOW, NOW)}
            assert known.rejoined("crm") == {}
            assert known.tombstone_count("site") == 2, "the erasure keeps its proof"

    @pytest.mark.parametrize("chunk", [1, 2, 3, 100])
    def test_tombstones_stream_in_order_in_chunks(self, ledger: Ledger, chunk: int) -> None:
        for request, numbers in (("a", (5, 2)), ("b", (9, 1, 4)), ("c", (3,))):
            ledger.append(erased(request, *numbers))
        chunks = list(ledger.tombstones("site", chunk=chunk))
        assert [stone.number for part in chunks for stone in part] == [1, 2, 3, 4, 5, 9]
        assert all(len(part) == chunk for part in chunks[:-1])
        assert 0 < len(chunks[-1]) <= chunk
        assert [number for part in ledger.tombstone_numbers("site") for number in part] == [1, 2, 3, 4, 5, 9]
        assert list(ledger.tombstone_numbers("crm")) == []

    def test_more_than_one_query_gives_at_once_is_read_and_recorded(self, ledger: Ledger) -> None:
        people = [f"r{number}" for number in range(6_001)]
        ledger.append([accepted(one) for one in people], seal={one: one.encode() for one in people})
        ledger.append([intended(one, number) for number, one in enumerate(people, 1)])
        ledger.append([Verified(one, "site", NOW) for one in people])
        assert [len(part) for part in ledger.tombstones("site", chunk=5_500)] == [5_500, 501]
        assert len(ledger.sealed(people)) == 6_001
        assert len(ledger.requests_named([("shop", f"forget-{one}") for one in people])) == 6_001
        assert len(ledger.erased_before([n.to_bytes(32, "big") for n in range(1, 6_002)])) == 6_001
        ledger.append([Completed(one, NOW, Outcome.ERASED) for one in people])
        assert ledger.sealed(people) == {}
        assert ledger.verify().sequence == 4 * 6_001 + 1

    def test_tombstones_can_be_read_while_others_append(self, ledger: Ledger) -> None:
        for number in range(1, 31):
            ledger.append(erased(f"r{number}", number))
        read: list[int] = []
        stream = ledger.tombstones("site", chunk=10)
        read += [stone.number for stone in next(stream)]

        def write() -> None:
            for number in range(31, 41):
                ledger.append(erased(f"r{number}", number))

        writer = threading.Thread(target=write)
        writer.start()
        writer.join()
        read += [stone.number for part in stream for stone in part]
        assert read == list(range(1, 41))

    def test_threads_append_one_after_the_other(self, ledger: Ledger) -> None:
        def write(name: str) -> None:
            for number in range(10):
                ledger.append([accepted(f"{name}{number}")])

        threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ledger.verify().sequence == 41

    def test_a_sample_is_the_newest_and_a_random_choice_of_the_others(self, ledger: Ledger) -> None:
        assert ledger.sample_tombstones("site", newest=3, random=3) == []
        ledger.append(erased("a", *range(1, 201)))
        seen: set[int] = set()
        for _ in range(200):
            sample = [stone.number for stone in ledger.sample_tombstones("site", newest=3, random=5)]
            assert len(set(sample)) == len(sample) == 8
            assert {198, 199, 200} <= set(sample)
            seen |= set(sample)
        assert len(seen) > 150
        everything = ledger.sample_tombstones("site", newest=50, random=1_000)
        assert sorted(stone.number for stone in everything) == list(range(1, 201))
        assert len(ledger.sample_tombstones("site", newest=0, random=7)) == 7
        assert len(ledger.sample_tombstones("site", newest=7, random=0)) == 7

    def test_a_sample_is_full_although_most_numbers_are_missing(self, ledger: Ledger) -> None:
        ledger.append(erased("a", *range(1, 2_000_000, 50_000)))
        assert len(ledger.sample_tombstones("site", newest=5, random=10)) == 15

    # Heads

    def test_a_move_is_pending_until_it_is_settled(
        self, ledger: Ledger, opened: Callable[[], Ledger]
    ) -> None:
        assert ledger.known_head("site") == KnownHead()
        move = next_move(None, after_move=0, token=1, nonce=b"1")
        ledger.append(moves=[MoveIntended("site", move, reserve=10)])
        assert ledger.known_head("site") == KnownHead(pending=move, last_number=10)
        taken = NOW - timedelta(seconds=1)
        head = Head(move.move, move.digest, {"table:public.users": 40, "table:public.orders": 7}, taken)
        identity = StoreIdentity({"systemIdentifier": "7"}, {"public.users": "16384/16390"})
        ledger.append(moves=[MoveSettled("site", head, identity)])
        known = KnownHead(head, None, head.positions, 10, identity, NOW)
        assert ledger.known_head("site") == opened().known_head("site") == known
        kept = opened().known_head("site").head
        assert kept is not None
        assert kept.at == taken  # not part of what makes two heads equal
        assert ledger.known_head("crm") == KnownHead()

    def test_a_lost_move_leaves_the_head_and_keeps_its_numbers(self, ledger: Ledger) -> None:
        first = next_move(None, after_move=0, token=1, nonce=b"1")
        head = Head(first.move, first.digest)
        ledger.append(moves=[MoveIntended("site", first, 3), MoveSettled("site", head)])
        ledger.append(moves=[MoveIntended("site", next_move(head, after_move=1, token=1, nonce=b"2"), 4)])
        ledger.append(moves=[MoveLost("site")])
        assert ledger.known_head("site") == KnownHead(head, last_number=7, settled_at=NOW)

    def test_positions_only_grow_and_identity_stays_until_another_is_given(self, ledger: Ledger) -> None:
        identity = StoreIdentity({"systemIdentifier": "7"})
        ledger.append(moves=[MoveSettled("site", Head(1, "a" * 64, {"users": 40, "orders": 7}), identity)])
        rewound = Head(2, "b" * 64, {"users": 12, "orders": 9})
        ledger.append(moves=[MoveSettled("site", rewound)])
        assert ledger.known_head("site") == KnownHead(
            rewound, positions={"users": 40, "orders": 9}, identity=identity, settled_at=NOW
        )

    # Mappings and restores

    def test_every_proved_mapping_version_is_kept(self, ledger: Ledger) -> None:
        first = ONE_OF_EACH[1]
        assert isinstance(first, MappingProved)
        second = replace(first.proved, version="m2", constraints=())
        key = Constraint("public.sessions", ("user_id",), "public.users")
        proved_anew = replace(first.proved, constraints=(key,))
        ledger.append([first, MappingProved("site", second), MappingProved("site", proved_anew)])
        assert ledger.mappings("site") == {"m1": proved_anew, "m2": second}
        assert ledger.mappings("crm") == {}

    def test_restores_come_oldest_first_by_store_and_by_openness(self, ledger: Ledger) -> None:
        ledger.append([RestoreDetected("site", "z", NOW, DetectedBy.JOURNAL)])
        ledger.append([RestoreDetected("crm", "y", NOW, DetectedBy.PROBE)])
        ledger.append([RestoreDetected("site", "x", NOW, DetectedBy.SWEEP), SafeToServe("site", "z", NOW)])

        def names(**of: Any) -> list[str]:
            return [restore.episode for restore in ledger.episodes(**of)]

        assert names() == ["z", "y", "x"]
        assert names(store="site") == ["z", "x"]
        assert names(open_only=True) == ["y", "x"]
        assert names(store="site", open_only=True) == ["x"]

    def test_a_doc_that_was_changed_is_found_when_it_is_read(
        self, ledger: Ledger, behind: Connection
    ) -> None:
        ledger.append([*ONE_OF_EACH[:3], ONE_OF_EACH[13]], seal={"a": b"ada"})
        ledger.append(ONE_OF_EACH[23:25])
        for table, column, read in (
            ("sources", "doc", ledger.sources),
            ("snapshots", "doc", ledger.snapshots),
            ("requests", "doc", ledger.open_requests),
            ("episodes", "doc", ledger.episodes),
            ("mappings", "doc", lambda: ledger.mappings("site")),
            ("sealed", "ciphertext", lambda: ledger.sealed(["a"])),
            ("sealed", "wrapped_key", lambda: ledger.sealed(["a"])),
        ):
            behind.execute(text(f"UPDATE {table} SET {column} = :forged"), {"forged": b"x" * 80})
            behind.commit()
            with pytest.raises(ChainBroken):
                read()
        with pytest.raises(ChainBroken):
            ledger.append([Confirmed("a", ())])

    # What must not be seen

    def test_no_column_shows_what_facts_hold(self, ledger: Ledger, behind: Connection) -> None:
        ledger.append(ONE_OF_EACH[:-1], seal={"b": b"bob@example.org"})
        shown = everything_shown(behind, self.tables_query)
        assert b"forget-a" in shown
        require_hidden(
            shown, "subject-4711", "users-key-5", "TICKET-0001", "canary", "日本", "bob@example.org"
        )
        require_hidden(shown, "erased-{key}")

    tables_query: str
    """SQL that names every table of the database."""

    # Crashes

    def test_nothing_acknowledged_is_lost_when_the_process_is_killed(
        self, ledger: Ledger, opened: Callable[[], SqlLedger], url: str, keys: Path
    ) -> None:
        for acknowledged_before_death in (1, 7, 40):
            with subprocess.Popen(
                [sys.executable, "-c", _APPENDS_UNTIL_KILLED, url, str(keys), str(acknowledged_before_death)],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(OPERATOR)},
            ) as child:
                assert child.stdout is not None
                acknowledged = [child.stdout.readline().strip() for _ in range(acknowledged_before_death)]
                os.kill(child.pid, signal.SIGKILL)
                acknowledged += child.stdout.read().split()
            survivor = opened()
            survivor.verify()
            kept = survivor.requests_named([("shop", f"forget-{one}") for one in acknowledged])
            assert len(kept) == len(acknowledged) >= acknowledged_before_death
            assert all(one.progress("site").state is StoreState.VERIFIED for one in kept.values())
            recorded = sum(isinstance(fact, Verified) for _, _, fact in survivor.facts())
            assert recorded == len(survivor.open_requests()) == survivor.tombstone_count("site")


_APPENDS_UNTIL_KILLED = """
import sys
from datetime import UTC, datetime
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.domain.facts import Accepted, Intended, Verified
from lethe.domain.tombstones import Tombstone

now, run = datetime.now(UTC), sys.argv[3]
ledger = open_ledger(sys.argv[1], FileKeyring(sys.argv[2]))
ledger.take_over()
for number in range(1, 100_000):
    request = f"{run}-{number}"
    ledger.append([
        Accepted(request, "shop", f"forget-{request}", "", now, now, now),
        Intended(request, "site", (Tombstone(int(run) * 1_000_000 + number, request, "t", request, "m1"),)),
        Verified(request, "site", now),
    ])
    print(request, flush=True)
"""


def _json(value: object) -> bytes:
    import msgspec  # noqa: PLC0415

    return msgspec.json.encode(value, order="deterministic")


def _forgeries(value: object, kind: type) -> Iterator[object]:
    if kind is int:
        yield value + 1_000 if isinstance(value, int) else 5
    elif kind is bytes:
        assert isinstance(value, bytes)
        yield bytes([value[0] ^ 1]) + value[1:]
        yield value[:-1] + bytes([value[-1] ^ 128])
    elif kind is str:
        assert value is None or isinstance(value, str)
        yield f"{value[:-1]}{'0' if value[-1] != '0' else '1'}" if value else "x"
        if value is None:
            yield ""


_REQUESTS = st.sampled_from(["a", "b", "c"])
_STORES = st.sampled_from(STORES)
_EPISODES = st.sampled_from(["e1", "e2"])
_NUMBERS = iter(range(1, 10_000_000))
_EXAMPLES = itertools.count()
_COUNTS = st.dictionaries(st.sampled_from(["public.users", "notes"]), st.integers(0, 9), max_size=2)
_FACTS: st.SearchStrategy[Fact] = st.one_of(
    _REQUESTS.map(accepted),
    _REQUESTS.map(accepted),
    st.builds(Confirmed, _REQUESTS, st.lists(st.text(max_size=3), max_size=2).map(tuple)),
    st.builds(
        lambda request, store, many: Intended(
            request, store, tuple(tombstone(next(_NUMBERS), request) for _ in range(many))
        ),
        _REQUESTS,
        _STORES,
        st.integers(0, 3),
    ),
    st.builds(IntentAbandoned, _REQUESTS, _STORES, st.just("Refused")),
    st.builds(Verified, _REQUESTS, _STORES, st.just(NOW), _COUNTS),
    st.builds(NotFound, _REQUESTS, _STORES, st.just(NOW), st.just("canary")),
    st.builds(
        lambda request, store: FoundAgain(request, store, NOW, (tombstone(next(_NUMBERS), request),)),
        _REQUESTS,
        _STORES,
    ),
    st.builds(NotAsked, _REQUESTS, _STORES),
    st.builds(Planned, _REQUESTS, _STORES, _COUNTS),
    st.builds(Completed, _REQUESTS, st.just(NOW), st.sampled_from(Outcome)),
    st.builds(RestoreDetected, _STORES, _EPISODES, st.just(NOW), st.sampled_from(DetectedBy), _COUNTS),
    st.builds(Replayed, _STORES, _EPISODES, st.just(NOW), *[st.integers(0, 5)] * 3),
    st.builds(SafeToServe, _STORES, _EPISODES, st.just(NOW)),
)


def _renamed(fact: Fact, example: str) -> Fact:
    """Return the fact as of another example's request or restore: all examples share one ledger."""
    if isinstance(fact, Accepted):
        return replace(fact, request=f"{fact.request}{example}", name=f"{fact.name}{example}")
    if isinstance(fact, RequestFact):
        return replace(fact, request=f"{fact.request}{example}")
    if isinstance(fact, RestoreFact):
        return replace(fact, episode=f"{fact.episode}-{example}")
    return fact


def _legal(ledger: SqlLedger, facts: Sequence[Fact]) -> list[Fact]:
    """Return those of the facts that can follow what is recorded and one another."""
    requests, episodes, _ = _rebuilt(ledger)
    model_requests, model_episodes, legal = {**requests}, {**episodes}, list[Fact]()
    for fact in facts:
        try:
            if isinstance(fact, RequestFact):
                model_requests[fact.request] = evolve(model_requests.get(fact.request), fact)
            elif isinstance(fact, RestoreFact):
                at = (fact.store, fact.episode)
                model_episodes[at] = evolve_episode(model_episodes.get(at), fact)
        except IllegalTransition:
            continue
        legal.append(fact)
    return legal


def _rebuilt(
    ledger: SqlLedger,
) -> tuple[
    Mapping[str, RequestRecord], Mapping[tuple[str, str], RestoreEpisode], Mapping[str, Sequence[Tombstone]]
]:
    """Return requests, restores and verified tombstones by store, from nothing but the facts."""
    requests: dict[str, RequestRecord] = {}
    episodes: dict[tuple[str, str], RestoreEpisode] = {}
    verified: dict[str, list[Tombstone]] = {store: [] for store in STORES}
    for position, _, fact in ledger.facts():
        if isinstance(fact, RequestFact):
            before = requests.get(fact.request)
            if isinstance(fact, Verified) and before:
                progress = before.progress(fact.store)
                if progress.state is StoreState.INTENDED:
                    verified[fact.store] += progress.tombstones
            if isinstance(fact, FoundAgain):
                verified[fact.store] += fact.tombstones
            record = evolve(before, fact)
            digest = f"sha256:{position.digest}"
            requests[fact.request] = replace(record, sequence=position.sequence, digest=digest)
        elif isinstance(fact, RestoreFact):
            at = (fact.store, fact.episode)
            episodes[at] = evolve_episode(episodes.get(at), fact)
    return requests, episodes, {store: sorted(s, key=lambda one: one.number) for store, s in verified.items()}

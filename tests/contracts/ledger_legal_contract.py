"""What every ledger must do about legal requests; a part of `LedgerContract`, whose fixtures it uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection, event, text

from lethe.adapters.ledger.docs import context
from lethe.adapters.ledger.ledger import SqlLedger
from lethe.domain.facts import Completed, Fact, Outcome, TombstonesExpired, Verified
from lethe.domain.legal import LegalRecord, evolve_legal
from lethe.domain.legal_facts import (
    Addressee,
    AddressKept,
    CourtOrderGiven,
    DocumentSeen,
    HoldEnded,
    HoldPlaced,
    HoldTookEffect,
    LegalDecided,
    LegalFact,
    LegalKind,
    LegalOutcome,
    LegalRegistered,
    LetterIntended,
    LetterSettled,
    NonDisclosureOrdered,
    Reminded,
    SubjectResolved,
)
from lethe.domain.requests import IllegalTransition
from lethe.ports.keys import Keyring
from lethe.ports.ledger import ChainBroken, Fenced, Ledger
from tests.contracts.ledger_backups_contract import AUGUST, DAY, DECEMBER, JUNE, done, purge
from tests.contracts.ledger_facts import (
    NOW,
    Clock,
    accepted,
    erased,
    everything_shown,
    intended,
    require_hidden,
    tombstone,
)

OPERATOR = Path(__file__).parents[2] / "operator"

EMAIL, OTHER_EMAIL = b"\x00keyed fingerprint of ada's one \xff", bytes(range(32))
ADDRESS = b"ada@example.org"
JULY = datetime(2027, 7, 10, tzinfo=UTC)


def registered(
    legal: str, *, name: str | None = None, namespace: str = "shop", emails: tuple[bytes, ...] = (EMAIL,)
) -> LegalRegistered:
    return LegalRegistered(
        legal=legal,
        namespace=namespace,
        name=name or f"order-{legal}",
        spec_digest="sha256:ab",
        at=NOW,
        kind=LegalKind.DISCLOSURE,
        authority="Prefecture of Nowhere",
        level="Foreign",
        country="FR",
        received_at=NOW - DAY,
        reference="AZ 12/34",
        identifier_digest="sha256:cd",
        emails=emails,
    )


def decided(legal: str, outcome: LegalOutcome = LegalOutcome.REJECTED) -> LegalDecided:
    return LegalDecided(legal, NOW, outcome, "NoCourtOrder")


def letter(
    legal: str,
    number: int = 1,
    *,
    to: Addressee = Addressee.USER,
    outcome: LegalOutcome = LegalOutcome.REJECTED,
) -> list[LegalFact]:
    """Return the facts of a letter that was delivered."""
    return [
        LetterIntended(legal, NOW, to, number, f"{legal}.{number}@lethe.test", outcome),
        LetterSettled(legal, NOW, to, number, delivered=True, answer="250 taken", channel="smtp"),
    ]


def closed(legal: str, *, name: str | None = None) -> list[LegalFact]:
    """Return the facts of a request that was rejected, of which both the user and the authority were told."""
    return [
        registered(legal, name=name),
        SubjectResolved(legal, NOW, ("subject-4711",), (OTHER_EMAIL,)),
        decided(legal),
        *letter(legal),
        *letter(legal, to=Addressee.AUTHORITY),
    ]


ONE_OF_EACH_LEGAL: list[Fact] = [
    registered("one"),
    CourtOrderGiven("one", NOW, "Amtsgericht — 日本", "12 Gs 34/26", date(2026, 10, 31), documented=True),
    DocumentSeen("one", NOW, "sha256:ef"),
    NonDisclosureOrdered("one", NOW, "§ 95a StPO", date(2027, 1, 31), "Europe/Berlin"),
    LegalDecided("one", NOW, LegalOutcome.COMPLIED, "Reviewed", "counsel"),
    SubjectResolved("one", NOW, ("subject-4711", "subject-4712"), (OTHER_EMAIL,)),
    HoldPlaced("one", NOW, ("shop/site",), NOW + 90 * DAY),
    HoldTookEffect("one", NOW),
    HoldEnded("one", NOW, "its day has come"),
    AddressKept("one", NOW),
    Reminded("one", NOW),
    LetterIntended("one", NOW, Addressee.USER, 1, "one.1@lethe.test", LegalOutcome.COMPLIED),
    LetterSettled("one", NOW, Addressee.USER, 1, delivered=False, answer="550 no such user", address=EMAIL),
]

HISTORIES: dict[str, list[Sequence[LegalFact]]] = {
    "rejected, told and answered": [[one] for one in closed("a")],
    "all in one append": [closed("a")],
    "one of each": [[one for one in ONE_OF_EACH_LEGAL if isinstance(one, LegalFact)]],
    "registered and nothing more": [[registered("a")]],
    "held in two stores, prolonged, in effect, let go, held again": [
        [registered("a"), HoldPlaced("a", NOW, ("shop/site", "shop/crm"), NOW + 90 * DAY)],
        [HoldTookEffect("a", NOW + DAY)],
        [HoldPlaced("a", NOW, ("shop/site", "shop/crm"))],
        [HoldPlaced("a", NOW, ("shop/site",)), HoldEnded("a", NOW, "lifted by counsel")],
        [HoldPlaced("a", NOW + 2 * DAY)],
    ],
    "under a gag without an end that is lifted": [
        [
            registered("a"),
            NonDisclosureOrdered("a", NOW, "§ 95a"),
            decided("a", LegalOutcome.AWAITING_REVIEW),
        ],
        [Reminded("a", NOW), Reminded("a", NOW + 31 * DAY)],
        [NonDisclosureOrdered("a", NOW + 40 * DAY, "§ 95a", lifted="the court has said so")],
    ],
    "rejected, told, and taken up again with an order": [
        closed("a"),
        [CourtOrderGiven("a", NOW, "Tribunal", "1", date(2026, 2, 28)), decided("a", LegalOutcome.COMPLIED)],
        letter("a", 2, outcome=LegalOutcome.COMPLIED),
    ],
    "closed, and held after all": [closed("a"), [HoldPlaced("a", NOW + DAY)]],
    "undeliverable": [
        [registered("a"), decided("a"), *letter("a")[:1]],
        [
            LetterSettled(
                "a", NOW, Addressee.USER, 1, delivered=False, answer="550", channel="smtp", address=EMAIL
            )
        ],
    ],
}


class LegalInLedgerContract:
    """What the ledger knows of legal requests."""

    # What became of them

    @pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES.keys())
    def test_a_legal_request_is_what_the_domain_makes_of_its_facts(
        self, ledger: SqlLedger, opened: Callable[[], SqlLedger], history: list[Sequence[LegalFact]]
    ) -> None:
        model: LegalRecord | None = None
        for facts in history:
            ledger.append([accepted(f"before-{ledger.position().sequence}"), *facts])
            for fact in facts:
                model = evolve_legal(model, fact)
            assert model is not None
            end = ledger.position()
            model = replace(model, sequence=end.sequence, digest=f"sha256:{end.digest}")
            assert list(ledger.legal_requests()) == list(opened().legal_requests()) == [model]
            assert list(ledger.legal_requests(open_only=True)) == [model] * model.open
        assert ledger.verify() == ledger.position()

    def test_legal_requests_come_oldest_first_by_namespace_by_name_and_by_openness(
        self, ledger: Ledger, opened: Callable[[], Ledger]
    ) -> None:
        ledger.append([registered("z"), registered("y", namespace="crm", name="order-z")])
        ledger.append([*closed("x"), registered("w")])
        for known in (ledger, opened()):

            def ids(known: Ledger = known, **of: str | bool) -> list[str]:
                return [one.legal for one in known.legal_requests(**of)]  # type: ignore[arg-type]

            assert ids() == ["z", "y", "x", "w"]
            assert ids(namespace="shop") == ["z", "x", "w"]
            assert ids(open_only=True) == ["z", "y", "w"]
            assert ids(namespace="shop", open_only=True) == ["z", "w"]
            assert ids(namespace="elsewhere") == []
            named = known.legal_named([("shop", "order-z"), ("crm", "order-z"), ("crm", "order-w")])
            assert {place: one.legal for place, one in named.items()} == {
                ("shop", "order-z"): "z",
                ("crm", "order-z"): "y",
            }
            assert known.legal_named([]) == {}

    def test_more_legal_requests_than_one_query_gives_are_recorded_and_read(self, ledger: Ledger) -> None:
        orders = [f"o{number}" for number in range(5_001)]
        ledger.append([registered(one) for one in orders], seal={one: one.encode() for one in orders})
        ledger.append([Reminded(one, NOW) for one in orders])
        assert len(ledger.legal_named([("shop", f"order-{one}") for one in orders])) == 5_001
        assert all(one.reminded_at == NOW for one in ledger.legal_requests(open_only=True))
        assert ledger.sealed(orders) == {one: one.encode() for one in orders}
        ledger.append([fact for one in orders for fact in (decided(one), *letter(one))])
        assert ledger.sealed(orders) == {}

    def test_a_name_is_given_to_one_legal_request_of_a_namespace(self, ledger: Ledger) -> None:
        ledger.append([registered("a", name="order")])
        before = ledger.position()
        with pytest.raises(IllegalTransition):
            ledger.append([registered("b", name="order")])
        with pytest.raises(IllegalTransition):
            ledger.append([registered("c", name="twice"), registered("d", name="twice")])
        assert ledger.verify() == ledger.position() == before
        ledger.append([registered("b", namespace="crm", name="order"), accepted("r", name="order")])
        assert [one.legal for one in ledger.legal_requests()] == ["a", "b"]

    @pytest.mark.parametrize(
        "illegal",
        [
            Reminded("unknown", NOW),
            registered("a", name="another"),
            HoldEnded("a", NOW, "nothing is held"),
            HoldTookEffect("a", NOW),
            letter("a")[1],
        ],
        ids=lambda fact: type(fact).__name__,
    )
    def test_a_fact_that_cannot_follow_leaves_nothing_of_its_append(
        self, ledger: Ledger, opened: Callable[[], Ledger], illegal: LegalFact
    ) -> None:
        ledger.append([registered("a")], seal={"a": b"first"})
        before, known = ledger.position(), ledger.legal_requests()
        with pytest.raises(IllegalTransition):
            ledger.append(
                [registered("b"), accepted("r"), DocumentSeen("a", NOW, "sha256:ef"), illegal],
                seal={"a": b"second", "b": b"second"},
            )
        for one in (ledger, opened()):
            assert one.verify() == one.position() == before
            assert one.legal_requests() == known
            assert one.open_requests() == []
            assert one.sealed(["a", "b"]) == {"a": b"first"}
        ledger.append([registered("b")])

    def test_who_was_taken_over_registers_and_seals_nothing(
        self, ledger: Ledger, opened: Callable[[], Ledger]
    ) -> None:
        ledger.append([registered("a")], seal={"a": b"first"})
        successor = opened()
        successor.take_over()
        with pytest.raises(Fenced):
            ledger.append([registered("b")])
        with pytest.raises(Fenced):
            ledger.append(seal={"a": b"second"})
        with pytest.raises(Fenced):
            ledger.append(letter("a"))
        assert [one.legal for one in successor.legal_requests()] == ["a"]
        assert successor.sealed(["a"]) == {"a": b"first"}

    def test_that_no_legal_request_is_open_takes_one_query_of_an_index_and_opens_no_doc(
        self, ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ledger.append([fact for number in range(50) for fact in closed(f"o{number}")])
        statements: list[tuple[str, object]] = []

        def note(
            _connection: object, _cursor: object, statement: str, parameters: object, *_: object
        ) -> None:
            if not statement.startswith("BEGIN"):
                statements.append((statement, parameters))

        monkeypatch.setattr("lethe.adapters.ledger.legal.legal_record", None)  # would fail
        event.listen(ledger._engine, "before_cursor_execute", note)
        assert list(ledger.legal_requests(open_only=True)) == []
        assert list(ledger.legal_requests(namespace="shop", open_only=True)) == []
        event.remove(ledger._engine, "before_cursor_execute", note)
        assert len(statements) == 2
        with ledger._engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE legal_requests")
            explain = "EXPLAIN QUERY PLAN "
            if connection.dialect.name == "postgresql":
                explain = "EXPLAIN "
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # it is a small table
            for statement, parameters in statements:
                plan = connection.exec_driver_sql(explain + statement, parameters)  # type: ignore[arg-type]
                told = str(plan.all())
                assert "legal_requests_open" in told, told

    # What is sealed for a notice

    def test_an_address_is_sealed_until_the_user_is_told(
        self, ledger: Ledger, opened: Callable[[], Ledger]
    ) -> None:
        ledger.append([registered("a"), registered("b"), decided("a")])
        ledger.append([AddressKept("a", NOW), AddressKept("b", NOW)], seal={"a": ADDRESS, "b": b"bob"})
        assert ledger.sealed(["a", "b", "c"]) == opened().sealed("abc") == {"a": ADDRESS, "b": b"bob"}
        intent, settled = letter("a")
        ledger.append([*letter("a", to=Addressee.AUTHORITY), intent])
        assert ledger.sealed(["a"]) == {"a": ADDRESS}
        ledger.append([settled])
        assert ledger.sealed(["a", "b"]) == opened().sealed("ab") == {"b": b"bob"}

    def test_an_address_that_is_kept_anew_replaces_the_earlier_one(
        self, ledger: Ledger, behind: Connection
    ) -> None:
        ledger.append([registered("a")], seal={"a": ADDRESS})
        sealed = behind.execute(text("SELECT wrapped_key, ciphertext FROM sealed_legal")).one()
        behind.rollback()
        ledger.append([AddressKept("a", NOW)], seal={"a": b"ada@example.com"})
        assert ledger.sealed(["a"]) == {"a": b"ada@example.com"}
        replaced = behind.execute(text("SELECT wrapped_key, ciphertext FROM sealed_legal")).one()
        assert not {*sealed} & {*replaced}

    def test_an_address_outlives_a_letter_after_which_a_further_one_is_due(self, ledger: Ledger) -> None:
        intent, settled = letter("a")
        ledger.append([registered("a"), decided("a"), intent], seal={"a": ADDRESS})
        ledger.append([decided("a", LegalOutcome.AWAITING_REVIEW), settled])
        assert ledger.sealed(["a"]) == {"a": ADDRESS}
        ledger.append([decided("a", LegalOutcome.REFUSED), *letter("a", 2, outcome=LegalOutcome.REFUSED)])
        assert ledger.sealed(["a"]) == {}

    def test_an_address_goes_when_a_request_falls_back_to_what_the_user_was_told(
        self, ledger: Ledger
    ) -> None:
        ledger.append([*closed("a"), decided("a", LegalOutcome.AWAITING_REVIEW)], seal={"a": ADDRESS})
        ledger.append([AddressKept("a", NOW), decided("a")])
        assert ledger.legal_requests()[0].notified
        assert ledger.sealed(["a"]) == {}

    def test_nothing_is_sealed_that_no_letter_would_ever_destroy(self, ledger: Ledger) -> None:
        ledger.append([*closed("told"), registered("open"), decided("open")], seal={"open": b"first"})
        ledger.append([HoldPlaced("told", NOW)])  # open again, and nobody is to be told
        before = ledger.position()
        for one in ("told", "unknown"):
            with pytest.raises(IllegalTransition, match=one):
                ledger.append([Reminded("open", NOW)], seal={"open": b"second", one: ADDRESS})
        with pytest.raises(IllegalTransition, match="open"):
            ledger.append(letter("open"), seal={"open": b"second"})
        assert ledger.verify() == ledger.position() == before
        assert ledger.sealed(["told", "unknown", "open"]) == {"open": b"first"}

    def test_texts_of_both_kinds_of_requests_are_sealed_and_destroyed_side_by_side(
        self, ledger: Ledger
    ) -> None:
        ledger.append([accepted("r"), registered("a")], seal={"r": b"erase", "a": b"tell"})
        ledger.append(seal={"a": b"tell later", "r": b"erase now"})
        assert ledger.sealed(["r", "a"]) == {"r": b"erase now", "a": b"tell later"}
        ledger.append([Completed("r", NOW, Outcome.ERASED)], seal={"a": ADDRESS})
        assert ledger.sealed(["r", "a"]) == {"a": ADDRESS}
        ledger.append([accepted("s"), decided("a"), *letter("a")], seal={"s": b"erase"})
        assert ledger.sealed(["r", "a", "s"]) == {"s": b"erase"}

    # What must not be seen

    tables_query: str

    def test_no_column_shows_what_is_known_of_a_legal_request(
        self, ledger: Ledger, behind: Connection
    ) -> None:
        facts = [*ONE_OF_EACH_LEGAL[:-1], registered("two")]
        ledger.append(facts, seal={"one": ADDRESS})
        shown = everything_shown(behind, self.tables_query)
        assert b"order-one" in shown
        require_hidden(shown, "subject-4711", ADDRESS, EMAIL, "Prefecture", "12 Gs 34/26", "AZ 12/34")
        require_hidden(shown, "counsel", "shop/site", "日本")

    def test_fingerprints_of_an_address_leave_the_doc_with_the_last_thing_to_do(
        self, ledger: Ledger, behind: Connection, keyring: Keyring
    ) -> None:
        def doc() -> bytes:
            row = behind.execute(text("SELECT doc FROM legal_requests")).one()
            behind.rollback()
            return keyring.unseal(row.doc, context("legal", "a"))

        facts = closed("a")
        fingerprints = [msgspec.json.encode(one) for one in (EMAIL, OTHER_EMAIL)]
        ledger.append(facts[:-1])
        assert all(one in doc() for one in fingerprints)
        assert ledger.legal_requests()[0].emails == (EMAIL, OTHER_EMAIL)
        ledger.append(facts[-1:])
        assert not [one for one in fingerprints if one in doc()]
        record = ledger.legal_requests()[0]
        assert (record.emails, record.registered.emails, record.open) == ((), (), False)

    def test_what_was_changed_beside_the_chain_is_found_when_it_is_read(
        self, ledger: Ledger, behind: Connection
    ) -> None:
        ledger.append([registered("a"), registered("b")], seal={"a": ADDRESS, "b": b"bob"})
        query = text("SELECT legal, doc FROM legal_requests")
        docs = {row.legal: row.doc for row in behind.execute(query)}
        for legal, other in (("a", "b"), ("b", "a")):
            swapped = {"doc": docs[other], "legal": legal}
            behind.execute(text("UPDATE legal_requests SET doc = :doc WHERE legal = :legal"), swapped)
        for column in ("wrapped_key", "ciphertext"):
            behind.execute(text(f"UPDATE sealed_legal SET {column} = :forged"), {"forged": b"x" * 80})
            behind.commit()
            with pytest.raises(ChainBroken) as refused:
                ledger.sealed(["a"])
            assert "ada@" not in str(refused.value)
        for read in (
            ledger.legal_requests,
            lambda: ledger.legal_requests(open_only=True),
            lambda: ledger.legal_named([("shop", "order-a")]),
            lambda: ledger.append([Reminded("a", NOW)]),
            lambda: ledger.append(seal={"a": b"ada"}),
        ):
            with pytest.raises(ChainBroken):
                read()

    # Months wait

    def test_no_month_ends_since_the_oldest_open_legal_request_was_registered(
        self, ledger: Ledger, opened: Callable[[], Ledger], clock: Clock
    ) -> None:
        ledger.append(done("a", 1))
        clock.now = DECEMBER
        ledger.append([*done("b", 2), *closed("closed"), registered("first")])
        clock.now = JUNE
        ledger.append([*done("c", 3), registered("second")])
        purge(ledger, "a", "b", "c", at=JUNE)
        clock.now = AUGUST
        assert ledger.expired_periods(JULY) == opened().expired_periods(JULY) == {"2026-11": ["a"]}
        before = ledger.position()
        for month, request in (("2026-12", "b"), ("2027-06", "c")):
            with pytest.raises(IllegalTransition, match=f"{month}.*legal"):
                ledger.append([TombstonesExpired(AUGUST, month, (request,))])
        assert ledger.verify() == ledger.position() == before
        ledger.append([TombstonesExpired(AUGUST, "2026-11", ("a",))])
        assert ledger.tombstone_count("site") == 2
        ledger.append(closed("first")[1:])
        assert ledger.expired_periods(JULY) == {"2026-12": ["b"]}
        ledger.append([*closed("second")[1:], TombstonesExpired(AUGUST, "2027-06", ("c",))])  # closed with it
        assert ledger.expired_periods(JULY) == {"2026-12": ["b"]}
        assert [one.legal for one in opened().legal_requests()] == ["closed", "first", "second"]
        assert ledger.verify() == ledger.position()

    def test_months_wait_for_a_closed_legal_request_that_holds_again(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        ledger.append([*done("r", 1), *closed("a")])
        clock.now = JUNE
        purge(ledger, "r", at=JUNE)
        clock.now = AUGUST
        assert ledger.expired_periods(JULY) == {"2026-11": ["r"], "2027-06": []}
        ledger.append([HoldPlaced("a", AUGUST)])
        assert ledger.expired_periods(JULY) == {}
        with pytest.raises(IllegalTransition, match="legal"):
            ledger.append([TombstonesExpired(AUGUST, "2026-11", ("r",))])
        ledger.append([HoldEnded("a", AUGUST, "lifted"), TombstonesExpired(AUGUST, "2026-11", ("r",))])
        assert ledger.verify() == ledger.position()

    def test_a_month_that_was_to_end_waits_for_what_is_registered_in_the_same_append(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        ledger.append([*done("r", 1), *closed("a")])
        clock.now = DECEMBER
        purge(ledger, "r", at=DECEMBER)
        before = ledger.position()
        with pytest.raises(IllegalTransition, match="legal"):
            ledger.append([HoldPlaced("a", DECEMBER), TombstonesExpired(DECEMBER, "2026-11", ("r",))])
        assert ledger.verify() == ledger.position() == before

    def test_a_closed_legal_request_is_known_after_its_month_has_ended(
        self, ledger: Ledger, opened: Callable[[], Ledger], clock: Clock
    ) -> None:
        ledger.append([*done("r", 1), *closed("a")])
        record = ledger.legal_requests()[0]
        clock.now = DECEMBER
        purge(ledger, "r", at=DECEMBER)
        ledger.append([TombstonesExpired(DECEMBER, "2026-11", ("r",))])
        assert list(opened().legal_requests()) == [record]
        ledger.append([HoldPlaced("a", DECEMBER)])
        assert opened().legal_requests(open_only=True)[0].holding

    # Who was erased

    def test_an_address_and_a_key_tell_the_last_request_that_erased_them(
        self, ledger: Ledger, opened: Callable[[], Ledger], clock: Clock
    ) -> None:
        ada, bob, cyd = (tombstone(number, "-").email or b"" for number in (1, 2, 3))
        again = replace(tombstone(9, "c"), email=ada)
        ledger.append([*erased("a", 1), *erased("b", 2), accepted("d"), intended("d", 3)])
        assert ledger.who_erased([ada, bob, cyd, b"?"]) == {ada: "a", bob: "b"}
        ledger.append([accepted("c"), replace(intended("c", 9), tombstones=(again,))])
        assert ledger.who_erased([ada]) == {ada: "a"}
        ledger.append([Verified("c", "site", NOW)])
        assert ledger.who_erased([ada, bob, cyd]) == opened().who_erased([ada, bob]) == {ada: "c", bob: "b"}
        assert ledger.who_erased([]) == {}

    def test_who_is_forgotten_is_nobody_whom_a_request_erased(self, ledger: Ledger, clock: Clock) -> None:
        ledger.append(done("a", 1))
        clock.now = DECEMBER
        purge(ledger, "a", at=DECEMBER)
        ledger.append([TombstonesExpired(DECEMBER, "2026-11", ("a",))])
        assert ledger.who_erased([tombstone(1, "a").email or b""]) == {}

    def test_six_thousand_addresses_are_looked_up_at_once(self, ledger: Ledger) -> None:
        ledger.append(erased("a", *range(1, 6_002)))
        found = ledger.who_erased([number.to_bytes(32, "big") for number in range(1, 6_002)])
        assert len(found) == 6_001

    # Crashes

    def test_a_kill_at_any_commit_leaves_an_address_only_where_a_notice_is_pending(
        self, ledger: Ledger, opened: Callable[[], SqlLedger], url: str, keys: Path
    ) -> None:
        for commits_before_death in range(4):
            child = subprocess.run(
                [sys.executable, "-c", _TELLS_UNTIL_KILLED, url, str(keys), str(commits_before_death)],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(OPERATOR)},
                check=False,
            )
            assert child.returncode == -signal.SIGKILL
            lines = child.stdout.splitlines()
            assert len(lines) == commits_before_death  # each append is one of them
            survivor = opened()
            assert survivor.verify() == survivor.position()
            records = {one.legal: one for one in survivor.legal_requests()}
            of_this_run = {legal for legal in records if legal.startswith(f"{commits_before_death}-")}
            assert of_this_run == {line.partition(" ")[2] for line in lines}
            told = {line.partition(" ")[2] for line in lines if line.startswith("told")}
            assert {legal for legal in of_this_run if records[legal].notified} == told
            to_be_told = {legal for legal, one in records.items() if not one.notified}
            assert survivor.sealed(records).keys() == to_be_told
            assert {legal for legal, one in records.items() if one.address_kept} == to_be_told
            kept = [fact.legal for _, _, fact in survivor.facts() if isinstance(fact, AddressKept)]
            assert sorted(kept) == sorted(records)


_TELLS_UNTIL_KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from sqlalchemy import event
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.domain.legal_facts import *

now, run, commits = datetime.now(UTC), sys.argv[3], 0
rejected, user = LegalOutcome.REJECTED, Addressee.USER
ledger = open_ledger(sys.argv[1], FileKeyring(sys.argv[2]))
ledger.take_over()

@event.listens_for(ledger._engine, "commit")  # tells before the database is asked
def die(_connection):
    global commits
    if commits == int(run):
        os.kill(os.getpid(), signal.SIGKILL)
    commits += 1

for number in range(1, 100):
    one = f"{run}-{number}"
    order = LegalRegistered(
        one, "shop", f"order-{one}", "", now, LegalKind.DISCLOSURE, "Nowhere", "Local", "DE", now
    )
    ledger.append([order, AddressKept(one, now)], seal={one: b"ada@example.org"})
    print("kept", one, flush=True)
    sent = LetterSettled(one, now, user, 1, True)
    decided = LegalDecided(one, now, rejected, "NoCourtOrder")
    ledger.append([decided, LetterIntended(one, now, user, 1, one, rejected), sent])
    print("told", one, flush=True)
"""

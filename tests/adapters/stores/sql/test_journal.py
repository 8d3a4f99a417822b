"""The journal: on a rewound store nothing commits, and every restore shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from devtools.servers import PostgresServer
from lethe.domain.journal import HeadFinding, HeadMove, KnownHead, changed_identity, compare
from lethe.domain.mapping import ClearRule, ClearTo, PiiKind, SubjectMapping
from lethe.domain.tombstones import match_unchanged_rows
from lethe.ports.stores import HeadMoved, JournalEntry, JournalNotPermitted, JournalSupport, MappingInvalid
from tests.adapters.stores.sql.conftest import Site, store_of
from tests.contracts.store_contract import somebody


def test_a_tick_moves_the_head_and_notes_how_far_keys_were_given_out(site: Site) -> None:
    site.enter(somebody())
    site.enter(somebody())
    first = site.port.tick(site.move())
    assert site.head() == first
    assert first.positions == {
        "table:public.users": 2,
        "sequence:public.users_id_seq": 2,
        "table:public.sessions": 4,
        "sequence:public.sessions_id_seq": 4,
        "table:public.comments": 2,
        "sequence:public.comments_id_seq": 2,
    }
    second = site.port.tick(site.move())
    assert (second.move, second.positions) == (first.move + 1, first.positions)
    assert second.digest != first.digest


def test_positions_never_go_back(site: Site) -> None:
    site.enter(somebody())
    before = site.port.tick(site.move()).positions
    site.sql.execute("TRUNCATE users, sessions, comments RESTART IDENTITY")
    assert site.port.tick(site.move()).positions == before


def test_on_a_rewound_store_nothing_commits(site: Site) -> None:
    person = somebody()
    site.enter(person)
    tombstones = site.tombstones_of(person)
    site.port.tick(site.move())
    site.sql.execute("CREATE TABLE earlier AS SELECT * FROM lethe_journal_head")
    site.port.tick(site.move())
    move = site.move()
    site.sql.execute("DELETE FROM lethe_journal_head")
    site.sql.execute("INSERT INTO lethe_journal_head SELECT * FROM earlier")
    before = site.everything()
    with pytest.raises(HeadMoved):
        site.store.erase(tombstones, match_unchanged_rows(site.fingerprints), move=move)
    with pytest.raises(HeadMoved):
        site.port.tick(move)
    assert site.everything() == before


@pytest.mark.parametrize("lost", ["DELETE FROM lethe_journal_head", "DROP TABLE lethe_journal_head"])
def test_a_lost_journal_is_seen_and_nothing_commits_until_it_is_begun_anew(site: Site, lost: str) -> None:
    person = somebody()
    site.enter(person)
    tombstones = site.tombstones_of(person)
    known = KnownHead(site.port.tick(site.move()))
    move = site.move()
    site.sql.execute(lost)
    assert compare(known, site.port.observe()) is HeadFinding.REWOUND
    assert site.port.prove().journal is JournalSupport.KEPT
    assert compare(known, site.port.observe()) is HeadFinding.REWOUND, (
        "proving must not hide that it was lost"
    )
    with pytest.raises(HeadMoved):
        site.store.erase(tombstones, match_unchanged_rows(site.fingerprints), move=move)
    anew = site.port.tick(site.move())
    assert site.head() == anew


def test_without_its_tables_a_journal_can_not_begin_and_the_ddl_is_told(site: Site) -> None:
    site.sql.execute("DROP TABLE lethe_journal_head, lethe_journal_entries")
    with pytest.raises(JournalNotPermitted, match="CREATE TABLE") as refused:
        site.port.tick(site.move())
    site.sql.execute(refused.value.remedy.split("\n", 1)[1])
    assert site.port.tick(site.move()).move == 1


def test_two_ledgers_keep_their_journals_side_by_side(site: Site) -> None:
    head = site.port.tick(site.move())
    other = store_of(site.url, ledger_id="ledger-2")
    assert other.observe().head is None
    other.tick(HeadMove(None, 1, "a" * 64, 1))
    assert site.head() == head
    other.close()


def test_many_that_prove_at_once_make_one_journal(database: str, site: Site) -> None:
    site.sql.execute("DROP TABLE lethe_journal_head, lethe_journal_entries")
    stores = [store_of(site.url) for _ in range(6)]
    found: list[JournalSupport] = []
    threads = [threading.Thread(target=lambda s=one: found.append(s.prove().journal)) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    assert found == [JournalSupport.KEPT] * 6


def test_entries_tell_what_a_move_did_and_forged_ones_count_for_nothing(site: Site) -> None:
    persons = [somebody() for _ in range(3)]
    for person in persons:
        site.enter(person)
    tombstones = site.tombstones_of(*persons)
    move = site.move()
    outcome = site.store.erase(tombstones, match_unchanged_rows(site.fingerprints), move=move)
    assert site.port.entries_of(move.move) == outcome.entries
    assert [list(chunk) for chunk in site.port.journaled_numbers()] == [[one.number for one in tombstones]]
    site.sql.execute(
        "INSERT INTO lethe_journal_entries"
        " SELECT ledger, 99, 99, move, mac, counts FROM lethe_journal_entries LIMIT 1"
    )
    assert site.port.entries_of(move.move) == outcome.entries
    assert 99 not in {number for chunk in site.port.journaled_numbers() for number in chunk}
    # and one that stands where a genuine one belongs does not keep it out
    forged = replace(tombstones[0], number=99)
    assert JournalEntry(99, 99, {}) in site.erase([forged]).entries
    assert 99 in {number for chunk in site.port.journaled_numbers() for number in chunk}


def test_a_re_erasure_gets_new_numbers_for_what_changed_only(site: Site) -> None:
    persons = [somebody() for _ in range(3)]
    for person in persons:
        site.enter(person)
    tombstones = site.tombstones_of(*persons)
    site.erase(tombstones)
    for index in (0, 2):
        site.write_back(tombstones[index].key, persons[index])
    entries = site.erase_again(tombstones).entries
    first = tombstones[-1].number + 1_000
    assert [(one.number, one.of) for one in entries] == [
        (first, tombstones[0].number),
        (first + 1, tombstones[2].number),
    ]


def test_the_journal_holds_nothing_personal(site: Site) -> None:
    person = somebody()
    site.enter(person)
    site.erase(site.tombstones_of(person))
    shown = str(site.sql.execute("SELECT * FROM lethe_journal_head, lethe_journal_entries").fetchall())
    assert not any(text.lower() in shown.lower() for text in person.texts)


def test_sequences_advance_and_never_go_back(site: Site) -> None:
    for _ in range(3):
        site.enter(somebody())
    positions = site.port.tick(site.move()).positions
    site.sql.execute("TRUNCATE users, sessions, comments RESTART IDENTITY")
    site.sql.execute("SELECT setval('comments_id_seq', 50)")
    site.port.advance_sequences({**positions, "sequence:public.unknown": 7})
    given = [
        site.sql.execute(f"SELECT nextval('{name}')").fetchone()
        for name in ("users_id_seq", "sessions_id_seq", "comments_id_seq")
    ]
    assert given == [(4,), (7,), (51,)]


def test_a_sequence_is_moved_while_nobody_draws_keys(site: Site) -> None:
    site.enter(somebody())
    ended: list[str] = []
    with psycopg.connect(site.url) as application:
        application.execute("INSERT INTO users (email) VALUES ('drawing@example.org')")

        def commit() -> None:
            ended.append("commit")
            application.commit()

        timer = threading.Timer(0.3, commit)
        timer.start()
        site.port.advance_sequences({"sequence:public.users_id_seq": 100})
        ended.append("advance")
        timer.join()
    assert ended == ["commit", "advance"]


def test_a_typo_among_the_keys_does_not_end_sign_ups(site: Site) -> None:
    site.sql.execute("INSERT INTO users (id, email) VALUES (9223372036854775807, 'typo@example.org')")
    positions = site.port.tick(site.move()).positions
    assert positions["table:public.users"] == 9223372036854775807
    site.port.advance_sequences(positions)
    site.enter(somebody())


def test_settling_waits_for_the_transaction_in_doubt(site: Site) -> None:
    site.port.tick(site.move())
    move = site.move()
    with psycopg.connect(site.url) as doubtful:
        doubtful.execute("UPDATE lethe_journal_head SET digest = %s, move = move + 1", (move.digest,))
        commit = threading.Timer(1, doubtful.commit)
        commit.start()
        observed = site.port.observe(settle=True)
        commit.join()
    assert observed.head is not None
    assert observed.head.digest == move.digest


def test_settling_waits_for_a_first_head_too(site: Site) -> None:
    with psycopg.connect(site.url) as doubtful:
        doubtful.execute("INSERT INTO lethe_journal_head VALUES ('ledger-1:site', 1, 'd', 1, '{}', now())")
        commit = threading.Timer(1, doubtful.commit)
        commit.start()
        observed = site.port.observe(settle=True)
        commit.join()
    assert observed.head is not None


class TestIdentity:
    @pytest.mark.parametrize(
        "change",
        [
            "TRUNCATE sessions",
            "CREATE TABLE c (LIKE comments); DROP TABLE comments; ALTER TABLE c RENAME TO comments",
        ],
    )
    def test_a_table_that_became_another_one_shows(self, site: Site, change: str) -> None:
        before = site.port.observe().identity
        assert site.port.observe().identity == before
        site.sql.execute(change)
        assert changed_identity(before, site.port.observe().identity)

    def test_a_partition_that_was_swapped_shows(self, site: Site) -> None:
        site.sql.execute(
            "DROP TABLE sessions; CREATE TABLE sessions (id int, user_id bigint) PARTITION BY RANGE (id);"
            "CREATE TABLE s1 PARTITION OF sessions FOR VALUES FROM (1) TO (10);"
        )
        before = site.port.observe().identity
        assert "public.s1" in before.tables
        site.sql.execute("DROP TABLE s1; CREATE TABLE s1 PARTITION OF sessions FOR VALUES FROM (1) TO (10);")
        assert changed_identity(before, site.port.observe().identity)

    def test_somebody_who_fills_the_database_shows(self, site: Site) -> None:
        assert not site.port.observe().being_filled
        with psycopg.connect(site.url) as other:
            with other.cursor().copy("COPY comments (body) FROM STDIN") as copy:
                copy.write("text\n" * 20_000)
                seen = [_until(lambda: site.port.observe().being_filled)]
            assert seen == [True]
            other.rollback()
            other.execute("LOCK TABLE comments IN SHARE MODE")
            assert site.port.observe().being_filled
        with psycopg.connect(site.url, application_name="pg_restore: worker"):
            assert site.port.observe().being_filled
        assert _until(lambda: not site.port.observe().being_filled)


def _until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


class TestRestore:
    """A dump and its restore, by the real tools."""

    @pytest.fixture
    def dumped(self, site: Site, postgres: PostgresServer, tmp_path: Path) -> tuple[str, Path]:
        name = site.url.rsplit("/", 1)[1]
        return name, tmp_path / "site.dump"

    def test_a_restore_rewinds_the_head_and_changes_the_identity(
        self, site: Site, postgres: PostgresServer, dumped: tuple[str, Path]
    ) -> None:
        name, file = dumped
        person = somebody()
        site.enter(person)
        site.port.tick(site.move())
        postgres.dump(name, file)
        tombstones = site.tombstones_of(person)
        site.erase(tombstones)
        observed = site.port.observe()
        assert observed.head is not None
        known = KnownHead(observed.head, identity=observed.identity)
        assert compare(known, observed) is HeadFinding.IN_STEP
        move = site.move()

        postgres.restore(name, file, "--clean", "--if-exists")

        restored = site.port.observe()
        assert compare(known, restored) is HeadFinding.REWOUND
        assert changed_identity(observed.identity, restored.identity)
        assert person.email in site.everything()
        with pytest.raises(HeadMoved):
            site.store.erase(tombstones, match_unchanged_rows(site.fingerprints), move=move)
        assert list(site.port.journaled_numbers()) == []
        assert site.check(tombstones).uncleared == (tombstones[0].number,)
        entries = site.erase_again(tombstones).entries
        assert [one.of for one in entries] == [tombstones[0].number]
        assert person.email not in site.everything()

    def test_a_restore_of_the_mapped_tables_only_changes_the_identity(
        self, site: Site, postgres: PostgresServer, dumped: tuple[str, Path]
    ) -> None:
        name, file = dumped
        site.enter(somebody())
        site.port.tick(site.move())
        postgres.dump(name, file, "--exclude-table=lethe_*")
        observed = site.port.observe()
        postgres.restore(name, file, "--clean", "--if-exists")
        known = KnownHead(observed.head, identity=observed.identity)
        assert compare(known, site.port.observe()) is HeadFinding.IDENTITY_CHANGED

    def test_before_its_end_a_restore_lacks_constraints_that_were_proved(
        self, site: Site, postgres: PostgresServer, dumped: tuple[str, Path]
    ) -> None:
        name, file = dumped
        proved = site.port.prove().proved
        postgres.dump(name, file)
        for table in ("users, sessions, comments CASCADE", "lethe_journal_head, lethe_journal_entries"):
            site.sql.execute(f"DROP TABLE {table}")
        postgres.restore(name, file, "--section=pre-data", "--section=data")
        with pytest.raises(Exception, match="neither the primary key nor unique"):
            site.port.prove()
        postgres.restore(name, file, "--section=post-data")
        assert site.port.prove().proved == proved


def test_two_stores_in_one_schema_have_a_head_each(site: Site) -> None:
    other = store_of(site.url, store="crm")
    other.prove()
    site.port.tick(site.move())
    assert other.observe().head is None
    other.tick(HeadMove(None, 1, "d" * 64, 1))
    mine, theirs = site.port.observe().head, other.observe().head
    other.close()
    assert mine is not None
    assert theirs is not None
    assert mine.digest != theirs.digest


def test_a_key_that_is_an_address_is_refused(site: Site) -> None:
    site.sql.execute(
        "CREATE TABLE members (login text PRIMARY KEY, name text);"
        "INSERT INTO members VALUES ('canary@example.org', 'x')"
    )
    rule = ClearRule("name", PiiKind.LAST_NAME, ClearTo.SET_NULL)
    store = store_of(site.url, SubjectMapping("members", "login", {}, (rule,)), store="members")
    with pytest.raises(MappingInvalid, match=r"key members\.login holds e-mail addresses") as refused:
        store.prove()
    store.close()
    assert "canary" not in str(refused.value)

"""The journal: on a rewound store nothing commits, and every restore shows."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from devtools.servers import PostgresServer
from lethe.domain.identifiers import email_identifier
from lethe.domain.journal import (
    HeadFinding,
    HeadMove,
    KnownHead,
    StoreIdentity,
    changed_identity,
    compare,
)
from lethe.domain.mapping import ClearRule, ClearTo, PiiKind, SubjectMapping
from lethe.domain.tombstones import match_unchanged_rows
from lethe.ports.stores import (
    AnswerUntrusted,
    HeadMoved,
    JournalEntry,
    JournalNotPermitted,
    JournalSupport,
    MappingInvalid,
    Wanted,
)
from tests.adapters.stores.sql.conftest import Site, store_of
from tests.adapters.stores.sql.others import copying, waits_for_a_lock
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


ABSURD = {
    "a move after which there is none": f"move = {2**63 - 1}",
    "a move before the first": "move = -1",
    "no digest": "digest = repeat('x', 64)",
    "positions that are no object": "positions = '[1]'",
    "positions that are no JSON": "positions = 'x'",
    "positions that are no numbers": """positions = '{"table:users": "9"}'""",
    "positions of more digits than a number has": """positions = '{"table:users": 1e400}'""",
    "a position that no sequence reaches": """positions = '{"table:users": 9223372036854775808}'""",
    "positions of very many": (
        "positions = (SELECT json_object_agg('table:' || n, n)::text FROM generate_series(1, 2000) n)"
    ),
    "a position of a long name": "positions = json_build_object(repeat('x', 1000), 1)::text",
    "long positions": "positions = json_build_object('x', 1)::text || repeat(' ', 1000000)",
}


@pytest.mark.parametrize("said", ABSURD.values(), ids=ABSURD)
def test_a_head_that_lethe_cannot_have_written_is_told_and_goes_no_further(site: Site, said: str) -> None:
    site.port.tick(site.move())
    site.sql.execute("CREATE TABLE before AS TABLE lethe_journal_head")
    site.sql.execute(f"UPDATE lethe_journal_head SET {said}")
    with pytest.raises(AnswerUntrusted, match="lethe_journal_head is not what Lethe writes there"):
        site.port.observe()
    if "positions" in said:  # else nothing is moved either
        with pytest.raises(AnswerUntrusted):
            site.port.tick(site.move())
    site.sql.execute("DELETE FROM lethe_journal_head")
    site.sql.execute("INSERT INTO lethe_journal_head TABLE before")
    assert site.port.observe().head == site.head()


def test_counts_that_lethe_cannot_have_written_are_told_and_go_no_further(site: Site) -> None:
    person = somebody()
    site.enter(person)
    move = site.move()
    site.port.erase(site.tombstones_of(person), match_unchanged_rows(site.fingerprints), move=move)
    site.sql.execute('UPDATE lethe_journal_entries SET counts = \'{"users": "many"}\'')
    with pytest.raises(AnswerUntrusted, match="lethe_journal_entries is not what Lethe writes there"):
        site.port.entries_of(move.move)


def test_a_key_of_a_megabyte_is_told_and_kept_nowhere(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute("CREATE TABLE people (id text PRIMARY KEY, email text, name text)")
        sql.execute("INSERT INTO people VALUES (repeat('k', 100000), 'ada@canary.example', 'Ada')")
    mapping = SubjectMapping(
        table="people",
        key="id",
        identifiers={"email": "email"},
        clear=(
            ClearRule("email", PiiKind.EMAIL, ClearTo.SET_NULL),
            ClearRule("name", PiiKind.FIRST_NAME, ClearTo.SET_NULL),
        ),
    )
    store = store_of(database, mapping)
    try:
        store.prove()
        wanted = [Wanted("r1", (email_identifier("ada@canary.example"),))]
        with pytest.raises(AnswerUntrusted, match="a key in people has more than 1024 characters"):
            store.find(wanted)
    finally:
        store.close()


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


def test_a_journal_in_a_schema_of_its_own_outlives_a_schema_that_is_replaced(
    site: Site, postgres: PostgresServer, tmp_path: Path
) -> None:
    """DROP SCHEMA, of a `pg_restore --clean` of one schema, stops at what it does not know."""
    site.sql.execute("DROP TABLE lethe_journal_head, lethe_journal_entries; CREATE SCHEMA app")
    for table in ("users", "sessions", "comments"):
        site.sql.execute(f"ALTER TABLE {table} SET SCHEMA app")
    database = site.url.rsplit("/", 1)[1]
    dump = postgres.dump(database, tmp_path / "app.dump", "--schema=app")
    url = f"{site.url}?options=-c%20search_path%3Dapp"
    with closing(store_of(url, journal_schema="lethe's own")) as store:
        assert store.prove().journal is JournalSupport.KEPT
        head = store.tick(HeadMove(None, 1, "d" * 64, 1))
        before = store.observe()
        postgres.restore(database, dump, "--clean", "--if-exists")
        after = store.observe()
        assert after.head == head
        assert changed_identity(before.identity, after.identity), "the tables tell that they were replaced"
        assert store.prove().journal is JournalSupport.KEPT
        site.sql.execute('DROP SCHEMA "lethe\'s own" CASCADE')
        assert store.observe().head is None


def test_the_ddl_for_a_dba_makes_a_journal_in_a_schema_of_its_own_too(site: Site) -> None:
    role = f"poor_{site.url.rsplit('/', 1)[1]}"
    site.sql.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'pw';"
        f"GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    )
    url = f"postgresql://{role}:pw@{site.url.split('@', 1)[1]}"
    with closing(store_of(url, journal_schema="apart")) as store:
        proof = store.prove()
        assert proof.journal is JournalSupport.NOT_PERMITTED
        site.sql.execute(proof.journal_ddl)
        assert store.prove().journal is JournalSupport.KEPT
        assert store.tick(HeadMove(None, 1, "d" * 64, 1)).move == 1
    site.sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_dba_reads_in_the_journals_tables_how_to_make_lethe_let_go(site: Site) -> None:
    words = site.sql.execute(
        "SELECT obj_description(c.oid) FROM pg_class c WHERE relname LIKE 'lethe_journal_%' AND relkind = 'r'"
    ).fetchall()
    assert len(words) == 2
    assert all("kubectl -n NAMESPACE patch datastore NAME" in text for (text,) in words)


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
        doubtful.execute(
            "INSERT INTO lethe_journal_head VALUES ('ledger-1:site', 1, repeat('d', 64), 1, '{}', now())"
        )
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

    @pytest.mark.parametrize(
        ("hidden", "told"),
        [
            ("pg_current_wal_lsn", {"system", "database"}),
            ("pg_control_system", {"system", "timeline", "database"}),
        ],
    )
    def test_a_server_that_tells_less_of_itself_is_watched_by_what_it_tells(
        self, site: Site, hidden: str, told: set[str]
    ) -> None:
        """As Aurora, whose positions of a write-ahead log fail with 55000."""
        site.sql.execute(
            "SET allow_system_table_mods = on;"
            f"UPDATE pg_proc SET proname = proname || '_hidden' WHERE proname = '{hidden}';"
            f"CREATE FUNCTION pg_catalog.{hidden}(OUT system_identifier bigint) LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '55000'; END $$"
        )
        with closing(store_of(site.url)) as store:
            proof = store.prove()
            assert proof.server is not None
            before = store.observe()
            assert set(before.identity.server) == told
            store.tick(HeadMove(None, 1, "d" * 64, 1))
            site.sql.execute("VACUUM FULL users")
            assert changed_identity(before.identity, store.observe().identity)

    def test_a_timeline_that_is_told_later_is_no_restore(self) -> None:
        before = StoreIdentity({"system": "1"}, {"users": "1:1"})
        after = StoreIdentity({"system": "1", "timeline": "00000002"}, {"users": "1:1"})
        assert not changed_identity(before, after)


class TestFilling:
    """Who keeps "not found" from meaning anything, and who does not."""

    @staticmethod
    def seen(site: Site) -> tuple[str, bool]:
        filling = site.port.observe().filling
        assert filling is not None
        assert filling.since is not None
        return re.sub(r"session \d+", "session N", filling.what), filling.elsewhere

    def test_a_copy_into_a_mapped_table_is_told(self, site: Site) -> None:
        assert site.port.observe().filling is None
        with copying(site.url, "COPY comments (body) FROM STDIN", "text\n"):
            assert _until(lambda: site.port.observe().filling is not None)
            assert self.seen(site) == ("session N fills public.comments by COPY", False)

    def test_a_copy_into_another_table_counts_only_for_a_restore(self, site: Site) -> None:
        site.sql.execute("CREATE TABLE padding (noise text)")
        with copying(site.url, "COPY padding FROM STDIN", "text\n"):
            assert _until(lambda: site.port.observe().filling is not None)
            assert self.seen(site) == ("session N fills public.padding by COPY", True)

    @pytest.mark.parametrize("mode", ["ACCESS EXCLUSIVE", "SHARE ROW EXCLUSIVE", "SHARE"])
    def test_a_lock_that_is_held_on_a_mapped_table_is_told(self, site: Site, mode: str) -> None:
        with psycopg.connect(site.url) as other:
            other.execute(f"LOCK TABLE comments IN {mode} MODE")
            held = f"{mode.title().replace(' ', '')}Lock"
            assert self.seen(site) == (f"session N holds {held} on public.comments", False)

    def test_a_lock_on_a_partition_and_one_on_the_journal_are_told(self, site: Site) -> None:
        site.sql.execute(
            "DROP TABLE sessions; CREATE TABLE sessions (id int, user_id bigint) PARTITION BY RANGE (id);"
            "CREATE TABLE s1 PARTITION OF sessions FOR VALUES FROM (1) TO (10);"
        )
        for table in ("s1", "lethe_journal_entries"):
            with psycopg.connect(site.url) as other:
                other.execute(f"LOCK TABLE {table} IN SHARE MODE")
                assert self.seen(site) == (f"session N holds ShareLock on public.{table}", False)

    def test_a_pg_restore_is_told_by_its_name(self, site: Site) -> None:
        with psycopg.connect(site.url, application_name="pg_restore: worker"):
            assert self.seen(site) == ("session N is a pg_restore", False)
        assert _until(lambda: site.port.observe().filling is None)

    def test_temporary_tables_of_others_are_nobodys_business(self, site: Site) -> None:
        with psycopg.connect(site.url) as other:
            other.execute("CREATE TEMP TABLE mine (noise text); CREATE INDEX ON mine (noise)")
            with other.cursor().copy("COPY mine FROM STDIN") as copy:
                copy.write("text\n" * 20_000)
                assert _until(lambda: _copies(site) == 1)
                assert site.port.observe().filling is None

    def test_a_lock_that_is_waited_for_does_not_count(self, site: Site) -> None:
        with psycopg.connect(site.url) as writer, psycopg.connect(site.url) as waiting:
            writer.execute("INSERT INTO comments (body) VALUES ('x')")
            with ThreadPoolExecutor() as others:
                locked = others.submit(waiting.execute, "LOCK TABLE comments IN SHARE MODE")
                try:
                    assert _until(lambda: waits_for_a_lock(site.sql))
                    assert site.port.observe().filling is None
                finally:
                    writer.rollback()
                    locked.result()

    def test_an_index_that_is_built_concurrently_does_not_count(self, site: Site) -> None:
        with psycopg.connect(site.url) as old, psycopg.connect(site.url, autocommit=True) as building:
            old.execute("INSERT INTO comments (body) VALUES ('x')")
            with ThreadPoolExecutor() as others:
                built = others.submit(building.execute, "CREATE INDEX CONCURRENTLY ON comments (body)")
                try:
                    assert _until(lambda: waits_for_a_lock(site.sql))
                    assert site.port.observe().filling is None
                finally:
                    old.rollback()
                    built.result()

    def test_of_another_roles_copy_its_lock_tells_table_and_direction(self, site: Site) -> None:
        """The server shows neither to who is no superuser: a pg_dump looked like a restore."""
        site.sql.execute("CREATE TABLE padding AS SELECT repeat('x', 500) FROM generate_series(1, 50000)")
        with _roles(site, "lethe_poor", "dumper") as (poor, dumper), closing(store_of(poor)) as store:
            site.sql.execute("GRANT INSERT ON comments TO dumper")
            with copying(dumper, "COPY padding TO STDOUT"):
                assert _copies(site) == 1
                assert store.observe().filling is None
            with copying(dumper, "COPY comments (body) FROM STDIN", "text\n"):
                assert _until(lambda: store.observe().filling is not None)
                seen = store.observe().filling
                assert seen is not None
                assert (seen.since, seen.elsewhere) == (None, False)


def _copies(site: Site) -> int:
    row = site.sql.execute(
        "SELECT count(*) FROM pg_stat_progress_copy WHERE datname = current_database()"
    ).fetchone()
    return int(row[0]) if row else 0


@contextmanager
def _roles(site: Site, *names: str) -> Iterator[list[str]]:
    """Make users who may read the journal, and yield their addresses."""
    place = site.url.split("@", 1)[1]
    for name in names:
        site.sql.execute(f"DROP ROLE IF EXISTS {name}")
        site.sql.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
        site.sql.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    try:
        yield [f"postgresql://{name}:pw@{place}" for name in names]
    finally:
        for name in names:
            site.sql.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


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

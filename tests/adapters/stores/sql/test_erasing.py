"""Erasing sets of persons in SQL: what is touched, what is spared, and what refuses."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from devtools.company import eventually
from lethe.adapters.stores.sql import finding
from lethe.adapters.stores.sql.values import Tokens
from lethe.domain.identifiers import Identifier, IdentifierKind, PersonalText, email_identifier
from lethe.domain.mapping import Quarantine
from lethe.domain.tombstones import match_restored_rows, match_unchanged_rows
from lethe.ports.stores import AnswerUntrusted, Finding, MappingInvalid, Residue, Wanted
from tests.adapters.stores.sql.conftest import MAPPING, HmacKeyring, Site, store_of
from tests.contracts.store_contract import Person, somebody

TRIGGERS_RAISE = ("42501", "42704", "42883", "3F000", "53300", "57014", "25006", "08006", "40P01", "XX000")


def several(site: Site, count: int) -> list[Person]:
    persons = [somebody() for _ in range(count)]
    for person in persons:
        site.enter(person)
    return persons


def test_counts_tell_the_rows_of_each_table(site: Site) -> None:
    (person,) = several(site, 1)
    tombstones = site.tombstones_of(person)
    expected = {"sessions": 2, "comments": 1, "users": 1}
    assert site.store.plan(tombstones) == {tombstones[0].number: expected}
    assert site.erase(tombstones).entries[0].counts == expected


def test_the_row_stays_and_holds_what_the_mapping_says(site: Site) -> None:
    (person,) = several(site, 1)
    (tombstone,) = site.tombstones_of(person)
    site.erase([tombstone])
    row = site.sql.execute(
        "SELECT first_name, last_name, password_hash, locale, time_zone, email FROM users WHERE id = %s",
        (tombstone.key,),
    ).fetchone()
    assert row is not None
    assert row[:5] == (None, None, "!", "en", "UTC")
    assert len(row[5]) == len("erased-@erased.invalid") + 24


def test_another_key_of_the_ledger_writes_other_tokens(site: Site) -> None:
    """Whoever knows a surrogate key must not be able to say which address its row will get."""
    one, other = (Tokens(HmacKeyring(key), "site").of("users", "1") for key in (b"1", b"2"))
    assert one != other
    assert len(one) == 24


@pytest.mark.parametrize(
    "poison",
    [
        "ALTER TABLE users ADD CONSTRAINT kept CHECK (id <> {key} OR first_name IS NOT NULL)",
        (
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF OLD.id = {key} THEN"
            " RAISE EXCEPTION 'no: %', OLD; END IF; RETURN NEW; END $$;"
            "CREATE TRIGGER refuse BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION refuse()"
        ),
        (
            "CREATE TABLE audit (session bigint REFERENCES sessions DEFERRABLE INITIALLY DEFERRED);"
            "INSERT INTO audit SELECT id FROM sessions WHERE user_id = {key}"
        ),
    ],
    ids=["check", "trigger", "deferred foreign key"],
)
def test_a_record_that_is_refused_does_not_stop_the_others(site: Site, poison: str) -> None:
    persons = several(site, 9)
    tombstones = site.tombstones_of(*persons)
    culprit = tombstones[4]
    site.sql.execute(poison.replace("{key}", culprit.key))
    outcome = site.erase(tombstones)
    assert set(outcome.refused) == {culprit.number}
    assert [entry.of for entry in outcome.entries] == [t.number for t in tombstones if t is not culprit]
    shown = site.everything()
    for person, tombstone in zip(persons, tombstones, strict=True):
        assert (person.email in shown) == (tombstone is culprit)
    assert site.sql.execute(
        "SELECT count(*) FROM sessions WHERE user_id = %s", (culprit.key,)
    ).fetchone() == (2,)
    assert not any(text in str(outcome.refused) for text in persons[4].texts)
    assert site.check(tombstones).uncleared == (culprit.number,)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        *((f"RAISE EXCEPTION 'no: %', OLD USING ERRCODE = '{code}'", code) for code in TRIGGERS_RAISE),
        ("PERFORM set_config('role', 'lethe_nobody_is_called_so', true)", "22023"),
        ("INSERT INTO audit_that_is_not_there VALUES (OLD.id)", "42P01"),
        ("PERFORM no_such_function(OLD.email)", "42883"),
        ("PERFORM lo_unlink(0)", "42704"),
    ],
)
def test_what_a_trigger_raises_for_one_record_refuses_that_one(site: Site, body: str, code: str) -> None:
    """Also with a code that is the server's for a missing privilege, a lost connection or a deadlock."""
    persons = several(site, 5)
    tombstones = site.tombstones_of(*persons)
    culprit = tombstones[2]
    site.sql.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF OLD.id = {culprit.key} THEN {body}; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    outcome = site.erase(tombstones)
    (refusal,) = outcome.refused.values()
    assert set(outcome.refused) == {culprit.number}
    assert (refusal.code, refusal.retry) == (code, False)
    assert len(outcome.entries) == 4
    assert not any(text in refusal.reason for text in persons[2].texts)
    if "RAISE" in body:
        assert refusal.what == "function refuse"


def test_a_privilege_that_is_missing_is_nobodys_record(site: Site) -> None:
    (person,) = several(site, 1)
    tombstones, place = site.tombstones_of(person), site.url.split("@", 1)[1]
    role = f"weak_{site.url.rsplit('/', 1)[1]}"
    site.sql.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'pw';"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    )
    store = store_of(f"postgresql://{role}:pw@{place}")
    store.prove()
    site.sql.execute(f"REVOKE UPDATE ON users FROM {role}")
    with pytest.raises(MappingInvalid, match="GRANT it"):
        store.erase(tombstones, match_unchanged_rows(site.fingerprints), move=site.move())
    store.close()
    site.sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_what_a_trigger_keeps_is_named_when_it_is_read_back(site: Site) -> None:
    site.sql.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " NEW.first_name = coalesce(NEW.first_name, OLD.first_name); NEW.locale = OLD.locale;"
        " RETURN NEW; END $$;"
        "CREATE TRIGGER keep BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION keep();"
        "CREATE FUNCTION soft() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER soft BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION soft();"
        "CREATE TRIGGER soft BEFORE UPDATE ON comments FOR EACH ROW EXECUTE FUNCTION soft()"
    )
    tombstones = site.tombstones_of(*several(site, 2))
    site.erase(tombstones)
    residue = site.check(tombstones)
    assert residue.uncleared == tuple(one.number for one in tombstones)
    standing = {"users.first_name", "users.locale", "sessions", "comments.signature"}
    assert {number: set(named) for number, named in residue.standing.items()} == {
        one.number: standing for one in tombstones
    }


def test_a_refusal_names_the_constraint_and_nobody(site: Site) -> None:
    (person,) = several(site, 1)
    (tombstone,) = site.tombstones_of(person)
    site.sql.execute("ALTER TABLE users ADD CONSTRAINT kept CHECK (first_name IS NOT NULL)")
    (refusal,) = site.erase([tombstone]).refused.values()
    assert (refusal.code, refusal.what) == ("23514", "table public.users, constraint kept")
    assert not refusal.retry


def test_a_row_that_somebody_holds_is_refused_for_now_and_the_others_are_erased(site: Site) -> None:
    persons = several(site, 3)
    tombstones = site.tombstones_of(*persons)
    with psycopg.connect(site.url) as other:
        other.execute("UPDATE users SET locale = 'it' WHERE id = %s", (tombstones[1].key,))
        outcome = site.erase(tombstones)
        other.rollback()
    assert {number: refusal.retry for number, refusal in outcome.refused.items()} == {
        tombstones[1].number: True
    }
    assert len(outcome.entries) == 2
    assert len(site.erase(tombstones).entries) == 3


def test_a_session_that_is_opened_meanwhile_is_erased_or_waits(site: Site) -> None:
    """The lock on the subject's row makes an insert with a foreign key wait until the erasure is over."""
    (person,) = several(site, 1)
    (tombstone,) = site.tombstones_of(person)
    with psycopg.connect(site.url) as application:
        application.execute("INSERT INTO sessions (user_id, token) VALUES (%s, 'new')", (tombstone.key,))
        commit = threading.Timer(0.3, application.commit)
        commit.start()
        outcome = site.erase([tombstone])
        commit.join()
    assert outcome.entries[0].counts["sessions"] == 3
    assert site.check([tombstone]) == Residue()


def test_a_row_that_changed_hands_since_it_was_found_is_unclear_and_untouched(site: Site) -> None:
    (person,) = several(site, 1)
    (tombstone,) = site.tombstones_of(person)
    site.sql.execute("UPDATE users SET created_at = now() WHERE id = %s", (tombstone.key,))
    outcome = site.erase([tombstone])
    assert outcome.unclear == {tombstone.number}
    assert not outcome.entries
    assert person.email in site.everything()


def test_a_stranger_who_got_the_key_is_left_alone_with_dependents(site: Site) -> None:
    (person,) = several(site, 1)
    (tombstone,) = site.tombstones_of(person)
    site.erase([tombstone])
    stranger = somebody()
    site.write_back(tombstone.key, stranger)
    site.sql.execute("UPDATE users SET created_at = now() WHERE id = %s", (tombstone.key,))
    site.sql.execute("INSERT INTO sessions (user_id, token) VALUES (%s, 'theirs')", (tombstone.key,))
    before = site.everything()
    outcome = site.erase_again([tombstone])
    assert outcome.left_alone == {tombstone.number}
    assert not outcome.entries
    assert site.everything() == before
    assert site.check([tombstone]) == Residue(left_alone=1)


def test_of_two_who_had_one_key_the_one_who_came_back_is_erased(site: Site) -> None:
    """X got key 11, a restore to before X, Y got 11 and was erased; a second restore may bring either."""
    (person,) = several(site, 1)
    (mine,) = site.tombstones_of(person)
    theirs = replace(mine, number=mine.number + 1, created_at=site.keyring.fingerprint("created-at", "other"))
    for order in ([mine, theirs], [theirs, mine]):
        outcome = site.erase_again(order)
        assert [entry.of for entry in outcome.entries] == [mine.number]
        assert not outcome.left_alone
        assert site.check(order) == Residue()
        site.write_back(mine.key, person)


def test_nobody_knows_whose_row_is_unclear_and_quarantined_only_in_a_replay(site: Site) -> None:
    store = site.with_mapping(created_at=None, quarantine=Quarantine("quarantined", "hold"))
    world = Site(store, site.keyring, sql=site.sql, url=site.url)
    (person,) = several(site, 1)
    (tombstone,) = world.tombstones_of(person)
    site.sql.execute("UPDATE users SET email = 'moved@example.org' WHERE id = %s", (tombstone.key,))
    assert world.erase([tombstone]).unclear == {tombstone.number}
    assert site.sql.execute("SELECT quarantined FROM users").fetchone() == (None,)
    assert world.erase_again([tombstone]).unclear == {tombstone.number}
    assert site.sql.execute("SELECT quarantined FROM users").fetchone() == ("hold",)
    assert world.check([tombstone]).unclear == (("users", tombstone.key),)
    assert person.first_name in site.everything()
    store.close()


def test_dependents_of_a_cleared_row_and_of_a_row_that_is_gone_are_erased(site: Site) -> None:
    site.sql.execute("ALTER TABLE sessions DROP CONSTRAINT sessions_user_id_fkey")
    cleared, gone = several(site, 2)
    tombstones = site.tombstones_of(cleared, gone)
    site.erase(tombstones)
    site.sql.execute("DELETE FROM comments WHERE author_id = %s", (tombstones[1].key,))
    site.sql.execute("DELETE FROM users WHERE id = %s", (tombstones[1].key,))
    for one in tombstones:
        site.sql.execute("INSERT INTO sessions (user_id, token) VALUES (%s, 'back')", (one.key,))
    residue = site.check(tombstones)
    assert residue.uncleared == tuple(one.number for one in tombstones)
    assert residue.absent == (tombstones[1].number,)
    outcome = site.erase_again(tombstones)
    assert [entry.counts for entry in outcome.entries] == [{"sessions": 1}] * 2
    assert outcome.absent == {tombstones[1].number}
    assert not site.check(tombstones).uncleared


def test_keys_that_the_column_can_not_hold_are_absent(site: Site) -> None:
    (person,) = several(site, 1)
    (tombstone,) = site.tombstones_of(person)
    odd = [replace(tombstone, number=900 + n, key=key) for n, key in enumerate(("x", "007", "9" * 30))]
    outcome = site.erase_again([*odd, tombstone])
    assert outcome.absent == {900, 901, 902}
    assert [entry.of for entry in outcome.entries] == [tombstone.number]


def test_tombstones_of_several_mapping_versions_are_each_cleared_as_they_were(site: Site) -> None:
    one, other = several(site, 2)
    (old,) = site.tombstones_of(one)
    site.erase([old])
    site.sql.execute("ALTER TABLE users ALTER locale SET DEFAULT 'fr'")
    (new,) = site.tombstones_of(other)
    assert new.mapping != old.mapping
    site.erase([new])
    assert site.check([old, new]) == Residue()
    assert {row[0] for row in site.sql.execute("SELECT locale FROM users")} == {"en", "fr"}


def test_a_mapping_version_that_was_never_learnt_is_refused(site: Site) -> None:
    (person,) = several(site, 1)
    (tombstone,) = site.tombstones_of(person)
    with pytest.raises(MappingInvalid, match="version 0000 of the mapping"):
        site.erase([replace(tombstone, mapping="0000")])
    assert person.email in site.everything()


def test_a_repeat_after_a_crash_tells_the_counts_of_the_first_time(site: Site) -> None:
    (person,) = several(site, 1)
    tombstones = site.tombstones_of(person)
    first = site.erase(tombstones)
    fresh = store_of(site.url)
    fresh.prove()
    again = fresh.erase(tombstones, match_unchanged_rows(site.fingerprints), move=site.move())
    fresh.close()
    assert again.entries == first.entries
    assert again.entries[0].counts["sessions"] == 2


def test_an_exclusive_erasure_and_check_keep_writers_out(site: Site) -> None:
    person, other = several(site, 2)
    tombstones = site.tombstones_of(person)
    blocked: list[str] = []

    def matcher(pairs: object) -> object:
        with psycopg.connect(site.url, autocommit=True) as application:
            application.execute("SET lock_timeout = '100ms'")
            try:
                application.execute("UPDATE users SET locale = 'it' WHERE email = %s", (other.email,))
            except psycopg.errors.LockNotAvailable:
                blocked.append("users")
        return match_restored_rows(site.fingerprints)(pairs)  # type: ignore[arg-type]

    site.store.check([tombstones], matcher, exclusive=True)  # type: ignore[arg-type]
    site.store.erase(tombstones, matcher, move=site.move(), first_number=50, exclusive=True)  # type: ignore[arg-type]
    assert blocked == ["users", "users"]
    assert site.check(tombstones) == Residue()


@pytest.mark.parametrize("exclusive", [False, True], ids=["beside others", "alone"])
@pytest.mark.parametrize("called", ["check", "erase"])
def test_who_alters_two_tables_meanwhile_is_never_ended_for_a_deadlock_with_it(
    site: Site, called: str, exclusive: bool
) -> None:
    """As each statement of `pg_restore --clean` that drops a foreign key does."""
    (person,) = several(site, 1)
    tombstones = site.tombstones_of(person)
    altered: list[Future[object]] = []

    def alter() -> None:
        with psycopg.connect(site.url, autocommit=True) as restore:
            restore.execute("ALTER TABLE sessions DROP CONSTRAINT sessions_user_id_fkey")

    def matcher(pairs: object) -> object:
        if not altered:
            altered.append(threads.submit(alter))
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
            eventually(lambda: site.sql.execute(waiting).fetchone() == (1,), "it to wait for a table")
            time.sleep(0.7)  # nearly as long as the server lets it wait until it looks for a deadlock
        return match_restored_rows(site.fingerprints)(pairs)  # type: ignore[arg-type]

    with ThreadPoolExecutor() as threads:
        if called == "check":
            site.store.check([tombstones], matcher, exclusive=exclusive)  # type: ignore[arg-type]
        else:
            site.store.erase(tombstones, matcher, move=site.move(), first_number=50, exclusive=exclusive)  # type: ignore[arg-type]
        altered[0].result(10)


class TestFinding:
    def find(self, site: Site, *identifiers: Identifier, primary: bool = True) -> Finding:
        store = store_of(site.url, primary=primary)
        found = store.find([Wanted("r", identifiers)])
        store.close()
        return found

    def test_an_empty_table_proves_an_absence_by_being_empty(self, site: Site) -> None:
        assert self.find(site, email_identifier("a@b.example")).proof == "empty"

    def test_the_key_finds_in_the_primary_only(self, site: Site) -> None:
        (person,) = several(site, 1)
        key = Identifier(IdentifierKind.PRIMARY_KEY, PersonalText(site.key_of(person)))
        assert len(self.find(site, key).records["r"]) == 1
        assert self.find(site, key, primary=False).unaskable == {"r"}

    def test_a_key_with_a_leading_zero_is_another_key(self, site: Site) -> None:
        (person,) = several(site, 1)
        key = Identifier(IdentifierKind.PRIMARY_KEY, PersonalText("0" + site.key_of(person)))
        found = self.find(site, key)
        assert not found.records
        assert not found.unaskable

    @pytest.mark.parametrize(
        ("stored", "typed"),
        [
            ("jose\u0301@example.org", "JOS\u00c9@example.org"),
            ("\u00c4NNE@example.org", "\u00e4nne@example.org"),
        ],
        ids=["accents", "capitals outside ASCII"],
    )
    def test_forms_of_one_address_are_found(self, site: Site, stored: str, typed: str) -> None:
        site.enter(Person(stored, "f", "l"))
        (found,) = site.find_by_email(typed)
        assert found.email is not None
        assert found.email.reveal() == stored

    def test_who_is_alike_to_the_database_only_is_somebody_else(self, site: Site) -> None:
        """lower() makes an i of the dotted capital, by which two persons have one address."""
        site.sql.execute("ALTER TABLE users ALTER email TYPE text")
        site.enter(Person("\u0130an@example.org", "f", "l"))
        asked = "SELECT lower(email) = 'ian@example.org' FROM users"
        assert site.sql.execute(asked).fetchone() == (True,)
        assert not site.find_by_email("ian@example.org")

    def test_an_erased_record_is_known_to_be_cleared(self, site: Site) -> None:
        (person,) = several(site, 1)
        tombstones = site.tombstones_of(person)
        key = Identifier(IdentifierKind.PRIMARY_KEY, PersonalText(tombstones[0].key))
        assert [one.cleared for one in site.find(key)] == [False]
        site.erase(tombstones)
        assert [one.cleared for one in site.find(key)] == [True]

    def test_a_search_that_misses_a_living_row_is_not_trusted(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As after a new collation library: the row is there, and the index does not lead to it."""
        several(site, 1)
        monkeypatch.setattr(finding, "spellings", lambda text: {f"x{text}"})
        with pytest.raises(AnswerUntrusted, match="does not find a row that is there"):
            self.find(site, email_identifier("a@b.example"))

    def test_moments_have_one_canonical_text_whatever_their_type(self, site: Site) -> None:
        (person,) = several(site, 1)
        texts = []
        for kind in ("timestamptz", "timestamp", "date", "text"):
            site.sql.execute("SET TimeZone = 'UTC'")
            site.sql.execute(f"ALTER TABLE users ALTER created_at DROP DEFAULT, ALTER created_at TYPE {kind}")
            site.sql.execute("UPDATE users SET created_at = '2024-02-29 12:00:00.5+00'")
            (found,) = self.find(site, email_identifier(person.email)).records["r"]
            texts.append(found.created_at)
        assert texts == [
            "2024-02-29T12:00:00.500000Z",
            "2024-02-29T12:00:00.500000Z",
            "2024-02-29",
            "2024-02-29 12:00:00.5+00",
        ]


def test_no_sample_of_an_address_stays_in_the_catalog(site: Site) -> None:
    persons = several(site, 50)
    site.sql.execute("ANALYZE users")
    site.find_by_email(persons[0].email)
    site.erase(site.tombstones_of(*persons))
    statistics = "SELECT string_agg(s::text, ' ') FROM pg_stats s"
    shown = site.sql.execute(statistics).fetchone()
    assert shown is not None
    assert persons[0].email in shown[0]
    site.port.tidy()
    shown = site.sql.execute(statistics).fetchone()
    assert shown is not None
    assert not any(text in shown[0] for person in persons for text in person.texts)


def test_no_sample_of_a_wanted_address_stays_in_the_catalog(site: Site) -> None:
    """Statistics of the temporary table would be written to a file that outlives it."""
    site.enter(somebody())
    nobody = somebody()
    assert not site.find_by_email(nobody.email)
    site.sql.execute("CHECKPOINT")
    row = site.sql.execute("SELECT pg_read_binary_file(pg_relation_filepath('pg_statistic'))").fetchone()
    assert row is not None
    assert nobody.email.lower().encode() not in bytes(row[0]).lower()


def test_the_mapping_of_the_tests_is_one_that_a_site_would_have() -> None:
    assert not MAPPING.kinds_unmapped()

"""What is left of a person whom the store erased, and whom it does not touch."""

import base64

from lethe.adapters.stores.tryton import TrytonStore
from lethe.domain.tombstones import Tombstone, match_restored_rows, match_unchanged_rows
from lethe.ports.stores import Refusal
from tests.adapters.stores.tryton.conftest import FINGERPRINTS, Crm, Person, found, tombstone, wanted

FIRST = match_unchanged_rows(FINGERPRINTS)
AGAIN = match_restored_rows(FINGERPRINTS)


def erased(store: TrytonStore, person: Person) -> Tombstone:
    stone = tombstone(found(store, person.email))
    (entry,) = store.erase([stone], FIRST, move=None).entries
    assert entry.number == entry.of == stone.number
    return stone


def test_nothing_of_an_erased_person_is_left_in_any_table(crm: Crm, store: TrytonStore) -> None:
    person = crm.person()
    party = f"party.party,{person.party}"
    ((address,),) = crm.sql("SELECT id FROM party_address WHERE party = ?", person.party)
    phone = {
        "party": person.party,
        "type": "phone",
        "value": f"+49 30 {person.party}",
        "comment": person.mark,
    }
    crm.rpc("model.party.contact_mechanism.create", [phone])
    crm.sql("UPDATE party_contact_mechanism SET active = 0 WHERE party = ? AND type = 'phone'", person.party)
    crm.rpc("model.ir.note.create", [{"resource": party, "message": person.mark}])
    crm.rpc("model.ir.note.create", [{"resource": f"party.address,{address}", "message": person.mark}])
    crm.rpc("model.ir.attachment.create", [{"resource": party, "name": person.mark, "type": "link"}])
    crm.sql("INSERT INTO ir_chat_channel (resource, identifier) VALUES (?, ?)", party, person.mark)
    assert crm.lines_with(person.mark)

    stone = tombstone(found(store, person.email))
    planned = store.plan([stone])
    (entry,) = store.erase([stone], FIRST, move=None).entries

    assert crm.lines_with(person.mark, f"+49 30 {person.party}") == []
    assert crm.sql("SELECT id FROM party_party_lang WHERE party = ?", person.party) == []
    assert crm.sql("SELECT name, active FROM party_party WHERE id = ?", person.party) == [(None, 0)]
    assert entry.counts == planned[1]
    assert entry.counts == {
        "party.party": 1,
        "party.party.lang": 1,
        "party.contact_mechanism": 2,
        "party.address": 1,
        "party.identifier": 1,
        "ir.note": 2,
        "ir.attachment": 1,
        "ir.chat.channel": 1,
    }
    assert store.check([[stone]], AGAIN).uncleared == ()


def test_the_file_of_an_attachment_is_queued_for_removal(crm: Crm, store: TrytonStore) -> None:
    person = crm.person()
    content = {"__class__": "bytes", "base64": base64.b64encode(person.mark.encode()).decode()}
    attachment = {"resource": f"party.party,{person.party}", "name": "cv", "type": "data", "data": content}
    (attached,) = crm.rpc("model.ir.attachment.create", [attachment])
    ((file,),) = crm.sql("SELECT file_id FROM ir_attachment WHERE id = ?", attached)
    assert file
    erased(store, person)
    assert crm.sql("SELECT COUNT(*) FROM ir_filestore_queue WHERE file_id = ?", file) == [(1,)]


def test_what_trytons_own_wizard_left_of_somebody_is_found_and_erased(crm: Crm, store: TrytonStore) -> None:
    person = crm.person()
    crm.rpc("model.party.party.write", [person.party], {"active": False})
    session, *_ = crm.rpc("wizard.party.erase.create")
    crm.rpc("wizard.party.erase.execute", session, {"ask": {"party": person.party}}, "erase")
    crm.rpc("wizard.party.erase.delete", session)
    assert crm.lines_with(person.email), "the wizard is not known to be this thorough"

    record = found(store, person.email)
    assert not record.cleared
    store.erase([tombstone(record)], FIRST, move=None)
    assert crm.lines_with(person.mark) == []


def test_erasing_the_erased_changes_nothing(crm: Crm, store: TrytonStore) -> None:
    person = crm.person()
    stone = erased(store, person)
    before = crm.people()
    outcome = store.erase([stone], FIRST, move=None)
    assert [entry.counts for entry in outcome.entries] == [{}]
    assert store.erase([stone], AGAIN, move=None, first_number=7).entries == ()
    assert crm.people() == before


def test_somebody_whom_a_stale_session_writes_back_is_found_and_erased_again(
    crm: Crm, store: TrytonStore
) -> None:
    person, other = crm.person(), crm.person()
    stone, stays = erased(store, person), erased(store, other)
    stays = Tombstone(2, "r2", stays.table, stays.key, stays.mapping, stays.created_at, stays.email)
    crm.rpc("model.party.party.write", [person.party], {"name": f"{person.mark} Okafor", "active": True})
    assert store.check([[stays], [stone]], AGAIN).uncleared == (1,)
    outcome = store.erase([stays, stone], AGAIN, move=None, first_number=9)
    assert [(e.number, e.of, e.counts) for e in outcome.entries] == [(9, 1, {"party.party": 1})]
    assert crm.lines_with(person.mark) == []


def test_every_copy_that_comes_back_alone_is_noticed(crm: Crm, store: TrytonStore) -> None:
    person = crm.person()
    stone = erased(store, person)
    for table, column, where in (
        ("party_contact_mechanism", "value", "party"),
        ("party_contact_mechanism", "value_compact", "party"),
        ("party_contact_mechanism", "comment", "party"),
        ("party_address", "city", "party"),
        ("party_identifier", "code_compact", "party"),
        ("party_party", "name", "id"),
        ("party_party", "active", "id"),
    ):
        assert store.check([[stone]], AGAIN).uncleared == ()
        crm.sql(f"UPDATE {table} SET {column} = '1' WHERE {where} = ?", person.party)
        assert store.check([[stone]], AGAIN).uncleared == (1,), (table, column)
        store.erase([stone], AGAIN, move=None, first_number=2)


def test_somebody_else_under_an_erased_key_is_left_alone(crm: Crm, store: TrytonStore) -> None:
    person = crm.person()
    record = found(store, person.email)
    other = Tombstone(1, "r1", record.table, record.key, "tryton-1", FINGERPRINTS.created_at("2001"), None)
    before = crm.people()
    assert store.check([[other]], AGAIN).left_alone == 1
    assert store.erase([other], AGAIN, move=None, first_number=2).left_alone == {1}
    assert store.erase([other], FIRST, move=None).unclear == {1}
    assert crm.people() == before


def test_whose_a_party_without_a_creation_date_is_says_any_of_its_addresses(
    crm: Crm, store: TrytonStore
) -> None:
    person = crm.person("first.one@people.example", "second.one@people.example")
    crm.sql("UPDATE party_party SET create_date = NULL WHERE id = ?", person.party)
    key = str(person.party)
    known = Tombstone(1, "r1", "party.party", key, "1", None, FINGERPRINTS.email("second.one@people.example"))
    strange = Tombstone(2, "r2", "party.party", key, "1", None, FINGERPRINTS.email("third@people.example"))
    residue = store.check([[known, strange]], AGAIN)
    assert (residue.uncleared, residue.unclear) == ((1,), (("party.party", key),))


def test_parties_that_were_merged_into_one_are_erased_with_it(crm: Crm, store: TrytonStore) -> None:
    person = crm.person()
    older = crm.person(person.email)
    oldest = crm.person(person.email)
    for replaced, by in ((older, person), (oldest, older)):
        merge = "UPDATE party_party SET active = 0, replaced_by = ? WHERE id = ?"
        crm.sql(merge, by.party, replaced.party)
    record = store.find([wanted(person.email)]).records["r1"][0]
    assert record.key == str(person.party)
    (entry,) = store.erase([tombstone(record)], FIRST, move=None).entries
    assert entry.counts["party.party"] == 3
    assert crm.lines_with(person.mark, older.mark, oldest.mark) == []


def test_of_a_set_only_the_record_that_tryton_refuses_stays_and_stays_active(
    crm: Crm, store: TrytonStore
) -> None:
    people = [crm.person() for _ in range(3)]
    stones = [tombstone(found(store, one.email), number) for number, one in enumerate(people, 1)]
    poison = people[1]
    crm.sql(
        f"CREATE TRIGGER poison BEFORE UPDATE OF name ON party_party WHEN OLD.id = {poison.party} "
        f"BEGIN SELECT RAISE(ABORT, '{poison.mark} has open orders'); END"
    )
    try:
        outcome = store.erase(stones, FIRST, move=None)
    finally:
        crm.sql("DROP TRIGGER poison")
    assert [entry.of for entry in outcome.entries] == [1, 3]
    assert outcome.refused == {2: Refusal("ServerError", "wizard.party.erase.execute")}
    assert crm.sql("SELECT active FROM party_party WHERE id = ?", poison.party) == [(1,)]
    assert store.check([stones], AGAIN).uncleared == (2,)
    assert crm.lines_with(people[0].mark, people[2].mark) == []


def test_a_sent_mail_that_nobody_may_delete_is_said_and_not_passed_over(crm: Crm, store: TrytonStore) -> None:
    person = crm.person()
    crm.sql("INSERT INTO ir_email (resource, recipients) VALUES (?, ?)", f"party.party,{person.party}", "x")
    stone = tombstone(found(store, person.email))
    assert store.erase([stone], FIRST, move=None).refused == {
        1: Refusal("UserError", "model.ir.email.delete")
    }
    assert store.check([[stone]], AGAIN).uncleared == (1,)
    crm.sql("UPDATE ir_model_access SET perm_delete = 1 WHERE model = 'ir.email'")
    crm.server.stop()  # it caches rights
    crm.server.start()
    try:
        assert [e.counts for e in store.erase([stone], FIRST, move=None).entries] == [{"ir.email": 1}]
        assert store.check([[stone]], AGAIN).uncleared == ()
    finally:
        crm.sql("UPDATE ir_model_access SET perm_delete = 0 WHERE model = 'ir.email'")
        crm.server.stop()
        crm.server.start()


def test_what_is_not_there_is_absent_and_its_erasure_is_done(crm: Crm, store: TrytonStore) -> None:
    stones = [
        Tombstone(number, "r1", "party.party", key, "tryton-1")
        for number, key in enumerate(("987654", "99999999999999999999", "0x10"), 1)
    ]
    assert store.check([stones], AGAIN).absent == (1, 2, 3)
    outcome = store.erase(stones, FIRST, move=None)
    assert outcome.absent == {1, 2, 3}
    assert [entry.counts for entry in outcome.entries] == [{}, {}, {}]
    assert store.plan(stones) == {1: {}, 2: {}, 3: {}}

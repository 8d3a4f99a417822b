"""The schema of a store, or its mapping, changes under a running operator."""

from __future__ import annotations

import json
from typing import Any

from devtools.company import SUBJECTS, Api, Site, eventually
from devtools.operator_process import OperatorProcess


def widened(**more: Any) -> dict[str, Any]:
    """Return the mapping with phones in it."""
    subjects = json.loads(json.dumps(SUBJECTS))
    subjects["clear"].append({"column": "phone", "holds": "LastName", "to": "SetNull"})
    return {"sql": {"subjects": subjects}, **more}


def mapping_says(api: Api, reason: str) -> str:
    """Wait until MappingComplete has a reason; return its message."""

    def condition() -> dict[str, Any]:
        return api.condition("datastores", "site", "MappingComplete")

    eventually(lambda: condition().get("reason") == reason, lambda: f"{reason}; it is {condition()}", 60)
    return str(condition()["message"])


def test_people_erased_before_a_column_was_thought_of_are_cleared_of_it_once_a_person_says_so(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    """It is told by the next sweep; mapped; told with the number; confirmed; and done."""
    ada, bob, cleo = site.sign_up(*(f"{name}@canary.example" for name in ("ada", "bob", "cleo")))
    api.sql_store("site", site.url)
    for name, key in (("ada", ada), ("bob", bob)):
        api.request_by_id(name, key)
        api.wait("deletionrequests", name, "Erased")
    api.wait("datastores", "site", "MappingComplete")

    site.sql("ALTER TABLE users ADD phone text; CREATE TABLE addresses (user_id int REFERENCES users)")
    site.sql("UPDATE users SET phone = '+43 1 canary'")
    mapping_says(api, "TablesUnmapped")
    assert (api.get("datastores", "site") or {})["status"]["unmapped"] == ["addresses.user_id", "users.phone"]
    site.sql("DROP TABLE addresses")
    mapping_says(api, "LookalikesUnmapped")

    api.patch_spec("datastores", "site", widened())
    told = mapping_says(api, "ErasedBefore")
    assert told.startswith("2 records of people who were erased before")
    assert site.sql("SELECT count(*) FROM users WHERE phone IS NOT NULL") == [(3,)]
    version = told.rpartition(" ")[2]
    api.patch_spec("datastores", "site", widened(catchUp=version))
    api.wait("datastores", "site", "MappingComplete")
    eventually(lambda: not site.sql("SELECT FROM users WHERE phone IS NOT NULL AND id <> %s", cleo), "phones")
    assert site.is_intact(cleo)
    assert api.list("restoreevents") == []

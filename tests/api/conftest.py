"""An API server that serves the generated CRDs."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lethe.api.crd import render
from tests.api.apiserver import RESOURCES, ApiServer, eventually
from tests.api.rights import CONNECT, EDIT, FOLDERS, NOTIFY, READ_SECRETS, allow, documents
from tests.api.samples import REMOVED, changed, manifest

if TYPE_CHECKING:
    from devtools.servers.controlplane import ControlPlane

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="session")
def apiserver(control_plane: "ControlPlane") -> ApiServer:
    server = ApiServer(control_plane.url, control_plane.admin_token)
    for text in render().values():
        definition = yaml.safe_load(text)
        answer = server.apply(definition, DEFINITIONS)
        assert answer, answer.text
        _await_served(server, definition["spec"]["names"]["plural"])
    return server


def _await_served(server: ApiServer, plural: str) -> None:
    eventually(lambda: bool(server.send("GET", f"{RESOURCES}/{plural}?limit=1")), f"{plural} are served")


@pytest.fixture(scope="module")
def policies(apiserver: ApiServer) -> Iterator[None]:
    """The policies in force; other tests of this session are not to meet them."""
    for document in documents():
        answer = apiserver.apply(document, FOLDERS[document["kind"]])
        assert answer, answer.text
    person, legal = manifest("DeletionRequest", "support-48213"), manifest("LegalRequest", "le-2026-0107")
    future = changed(person, {"spec.requestedAt": "2199-01-01T00:00:00Z"})
    undecided = changed(legal, {"spec.review": REMOVED, "spec.courtOrder.documentSecretRef": REMOVED})
    again = {"table": "users", "key": "7", "since": "2026-11-22T09:00:00Z", "because": "CRM-7"}
    returned = changed(manifest("DataStore", "site"), {"spec.rejoined": [again]})
    released = changed(manifest("RestoreEvent", "site-2026-11-22"), {"spec.release": {"because": "INC-2231"}})
    stranger = allow(apiserver, "default", "stranger-without-any-verb", EDIT)
    connector = allow(apiserver, "default", "stranger-who-may-connect", EDIT, CONNECT)
    joiner = allow(apiserver, "default", "stranger-who-may-connect-and-read", EDIT, CONNECT, READ_SECRETS)
    reader = allow(apiserver, "default", "stranger-who-may-read-secrets", EDIT, READ_SECRETS)
    teller = allow(apiserver, "default", "stranger-who-may-notify", EDIT, NOTIFY, READ_SECRETS)
    probes = (
        (apiserver, future, "lies in the future"),
        (stranger, person, 'lacks the verb "erase"'),
        (reader, manifest("DataStore", "site"), 'lacks the verb "connect"'),
        (connector, manifest("DataStore", "site"), "may not read"),
        (joiner, returned, 'lacks the verb "rejoin"'),
        (stranger, manifest("RestoreEvent", "site-2026-11-22"), 'lacks the verb "declare"'),
        (reader, manifest("BackupSource", "site-nightly"), 'lacks the verb "prune"'),
        (stranger, undecided, 'lacks the verb "notify"'),
        (teller, legal, 'lacks the verb "review"'),
        (apiserver, legal, '"reviewer":"admin"'),
        (apiserver, released, '"by":"admin"'),
    )
    for user, asked, words in probes:
        eventually(partial(_says, user, asked, words), f"a policy says: {words}")
    yield
    for document in documents():
        apiserver.send("DELETE", f"{FOLDERS[document['kind']]}/{document['metadata']['name']}")
    for user, asked, words in probes:
        eventually(partial(_is_silent, user, asked, words), f"no policy says any more: {words}")


def _says(user: ApiServer, asked: dict[str, Any], words: str) -> bool:
    # What is quoted in a message stands with backslashes in its JSON.
    return words in user.create(asked, "default", dry_run=True).text.replace('\\"', '"')


def _is_silent(user: ApiServer, asked: dict[str, Any], words: str) -> bool:
    return not _says(user, asked, words)

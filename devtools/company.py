"""A company's site for tests: a schema with people, sessions and comments, and the DataStore that maps it."""

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg

from devtools.servers.controlplane import ControlPlane
from lethe.api.v1alpha1 import KINDS

SCHEMA = """
CREATE TABLE users (
  id serial PRIMARY KEY,
  first_name text,
  last_name text,
  email varchar(254) NOT NULL UNIQUE,
  password_hash text NOT NULL DEFAULT '!',
  locale text NOT NULL DEFAULT 'en-US',
  time_zone text NOT NULL DEFAULT 'UTC',
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE sessions (id serial PRIMARY KEY, user_id integer NOT NULL REFERENCES users (id), token text);
CREATE TABLE comments (id serial PRIMARY KEY, author_id integer NOT NULL REFERENCES users (id), signature
text);
"""

SUBJECTS: Mapping[str, Any] = {
    "table": "users",
    "key": "id",
    "identifiers": {"email": "email"},
    "createdAt": "created_at",
    "clear": [
        {"column": "first_name", "holds": "FirstName", "to": "SetNull"},
        {"column": "last_name", "holds": "LastName", "to": "SetNull"},
        {"column": "email", "holds": "Email", "to": "Template", "template": "erased-{token}@erased.invalid"},
        {"column": "password_hash", "holds": "Password", "to": "Value", "value": "!"},
        {"column": "locale", "holds": "Locale", "to": "Default"},
        {"column": "time_zone", "holds": "TimeZone", "to": "Default"},
    ],
    "dependents": [
        {"table": "sessions", "foreignKey": "user_id", "delete": True},
        {
            "table": "comments",
            "foreignKey": "author_id",
            "clear": [{"column": "signature", "holds": "LastName", "to": "SetNull"}],
        },
    ],
}


class Site:
    """The site's database, seen by its own application. `url` is a PostgreSQL URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sql(SCHEMA)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run statements, and return the rows of the last one, if it has any."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def sign_up(self, *emails: str) -> list[int]:
        """Let people sign up, each with a session and a comment; return their keys."""
        keys = []
        with psycopg.connect(self.url) as connection:
            for email in emails:
                name = email.partition("@")[0]
                row = connection.execute(
                    "INSERT INTO users (first_name, last_name, email, password_hash, locale, time_zone) "
                    "VALUES (%s, %s, %s, 'hash', 'de-CH', 'Europe/Zurich') RETURNING id",
                    (f"First-{name}", f"Last-{name}", email),
                ).fetchone()
                assert row is not None
                keys.append(int(row[0]))
                connection.execute("INSERT INTO sessions (user_id, token) VALUES (%s, 'tok')", (row[0],))
                connection.execute(
                    "INSERT INTO comments (author_id, signature) VALUES (%s, %s)", (row[0], f"Last-{name}")
                )
        return keys

    def is_cleared(self, key: int) -> bool:
        """Whether nothing of a person is left, and her row still stands."""
        row = self.sql(
            "SELECT first_name IS NULL AND last_name IS NULL AND email LIKE 'erased-%%@erased.invalid' "
            "AND password_hash = '!' AND locale = 'en-US' AND time_zone = 'UTC' "
            "AND NOT EXISTS (SELECT FROM sessions WHERE user_id = u.id) "
            "AND NOT EXISTS (SELECT FROM comments WHERE author_id = u.id AND signature IS NOT NULL) "
            "FROM users u WHERE id = %s",
            key,
        )
        return bool(row and row[0][0])

    def is_intact(self, key: int) -> bool:
        """Whether a person is there with everything that she had."""
        row = self.sql(
            "SELECT first_name IS NOT NULL AND email NOT LIKE 'erased-%%' AND password_hash <> '!' "
            "FROM users WHERE id = %s",
            key,
        )
        return bool(row and row[0][0])


class Api:
    """The API server as a person and a GitOps tool use it, in one namespace."""

    def __init__(self, control_plane: ControlPlane, namespace: str) -> None:
        self._control_plane, self.namespace = control_plane, namespace
        self._tls = ssl.create_default_context(cafile=control_plane.directory / "certificates" / "ca.crt")

    def call(
        self, verb: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, Any]:
        """Return status and body of a call to the API server."""
        request = urllib.request.Request(
            self._control_plane.url + path,
            method=verb,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._control_plane.admin_token}",
                "Content-Type": content_type,
            },
        )
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read() or b"{}")

    def path(self, plural: str, name: str = "") -> str:
        """Return where objects of a kind live in this namespace."""
        roots = {
            "secrets": "/api/v1",
            "pods": "/api/v1",
            "events": "/apis/events.k8s.io/v1",
            "leases": "/apis/coordination.k8s.io/v1",
            "jobs": "/apis/batch/v1",
        }
        root = roots.get(plural, "/apis/lethe.dev/v1alpha1")
        return f"{root}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def create(self, plural: str, name: str, spec: Any, **more: Any) -> dict[str, Any]:
        """Create an object of a Lethe kind."""
        kinds = {kind.definition.plural: kind.definition.kind for kind in KINDS}
        manifest = {
            "apiVersion": "lethe.dev/v1alpha1",
            "kind": kinds[plural],
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
            **more,
        }
        status, body = self.call("POST", self.path(plural), manifest)
        assert status == 201, body
        return dict(body)

    def secret(self, name: str, content: Mapping[str, str | bytes], kind: str = "Opaque") -> None:
        """Create or replace a Secret."""
        encoded = {
            key: base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()
            for key, value in content.items()
        }
        self.call("DELETE", self.path("secrets", name))
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "data": encoded,
        }
        status, answer = self.call("POST", self.path("secrets"), body)
        assert status == 201, answer

    def get(self, plural: str, name: str) -> dict[str, Any] | None:
        """Return an object, or `None`."""
        status, body = self.call("GET", self.path(plural, name))
        return dict(body) if status == 200 else None

    def list(self, plural: str) -> list[dict[str, Any]]:
        """Return all objects of a kind."""
        return list(self.call("GET", self.path(plural))[1].get("items", ()))

    def patch_spec(self, plural: str, name: str, spec: Any) -> tuple[int, Any]:
        """Change a spec as `kubectl patch` does; return status and body."""
        return self.call("PATCH", self.path(plural, name), {"spec": spec}, "application/merge-patch+json")

    def delete(self, plural: str, name: str) -> None:
        """Delete an object."""
        self.call("DELETE", self.path(plural, name))

    def condition(self, plural: str, name: str, kind: str) -> dict[str, Any]:
        """Return a condition of an object; empty if there is none."""
        found = self.get(plural, name) or {}
        conditions = found.get("status", {}).get("conditions", ())
        return next((dict(c) for c in conditions if c["type"] == kind), {})

    def wait(
        self, plural: str, name: str, kind: str, status: str = "True", *, patience: float = 30
    ) -> dict[str, Any]:
        """Wait until a condition has a status; return the object."""

        def met() -> bool:
            return bool(self.condition(plural, name, kind).get("status") == status)

        eventually(met, lambda: f"{plural}/{name} {kind}={status}; it is {self.get(plural, name)}", patience)
        return self.get(plural, name) or {}

    def wait_reason(self, plural: str, name: str, reason: str, *, patience: float = 30) -> dict[str, Any]:
        """Wait until Ready has a reason; return the object."""

        def met() -> bool:
            return bool(self.condition(plural, name, "Ready").get("reason") == reason)

        eventually(met, lambda: f"{plural}/{name} {reason}; it is {self.get(plural, name)}", patience)
        return self.get(plural, name) or {}

    def request_by_email(self, name: str, email: str, **spec: Any) -> None:
        """Ask for the erasure of whom an e-mail address names."""
        self.secret(name, {"email": email}, "lethe.dev/identifier")
        subject = {"identifierSecretRef": {"name": name, "key": "email"}}
        self.create("deletionrequests", name, {"subject": subject, **spec})

    def request_by_id(self, name: str, key: int | str, **spec: Any) -> None:
        """Ask for the erasure of whom a key in the Primary names."""
        self.create("deletionrequests", name, {"subject": {"id": str(key)}, **spec})

    def legal_request(self, name: str, key: int | str | None, **spec: Any) -> dict[str, Any]:
        """Ask, as a sheriff without a court order does, for the data of whom a key names."""
        subject = {"id": str(key)} if key is not None else spec.pop("subject")
        given = {
            "type": "Disclosure",
            "authority": {"name": "County Sheriff's Office", "level": "Local", "country": "US"},
            "receivedAt": "2026-11-22T10:00:00Z",
            "reference": "CSO-55-2026",
            **spec,
        }
        return self.create("legalrequests", name, {"subject": subject, **given})

    def sql_store(
        self,
        name: str,
        url: str,
        *,
        role: str = "Primary",
        subjects: Mapping[str, Any] = SUBJECTS,
        plaintext: bool = False,
        **more: Any,
    ) -> None:
        """Apply a DataStore for a database, with its Secret."""
        self.secret(f"{name}-db", {"url": url})
        sql: dict[str, Any] = {"urlSecretRef": {"name": f"{name}-db", "key": "url"}, "subjects": subjects}
        if plaintext:
            sql["allowPlaintext"] = True
        self.create("datastores", name, {"role": role, "owner": "Self", "sql": sql, **more})

    def tryton_store(
        self, name: str, url: str, database: str, user: str, password: str, *, role: str = "CRM", **more: Any
    ) -> None:
        """Apply a DataStore for a Tryton database, with its Secret."""
        self.secret(f"{name}-tryton", {"username": user, "password": password})
        tryton = {
            "url": url,
            "database": database,
            "credentialsSecretRef": {"name": f"{name}-tryton"},
            **more,
        }
        self.create("datastores", name, {"role": role, "owner": "Self", "tryton": tryton})


def eventually(claim: Callable[[], bool], say: Callable[[], str] | str, patience: float = 30) -> None:
    """Wait until a claim holds; fail with what was waited for."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if claim():
            return
        time.sleep(0.05)
    raise AssertionError(f"waited {patience} s for {say() if callable(say) else say}")


def store_states(request: Mapping[str, Any]) -> dict[str, str]:
    """Return where a request stands in each store."""
    return {entry["name"]: entry["state"] for entry in request["status"].get("stores", ())}


def names(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of objects."""
    return [item["metadata"]["name"] for item in items]

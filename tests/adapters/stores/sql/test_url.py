"""The URL in a Secret: what is meant is understood, and all else is told in words that show none of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from lethe.adapters.stores.sql.url import FORM, DatabaseUrl
from tests.adapters.stores.sql.conftest import store_of

PASSWORD = "hunter2"
GOOD = f"postgresql://site:{PASSWORD}@db.example:5432/site?sslmode=verify-full"
ENCODE = "percent-encode it in user and password"

MISTYPED = {
    # of the issue
    f"postgresql://u:{PASSWORD}@/db?host=h1,h2&port=1,2,3": "port= names neither one port nor one for each",
    f"postgresql://u:{PASSWORD}@/db?host=h1,h2&port=abc": "a port is not a number from 1 to 65535",
    f"postgresql://u:{PASSWORD}@h/db?port=abc": "a port is not a number from 1 to 65535",
    f"postgresql://u:{PASSWORD}@h/db?plugin=x": "parameter plugin is not allowed; remove it (allowed:",
    # scheme
    "": "not the URL of a PostgreSQL database; write postgresql://",
    PASSWORD: "not the URL of a PostgreSQL database",
    f"mysql://u:{PASSWORD}@h/db": "not the URL of a PostgreSQL database",
    f"jdbc:postgresql://h/db?user=u&password={PASSWORD}": "not the URL of a PostgreSQL database",
    f"postgresql:u:{PASSWORD}@h/db": "not the URL of a PostgreSQL database",
    f"host=h user=u password={PASSWORD}": "not the URL of a PostgreSQL database",
    # hosts
    f"postgresql://u:{PASSWORD}@/db": "a host is missing",
    f"postgresql://u:{PASSWORD}@": "a host is missing",
    "postgresql://": "a host is missing",
    "postgresql:///db": "a host is missing",
    f"postgresql://u:{PASSWORD}@h1,/db": "a host is missing",
    f"postgresql://u:{PASSWORD}@,/db": "a host is missing",
    f"postgresql://u:{PASSWORD}@/db?host=h1,,h2": "a host is missing",
    f"postgresql://u:{PASSWORD}@:5432/db": "a host is neither a name",
    f"postgresql://u:{PASSWORD}@/db?host=%2Fvar%2Frun%2Fpostgresql": "sockets of this machine are not",
    f"postgresql://u:{PASSWORD}@/db?host=/tmp": "sockets of this machine are not",
    f"postgresql://u:{PASSWORD}@%2Ftmp/db": "sockets of this machine are not",
    f"postgresql://u:{PASSWORD}@/db?host=%40abstract": "a host is neither a name",
    f"postgresql://u:{PASSWORD}@my host/db": "a host is neither a name",
    f"postgresql://u:{PASSWORD}@bücher.example/db": "in ASCII, as xn--…",
    f"postgresql://u:{PASSWORD}@{'a' * 64}.example/db": "a host is neither a name",
    f"postgresql://u:{PASSWORD}@{'a.' * 200}example/db": "a host is neither a name",
    f"postgresql://u:{PASSWORD}@{','.join(['h'] * 17)}/db": "more than 16 hosts",
    f"postgresql://u:{PASSWORD}@::1/db": "an IPv6 address needs brackets",
    f"postgresql://u:{PASSWORD}@2001:db8::7:5432/db": "an IPv6 address needs brackets",
    f"postgresql://u:{PASSWORD}@[::1/db": "no IPv6 address",
    f"postgresql://u:{PASSWORD}@[db.example]/db": "no IPv6 address",
    f"postgresql://u:{PASSWORD}@[::1]5432/db": "no IPv6 address",
    f"postgresql://u:{PASSWORD}@[]:5432/db": "no IPv6 address",
    # ports
    f"postgresql://u:{PASSWORD}@h:abc/db": "a port is not a number from 1 to 65535",
    f"postgresql://u:{PASSWORD}@h:/db": "a port is not a number",
    f"postgresql://u:{PASSWORD}@h:0/db": "a port is not a number",
    f"postgresql://u:{PASSWORD}@h:65536/db": "a port is not a number",
    f"postgresql://u:{PASSWORD}@h:-5432/db": "a port is not a number",
    f"postgresql://u:{PASSWORD}@h:５４３２/db": "a port is not a number",
    f"postgresql://u:{PASSWORD}@h:{'5' * 5000}/db": "a port is not a number",
    f"postgresql://u:{PASSWORD}@h1:1,h2:2/db?port=3": "ports stand both behind the hosts and in port=",
    f"postgresql://u:{PASSWORD}@h1/db?host=h2": "hosts stand both before the path and in the query",
    f"postgresql://u:{PASSWORD}@/db?host=h1:1&port=3": "ports stand both behind the hosts and in port=",
    # a password that is not percent-encoded: whatever it holds, no part of it is taken for something to show
    f"postgresql://u:p@{PASSWORD}@h/db": "more than one @",
    f"postgresql://u:p/{PASSWORD}@h/db": "a / is %2F",
    f"postgresql://u:p?{PASSWORD}@h/db": "a ? is %3F",
    f"postgresql://u:p?{PASSWORD}=1@h/db": "a ? is %3F",
    f"postgresql://u:p#{PASSWORD}@h/db": "a # is %23",
    f"postgresql://u:p@h/{PASSWORD}#": "a # is %23",
    f"postgresql://u:{PASSWORD}": "a port is not a number",
    f"postgresql://u:p%{PASSWORD}@h/db": "a % in the password is not followed by two hexadecimal digits",
    "postgresql://u%:p@h/db": "a % in the user is not followed",
    "postgresql://u:p@h/d%b": "a % in the database's name is not followed",
    "postgresql://u:p@h/db?options=100%": "a % in parameter options is not followed",
    f"postgresql://u:{PASSWORD}%ff@h/db": "the password is not UTF-8",
    f"postgresql://u:{PASSWORD}%00@h/db": "the password holds a zero byte",
    f"postgresql://:{PASSWORD}@h/db": "no user stands before the @",
    # text that is none
    f"postgresql://u:{PASSWORD}@h/db\x00": "a zero byte or another control character",
    f"postgresql://u:{PASSWORD}@h/db\npostgresql://u:{PASSWORD}@h/db": "a line break",
    f"postgresql://u:{PASSWORD}\udcff@h/db": "no character of any text",
    f"postgresql://u:{PASSWORD * 10_000}@h/db": "longer than 65536 characters",
    # parameters
    f"postgresql://h/db?user=u&password={PASSWORD}": "parameters user, password are not allowed",
    f"postgresql://u:{PASSWORD}@h/db?sslkeylogfile=/backups/x.dump": "parameter sslkeylogfile is not allowed",
    f"postgresql://u:{PASSWORD}@h/db?passfile=/etc/passwd": "parameter passfile is not allowed",
    f"postgresql://u:{PASSWORD}@h/db?service=x": "parameter service is not allowed",
    f"postgresql://u:{PASSWORD}@h/db?hostaddr=10.0.0.1": "parameter hostaddr is not allowed",
    # of Prisma, and of Rails
    f"postgresql://u:{PASSWORD}@h/db?schema=public&connection_limit=5&sslmode=require&pgbouncer=true": (
        "parameters schema, connection_limit, pgbouncer are not allowed; remove them; for schema write"
        " options=-csearch_path%3D… (allowed: channel_binding, connect_timeout, host,"
    ),
    f"postgresql://u:{PASSWORD}@h/db?sslaccept=strict&sslidentity=client.p12": (
        "parameters sslaccept, sslidentity are not allowed"
    ),
    f"postgres://u:{PASSWORD}@h1,h2/db?encoding=unicode&pool=5&prepared_statements=false&timeout=5000": (
        "parameters encoding, pool, prepared_statements, timeout are not allowed"
    ),
    f"postgresql://u:{PASSWORD}@h/db?pool=1&a=1&b=1&c=1&d=1": "parameters pool, a, b, c and others are not",
    f"postgresql://u:{PASSWORD}@h/db?pool=1&variables[{PASSWORD}]=1": "parameters pool and others are",
    f"postgresql://u:{PASSWORD}@h/db?pool=5": "parameter pool is not allowed",
    f"postgresql://u:{PASSWORD}@h/db?SSLMODE=require": "parameter SSLMODE is not allowed",
    f"postgresql://u:{PASSWORD}@h/db?a b={PASSWORD}": "a parameter of the query is not allowed",
    f"postgresql://u:{PASSWORD}@h/db?{'x' * 41}=1": "a parameter of the query is not allowed",
    f"postgresql://u:{PASSWORD}@h/db?&": "a parameter of the query is not allowed",
    f"postgresql://u:{PASSWORD}@h/db?sslmode": "parameter sslmode has no value",
    f"postgresql://u:{PASSWORD}@h/db?sslmode=": "parameter sslmode has no value",
    f"postgresql://u:{PASSWORD}@h/db?sslmode=requird": "parameter sslmode must be one of disable, allow",
    f"postgresql://u:{PASSWORD}@h/db?sslmode=require&sslmode=require": "sslmode stands there 2 times",
    f"postgresql://u:{PASSWORD}@h/db?sslrootcert=ca.crt": "sslrootcert must be system or the path of a file",
    f"postgresql://u:{PASSWORD}@h/db?sslrootcert=system&sslmode=require": "needs sslmode=verify-full",
    f"postgresql://u:{PASSWORD}@h/db?target_session_attrs=standby": "must be one of any, read-write, primary",
    f"postgresql://u:{PASSWORD}@h/db?connect_timeout=soon": "must be a whole number of seconds",
    f"postgresql://u:{PASSWORD}@h/db?connect_timeout={'9' * 5000}": "must be a whole number of seconds",
    f"postgresql://u:{PASSWORD}@h/db?options=-c statement_timeout%3D0": "may only be -c search_path=…",
    f"postgresql://u:{PASSWORD}@h/db?options=-csearch_path%3Da -crole%3Dx": "may only be -c search_path=…",
}


@pytest.mark.parametrize("url", MISTYPED, ids=lambda url: ascii(url)[:60])
def test_what_is_mistyped_is_named_with_the_remedy_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as refused:
        store_of(url)
    require_printable(refused.value, url)
    assert MISTYPED[url] in str(refused.value)
    assert PASSWORD not in str(refused.value)


def require_printable(error: ValueError, url: str) -> None:
    """Require an error of our own words, with no error of anybody else behind it."""
    assert type(error) is ValueError
    assert error.__cause__ is error.__context__ is None
    message = str(error)
    assert message.isprintable()
    assert len(message) < 300
    assert len(url) < 12 or url not in message.replace(FORM, "")


UNDERSTOOD: dict[str, tuple[list[tuple[str, int]], dict[str, str]]] = {
    GOOD: (
        [("db.example", 5432)],
        {"user": "site", "password": PASSWORD, "dbname": "site", "sslmode": "verify-full"},
    ),
    "postgresql+psycopg2://u@h": ([("h", 5432)], {"user": "u"}),
    "postgres://u:@h:1/": ([("h", 1)], {"user": "u"}),
    "postgresql://h/db": ([("h", 5432)], {"dbname": "db"}),
    "postgresql://u%40tenant:p%40%2F%3F%23%25%3A:w@[::1]:6543/d%20b": (
        [("::1", 6543)],
        {"user": "u@tenant", "password": "p@/?#%::w", "dbname": "d b"},
    ),
    "postgresql://u@[fe80::1%25eth0]/db": ([("fe80::1%eth0", 5432)], {"user": "u", "dbname": "db"}),
    "postgresql://u:ü€@h_1.svc./db": ([("h_1.svc.", 5432)], {"user": "u", "password": "ü€", "dbname": "db"}),
    "postgresql://u:p@h1:5432,h2:5432/site?target_session_attrs=read-write": (
        [("h1", 5432), ("h2", 5432)],
        {"user": "u", "password": "p", "dbname": "site", "target_session_attrs": "read-write"},
    ),
    "postgresql://u:p@h1:5433,h2/site?target_session_attrs=read-write": (
        [("h1", 5433), ("h2", 5432)],
        {"user": "u", "password": "p", "dbname": "site", "target_session_attrs": "read-write"},
    ),
    "postgresql://u@[::1]:1,[::2],h:3/db": (
        [("::1", 1), ("::2", 5432), ("h", 3)],
        {"user": "u", "dbname": "db"},
    ),
    "postgresql://u@/db?host=h1:5433&host=h2": ([("h1", 5433), ("h2", 5432)], {"user": "u", "dbname": "db"}),
    "postgresql://u@h1,h2/db?port=5433": ([("h1", 5433), ("h2", 5433)], {"user": "u", "dbname": "db"}),
    "postgresql://u@/db?host=h1,h2&port=5433": ([("h1", 5433), ("h2", 5433)], {"user": "u", "dbname": "db"}),
    "postgresql://u@/db?host=h1,h2&port=1,2": ([("h1", 1), ("h2", 2)], {"user": "u", "dbname": "db"}),
    "postgresql://u@h/db?options=-c+search_path%3Dsite%2Cpublic": (
        [("h", 5432)],
        {"user": "u", "dbname": "db", "options": "-c search_path=site,public"},
    ),
    "postgresql://u@h/db?sslrootcert=/etc/lethe/ca/ca.crt&channel_binding=require": (
        [("h", 5432)],
        {"user": "u", "dbname": "db", "sslrootcert": "/etc/lethe/ca/ca.crt", "channel_binding": "require"},
    ),
}


@pytest.mark.parametrize("url", UNDERSTOOD, ids=lambda url: ascii(url)[:60])
def test_what_is_meant_is_understood_in_the_forms_of_libpq_and_sqlalchemy(url: str) -> None:
    hosts, settings = UNDERSTOOD[url]
    understood = DatabaseUrl.parse(url)
    assert (list(understood.hosts), dict(understood.settings)) == (hosts, settings)
    assert make_conninfo("", **understood.settings)


def test_a_url_may_shorten_how_long_a_host_is_waited_for() -> None:
    assert DatabaseUrl.parse(f"{GOOD}&connect_timeout=2").connect_seconds == 2
    assert DatabaseUrl.parse(GOOD).connect_seconds is None


def test_the_password_is_not_shown_by_what_was_understood() -> None:
    assert PASSWORD not in repr(DatabaseUrl.parse(GOOD))


def test_a_store_of_hosts_that_nobody_knows_is_made_without_looking() -> None:
    store_of("postgresql://u:p@nowhere.invalid,[::1]:1/db?target_session_attrs=primary").close()


PIECES = st.sampled_from(
    [*"@:/?#%[],&=+ \0\n\\'\"", "//", "%00", "%ff", "%zz", "::1", "host=", "port=", "\udcff", "٣"]
)
TEXTS = st.text(st.characters(codec=None), max_size=40) | st.lists(PIECES, max_size=8).map("".join)


@st.composite
def changed_urls(draw: st.DrawFn) -> str:
    """Draw a good URL in which a few pieces were cut out or put in."""
    url = draw(st.sampled_from([GOOD, *UNDERSTOOD]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(url)))
        end = min(len(url), start + draw(st.integers(0, 6)))
        url = url[:start] + draw(TEXTS) + url[end:]
    return url


def made_or_told(url: str) -> None:
    """Require a store, of settings that libpq can read, or a ValueError that can be printed."""
    try:
        store_of(url).close()
    except ValueError as told:
        refused = told
    else:
        settings: dict[str, Any] = dict(DatabaseUrl.parse(url).settings)
        assert make_conninfo("", **settings) or not settings
        return
    require_printable(refused, url)


@given(TEXTS)
@example("postgresql://u:p@h/db?sslmode=require&sslmode=\ud800")
def test_any_text_makes_a_store_or_is_told(url: str) -> None:
    made_or_told(url)


@given(changed_urls())
def test_any_change_of_a_url_makes_a_store_or_is_told(url: str) -> None:
    made_or_told(url)


@given(user=st.text(min_size=1), password=st.text())
def test_whatever_is_percent_encoded_arrives_as_it_was(user: str, password: str) -> None:
    def encoded(text: str) -> str:
        return quote(text.encode("utf-8", "surrogatepass"), safe="")

    url = f"postgresql://{encoded(user)}:{encoded(password)}@h/db"
    readable = "\0" not in user + password and not any("\ud800" <= one <= "\udfff" for one in user + password)
    if not readable:
        made_or_told(url)
        return
    settings = DatabaseUrl.parse(url).settings
    assert (settings["user"], settings.get("password", "")) == (user, password)

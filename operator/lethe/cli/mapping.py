"""`kubectl lethe map`: proposes DataStores for the live schema of a database, for a person to read."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence

from lethe.cli.callers_kubectl import Exit, Refused
from lethe.domain.mapping import ClearRule, ClearTo, Dependent, StoreRole
from lethe.domain.mapping_proposal import NoSubjects, NoSuchTable, Proposal, Reading
from lethe.ports.stores import StoreError

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
# What YAML 1.1 or 1.2 reads as something else than text.
_NO_TEXT = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
_HEAD = (
    "Proposed by `kubectl lethe map` from the schema of database {database}, on which it was tried: it fits.",
    "Read every line. Whether it is right, and whether it is all, only you can know.",
)


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the plugin's."""
    parser = commands.add_parser(
        "map",
        help="propose a DataStore for a database, from its live schema",
        description="Reads tables, columns, keys, comments and some values of a PostgreSQL database, changes "
        "nothing, and prints DataStores for you to read. No value leaves this process.",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("url", nargs="?", help="URL of the database; the password can stand in PGPASSWORD")
    where.add_argument("--url-stdin", action="store_true", help="read the URL from standard input")
    parser.add_argument("--table", help="the table of the persons, where the proposal took another one")
    parser.add_argument("--name", help="name of the DataStore; that of the database if absent")
    parser.add_argument("--role", choices=[role.value for role in StoreRole], default=StoreRole.PRIMARY.value)
    parser.add_argument("-n", "--namespace", help="namespace of the DataStore")
    parser.add_argument(
        "--allow-plaintext", action="store_true", help="speak to a server of another machine without TLS, too"
    )
    parser.set_defaults(act=_map)


def _map(parsed: argparse.Namespace) -> int:
    from lethe.adapters.stores.sql.schemas import LiveSchema
    from lethe.workflows.propose import proposals

    url = sys.stdin.read().strip() if parsed.url_stdin else parsed.url
    try:
        schema = LiveSchema(url, allow_plaintext=parsed.allow_plaintext)
    except ValueError as refused:
        raise Refused(f"the URL can't be used: {refused}", Exit.USAGE) from None
    try:
        database, closed = schema.database(), schema.closed()
        if closed:
            sys.stderr.write(f"{_CLOSED}: {', '.join(closed)} (GRANT USAGE ON SCHEMA)\n")
        found = proposals(schema, subjects=parsed.table)
    except NoSuchTable:
        message = f"there is no table {parsed.table}; off the search path, write schema.table"
        raise Refused(message, Exit.USAGE) from None
    except NoSubjects:
        message = _NOBODY if parsed.table is None else f"{parsed.table} {_NOT_OF_PERSONS}"
        raise Refused(message, Exit.USAGE) from None
    except StoreError as away:
        # What is said of a Secret in a cluster is, here, the URL.
        said = str(away).replace("the Secret that spec.sql.urlSecretRef names", "the URL")
        raise Refused(said.replace("spec.sql.urlSecretRef", "the URL"), Exit.USAGE) from None
    finally:
        schema.close()
    name = parsed.name or _object_name(database)
    sys.stdout.write(rendered(found, database=database, name=name, parsed=parsed, closed=closed))
    sys.stderr.write(summary(found))
    return Exit.FINE if all(one.fits for one in found) else Exit.FAILED


_CLOSED = "not looked at, since the user may not look into these schemas"
_NOBODY = (
    "no table there looks like one of persons, with a key of one column, and names or addresses; "
    "name it: --table"
)
_NOT_OF_PERSONS = "has no key of one column, or nothing in it that can be cleared looks personal"


def summary(found: Sequence[Proposal]) -> str:
    """Return what was found in a few words."""
    mapping, remarks = found[0].mapping, len(found[0].remarks)
    rest = f", and {len(found) - 1} more tables of addresses" if len(found) > 1 else ""
    return (
        f"persons in {mapping.table}: {len(mapping.clear)} columns, {len(mapping.dependents)} dependents"
        f"{rest}; {remarks} things to look at\n"
    )


def rendered(
    found: Sequence[Proposal],
    *,
    database: str,
    name: str,
    parsed: argparse.Namespace,
    closed: Sequence[str] = (),
) -> str:
    """Return DataStores as YAML, with a comment on each part; `closed` are the schemas that nobody saw."""
    documents: list[str] = []
    names: set[str] = set()
    for proposal in found:
        own = _unlike(names, f"{name}-{_object_name(proposal.mapping.table)}") if documents else name
        names.add(own)
        role = StoreRole.OTHER.value if documents else parsed.role
        lines = _document(proposal, database=database, name=own, secret=name, role=role, parsed=parsed)
        lines += [_comment(f"- {_CLOSED}: {', '.join(closed)}")] if closed and not documents else []
        documents.append("\n".join(lines) + "\n")
    return "---\n".join(documents)


def _document(
    proposal: Proposal, *, database: str, name: str, secret: str, role: str, parsed: argparse.Namespace
) -> list[str]:
    mapping = proposal.mapping
    told = list(_head(database, fits=proposal.fits)) if not proposal.one_owner else []
    if proposal.one_owner:
        told.append(f"{mapping.table} holds addresses that belong to no account.")
    if proposal.others:
        told.append(f"Could be the persons' table as well (--table): {', '.join(proposal.others)}")
    lines = [_comment(one) for one in told]
    namespace = f", namespace: {_text(parsed.namespace)}" if parsed.namespace else ""
    lines += [
        "apiVersion: lethe.dev/v1alpha1",
        "kind: DataStore",
        f"metadata: {{name: {_text(name)}{namespace}}}",
        "spec:",
        f"  role: {role}",
        "  owner: Self",
        "  sql:",
        f"    urlSecretRef: {{name: {_text(secret + '-db')}, key: url}}",
        *(["    allowPlaintext: true"] if parsed.allow_plaintext else []),
        "    subjects:",
        f"      table: {_text(mapping.table)}",
        f"      key: {_text(mapping.key)}",
    ]
    if mapping.identifiers:
        named = ", ".join(f"{kind}: {_text(column)}" for kind, column in mapping.identifiers.items())
        lines.append(f"      identifiers: {{{named}}}")
    if proposal.one_owner:
        lines.append("      oneOwnerPerAddress: true")
    if mapping.created_at:
        lines.append(f"      createdAt: {_text(mapping.created_at)}")
    lines.append("      clear:")
    lines += _rules(mapping.clear, "      ", proposal, "")
    if mapping.dependents:
        lines.append("      dependents:")
        for one in mapping.dependents:
            lines += _dependent(one, proposal)
    if mapping.ignore:
        lines.append(
            "      ignore:                       # these hold no more than the key of a person, it seems"
        )
        lines += [_beside(f"      - {_text(one)}", proposal.why.get(one, "")) for one in mapping.ignore]
    lines += _remarks(proposal)
    return lines


def _head(database: str, *, fits: bool) -> Iterator[str]:
    first, second = _HEAD
    yield (first if fits else first.replace("on which it was tried: it fits", "which refuses it")).format(
        database=database
    )
    yield second


def _dependent(dependent: Dependent, proposal: Proposal) -> Iterable[str]:
    why = proposal.why.get(f"{dependent.table}.{dependent.foreign_key}", "")
    at = f"table: {_text(dependent.table)}, foreignKey: {_text(dependent.foreign_key)}"
    if dependent.delete:
        return [_beside(f"      - {{{at}, delete: true}}", why)]
    return [
        _beside(f"      - table: {_text(dependent.table)}", why),
        f"        foreignKey: {_text(dependent.foreign_key)}",
        "        clear:",
        *_rules(dependent.clear, "        ", proposal, f"{dependent.table}."),
    ]


def _rules(rules: Sequence[ClearRule], indent: str, proposal: Proposal, at: str) -> Iterator[str]:
    for rule in rules:
        parts = [f"column: {_text(rule.column)}", f"holds: {rule.holds.value}", f"to: {rule.to.value}"]
        if rule.to is ClearTo.TEMPLATE:
            parts.append(f"template: {_quoted(rule.text or '')}")
        if rule.to is ClearTo.VALUE:
            parts.append(f"value: {_quoted(rule.text or '')}")
        yield _beside(f"{indent}- {{{', '.join(parts)}}}", proposal.why.get(f"{at}{rule.column}", ""))


def _remarks(proposal: Proposal) -> list[str]:
    if not proposal.remarks:
        return []
    lines = ["To look at:"]
    for reading in Reading:
        told = [one for one in proposal.remarks if one.reading is reading]
        if not told:
            continue
        if all(not one.detail for one in told):
            lines.append(f"- {reading.value}: {', '.join(one.about for one in told)}")
            continue
        lines.append(f"- {reading.value}:")
        lines += [f"  - {one.about}{f' ({one.detail})' if one.detail else ''}" for one in told]
    return [_comment(line) for line in lines]


def _comment(text: str) -> str:
    """Return a comment of one line, whatever tables are called."""
    return "# " + re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]+", " ", text)


def _beside(line: str, comment: str) -> str:
    return f"{line:<78}  {_comment(comment)}" if comment else line


def _text(text: str) -> str:
    """Return a text as YAML reads it as text."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _NO_TEXT else _quoted(text)


def _quoted(text: str) -> str:
    """Return a text in quotes, as every version of YAML reads it: JSON's pairs of surrogates are none."""
    escaped = {'"': '\\"', "\\": "\\\\"}
    told = (escaped.get(one, one) if " " <= one <= "~" else f"\\U{ord(one):08x}" for one in text)
    return f'"{"".join(told)}"'


def _unlike(names: Collection[str], name: str) -> str:
    """Return a name of an object that is none of these: one that is applied would take its place."""
    ends = ("", *(f"-{n}" for n in range(2, len(names) + 2)))
    wanted = (f"{name[: 63 - len(end)].strip('-')}{end}" for end in ends)
    return next(one for one in wanted if one not in names)


def _object_name(text: str) -> str:
    """Return the name of an object that is called after something."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return name[:50].strip("-") or "store"

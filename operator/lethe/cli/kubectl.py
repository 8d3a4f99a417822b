"""The kubectl plugin `kubectl lethe`: asks for erasures without an address in a manifest, tells of restores,
and proposes DataStores.

It speaks through the kubectl that calls it, so that context, namespace and credentials are the caller's.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from lethe.cli import mapping, restore
from lethe.domain.identifiers import NotAnEmailAddress, email_identifier


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of the plugin; return its exit code."""
    parser = argparse.ArgumentParser(prog="kubectl lethe", description="Keeps privacy promises.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    erase = commands.add_parser("erase", help="ask for the erasure of one person")
    who = erase.add_mutually_exclusive_group(required=True)
    who.add_argument("--email-stdin", action="store_true", help="read the e-mail address from standard input")
    who.add_argument("--id", help="the person's key in the Primary store")
    erase.add_argument("--reference", help="where the request came from, such as a ticket's number")
    erase.add_argument("--name", help="name of the DeletionRequest; made up if absent")
    erase.add_argument("--dry-run", action="store_true", help="look what would be erased, change nothing")
    erase.add_argument("--wait", action="store_true", help="wait until it is done")
    erase.add_argument("-n", "--namespace", help="namespace of the DataStores; kubectl's own if absent")
    erase.set_defaults(act=_erase)
    mapping.add_to(commands)
    restore.add_to(commands)
    parsed = parser.parse_args(arguments)
    return int(parsed.act(parsed))


def _erase(parsed: argparse.Namespace) -> int:
    name = parsed.name or f"erase-{secrets.token_hex(4)}"
    subject: dict[str, Any] = {"id": parsed.id}
    kubectl = ["kubectl", *(["--namespace", parsed.namespace] if parsed.namespace else [])]
    if parsed.email_stdin:
        try:
            address = email_identifier(sys.stdin.read()).value.reveal()
        except NotAnEmailAddress:
            sys.stderr.write("kubectl lethe: standard input is not one e-mail address\n")
            return 2
        subject = {"identifierSecretRef": {"name": name, "key": "email"}}
        secret = _manifest("v1", "Secret", name, type="lethe.dev/identifier", stringData={"email": address})
        if not _create(kubectl, secret):
            return 1
    spec = {"subject": subject, "dryRun": parsed.dry_run}
    if parsed.reference:
        spec["reference"] = parsed.reference
    if not _create(kubectl, _manifest("lethe.dev/v1alpha1", "DeletionRequest", name, spec=spec)):
        if parsed.email_stdin:  # nobody would seal and delete it
            subprocess.run([*kubectl, "delete", "secret", name, "--ignore-not-found"], check=False)
        return 1
    if not parsed.wait:
        return 0
    wait = ["wait", "--for=condition=Ready", f"deletionrequest.lethe.dev/{name}", "--timeout=10m"]
    return subprocess.run([*kubectl, *wait], check=False).returncode


def _manifest(version: str, kind: str, name: str, **rest: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **rest}


def _create(kubectl: Sequence[str], manifest: dict[str, Any]) -> bool:
    """Create an object. By `create`, not `apply`: that would copy a Secret's content into an annotation."""
    command = [*kubectl, "create", "--filename", "-"]
    return subprocess.run(command, input=json.dumps(manifest).encode(), check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())

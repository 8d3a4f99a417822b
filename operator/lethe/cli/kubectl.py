"""The kubectl plugin `kubectl lethe`: asks for erasures without an address in a manifest, tells of restores,
and proposes DataStores.

It speaks through the kubectl that calls it, so that context, namespace and credentials are the caller's.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence
from typing import Any

from lethe.cli import mapping, restore
from lethe.cli.callers_kubectl import Exit, Kubectl, Refused
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
    try:
        return int(parsed.act(parsed))
    except Refused as refused:
        sys.stderr.write(f"kubectl lethe: {refused}\n")
        return int(refused.code)
    except KeyboardInterrupt:
        sys.stdout.write("\nInterrupted: that ends nothing, and what was begun goes on.\n")
        return int(Exit.FAILED)


def _erase(parsed: argparse.Namespace) -> Exit:
    name = parsed.name or f"erase-{secrets.token_hex(4)}"
    subject: dict[str, Any] = {"id": parsed.id}
    kubectl = Kubectl(
        parsed.namespace,
        reads="the verbs get, list and watch on deletionrequests.lethe.dev",
        writes="the verb create on deletionrequests.lethe.dev, and create and delete on secrets",
    )
    if parsed.email_stdin:
        try:
            address = email_identifier(sys.stdin.read()).value.reveal()
        except NotAnEmailAddress:
            raise Refused("standard input is not one e-mail address", Exit.USAGE) from None
        subject = {"identifierSecretRef": {"name": name, "key": "email"}}
        sealed = {"type": "lethe.dev/identifier", "stringData": {"email": address}}
        sys.stdout.write(kubectl.create("v1", "Secret", name, **sealed))
    spec = {"subject": subject, "dryRun": parsed.dry_run}
    if parsed.reference:
        spec["reference"] = parsed.reference
    try:
        sys.stdout.write(kubectl.create("lethe.dev/v1alpha1", "DeletionRequest", name, spec=spec))
    except Refused as refused:
        if parsed.email_stdin:  # nobody would seal and delete it
            try:
                sys.stdout.write(kubectl.run("delete", "secret", name, "--ignore-not-found"))
            except Refused as left:
                raise Refused(f"{refused}\n{left}", refused.code) from None
        raise
    if parsed.wait:
        ready = ("--for=condition=Ready", f"deletionrequest.lethe.dev/{name}", "--timeout=10m")
        sys.stdout.write(kubectl.run("wait", *ready))
    return Exit.FINE


if __name__ == "__main__":
    sys.exit(main())

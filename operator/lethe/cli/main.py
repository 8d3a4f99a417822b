"""The command `lethe`: run the operator, print the CRDs, check the ledger."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from lethe import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    parsed = _parser().parse_args(arguments)
    return int(parsed.act(parsed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lethe", description="Keeps a company's privacy promises.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run the operator; settings come from the environment (LETHE_…)")
    run.set_defaults(act=_run)
    crds = commands.add_parser("crds", help="print the CustomResourceDefinitions")
    crds.set_defaults(act=_crds)
    ledger = commands.add_parser("ledger", help="look at the ledger").add_subparsers(
        required=True, metavar="COMMAND"
    )
    verify = ledger.add_parser("verify", help="walk the whole chain of the ledger")
    verify.set_defaults(act=_verify_ledger)
    return parser


def _run(_: argparse.Namespace) -> int:
    from lethe.import_trim import skip_unused_clients

    skip_unused_clients()
    from lethe.adapters.notices.markup import BrokenTemplate
    from lethe.bootstrap import run_operator
    from lethe.logs import set_up_logs
    from lethe.ports.cluster import ClusterUnavailable
    from lethe.ports.keys import KeysUnusable
    from lethe.ports.ledger import LedgerError
    from lethe.ports.notices import ChannelError
    from lethe.settings import InvalidSetting, read_settings

    try:
        settings = read_settings(os.environ)
        set_up_logs(settings.log_level, settings.log_format)
        return asyncio.run(run_operator(settings))
    except (InvalidSetting, KeysUnusable, LedgerError, ClusterUnavailable) as refused:
        return _complain(refused)
    except (ChannelError, BrokenTemplate) as refused:
        return _complain(refused)
    except OSError as refused:
        return _complain(refused)


def _crds(_: argparse.Namespace) -> int:
    from lethe.api.crd import render

    for _name, text in sorted(render().items()):
        sys.stdout.write(text if text.startswith("---") else f"---\n{text}")
    return 0


def _verify_ledger(_: argparse.Namespace) -> int:
    from pathlib import Path

    from lethe.adapters.keys.files import FileKeyring
    from lethe.adapters.ledger.ledger import open_ledger
    from lethe.ports.keys import KeysUnusable
    from lethe.ports.ledger import LedgerError
    from lethe.settings import InvalidSetting, read_settings

    try:
        settings = read_settings(os.environ)
        missing = _missing_file(settings.ledger_url)
        if missing is not None:
            return _complain(f"there is no ledger at {missing}; set LETHE_LEDGER_URL to the one to verify")
        ledger = open_ledger(settings.ledger_url, FileKeyring(Path(settings.keys_dir)))
        position = ledger.verify()
    except (InvalidSetting, KeysUnusable, LedgerError) as broken:
        return _complain(broken)
    sys.stdout.write(
        f"{position.sequence} entries, each follows from the one before; last sha256:{position.digest}\n"
    )
    return 0


def _missing_file(url: str) -> str | None:
    """Return the path of an SQLite ledger that is not there: to verify must not make one."""
    from pathlib import Path

    kind, _, path = url.partition(":///")
    return path if kind.startswith("sqlite") and not Path(path).is_file() else None


def _complain(error: Exception | str) -> int:
    sys.stderr.write(f"lethe: {error}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())

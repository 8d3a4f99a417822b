"""How the operator ends that can't start."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import lethe.bootstrap
from lethe.adapters.notices.markup import BrokenTemplate
from lethe.cli.main import main
from lethe.ports.notices import ChannelError

async def refuse(settings):
    raise {error}("what is wrong", "what to do")

lethe.bootstrap.run_operator = refuse
sys.exit(main(["run"]))
"""


@pytest.mark.parametrize("error", ["ChannelError", "BrokenTemplate"])
def test_a_channel_or_a_template_that_cannot_be_used_is_one_line_and_an_exit_code(error: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(error=error)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "lethe: what is wrong; what to do\n"


def test_half_a_channel_is_one_line_and_an_exit_code() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "lethe.cli.main", "run"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), "LETHE_SMTP_URL": "smtp://canary"},
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("lethe: LETHE_SMTP_URL is set and LETHE_MAIL_FROM is not; set it, as in ")
    assert ended.stderr.count("\n") == 1

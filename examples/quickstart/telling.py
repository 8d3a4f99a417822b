"""What the demo prints: steps, commands as a person types them, and claims with what was measured."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "cyan": "36"}


class CommandRefused(Exception):
    """A command of the story ended with an error; it has been shown by then."""


class Failed(Exception):
    """The story can't go on; the message says why."""


def styled(text: str, style: str) -> str:
    """Return `text` in a style where a person looks at it on a terminal."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\033[{STYLES[style]}m{text}\033[0m"


def say(text: str = "") -> None:
    """Print a line."""
    print(text, flush=True)


def heading(text: str) -> None:
    """Begin a chapter."""
    say()
    say(styled(text, "bold"))
    say(styled("─" * len(text), "dim"))


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what takes a moment before it does, and afterwards how long it took."""
    began = time.monotonic()
    print(f"{what} … ", end="", flush=True)
    try:
        yield
    except BaseException:
        say()
        raise
    say(styled(f"{time.monotonic() - began:.1f} s", "dim"))


class Shell:
    """Runs the story's commands with bash in `directory`, so that what is shown is what is run."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self.environment = {**os.environ, **environment}

    def run(self, command: str, *, quiet: bool = False) -> str:
        """Show a command, run it, show what it printed (unless `quiet`), and return that.

        Raises `CommandRefused`.
        """
        say(styled(f"$ {command}", "cyan"))
        ended = self._ended(command)
        shown = (ended.stdout if not quiet or ended.returncode else "") + ended.stderr
        if shown.strip():
            say(textwrap.indent(shown.rstrip(), "  "))
        if ended.returncode:
            raise CommandRefused(f"`{command}` ended with {ended.returncode}")
        return ended.stdout

    def ask(self, command: str) -> str:
        """Run a command without showing it, and return what it printed. Raises `CommandRefused`."""
        ended = self._ended(command)
        if ended.returncode:
            raise CommandRefused(f"`{command}` ended with {ended.returncode}: {ended.stderr.strip()}")
        return ended.stdout

    def _ended(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self._directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


class Account:
    """The account at the end: claims, each of which was looked at, and what was measured."""

    def __init__(self) -> None:
        self._claims: list[tuple[bool, str, str]] = []

    def claim(self, text: str, holds: bool, measured: str = "") -> None:
        """Note a claim, whether it holds, and a figure or a finding."""
        self._claims.append((holds, text, measured))

    @property
    def holds(self) -> bool:
        """Whether there are claims and all of them hold."""
        return bool(self._claims) and all(holds for holds, _, _ in self._claims)

    def show(self) -> None:
        """Print everything."""
        for holds, text, measured in self._claims:
            mark = styled("✓", "green") if holds else styled("✗", "red")
            say(f"{mark} {text}" + (styled(f"  [{measured}]", "dim") if measured else ""))

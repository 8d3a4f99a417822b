"""What a letter's template looks like once it is filled in, and how it becomes a text.

A template is plain text: a translator writes each sentence once, and both parts of a mail say the same:

    Subject: the first line

    A paragraph, in as many lines as one likes. A blank line ends it.

    | A label | a fact

    # A heading

    - an item of a list
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

VALUE = "\x02"
"""Stands before each value that was filled in, so that no value at a line's start is taken for markup."""

_SUBJECT = "Subject:"


class NotALetter(ValueError):
    """A filled-in template doesn't look like a letter; `problem` says why, without quoting it."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


class BrokenTemplate(Exception):
    """Templates of the operator's folder can't be used. `problem` and `remedy` are fit to print."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}; {remedy}")


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a letter: `kind` is `paragraph`, `heading`, `list` or `facts`.

    `lines` are a list's items, otherwise the one text. `facts` are pairs of label and fact.
    """

    kind: str
    lines: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """The text of a paragraph or a heading."""
        return " ".join(self.lines)


def parse_letter(filled_in: str) -> tuple[str, tuple[Block, ...]]:
    """Return subject and blocks of a filled-in template. Raises `NotALetter`."""
    first, _, rest = filled_in.strip().partition("\n")
    subject = _plain(first.removeprefix(_SUBJECT))
    if not first.startswith(_SUBJECT) or not subject:
        raise NotALetter(f"does not begin with a line of its own such as {_SUBJECT} A legal request")
    blocks = parse_blocks(rest)
    if not blocks:
        raise NotALetter("has no text below its subject")
    return subject, blocks


def parse_blocks(filled_in: str) -> tuple[Block, ...]:
    """Return the blocks of a filled-in text without a subject. Raises `NotALetter`."""
    return tuple(block for lines in _groups(filled_in) for block in _blocks(lines))


def as_text(blocks: Sequence[Block]) -> str:
    """Return blocks as the text part of a mail: a paragraph is a line, for the reader's program to wrap."""
    written: list[str] = []
    for block in blocks:
        if block.kind == "facts":
            written.append("\n".join(f"{label}: {fact}" for label, fact in block.facts))
        elif block.kind == "list":
            written.append("\n".join(f"- {item}" for item in block.lines))
        elif block.kind == "heading":
            written.append(f"\n{block.text}\n{'-' * len(block.text)}")
        else:
            written.append(block.text)
    return "\n\n".join(written).strip() + "\n"


def _groups(text: str) -> Iterator[list[str]]:
    group: list[str] = []
    for line in (*text.split("\n"), ""):
        if line.strip():
            group.append(line.strip())
        elif group:
            yield group
            group = []


def _blocks(lines: Sequence[str]) -> Iterator[Block]:
    """Return a heading and what stands right below it, a list, facts, or a paragraph."""
    if lines[0].startswith("# "):
        yield Block("heading", (_plain(lines[0][2:]),))
        if lines[1:]:
            yield from _blocks(lines[1:])
    elif lines[0].startswith("| "):
        yield Block("facts", facts=tuple(map(_fact, lines)))
    elif lines[0].startswith("- "):
        yield Block("list", tuple(_items(lines)))
    else:
        yield Block("paragraph", (_plain(" ".join(lines)),))


def _fact(line: str) -> tuple[str, str]:
    bar, label, fact = [*line.split("|", 2), "", ""][:3]
    if bar or not _plain(label) or not _plain(fact):
        raise NotALetter("has a line among its facts that is not of the form | label | fact")
    return _plain(label), _plain(fact)


def _items(lines: Sequence[str]) -> Iterator[str]:
    item = ""
    for line in lines:
        if line.startswith("- "):
            if item:
                yield _plain(item)
            item = line[2:]
        else:
            item += f" {line}"
    yield _plain(item)


def _plain(text: str) -> str:
    return " ".join(text.replace(VALUE, "").split(" ")).strip()

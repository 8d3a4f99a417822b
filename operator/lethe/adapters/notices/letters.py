"""Letters from templates: in the reader's language, with dates in the reader's time zone.

The packaged templates are English, German, French and Spanish. Files of the same names in a folder of the
operator's win over them, and add languages. docs/notices.md says what a template looks like.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from babel import Locale
from jinja2 import (
    ChoiceLoader,
    FileSystemLoader,
    StrictUndefined,
    TemplateError,
    TemplateNotFound,
    TemplateRuntimeError,
    TemplateSyntaxError,
    Undefined,
    select_autoescape,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lethe.adapters.notices.markup import (
    VALUE,
    Block,
    BrokenTemplate,
    NotALetter,
    as_text,
    parse_blocks,
    parse_letter,
)
from lethe.adapters.notices.reading import (
    ENGLISH,
    choose_language,
    country_name,
    in_words,
    one_line,
    parse_locale,
)
from lethe.adapters.notices.time_zones import find_zone
from lethe.domain.identifiers import PersonalText
from lethe.ports.notices import NoticeFacts, Recipient, Written

PACKAGED = Path(__file__).parent / "templates"
SETTING = "LETHE_TEMPLATES_DIR"

_log = logging.getLogger(__name__)
_USER = re.compile(r"user\.([A-Za-z]{2,3}(?:[-_][A-Za-z0-9]+)*)\.txt")
_SIGNATURE = re.compile(r"signature(?:\.([A-Za-z]{2,3}(?:[-_][A-Za-z0-9]+)*))?\.txt")
_KNOWN = "user.<language>.txt, user.html, authority.en.txt, signature.txt and signature.<language>.txt"
# In a name, a mail program would make a link of it.
_LIKE_A_LINK = re.compile(r"[:/@\\]|\.\w|www", re.IGNORECASE)


class TemplateWriter:
    """Writes letters; `folder` holds the operator's own templates, `None`: there are none.

    A template of the folder that fails while a letter is written (it may be changed at any time) is left
    out, with a line in the log that names it: the letter is then written from the packaged ones.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._packaged = _Shelf(None)
        self._shelf = self._packaged if folder is None else _Shelf(folder)

    def to_user(self, facts: NoticeFacts, recipient: Recipient) -> Written:
        """Return the notice to the user whom a legal request is about."""
        return self._written(lambda shelf: shelf.to_user(facts, recipient))

    def to_authority(self, facts: NoticeFacts) -> Written:
        """Return the answer to the authority: text only, in English."""
        return self._written(lambda shelf: shelf.to_authority(facts))

    def check(self) -> None:
        """Fill in every template of the folder with every kind of facts.

        Raises `BrokenTemplate`, which names each broken file, its line and the remedy.
        """
        if self._folder is None:
            return
        if not self._folder.is_dir():
            raise BrokenTemplate(
                f"{SETTING}: {self._folder} is not a folder", "mount it, or unset the setting"
            )
        problems = [*self._misnamed(), *self._broken()]
        if problems:
            raise BrokenTemplate(
                f"{SETTING}: " + "; ".join(dict.fromkeys(problems)),
                "correct the template, or remove it to have the packaged one",
            )

    def _written(self, write: Callable[[_Shelf], Written]) -> Written:
        try:
            return write(self._shelf)
        except Exception as failed:  # whatever a template does, the letter is written
            if self._shelf is self._packaged:
                raise
            _log.warning("%s: %s; the packaged template is used", SETTING, self._shelf.what_failed(failed))
            return write(self._packaged)

    def _misnamed(self) -> Iterator[str]:
        for name in self._shelf.own:
            match = _USER.fullmatch(name) or _SIGNATURE.fullmatch(name)
            if match is None and name not in {"user.html", "authority.en.txt"}:
                yield f"{name} is not a template's name ({_KNOWN} are)"
            elif match and match[1] and parse_locale(match[1]) is None:
                yield f"{name}: {match[1]} is not a language"

    def _broken(self) -> Iterator[str]:
        locales = [Locale.parse(language) for language in self._shelf.languages]
        for facts, locale, name in product(_every_kind_of_facts(), locales, ("Ada <b>", None)):
            recipient = Recipient(str(locale), "Europe/Berlin", PersonalText(name) if name else None)
            try:
                self._shelf.to_user(facts, recipient)
                self._shelf.to_authority(facts)
            except Exception as failed:  # noqa: BLE001 - whatever it is, it is told with all others
                yield self._shelf.what_failed(failed)


class _Shelf:
    """The templates as they are found: in the folder first, then in the package."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        folders = [*([folder] if folder else []), PACKAGED]
        self._templates = ImmutableSandboxedEnvironment(
            loader=ChoiceLoader([FileSystemLoader(one) for one in folders]),
            autoescape=select_autoescape(enabled_extensions=("html",), default=False),
            undefined=StrictUndefined,
            finalize=_marked,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=True,
        )

    @property
    def own(self) -> tuple[str, ...]:
        """Names of the folder's files; those that a mounted ConfigMap is made of begin with a dot."""
        if self._folder is None or not self._folder.is_dir():
            return ()
        return tuple(
            sorted(
                file.name
                for file in self._folder.iterdir()
                if not file.name.startswith(".") and file.is_file()
            )
        )

    @property
    def languages(self) -> Mapping[str, str]:
        """File names by language (`pt_BR`); the folder's win."""
        found: dict[str, str] = {}
        for name in (*sorted(file.name for file in PACKAGED.iterdir()), *self.own):
            match = _USER.fullmatch(name)
            locale = parse_locale(match[1]) if match else None
            if locale is not None:
                found[str(locale)] = name
        return found

    def to_user(self, facts: NoticeFacts, recipient: Recipient) -> Written:
        """Write the notice."""
        offered = self.languages
        theirs = parse_locale(recipient.locale)
        language = choose_language(theirs, offered)
        spoken = Locale.parse(language)
        # Dates as in Switzerland, in a text that is German everywhere.
        locale = theirs if theirs is not None and theirs.language == spoken.language else spoken
        context = {**_context(facts, locale, recipient.time_zone), "name": _greeted(recipient.name)}
        subject, blocks = self._letter(offered[language], context)
        signature = self._signature(language, context)
        tag = language.replace("_", "-")
        html = self._filled_in(
            "user.html",
            {
                "subject": subject,
                "blocks": blocks,
                "signature": signature,
                "language": tag,
                "direction": spoken.text_direction,
            },
        )
        return Written(subject, as_text(blocks) + _signed(signature), tag, html.replace(VALUE, ""))

    def to_authority(self, facts: NoticeFacts) -> Written:
        """Write the answer."""
        context = _context(facts, ENGLISH, None)
        subject, blocks = self._letter("authority.en.txt", context)
        return Written(subject, as_text(blocks) + _signed(self._signature("en", context)), "en")

    def what_failed(self, failed: Exception) -> str:
        """Return which template failed, where and why, without any value that it was filled in with."""
        place, line = _place(failed)
        where = f"{place}, line {line}" if line else place
        match failed:
            case _Unreadable(TemplateError() as error):
                return f"{where}: {error.message or type(error).__name__}"
            case _Unreadable(NotALetter() as error):
                return f"{where} {error.problem}"
            case _Unreadable(UnicodeDecodeError()):
                return f"{where}: is not UTF-8"
            case _Unreadable(error):
                return f"{where}: {type(error).__name__}"
            case _:
                return f"{where}: {type(failed).__name__}"

    def _letter(self, name: str, context: Mapping[str, Any]) -> tuple[str, tuple[Block, ...]]:
        filled_in = self._filled_in(name, context)
        try:
            return parse_letter(filled_in)
        except NotALetter as problem:
            raise _Unreadable(problem, name) from None

    def _signature(self, language: str, context: Mapping[str, Any]) -> tuple[Block, ...]:
        tag = language.replace("_", "-")
        names = (f"signature.{language}.txt", f"signature.{tag}.txt", "signature.txt")
        name = next((name for name in names if name in self.own), None)
        if name is None:
            return ()
        filled_in = self._filled_in(name, context)
        try:
            # A signature is an address or a list of links: its lines stay lines.
            return parse_blocks(re.sub(r"\n+", "\n\n", filled_in))
        except NotALetter as problem:
            raise _Unreadable(problem, name) from None

    def _filled_in(self, name: str, context: Mapping[str, Any]) -> str:
        try:
            return self._templates.get_template(name).render(context)
        except Exception as error:
            raise _Unreadable(error, name) from error


class _Unreadable(Exception):
    """A template failed; which one, and what it raised."""

    __match_args__ = ("error",)

    def __init__(self, error: Exception, name: str) -> None:
        self.error = error
        self.name = name
        super().__init__(name)


def _place(failed: Exception) -> tuple[str, int | None]:
    """Return a template's name and the line that failed."""
    if not isinstance(failed, _Unreadable):
        return "a template", None
    error = failed.error
    if isinstance(error, TemplateNotFound):
        return failed.name, None
    if isinstance(error, TemplateSyntaxError):
        return error.name or failed.name, error.lineno
    place, line, trace = failed.name, None, error.__traceback__
    while trace is not None:
        # Jinja lets tracebacks show the template's file and line.
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.suffix in {".txt", ".html"}:
            place, line = file.name, trace.tb_lineno
        trace = trace.tb_next
    return place, line


def _marked(value: object) -> object:
    """Return what a template prints for a value. Raises `TemplateRuntimeError` for one that is absent."""
    if value is None:
        raise TemplateRuntimeError("prints something that can be absent; put {% if … %} around it")
    if isinstance(value, Undefined):
        str(value)  # raises, and says the name
    return VALUE + value if isinstance(value, str) else f"{VALUE}{value}"


def _context(facts: NoticeFacts, locale: Locale, time_zone: str | None) -> dict[str, Any]:
    """Return what templates can tell."""
    zone = find_zone(time_zone)
    held = facts.held_back_until
    return {
        "kind": facts.kind,
        "outcome": facts.outcome,
        "reason": facts.reason,
        "level": facts.level,
        "authority": one_line(facts.authority),
        "country": country_name(one_line(facts.country), locale),
        "received": in_words(facts.received_at, zone, locale),
        "held_back_until": in_words(held, zone, locale) if held else None,
        "reference": _line(facts.reference),
        "court": _line(facts.court),
        "docket": _line(facts.docket),
        "legal_basis": _line(facts.legal_basis),
    }


def _line(text: str | None) -> str | None:
    return one_line(text) or None if text else None


def _greeted(name: PersonalText | None) -> str | None:
    """Return the name to greet with; `None` for none, and for what somebody made an advertisement of."""
    line = _line(name.reveal()) if name else None
    return None if line is None or len(line) > 80 or _LIKE_A_LINK.search(line) else line


def _signed(signature: tuple[Block, ...]) -> str:
    if not signature:
        return ""
    lines = [
        line for block in signature for line in (*block.lines, *(": ".join(fact) for fact in block.facts))
    ]
    # How every mail program tells a signature (RFC 3676, 4.3).
    return "\n-- \n" + "\n".join(lines) + "\n"


def _every_kind_of_facts() -> Iterator[NoticeFacts]:
    whole = NoticeFacts(
        kind="Disclosure",
        authority="County Sheriff's Office",
        level="Local",
        country="US",
        received_at=datetime(2026, 11, 22, 10, tzinfo=UTC),
        outcome="Rejected",
        reason="NoCourtOrder",
        reference="CSO-55-2026",
        court="Superior Court",
        docket="26-CV-1182",
        held_back_until=datetime(2027, 2, 21, 5, tzinfo=UTC),
        legal_basis="18 U.S.C. 2705(b)",
    )
    bare = replace(whole, reference=None, court=None, docket=None, held_back_until=None, legal_basis=None)
    outcomes = ("Rejected", "AwaitingReview", "Complied", "Refused", "Preserved")
    for facts, kind, outcome in product((whole, bare), ("Disclosure", "Preservation"), outcomes):
        reason = "NoCourtOrder" if outcome == "Rejected" else "Reviewed"
        yield replace(facts, kind=kind, outcome=outcome, reason=reason)
    yield replace(bare, reason="Withdrawn", level="Foreign")

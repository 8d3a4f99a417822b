"""What people read: every language, outcome and part tells the same facts, in the reader's own time."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import pytest
from babel import Locale
from hypothesis import given
from hypothesis import strategies as st

from lethe.adapters.notices.letters import PACKAGED, TemplateWriter
from lethe.adapters.notices.markup import BrokenTemplate
from lethe.adapters.notices.reading import in_words
from lethe.domain.identifiers import PersonalText
from lethe.ports.notices import NoticeFacts, Recipient, Written

LANGUAGES = ("en", "de", "fr", "es")
OUTCOMES = ("Rejected", "AwaitingReview", "Complied", "Refused", "Preserved", "SomethingNew")
NOTHING_HANDED_OVER = {
    "en": ("handed over none of your data", "nobody has been given your data"),
    "de": ("keine Daten über Sie herausgegeben", "Niemand hat auf diese Anfrage hin Daten über Sie erhalten"),
    "fr": ("transmis aucune donnée vous concernant", "personne n’a reçu de données vous concernant"),
    "es": ("no hemos entregado ningún dato sobre usted", "nadie ha recibido datos sobre usted"),
}
NO_SOFTWARE = {
    "en": "No software hands over data",
    "de": "gibt keine Software Daten heraus",
    "fr": "aucun logiciel ne transmet de données",
    "es": "ningún programa entrega datos",
}
COURT_ORDER = {"en": "court order", "de": "richterliche", "fr": "décision de justice", "es": "orden judicial"}
COUNTRY = {"en": "United States", "de": "Vereinigte Staaten", "fr": "États-Unis", "es": "Estados Unidos"}
WHY_LATE = {
    "en": "only now",
    "de": "erst jetzt",
    "fr": "que maintenant",
    "es": "solo ahora",
}
REJECTED = NoticeFacts(
    kind="Disclosure",
    authority="County Sheriff's Office",
    level="Local",
    country="US",
    received_at=datetime(2026, 11, 22, 10, tzinfo=UTC),
    outcome="Rejected",
    reason="NoCourtOrder",
    reference="CSO-55-2026",
)
UNDER_ORDER = replace(
    REJECTED,
    outcome="Complied",
    reason="Reviewed",
    court="Superior Court",
    docket="26-CV-1182",
    held_back_until=datetime(2027, 2, 21, 5, tzinfo=UTC),
    legal_basis="18 U.S.C. 2705(b)",
)
ADA = PersonalText("Ada Lovelace")
WRITER = TemplateWriter()


def to_user(facts: NoticeFacts, locale: str | None = "en", zone: str | None = None) -> Written:
    return WRITER.to_user(facts, Recipient(locale, zone, ADA))


def words_of_html(written: Written) -> str:
    """Return what a reader of the HTML part reads: it has to be well-formed to be read at all."""
    assert written.html is not None
    body = ET.fromstring(written.html).find("body")  # noqa: S314 - our own
    assert body is not None
    return " ".join(" ".join(body.itertext()).split())


def words_of_text(written: Written) -> str:
    return " ".join(written.text.split())


def all_facts() -> Iterator[NoticeFacts]:
    for kind, outcome, facts in product(("Disclosure", "Preservation"), OUTCOMES, (REJECTED, UNDER_ORDER)):
        yield replace(
            facts, kind=kind, outcome=outcome, reason=REJECTED.reason if outcome == "Rejected" else "Reviewed"
        )


def test_every_packaged_language_is_tested() -> None:
    assert {file.name for file in PACKAGED.glob("user.*.txt")} == {f"user.{tag}.txt" for tag in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("held_back", [False, True])
@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("kind", ["Disclosure", "Preservation"])
def test_a_notice_says_who_asked_what_was_decided_and_that_no_software_hands_over(
    language: str, held_back: bool, outcome: str, kind: str
) -> None:
    facts = replace(UNDER_ORDER if held_back else REJECTED, outcome=outcome, kind=kind, reason="NoCourtOrder")
    written = to_user(facts, language, "Europe/Berlin")

    assert written.language == language
    assert written.subject
    assert not set(written.subject) & set("\r\n")
    for words in (words_of_text(written), words_of_html(written)):
        for told in (
            "Ada Lovelace",
            facts.authority,
            facts.reference,
            COUNTRY[language],
            "2026",
            "11:00",
            "UTC+01:00",
        ):
            assert told is not None
            assert told in words
        assert NO_SOFTWARE[language] in words
        for told in (UNDER_ORDER.court, UNDER_ORDER.docket, UNDER_ORDER.legal_basis, WHY_LATE[language]):
            assert told is not None
            assert (told in words) == held_back
        if outcome not in {"Complied", "SomethingNew"}:
            assert any(promise.lower() in words.lower() for promise in NOTHING_HANDED_OVER[language])
        else:
            assert not any(promise.lower() in words.lower() for promise in NOTHING_HANDED_OVER[language])
        if outcome == "Rejected":
            assert COURT_ORDER[language] in words


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_and_html_say_the_same_words(language: str) -> None:
    def bare(words: str) -> list[str]:
        return re.findall(r"\w+", words)

    for facts in all_facts():
        written = to_user(facts, language, "America/New_York")
        # HTML has the subject as its headline; the text part begins with the greeting.
        assert bare(words_of_html(written)) == [*bare(written.subject), *bare(written.text)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_outcomes_read_alike(language: str) -> None:
    for kind, facts in product(("Disclosure", "Preservation"), (REJECTED, UNDER_ORDER)):
        texts = {to_user(replace(facts, kind=kind, outcome=one), language).text for one in OUTCOMES}
        assert len(texts) == len(OUTCOMES)


def test_what_is_not_known_is_not_mentioned() -> None:
    bare = replace(REJECTED, reference=None)
    for language in LANGUAGES:
        written = WRITER.to_user(bare, Recipient(language))
        assert "None" not in written.text
        assert "Ada" not in written.text
        assert written.text.count("\n- ") == 3


DATES = [
    # the hour that comes twice when summer time ends, and the one that never comes
    (
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        "de",
        "Europe/Berlin",
        ("25. Oktober", "02:30", "UTC+02:00", "Sommerzeit"),
    ),
    (
        datetime(2026, 10, 25, 1, 30, tzinfo=UTC),
        "de",
        "Europe/Berlin",
        ("25. Oktober", "02:30", "UTC+01:00", "Normalzeit"),
    ),
    (datetime(2026, 3, 29, 0, 59, tzinfo=UTC), "de-CH", "Europe/Zurich", ("29. März", "01:59", "UTC+01:00")),
    (datetime(2026, 3, 29, 1, 0, tzinfo=UTC), "de-CH", "Europe/Zurich", ("29. März", "03:00", "UTC+02:00")),
    (
        datetime(2026, 11, 1, 5, 30, tzinfo=UTC),
        "en",
        "America/New_York",
        ("Sunday, November 1", "1:30", "Eastern Daylight", "UTC−04:00"),
    ),
    (
        datetime(2026, 11, 1, 6, 30, tzinfo=UTC),
        "en",
        "America/New_York",
        ("Sunday, November 1", "1:30", "Eastern Standard", "UTC−05:00"),
    ),
    # on both sides of the date line
    (
        datetime(2026, 12, 31, 10, 30, tzinfo=UTC),
        "en-GB",
        "Pacific/Apia",
        ("Thursday, 31 December 2026", "23:30", "UTC+13:00"),
    ),
    (
        datetime(2026, 12, 31, 11, 30, tzinfo=UTC),
        "en-GB",
        "Pacific/Apia",
        ("Friday, 1 January 2027", "00:30", "UTC+13:00"),
    ),
    (
        datetime(2027, 1, 1, 10, 30, tzinfo=UTC),
        "fr",
        "Pacific/Pago_Pago",
        ("jeudi 31 décembre 2026", "23:30", "UTC−11:00"),
    ),
    # half hours, a zone that CLDR has no name for, and none at all
    (
        datetime(2026, 7, 1, 20, 0, tzinfo=UTC),
        "es",
        "Asia/Kolkata",
        ("2 de julio", "1:30", "Kolkata", "UTC+05:30"),
    ),
    (
        datetime(2026, 7, 1, 20, 0, tzinfo=UTC),
        "en",
        "Eastern Time (US & Canada)",
        ("July 1", "4:00", "Eastern Daylight Time", "UTC−04:00"),
    ),
    (
        datetime(2026, 7, 1, 20, 0, tzinfo=UTC),
        "en",
        "Nowhere/Land",
        ("July 1", "8:00", "Coordinated Universal Time"),
    ),
    (datetime(2026, 7, 1, 20, 0, tzinfo=UTC), "de", None, ("1. Juli", "20:00", "Koordinierte Weltzeit")),
    (datetime(1, 1, 1, tzinfo=UTC), "en", "America/New_York", ("January 1", "Coordinated Universal Time")),
]


@pytest.mark.parametrize(("received_at", "locale", "zone", "told"), DATES)
def test_dates_are_in_the_readers_time_and_say_which(
    received_at: datetime, locale: str, zone: str | None, told: tuple[str, ...]
) -> None:
    written = to_user(replace(REJECTED, received_at=received_at), locale, zone)

    for words in (words_of_text(written), words_of_html(written)):
        assert [one for one in told if one not in words] == []


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        ("de-CH", "de"),
        ("de_AT", "de"),
        ("de_DE.UTF-8", "de"),
        ("de-XX", "de"),
        ("DE", "de"),
        ("fr-CA", "fr"),
        ("es_419", "es"),
        ("en-GB", "en"),
        ("zh", "en"),
        ("zh-Hant-TW", "en"),
        ("pt_BR", "en"),
        ("C", "en"),
        ("", "en"),
        (None, "en"),
        ("nonsense", "en"),
        ("../../etc/passwd", "en"),
        ("de\0", "en"),
        ("_", "en"),
    ],
)
def test_a_locale_finds_its_language(locale: str | None, language: str) -> None:
    assert to_user(REJECTED, locale).language == language


@pytest.mark.parametrize("zone", ["", "/", "../../etc/passwd", "Europe", "\0", "Europe/Berlin\n", "x" * 5000])
def test_no_time_zone_loses_a_notice(zone: str) -> None:
    assert "2026" in to_user(REJECTED, "en", zone).text


@given(st.text(max_size=60), st.text(min_size=1, max_size=60), st.text(max_size=60))
def test_no_name_becomes_markup(name: str, authority: str, reference: str) -> None:
    facts = replace(REJECTED, authority=authority, reference=reference or None)
    written = WRITER.to_user(facts, Recipient("en", None, PersonalText(name)))
    assert written.html is not None
    tree = ET.fromstring(written.html)  # noqa: S314 - our own

    assert [
        element.tag for element in tree.iter() if element.tag in {"script", "a", "img", "link", "iframe"}
    ] == []
    assert len(tree.findall(".//h2")) == 2
    assert len(tree.findall(".//table")) == 1
    assert set(written.subject) & set("\r\n\0") == set()
    assert "\x02" not in written.text + written.html


def test_markup_in_a_name_is_shown_as_it_is() -> None:
    hostile = '<script>alert("x")</script> & <img src=x onerror=y> {{ 7 * 7 }} {% raw %}'
    written = to_user(replace(REJECTED, authority=hostile), "de")

    assert hostile in words_of_html(written)
    assert hostile in written.text
    assert "<script" not in (written.html or "")
    assert "<img" not in (written.html or "")


@pytest.mark.parametrize("authority", ["# All is well", "- item", "| a | b", "Subject: other"])
def test_a_name_at_a_lines_start_is_a_name(authority: str, tmp_path: Path) -> None:
    (tmp_path / "user.en.txt").write_text(
        "Subject: ours\n\n{{ authority }}\n{{ authority }}\n\n- {{ authority }}\n"
    )
    written = TemplateWriter(tmp_path).to_user(replace(REJECTED, authority=authority), Recipient("en"))

    assert written.subject == "ours"
    assert written.text == f"{authority} {authority}\n\n- {authority}\n"


def test_a_line_break_in_a_name_begins_no_line() -> None:
    written = WRITER.to_authority(
        replace(REJECTED, authority="Sheriff\n\n# All is well\r\n- item\x02\x85| a | b")
    )

    assert "To: Sheriff # All is well - item | a | b" in written.text


@pytest.mark.parametrize(
    "name", ["win at evil.example", "http://evil.example", "a@evil.example", "WWW", "x" * 81]
)
def test_nobody_is_greeted_by_an_advertisement(name: str) -> None:
    written = WRITER.to_user(REJECTED, Recipient("en", None, PersonalText(name)))

    assert written.text.startswith("Hello,")


@pytest.mark.parametrize("name", ["Jean-Luc O'Neill", "J. R. Smith", "渡辺 謙", "José Ñandú y Ortega"])
def test_people_are_greeted_by_their_names(name: str) -> None:
    assert f"Hello {name}," in WRITER.to_user(REJECTED, Recipient("en", None, PersonalText(name))).text


def test_signs_that_turn_writing_around_are_left_out() -> None:
    written = WRITER.to_user(REJECTED, Recipient("en", None, PersonalText("Ada\u202e\u2066 X")))

    assert "Hello Ada X," in written.text


def test_html_loads_nothing_and_links_nowhere() -> None:
    for language, facts in product(LANGUAGES, all_facts()):
        html = to_user(facts, language).html or ""
        assert not re.search(r"https?:|url\(|src=|href=|@import|<script|<img|<link", html, re.IGNORECASE)


def test_html_says_its_language_and_fits_dark_and_light() -> None:
    for language in LANGUAGES:
        html = to_user(REJECTED, language).html or ""
        assert f'<html lang="{language}" dir="ltr">' in html
        assert "prefers-color-scheme: dark" in html
        assert "max-width: 600px" in html


def test_the_authority_reads_its_own_number_the_decision_and_nothing_of_the_user() -> None:
    written = WRITER.to_authority(REJECTED)

    assert (written.language, written.html) == ("en", None)
    assert "CSO-55-2026" in written.subject
    for told in ("County Sheriff's Office", "10:00", "Coordinated Universal Time", "rejected", "court order"):
        assert told in written.text
    texts = {WRITER.to_authority(replace(UNDER_ORDER, outcome=one)).text for one in OUTCOMES}
    assert len(texts) == len(OUTCOMES)
    # What forbade to tell the user is no business of this letter.
    assert not any("2705" in text for text in texts)


def test_a_folder_overrides_one_language_and_adds_another(tmp_path: Path) -> None:
    (tmp_path / "user.de.txt").write_text("Subject: Kurz\n\nAm {{ received.date }} fragte {{ authority }}.\n")
    (tmp_path / "user.pt-BR.txt").write_text("Subject: Um pedido\n\nEm {{ received.date }}, {{ country }}.\n")
    (tmp_path / "user.ar.txt").write_text("Subject: طلب\n\n{{ authority }}\n")
    renderer = TemplateWriter(tmp_path)
    renderer.check()

    assert (
        renderer.to_user(REJECTED, Recipient("de")).text
        == "Am Sonntag, 22. November 2026 fragte County Sheriff's Office.\n"
    )
    assert (
        "domingo, 22 de novembro de 2026, Estados Unidos"
        in renderer.to_user(REJECTED, Recipient("pt_PT")).text
    )
    assert renderer.to_user(REJECTED, Recipient("pt")).language == "pt-BR"
    assert '<html lang="ar" dir="rtl">' in (renderer.to_user(REJECTED, Recipient("ar")).html or "")
    assert renderer.to_user(REJECTED, Recipient("fr")).text == WRITER.to_user(REJECTED, Recipient("fr")).text


def test_a_signature_tells_who_writes_and_only_its_links_are_links(tmp_path: Path) -> None:
    (tmp_path / "signature.txt").write_text("Example Ltd, Privacy\nhttps://example.com/privacy?a=1&b=2\n")
    (tmp_path / "signature.de.txt").write_text("Beispiel GmbH\n")
    renderer = TemplateWriter(tmp_path)
    renderer.check()
    facts = replace(REJECTED, authority="https://evil.example/")
    written = renderer.to_user(facts, Recipient("en"))

    assert written.text.endswith("\n-- \nExample Ltd, Privacy\nhttps://example.com/privacy?a=1&b=2\n")
    assert re.findall(r'href="([^"]*)"', written.html or "") == ["https://example.com/privacy?a=1&amp;b=2"]
    assert renderer.to_user(facts, Recipient("de-AT")).text.endswith("-- \nBeispiel GmbH\n")
    assert "Example Ltd" in renderer.to_authority(facts).text


BROKEN = [
    ("user.de.txt", "Subject: x\n\n{% if reference %}\nno end\n", "user.de.txt, line"),
    ("user.de.txt", "Subject: x\n\n{{ autority }}\n", "user.de.txt, line 3: 'autority' is undefined"),
    ("user.de.txt", "Subject: x\n\ntext\n{{ reference }}\n", "line 4: prints something that can be absent"),
    ("user.de.txt", "Guten Tag\n\ntext\n", "does not begin with a line"),
    ("user.de.txt", "Subject: x\n\n", "has no text"),
    ("user.de.txt", "Subject: x\n\n| only a label\n", "has a line among its facts"),
    ("user.de.txt", "Subject: x\n\n{{ authority.__class__.__mro__ }}\n", "user.de.txt, line 3"),
    ("user.de.txt", "Subject: x\n\n{{ 1 / 0 }}\n", "user.de.txt, line 3: ZeroDivisionError"),
    ("user.de.txt", "Subject: x\n\n{% include 'nothing.txt' %}\n", "nothing.txt"),
    ("user.html", "<p>{{ subjct }}</p>", "user.html, line 1: 'subjct' is undefined"),
    ("authority.en.txt", "Subject: x\n\n{{ name }}\n", "authority.en.txt, line 3: 'name' is undefined"),
    ("signature.txt", "{% x %}", "signature.txt, line 1"),
]


@pytest.mark.parametrize(("name", "template", "told"), BROKEN)
def test_a_broken_template_is_named_at_the_start_and_loses_no_notice(
    name: str, template: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_text(template)
    renderer = TemplateWriter(tmp_path)

    with pytest.raises(BrokenTemplate) as raised:
        renderer.check()
    assert told in raised.value.problem
    assert "LETHE_TEMPLATES_DIR" in raised.value.problem
    assert raised.value.remedy

    caplog.set_level(logging.WARNING)
    recipient = Recipient("de", None, PersonalText("Canary Name"))
    bare = replace(REJECTED, reference=None)
    assert renderer.to_user(bare, recipient) == (
        WRITER.to_user(bare, recipient) if name != "authority.en.txt" else renderer.to_user(bare, recipient)
    )
    assert renderer.to_authority(bare).text == WRITER.to_authority(bare).text
    assert name in caplog.text or "nothing.txt" in caplog.text
    assert "Canary" not in caplog.text


def test_a_template_that_breaks_while_the_operator_runs_loses_no_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    template = tmp_path / "user.en.txt"
    template.write_text("Subject: ours\n\n{{ authority }}\n")
    renderer = TemplateWriter(tmp_path)
    assert renderer.to_user(REJECTED, Recipient("en")).subject == "ours"

    template.write_bytes(b"\xff\xfe{{")
    assert renderer.to_user(REJECTED, Recipient("en")).subject == "A legal request about your account"
    assert "user.en.txt" in caplog.text

    template.unlink()
    tmp_path.rmdir()
    assert renderer.to_user(REJECTED, Recipient("fr")).language == "fr"


@pytest.mark.parametrize(
    ("name", "told"), [("usr.de.txt", "not a template's name"), ("user.qx.txt", "qx is not a language")]
)
def test_a_file_that_nothing_would_ever_read_is_said(name: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("Subject: x\n\ny\n")

    with pytest.raises(BrokenTemplate, match=told):
        TemplateWriter(tmp_path).check()


def test_a_mounted_configmap_is_read_through_its_links(tmp_path: Path) -> None:
    real = tmp_path / "..2026_11_22"
    real.mkdir()
    (real / "user.en.txt").write_text("Subject: mounted\n\ntext\n")
    (tmp_path / "..data").symlink_to(real.name)
    (tmp_path / "user.en.txt").symlink_to("..data/user.en.txt")
    renderer = TemplateWriter(tmp_path)
    renderer.check()

    assert renderer.to_user(REJECTED, Recipient("en")).subject == "mounted"


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BrokenTemplate, match="is not a folder"):
        TemplateWriter(tmp_path / "missing").check()


def test_what_was_written_shows_in_no_repr() -> None:
    written = to_user(REJECTED)

    assert "Ada" not in repr(written)
    assert "Ada" not in repr(Recipient("en", None, ADA))


@pytest.mark.parametrize("language", ["rw", "tn_ZA"])
def test_a_language_without_a_word_for_unknown_places_tells_the_time_all_the_same(language: str) -> None:
    told = in_words(datetime(2026, 11, 22, 10, tzinfo=UTC), ZoneInfo("Europe/Zurich"), Locale.parse(language))
    assert told.zone.endswith("UTC+01:00")
    assert in_words(datetime(2026, 11, 22, 10, tzinfo=UTC), ZoneInfo("Etc/UTC"), Locale.parse(language)).zone

"""What a column's name, and a sample of its values, tell of personal data in it."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from lethe.domain.mapping import PiiKind

# Parts of words, in several tongues of schemas; a false alarm is silenced once, by `ignore`.
_PARTS = re.compile(
    r"name|mail|phone|mobile|fax|address|street|city|zip|postal|postcode|birth|passw|passwd|secret|locale|lang"
    r"|time_?zone|nick|gender|avatar|signature|iban|passport|social_security|latitude|longitude|vorname|anschrift"
)
_WORDS = frozenset(
    {"tz", "ip", "dob", "tel", "pwd", "ssn", "sex", "age", "bio", "geo", "lat", "lng", "plz", "ort"}
)
# What a flag or a number of rows is called after is not itself the thing (email_verified, names_count).
_SELDOM = frozenset(
    {"bool", "int2", "int4", "int8", "timestamp", "timestamptz", "numeric", "float4", "float8"}
)
_TELLING_ANYWAY = re.compile(
    r"birth|phone|mobile|zip|postal|latitude|longitude|iban|passport|social_security"
)


def looks_personal(name: str, base: str) -> bool:
    """Tell whether a column of this name and type (its base type's name) may hold personal data."""
    snake = snake_case(name)
    if base in _SELDOM:
        return bool(_TELLING_ANYWAY.search(snake)) and base != "bool"
    return base == "inet" or bool(_PARTS.search(snake)) or bool(_WORDS & set(words_of(name)))


def snake_case(name: str) -> str:
    """Return `firstName` as `first_name`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def words_of(name: str) -> list[str]:
    """Return the words of a name."""
    return [word for word in re.split(r"[^a-z]+", snake_case(name)) if word]


# Of a name that ends like this, the thing itself is elsewhere: when it was changed, how many, which kind.
_ABOUT = re.compile(
    r"(?:_at|_on|_count|_counter|_id|_ids|_type|_kind|_enabled|_verified|_confirmed|_required|_level|_format"
    r"|_status|_state|_version|_expires|_expiry|_date|_size|_algorithm|_alg|_policy|_visibility|_position)$"
)
_NAMES: tuple[tuple[PiiKind, re.Pattern[str]], ...] = (
    (
        PiiKind.PASSWORD,
        re.compile(
            r"passw|passwd|(?:^|_)pwd(?:$|_)|(?:^|_)pass(?:$|_)|secret|(?:^|_)salt(?:$|_)|_token(?:$|_)"
            r"|^token$|token_(?:hash|digest|encrypted)|(?:^|_)otp(?:$|_)|api_?key|private_key"
            r"|activation_key|backup_codes|(?:^|_)credential"
        ),
    ),
    (PiiKind.EMAIL, re.compile(r"e_?mail|(?:^|_)mail(?:$|_)")),
    (PiiKind.TIME_ZONE, re.compile(r"time_?zone|(?:^|_)tz(?:$|_)")),
    (PiiKind.LOCALE, re.compile(r"(?:^|_)locale|(?:^|_)lang(?:$|_)|(?:^|_)(?:ui_)?language(?:$|_code)")),
    (PiiKind.FIRST_NAME, re.compile(r"(?:first|given|fore)_?name|vorname|prenom")),
    (
        PiiKind.LAST_NAME,
        re.compile(
            r"(?:last|family|sur|middle|full|display|real|maiden|nick|user|contact|partner|holder|customer"
            r"|recipient|author|external|billing|shipping)_?name|nachname|nicename|surname"
            r"|^name(?:_lower)?$|^(?:user_)?login$|^handle$|^screen_name$|_author$|signature"
        ),
    ),
    (
        PiiKind.OTHER,
        re.compile(
            r"phone|mobile|(?:^|_)fax(?:$|_)|(?:^|_)tel(?:$|_)|(?:^|_)address|street|(?:^|_)city(?:$|_)"
            r"|(?:^|_)zip(?:$|_|code)|postal|post_?code|birth|(?:^|_)dob(?:$|_)|gender|(?:^|_)sex(?:$|_)|avatar"
            r"|picture|photo|(?:^|_)image(?:_\d+)?$|(?:^|_)bio(?:$|_)|biograph|about_me|(?:^|_)ip(?:$|_)"
            r"|_ip$|(?:^|_)ip_|(?:first|last|remote|client|login)_?ip$|(?:^|_)agent$|location|(?:^|_)vat(?:$|_)|(?:^|_)ssn|tax_id|iban|passport"
            r"|company|organi[sz]ation$|latitude|longitude|twitter|facebook|linkedin|skype|github|website"
            r"|(?:^|_)(?:user_)?url$|job_title|headline|(?:^|_)uid$|marital|pronouns|acc(?:ount)?_number"
            r"|institution$|department$|id_?number$|last_?(?:4|four|digits)$"
        ),
    ),
)


def kind_by_name(name: str, base: str) -> PiiKind | None:
    """Return the kind of personal data that a column of this name and type holds, as names go."""
    snake = snake_case(name)
    if base == "bool" or base.startswith("_bool"):
        return None
    if base in _SELDOM:
        return PiiKind.OTHER if looks_personal(name, base) and not _ABOUT.search(snake) else None
    if base in {"inet", "cidr"}:
        return PiiKind.OTHER
    if _ABOUT.search(snake) and not re.search(r"birth|passport", snake):
        return None
    for kind, pattern in _NAMES:
        if pattern.search(snake):
            return kind
    return None


_PLACES = re.compile(r"street|(?:^|_)city(?:$|_)|(?:^|_)zip(?:$|_|code)|postal|post_?code")
_REGIONS = re.compile(r"(?:^|_)(?:state|region|province|county|country)(?:_code|_name)?$")


def regions_beside(names: Iterable[str]) -> frozenset[str]:
    """Return which of a table's columns tell where somebody lives, since others tell street or town: alone,
    a `state` can be anything's.
    """
    of_table = tuple(names)
    if not any(_PLACES.search(snake_case(name)) for name in of_table):
        return frozenset()
    return frozenset(name for name in of_table if _REGIONS.search(snake_case(name)))


_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]+\.[^@\s.]{2,}")
_HASH = re.compile(r"\$(?:2[abxy]?|argon2\w*|5|6|P|H|y|scrypt|pbkdf2[\w-]*)\$.+|pbkdf2_sha\d+\$.+")
_LOCALE = re.compile(r"[a-z]{2,3}[_-](?:[A-Z]{2}|[A-Z][a-z]{3})(?:[._@-]\S*)?")
_PHONE = re.compile(r"\+\d[\d ()./-]{6,20}")
_ADDRESS_OF_HOST = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
MOST_OF = 0.6
"""Which share of the values must look alike, so that the column holds that."""


@cache
def _zones() -> frozenset[str]:
    return frozenset(zone for zone in zoneinfo.available_timezones() if "/" in zone)


_SIGNS: Mapping[PiiKind, Callable[[str], object]] = {
    PiiKind.EMAIL: _EMAIL.fullmatch,
    PiiKind.PASSWORD: _HASH.fullmatch,
    PiiKind.TIME_ZONE: lambda value: value in _zones(),
    PiiKind.LOCALE: _LOCALE.fullmatch,
    PiiKind.OTHER: lambda value: _PHONE.fullmatch(value) or _ADDRESS_OF_HOST.fullmatch(value),
}


def kind_by_values(values: Iterable[str]) -> PiiKind | None:
    """Return what most of a sample's values look like, as texts; `None`: nothing that tells by itself."""
    told = [value.strip() for value in values if value and value.strip()]
    if not told:
        return None
    for kind, looks in _SIGNS.items():
        if sum(1 for value in told if looks(value)) >= MOST_OF * len(told):
            return kind
    return None

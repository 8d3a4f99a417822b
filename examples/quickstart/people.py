"""The people of the demo, made up by Faker from a fixed seed: the same in every run, and nobody real."""

import random
import re
import secrets
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from faker import Faker

SEED = 1848
HOW_MANY = 10_000
HOMES: Sequence[tuple[str, str, Sequence[str]]] = (
    # Faker's locale, the site's locale, time zones where people with it live
    ("de_DE", "de-DE", ("Europe/Berlin",)),
    ("de_CH", "de-CH", ("Europe/Zurich",)),
    ("en_GB", "en-GB", ("Europe/London",)),
    ("en_US", "en-US", ("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles")),
    ("es_MX", "es-MX", ("America/Mexico_City", "America/Tijuana")),
    ("fr_FR", "fr-FR", ("Europe/Paris",)),
    ("hi_IN", "hi-IN", ("Asia/Kolkata",)),
    ("it_IT", "it-IT", ("Europe/Rome",)),
    ("ja_JP", "ja-JP", ("Asia/Tokyo",)),
    ("pl_PL", "pl-PL", ("Europe/Warsaw",)),
    ("pt_BR", "pt-BR", ("America/Sao_Paulo", "America/Manaus")),
    ("tr_TR", "tr-TR", ("Europe/Istanbul",)),
    ("uk_UA", "uk-UA", ("Europe/Kyiv",)),
    ("zh_CN", "zh-CN", ("Asia/Shanghai",)),
)
SAID = ("Thank you, that helped.", "Same here since the last update.", "Is there a way to export it?", "+1")


@dataclass(frozen=True, slots=True)
class Person:
    """One person. `created_at` is when she signed up."""

    first_name: str
    last_name: str
    email: str
    locale: str
    time_zone: str
    created_at: datetime

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first_name} {self.last_name}"

    @property
    def language(self) -> str | None:
        """The language as Tryton, as it is delivered, knows it."""
        return "en" if self.locale.startswith("en") else None


def made_up(count: int = HOW_MANY) -> list[Person]:
    """Return people; the one at position n gets the key n + 1 in an empty table."""
    dice = random.Random(SEED)  # noqa: S311 - made-up persons need no cryptography
    fakers = []
    for code, locale, zones in HOMES:
        faker = Faker(code)
        faker.seed_instance(f"{SEED}{code}")
        fakers.append((faker, locale, zones))
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    people = []
    for number in range(1, count + 1):
        faker, locale, zones = dice.choice(fakers)
        first, last = faker.first_name(), faker.last_name()
        people.append(
            Person(
                first,
                last,
                _address(first, last, number),
                locale,
                dice.choice(zones),
                today - timedelta(seconds=dice.randrange(86_400, 5 * 365 * 86_400)),
            )
        )
    return people


def _address(first: str, last: str, number: int) -> str:
    latin = unicodedata.normalize("NFKD", f"{first}.{last}").encode("ascii", "ignore").decode()
    latin = re.sub(r"[^A-Za-z.]+", "", latin).strip(".")
    return f"{latin or 'member'}{number}@example.org"


def fill_site(url: str, people: Sequence[Person], schema: str) -> dict[str, int]:
    """Make the site's tables and fill them by COPY; return how many rows each has."""
    dice = random.Random(SEED)  # noqa: S311 - made-up persons need no cryptography
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(schema.encode())
        columns = "first_name, last_name, email, password_hash, locale, time_zone, created_at"
        with cursor.copy(f"COPY users ({columns}) FROM STDIN".encode()) as copy:
            for person in people:
                copy.write_row(
                    (
                        person.first_name,
                        person.last_name,
                        person.email,
                        f"$argon2id$v=19$m=65536,t=3,p=4${dice.randbytes(16).hex()}${dice.randbytes(32).hex()}",
                        person.locale,
                        person.time_zone,
                        person.created_at,
                    )
                )
        with cursor.copy(b"COPY sessions (user_id, token, started_at) FROM STDIN") as copy:
            for key, moment in _moments(dice, people, least=1, most=3):
                copy.write_row((key, dice.randbytes(16).hex(), moment))
        with cursor.copy(b"COPY comments (author_id, said, signature, written_at) FROM STDIN") as copy:
            for key, moment in _moments(dice, people, least=1, most=4):
                copy.write_row((key, dice.choice(SAID), people[key - 1].name, moment))
        rows = {}
        for table in ("users", "sessions", "comments"):
            cursor.execute(f"SELECT count(*) FROM {table}".encode())
            (rows[table],) = cursor.fetchone() or (0,)
        cursor.execute("ANALYZE")
    return rows


def _moments(
    dice: random.Random, people: Sequence[Person], *, least: int, most: int
) -> Iterator[tuple[int, datetime]]:
    """Yield for every key some moments since the person signed up."""
    for key, person in enumerate(people, start=1):
        for _ in range(dice.randint(least, most)):
            yield key, person.created_at + timedelta(seconds=dice.randrange(3600, 86_400))


def sign_up(url: str, person: Person) -> int:
    """Let a person sign up now, as the site's own application would; return her key."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "INSERT INTO users (first_name, last_name, email, password_hash, locale, time_zone)"
            " VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
            (
                person.first_name,
                person.last_name,
                person.email,
                f"$argon2id$v=19$m=65536,t=3,p=4${secrets.token_hex(16)}${secrets.token_hex(32)}",
                person.locale,
                person.time_zone,
            ),
        ).fetchone()
        if row is None:
            raise LookupError("the site gave no key")
        key = int(row[0])
        connection.execute(
            "INSERT INTO sessions (user_id, token, started_at) VALUES (%s, %s, clock_timestamp())",
            (key, secrets.token_hex(16)),
        )
        connection.execute(
            "INSERT INTO comments (author_id, said, signature, written_at)"
            " VALUES (%s, %s, %s, clock_timestamp())",
            (key, "Hello!", person.name),
        )
    return key

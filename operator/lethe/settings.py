"""Settings from the environment; docs/operations.md says what each means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from lethe.domain.hosts import AllowedHosts
from lethe.domain.periods import InvalidPeriod, Period, parse_duration
from lethe.domain.snapshots import CLOCK_SKEW


class InvalidSetting(ValueError):
    """A setting can't be used; the message names the variable, what is wrong, and what it looks like."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Frozen at start. Durations are timedeltas, periods are calendar periods.

    Those that may hold a password are left out of `repr`: a URL, a secret.
    """

    namespaces: tuple[str, ...] = ()
    ledger_url: str = field(default="sqlite:////var/lib/lethe/ledger.db", repr=False)
    keys_dir: Path = Path("/etc/lethe/keys")
    retention: Period = field(default_factory=lambda: Period(6, 0))
    erasure_deadline: Period = field(default_factory=lambda: Period(1, 0))
    journal_interval: timedelta = timedelta(seconds=10)
    sweep_interval: timedelta = timedelta(hours=1)
    scan_interval: timedelta = timedelta(minutes=5)
    clock_skew: timedelta = CLOCK_SKEW
    backup_directories: tuple[Path, ...] = (Path("/backups"),)
    store_hosts: AllowedHosts = field(default_factory=AllowedHosts)
    smtp_url: str | None = field(default=None, repr=False)
    mail_from: str | None = None
    smtp_ca_file: Path | None = None
    webhook_url: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    webhook_ca_file: Path | None = None
    templates_dir: Path | None = None
    notices_per_hour: int = 30
    early_warning: Mapping[str, str] = field(default_factory=dict)
    """What is watched for others' restores, each with its namespace (empty: those that Lethe serves)."""
    metrics_host: str = "0.0.0.0"  # noqa: S104 - a pod is scraped from outside of itself
    metrics_port: int = 8080
    log_level: str = "INFO"
    log_format: str = "json"
    drill_commands_dir: Path | None = None
    lease: str | None = None
    kubeconfig: str | None = None


NO_LEASE = "none"
"""`LETHE_LEASE` of an operator that never stands by."""

_LEASE = re.compile(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/)?[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
EARLY_WARNINGS = ("velero", "cloudNativePG", "volumeSnapshots", "jobs")
_LOOKS_LIKE = {
    "LETHE_SMTP_URL": "smtp+starttls://user:password@host:587",
    "LETHE_MAIL_FROM": "privacy@example.com or Example Privacy <privacy@example.com>",
    "LETHE_WEBHOOK_URL": "https://host/path",
    "LETHE_WEBHOOK_SECRET": "whsec_ and 24 to 64 random bytes in base64",
}
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings. Raises `InvalidSetting`."""
    known = Settings()
    host, port = _address(environment.get("LETHE_METRICS_ADDRESS", "0.0.0.0:8080"))
    smtp_url, mail_from = _both(environment, "LETHE_SMTP_URL", "LETHE_MAIL_FROM")
    webhook_url, webhook_secret = _both(environment, "LETHE_WEBHOOK_URL", "LETHE_WEBHOOK_SECRET")
    return Settings(
        namespaces=tuple(
            part.strip() for part in environment.get("LETHE_NAMESPACES", "").split(",") if part.strip()
        ),
        ledger_url=_text(environment, "LETHE_LEDGER_URL") or known.ledger_url,
        keys_dir=Path(environment.get("LETHE_KEYS_DIR") or known.keys_dir),
        retention=_period(environment, "LETHE_RETENTION", known.retention),
        erasure_deadline=_period(environment, "LETHE_ERASURE_DEADLINE", known.erasure_deadline),
        journal_interval=_duration(environment, "LETHE_JOURNAL_INTERVAL", known.journal_interval),
        sweep_interval=_duration(environment, "LETHE_SWEEP_INTERVAL", known.sweep_interval),
        scan_interval=_duration(environment, "LETHE_SCAN_INTERVAL", known.scan_interval),
        clock_skew=_duration(environment, "LETHE_CLOCK_SKEW", known.clock_skew),
        backup_directories=_directories(environment, known.backup_directories),
        store_hosts=_hosts(environment, known.store_hosts),
        smtp_url=smtp_url,
        mail_from=mail_from,
        smtp_ca_file=_path(environment, "LETHE_SMTP_CA_FILE"),
        webhook_url=webhook_url,
        webhook_secret=webhook_secret,
        webhook_ca_file=_path(environment, "LETHE_WEBHOOK_CA_FILE"),
        templates_dir=_path(environment, "LETHE_TEMPLATES_DIR"),
        notices_per_hour=_count(environment, "LETHE_NOTICES_PER_HOUR", known.notices_per_hour),
        early_warning=_early_warning(environment),
        metrics_host=host,
        metrics_port=port,
        log_level=_one_of(environment, "LETHE_LOG_LEVEL", _LEVELS, known.log_level),
        log_format=_one_of(environment, "LETHE_LOG_FORMAT", ("json", "text"), known.log_format),
        drill_commands_dir=_folder(environment, "LETHE_DRILL_COMMANDS_DIR"),
        lease=_lease(environment),
        kubeconfig=environment.get("LETHE_KUBECONFIG") or None,
    )


def _lease(environment: Mapping[str, str]) -> str | None:
    text = _text(environment, "LETHE_LEASE")
    if text is not None and not _LEASE.fullmatch(text):
        raise InvalidSetting(f"LETHE_LEASE must be name, namespace/name or {NO_LEASE}, as in lethe/lethe")
    return text


def _early_warning(environment: Mapping[str, str]) -> Mapping[str, str]:
    found = {}
    for entry in filter(
        None, (part.strip() for part in environment.get("LETHE_EARLY_WARNING", "").split(","))
    ):
        kind, given, where = entry.partition("=")
        if kind not in EARLY_WARNINGS or (given and (kind != "velero" or not _NAMESPACE.fullmatch(where))):
            raise InvalidSetting(
                "LETHE_EARLY_WARNING must be some of velero (or velero=namespace), cloudNativePG, "
                "volumeSnapshots and jobs, with commas between"
            )
        found[kind] = where or ("velero" if kind == "velero" else "")
    return found


def _period(environment: Mapping[str, str], name: str, default: Period) -> Period:
    text = environment.get(name)
    if not text:
        return default
    try:
        return Period.parse(text)
    except InvalidPeriod as invalid:
        raise InvalidSetting(f"{name}: {invalid}") from None


def _duration(environment: Mapping[str, str], name: str, default: timedelta) -> timedelta:
    text = environment.get(name)
    if not text:
        return default
    try:
        return parse_duration(text)
    except InvalidPeriod as invalid:
        raise InvalidSetting(f"{name}: {invalid}") from None


def _directories(environment: Mapping[str, str], default: tuple[Path, ...]) -> tuple[Path, ...]:
    name = "LETHE_BACKUP_DIRECTORIES"
    found = tuple(Path(part) for part in environment.get(name, "").split(":") if part)
    if any(not path.is_absolute() for path in found):
        raise InvalidSetting(f"{name} must be absolute paths with colons between, as in /backups:/mnt/dumps")
    return found or default


def _hosts(environment: Mapping[str, str], default: AllowedHosts) -> AllowedHosts:
    text = _text(environment, "LETHE_STORE_HOSTS")
    if text is None:
        return default
    try:
        return AllowedHosts.parse(text)
    except ValueError as entry:
        raise InvalidSetting(
            f"LETHE_STORE_HOSTS: {entry} is no name, address or network; write such as"
            " db.example.org, *.example.org:5432, 10.0.0.0/8, [fd00::/8]:5432"
        ) from None


def _both(environment: Mapping[str, str], one: str, other: str) -> tuple[str | None, str | None]:
    """Return two settings that mean nothing without each other."""
    found = {name: _text(environment, name) for name in (one, other)}
    missing = [name for name, text in found.items() if text is None]
    if len(missing) == 1:
        present = one if missing == [other] else other
        raise InvalidSetting(
            f"{present} is set and {missing[0]} is not; set it, as in {_LOOKS_LIKE[missing[0]]}"
        )
    return found[one], found[other]


def _text(environment: Mapping[str, str], name: str) -> str | None:
    # What comes from a Secret mostly ends with a line break.
    return environment.get(name, "").strip() or None


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    text = _text(environment, name)
    return None if text is None else Path(text)


def _folder(environment: Mapping[str, str], name: str) -> Path | None:
    path = _path(environment, name)
    if path is not None and not path.is_absolute():
        raise InvalidSetting(f"{name} must be an absolute path, as in /etc/lethe/drills")
    return path


def _count(environment: Mapping[str, str], name: str, default: int) -> int:
    text = _text(environment, name)
    if text is None:
        return default
    # No more digits than any count of notices has: int() refuses thousands of them in words of its own.
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise InvalidSetting(f"{name} must be a whole number from 1 on, as in {default}")
    return int(text)


def _one_of(environment: Mapping[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    text = environment.get(name) or default
    for choice in choices:
        if text.lower() == choice.lower():
            return choice
    raise InvalidSetting(f"{name} must be one of {', '.join(choices)}")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise InvalidSetting("LETHE_METRICS_ADDRESS must be host:port, as in 0.0.0.0:8080")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - an empty host means all of them

"""Settings from the environment; docs/operations.md says what each means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from lethe.domain.periods import InvalidPeriod, Period, parse_duration


class InvalidSetting(ValueError):
    """A setting can't be used; the message names the variable, what is wrong, and what it looks like."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Frozen at start. Durations are timedeltas, periods are calendar periods."""

    namespaces: tuple[str, ...] = ()
    ledger_url: str = "sqlite:////var/lib/lethe/ledger.db"
    keys_dir: Path = Path("/etc/lethe/keys")
    retention: Period = field(default_factory=lambda: Period(6, 0))
    erasure_deadline: Period = field(default_factory=lambda: Period(1, 0))
    journal_interval: timedelta = timedelta(seconds=10)
    sweep_interval: timedelta = timedelta(hours=1)
    scan_interval: timedelta = timedelta(minutes=5)
    backup_directories: tuple[Path, ...] = (Path("/backups"),)
    metrics_host: str = "0.0.0.0"  # noqa: S104 - a pod is scraped from outside of itself
    metrics_port: int = 8080
    log_level: str = "INFO"
    log_format: str = "json"
    kubeconfig: str | None = None


_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings. Raises `InvalidSetting`."""
    known = Settings()
    host, port = _address(environment.get("LETHE_METRICS_ADDRESS", "0.0.0.0:8080"))
    return Settings(
        namespaces=tuple(
            part.strip() for part in environment.get("LETHE_NAMESPACES", "").split(",") if part.strip()
        ),
        ledger_url=environment.get("LETHE_LEDGER_URL") or known.ledger_url,
        keys_dir=Path(environment.get("LETHE_KEYS_DIR") or known.keys_dir),
        retention=_period(environment, "LETHE_RETENTION", known.retention),
        erasure_deadline=_period(environment, "LETHE_ERASURE_DEADLINE", known.erasure_deadline),
        journal_interval=_duration(environment, "LETHE_JOURNAL_INTERVAL", known.journal_interval),
        sweep_interval=_duration(environment, "LETHE_SWEEP_INTERVAL", known.sweep_interval),
        scan_interval=_duration(environment, "LETHE_SCAN_INTERVAL", known.scan_interval),
        backup_directories=_directories(environment, known.backup_directories),
        metrics_host=host,
        metrics_port=port,
        log_level=_one_of(environment, "LETHE_LOG_LEVEL", _LEVELS, known.log_level),
        log_format=_one_of(environment, "LETHE_LOG_FORMAT", ("json", "text"), known.log_format),
        kubeconfig=environment.get("LETHE_KUBECONFIG") or None,
    )


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

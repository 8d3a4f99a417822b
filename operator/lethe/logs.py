"""Logs as JSON lines or text, with whole objects and anything like an e-mail address kept out of them."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

_ADDRESS = re.compile(r"[^\s\"'<>@]+@[^\s\"'<>@]+")
_CHATTY = ("kopf", "aiohttp", "asyncio", "sqlalchemy", "urllib3", "kubernetes", "alembic", "botocore")


_WAITING = re.compile(r"Request attempt #(\d+)/\d+ failed; will retry: ")
_SOON = 5
"""How often the API server may say "come again" (429) before a line is worth it."""


class Waiting(logging.Filter):
    """Calls a warning what Kopf calls an error although it goes on trying.

    An API server answers 429 to the first list of a kind whose CRD it has just been given: no trouble yet.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is let through, as what it is."""
        waiting = _WAITING.match(str(record.msg)) if record.name.startswith("kopf.") else None
        if waiting is None:
            return True
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return int(waiting[1]) > _SOON or "APITooManyRequestsError" not in str(record.msg)


class Redacting(logging.Filter):
    """Reduces a record to its text without addresses.

    Libraries are heard from WARNING on: their DEBUG lines print whole bodies.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is let through, redacted."""
        library = record.name.partition(".")[0] in _CHATTY
        if library and record.levelno < logging.WARNING:
            return False
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        record.msg, record.args = _ADDRESS.sub("<redacted>", text), None
        if record.exc_info:
            # A traceback's last line quotes the exception, and drivers' exceptions quote rows.
            kind = record.exc_info[0]
            frames = _frames(record)
            record.msg = f"{record.msg} [{kind.__name__ if kind else 'error'} at {frames}]"
            record.exc_info = record.exc_text = None
        return True


def _frames(record: logging.LogRecord) -> str:
    trace = record.exc_info[2] if record.exc_info else None
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " < ".join(reversed(places[-6:]))


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": moment,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(line, ensure_ascii=False)


def set_up_logs(level: str, form: str) -> None:
    """Send all logs to standard error, redacted."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Waiting())
    handler.addFilter(Redacting())
    handler.setFormatter(
        JsonLines()
        if form == "json"
        else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)

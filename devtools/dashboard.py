"""The dashboard as code: `python -m devtools.dashboard` writes charts/lethe/files/dashboard.json.

Its first row answers whether the policy is kept; then there is a row for each promise, in their order. What
this version does not do for a promise stands there in words: nobody is to take silence for a promise kept. A
panel that has no samples says so: an operator that is away must not look like one that has nothing to tell.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[1] / "charts" / "lethe" / "files" / "dashboard.json"
WIDTH = 24
"""Columns of Grafana's grid."""

Panel = dict[str, Any]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
OURS = 'job=~"$job"'
GOOD, BAD, UNSURE = "green", "red", "orange"
Steps = Sequence[Mapping[str, str | int | None]]
IS_BAD: Steps = [{"color": GOOD, "value": None}, {"color": BAD, "value": 1}]
IS_GOOD: Steps = [{"color": BAD, "value": None}, {"color": GOOD, "value": 1}]


def queries(expressions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a panel's queries from expressions by their legends."""
    return [
        {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
        for n, (legend, expression) in enumerate(expressions.items())
    ]


def stat(
    title: str,
    expression: str,
    about: str,
    *,
    steps: Steps = IS_BAD,
    unit: str = "none",
) -> Panel:
    """Return a number that is green or red."""
    return {
        "type": "stat",
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "targets": [{**queries({title: expression})[0], "instant": True}],
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "noValue": "no data",
                "color": {"mode": "thresholds"},
                "thresholds": {"mode": "absolute", "steps": list(steps)},
            },
            "overrides": [],
        },
        "options": {
            "colorMode": "background",
            "graphMode": "none",
            "reduceOptions": {"calcs": ["lastNotNull"]},
        },
    }


def graph(title: str, unit: str, about: str, expressions: Mapping[str, str]) -> Panel:
    """Return curves over time."""
    return {
        "type": "timeseries",
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "targets": queries(expressions),
        "fieldConfig": {
            "defaults": {"unit": unit, "noValue": "no data", "custom": {"axisSoftMin": 0}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def states(title: str, about: str, expressions: Mapping[str, str], *, yes: str, no: str) -> Panel:
    """Return when something was so, and when not, for each of many."""
    said = {"1": {"text": yes, "color": GOOD, "index": 0}, "0": {"text": no, "color": BAD, "index": 1}}
    return {
        "type": "state-timeline",
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "targets": queries(expressions),
        "fieldConfig": {
            "defaults": {
                "noValue": "no data",
                "color": {"mode": "thresholds"},
                "thresholds": {"mode": "absolute", "steps": list(IS_GOOD)},
                "mappings": [{"type": "value", "options": said}],
            },
            "overrides": [],
        },
        "options": {"showValue": "never", "mergeValues": True, "legend": {"displayMode": "list"}},
    }


def note(title: str, *paragraphs: str) -> Panel:
    """Return words (Markdown), for what no metric can tell."""
    return {
        "type": "text",
        "title": title,
        "options": {"mode": "markdown", "content": "\n\n".join(paragraphs)},
    }


def quantiles(metric: str, *parts: float) -> dict[str, str]:
    """Return the quantiles of a histogram, by legend."""
    rate = rise(f"{metric}_bucket", "le")
    return {f"{part:.0%}": f"histogram_quantile({part}, {rate})" for part in parts}


def rise(metric: str, by: str) -> str:
    """Return by how much a counter rose within a day."""
    return f"sum by ({by}) (increase({metric}{{{OURS}}}[1d]))"


def total(metric: str, by: str) -> str:
    """Return a counter since the operator's start: of rare events, whose series begin with the first one."""
    return f"sum by ({by}) ({metric}{{{OURS}}})"


KEPT = "Are we keeping the policy?"
ROWS: Mapping[str, Sequence[Panel]] = {
    KEPT: [
        stat(
            "Erasures overdue",
            f"sum(lethe_deletion_requests_overdue{{{OURS}}})",
            "Open requests past their deadline (P2, P7).",
        ),
        stat(
            "Stores not safe to serve",
            f"sum(1 - lethe_store_safe_to_serve{{{OURS}}})",
            "Stores in which not every erasure is known to be in place (P3, P9).",
        ),
        stat(
            "Stores unwatched",
            f"sum(lethe_stores_unwatched{{{OURS}}})",
            "Stores in which somebody was erased, and that no DataStore names (P9).",
        ),
        stat(
            "Snapshots overdue",
            f"sum(lethe_snapshots_overdue{{{OURS}}})",
            "Snapshots past their time that nothing holds (P8).",
        ),
        stat(
            "Notices overdue",
            f"sum(lethe_notices_overdue{{{OURS}}})",
            "People who should have been told of a legal request over an hour ago (P6).",
        ),
        stat(
            "Restores without a reason",
            f"sum(lethe_restores_without_reason{{{OURS}}})",
            "Restores of which nobody has said why (P9).",
        ),
        stat(
            "Next deadline",
            f"min(lethe_deletion_request_nearest_deadline_seconds{{{OURS}}} >= 0)",
            "Time until the first deadline of an open request; no data: nothing is open.",
            steps=[
                {"color": BAD, "value": None},
                {"color": UNSURE, "value": 0},
                {"color": GOOD, "value": 3 * 86400},
            ],
            unit="s",
        ),
        stat("Stores away", f"sum(1 - lethe_store_up{{{OURS}}})", "Stores that can't be used (P3)."),
        stat(
            "Operators that act",
            f"sum(lethe_leader{{{OURS}}})",
            "Without one nothing on this page is up to date.",
            steps=IS_GOOD,
        ),
    ],
    "P1 · What personal data is, and where": [
        states(
            "Mappings",
            "Whether the Primary maps every kind of personal data, and no store leaves out what looks "
            "like it. Of a store whose mapping is not proved nothing is shown.",
            {"{{store}}": f"max by (store) (lethe_store_mapping_complete{{{OURS}}})"},
            yes="complete",
            no="incomplete",
        ),
        stat(
            "Mappings incomplete",
            f"sum(1 - lethe_store_mapping_complete{{{OURS}}})",
            "Stores with personal data that no erasure clears; the condition MappingComplete says which.",
        ),
    ],
    "P2 · Cleared of personal data on request": [
        graph(
            "Requests by state",
            "none",
            "Held: a legal hold; Stalled: a person is needed.",
            {"{{state}}": f"sum by (state) (lethe_deletion_requests{{{OURS}}})"},
        ),
        graph(
            "Erasures",
            "none",
            "Within a day: verified by reading back, or refused by the store.",
            {"{{store}} {{result}}": rise("lethe_erasures_total", "store, result")},
        ),
    ],
    "P3 · In every store that holds a copy": [
        states(
            "Stores",
            "Whether each store answered at the last look.",
            {"{{store}}": f"max by (store) (lethe_store_up{{{OURS}}})"},
            yes="answers",
            no="away",
        ),
        graph(
            "Since the last sweep",
            "s",
            "How long ago all that was erased was looked at; if it never was, how long the store is known.",
            {
                "{{store}}": f"max by (store) (lethe_sweep_age_seconds{{{OURS}}})",
                "interval": f'max(lethe_setting_seconds{{setting="sweep_interval", {OURS}}})',
            },
        ),
        graph(
            "Written back by somebody, and erased again",
            "none",
            "Within a day. Not by a restore: an import, a synchronisation, a person.",
            {"{{store}}": rise("lethe_store_resurrected_total", "store")},
        ),
    ],
    "P4 · Nothing to third parties": [
        graph(
            "Stores by owner",
            "none",
            "ThirdParty: never connected to, never asked. They are in no other panel.",
            {"{{owner}}": f"sum by (owner) (lethe_stores{{{OURS}}})"},
        ),
        note(
            "Not in this version",
            "Lethe hands an identifier to no store whose `spec.owner` is `ThirdParty`.",
            "Whose name is used in **marketing** without permission is **not audited** by this version.",
        ),
    ],
    "P5 · No personal data in cookies": [
        note(
            "Not in this version",
            "This version has **no audit of cookies**: nothing here says whether the site's cookies hold "
            "personal data. Look at them yourself, signed in as a test user, after each change of the site.",
        ),
    ],
    "P6 · Nothing without a court order, and the user is told": [
        graph(
            "Decisions on legal requests",
            "none",
            "By the level of the authority, since the operator's start.",
            {"{{level}} {{outcome}}": total("lethe_legal_requests_total", "level, outcome")},
        ),
        graph(
            "Notices",
            "none",
            "Deferred: an order forbids it for now.",
            {
                "{{state}}": f"sum by (state) (lethe_notices{{{OURS}}})",
                "deferred without end": f"sum(lethe_notices_without_end{{{OURS}}})",
            },
        ),
        graph(
            "Legal holds",
            "none",
            "Requests that preserve somebody's data, and so hold erasures and pruning.",
            {"holds": f"sum(lethe_legal_holds{{{OURS}}})"},
        ),
    ],
    "P7 · Deleted at once": [
        graph(
            "From accepted to verified",
            "s",
            "Of the erasures within a day.",
            quantiles("lethe_erasure_seconds", 0.5, 0.95, 0.99),
        ),
        graph(
            "Time to the nearest deadline",
            "s",
            "Below nothing: it has passed.",
            {"nearest": f"min(lethe_deletion_request_nearest_deadline_seconds{{{OURS}}})"},
        ),
        graph(
            "Queue",
            "none",
            "Requests that wait to be taken in.",
            {"waiting": f"sum(lethe_queue_depth{{{OURS}}})"},
        ),
        note(
            "Not in this version",
            "What is shown are erasures of persons (`spec.subject`).",
            "The deletion of records, tables or whole databases (`DeletionRequest.spec.data`) is accepted by "
            "the API server and **not served** by this version: such a request deletes nothing.",
        ),
    ],
    "P8 · Backups end in time": [
        graph(
            "Snapshots by state",
            "none",
            "All that lie in any backend, or are not proven gone.",
            {"{{source}} {{state}}": f'sum by (source, state) (lethe_snapshots{{state!="Purged", {OURS}}})'},
        ),
        graph(
            "Age of the oldest snapshot",
            "s",
            "That is not proven gone.",
            {"{{source}}": f"max by (source) (lethe_snapshot_oldest_age_seconds{{{OURS}}})"},
        ),
        graph(
            "Pruned",
            "none",
            "Within a day. Purged: proven gone.",
            {"{{source}} {{result}}": rise("lethe_prunes_total", "source, result")},
        ),
        states(
            "Sources",
            "Whether each source could be listed at the last scan.",
            {"{{source}}": f"max by (source) (lethe_source_up{{{OURS}}})"},
            yes="listed",
            no="away",
        ),
        graph(
            "Since the last listing",
            "s",
            "",
            {"{{source}}": f"max by (source) (lethe_source_last_scan_age_seconds{{{OURS}}})"},
        ),
        states(
            "Drills",
            "Whether the last rehearsed restore of each RestoreDrill passed.",
            {"{{drill}}": f"1 - max by (drill) (lethe_restore_drill_failed{{{OURS}}})"},
            yes="passed",
            no="failed",
        ),
        graph(
            "Since a drill passed",
            "none",
            "In periods of its schedule; over two is an alert.",
            {
                "{{drill}}": f"max by (drill) (lethe_restore_drill_passed_age_seconds{{{OURS}}})"
                f" / max by (drill) (lethe_restore_drill_period_seconds{{{OURS}}})"
            },
        ),
    ],
    "P9 · What a restore brings back is erased again": [
        states(
            "Safe to serve",
            "Whether every erasure is known to be in place; the readiness gate follows it.",
            {"{{store}}": f"max by (store) (lethe_store_safe_to_serve{{{OURS}}})"},
            yes="safe",
            no="not safe",
        ),
        graph(
            "Erasures missing",
            "none",
            "Taken away by a restore, and not made up for yet.",
            {"{{store}}": f"sum by (store) (lethe_store_missing_erasures{{{OURS}}})"},
        ),
        graph(
            "Restores",
            "none",
            "By the reason that was given, since the operator's start.",
            {"{{store}} {{reason}}": total("lethe_restores_total", "store, reason")},
        ),
        graph(
            "Restores under way",
            "s",
            "Since when somebody has said that a store is being restored; 0: nobody does.",
            {"{{store}}": f"max by (store) (lethe_restore_underway_seconds{{{OURS}}})"},
        ),
        graph(
            "Glass that was broken",
            "none",
            "1 while a store is served because a person broke the glass; and how often that was done.",
            {
                "{{store}} broken": f"max by (store) (lethe_store_glass_broken{{{OURS}}})",
                "{{store}} breaks": total("lethe_glass_breaks_total", "store"),
            },
        ),
        states(
            "Early warning",
            "Whether others' objects can be watched for restores, where that is switched on.",
            {"{{kind}}": f"min by (kind) (lethe_early_warning_up{{{OURS}}})"},
            yes="watched",
            no="no right",
        ),
        graph(
            "Erased again, and left alone",
            "none",
            "Since the operator's start. Left alone: rows of somebody else under an erased key.",
            {
                "{{store}} erased again": total("lethe_reerased_total", "store"),
                "{{store}} left alone": total("lethe_left_alone_total", "store"),
            },
        ),
        graph(
            "From detection to safe to serve",
            "s",
            "Of the restores within a day.",
            quantiles("lethe_reerase_seconds", 0.5, 1.0),
        ),
    ],
    "The operator": [
        graph(
            "Entries of the ledger",
            "none",
            "It grows with every erasure.",
            {"{{namespace}}": f"max by (namespace) (lethe_ledger_head{{{OURS}}})"},
        ),
        graph(
            "Writes to the API server",
            "none",
            "",
            {"{{what}}": f"sum by (what) (rate(lethe_api_writes_total{{{OURS}}}[$__rate_interval]))"},
        ),
    ],
}


def arranged() -> Iterator[Panel]:
    """Yield rows and panels with numbers and places: those of a row share its width."""
    number, top = 0, 0
    for title, panels in ROWS.items():
        number += 1
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "panels": []} | at(
            0, top, WIDTH, 1
        )
        top += 1
        high, in_line = (4, 4) if title == KEPT else (7, 3)
        lines = [panels[first : first + in_line] for first in range(0, len(panels), in_line)]
        for line in lines:
            for n, panel in enumerate(line):
                number += 1
                wide = WIDTH // len(line)
                yield {"id": number} | panel | at(n * wide, top, wide, high)
            top += high


def at(left: int, top: int, wide: int, high: int) -> Panel:
    """Return a place in Grafana's grid."""
    return {"gridPos": {"x": left, "y": top, "w": wide, "h": high}}


def dashboard() -> dict[str, Any]:
    """Return the dashboard, as Grafana imports it."""
    return {
        "uid": "lethe-policy",
        "title": "Lethe: are we keeping the policy?",
        "tags": ["lethe", "privacy"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-7d", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
                {
                    "name": "job",
                    "type": "query",
                    "label": "Release",
                    "datasource": SOURCE,
                    "query": {"query": "label_values(lethe_leader, job)", "refId": "job"},
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                    "multi": True,
                    "refresh": 2,
                },
            ]
        },
        "annotations": {"list": []},
        "links": [],
        "panels": list(arranged()),
    }


def text() -> str:
    """Return the file's content."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())

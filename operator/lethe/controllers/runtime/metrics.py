"""Metrics, listed in docs/operations.md. No label ever holds the name of a person or request."""

from __future__ import annotations

from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Gauge("lethe_deletion_requests", "Requests by state", ["state"], registry=r)
        self.overdue = Gauge(
            "lethe_deletion_requests_overdue", "Open requests past their deadline", registry=r
        )
        self.nearest_deadline = Gauge(
            "lethe_deletion_request_nearest_deadline_seconds",
            "Time to the nearest deadline of an open request; NaN if none is open",
            registry=r,
        )
        self.erasure_seconds = Histogram(
            "lethe_erasure_seconds",
            "From accepted to verified",
            ["store"],
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600, 86400, 604800, 2592000),
            registry=r,
        )
        self.erasures = Counter("lethe_erasures", "Erasures by result", ["store", "result"], registry=r)
        self.stores = Gauge("lethe_stores", "DataStores by owner", ["owner"], registry=r)
        self.stores_unwatched = Gauge(
            "lethe_stores_unwatched",
            "Stores in which somebody was erased and that no DataStore names",
            registry=r,
        )
        self.store_up = Gauge(
            "lethe_store_up", "Whether the store answered at the last look", ["store"], registry=r
        )
        self.mapping_complete = Gauge(
            "lethe_store_mapping_complete",
            "Whether every kind of personal data is mapped, as its condition MappingComplete",
            ["store"],
            registry=r,
        )
        self.missing = Gauge(
            "lethe_store_missing_erasures", "Erasures that a restore took away", ["store"], registry=r
        )
        self.safe = Gauge(
            "lethe_store_safe_to_serve", "Whether every erasure is in place", ["store"], registry=r
        )
        self.glass_broken = Gauge(
            "lethe_store_glass_broken",
            "Whether a person broke the store's glass, and not all is known to be in place",
            ["store"],
            registry=r,
        )
        self.glass_breaks = Counter(
            "lethe_glass_breaks", "Restores whose glass a person broke", ["store"], registry=r
        )
        self.resurrected = Counter(
            "lethe_store_resurrected", "Erased people written back, and erased again", ["store"], registry=r
        )
        self.restores = Counter("lethe_restores", "Restores by reason", ["store", "reason"], registry=r)
        self.restores_without_reason = Gauge(
            "lethe_restores_without_reason",
            "Restores that nobody has given a reason for",
            ["store"],
            registry=r,
        )
        self.restore_underway = Gauge(
            "lethe_restore_underway_seconds",
            "Since when a RestoreEvent says that a restore is under way; 0 if none does",
            ["store"],
            registry=r,
        )
        self.reerased = Counter(
            "lethe_reerased", "Erasures applied again after a restore", ["store"], registry=r
        )
        self.left_alone = Counter(
            "lethe_left_alone", "Rows of somebody else under an erased key", ["store"], registry=r
        )
        self.reerase_seconds = Histogram(
            "lethe_reerase_seconds",
            "From the detection of a restore to safe to serve",
            ["store"],
            buckets=(1, 5, 15, 60, 300, 1800, 7200, 86400),
            registry=r,
        )
        self.early_warning_up = Gauge(
            "lethe_early_warning_up",
            "Whether others' objects of a kind can be watched for restores",
            ["kind"],
            registry=r,
        )
        self.snapshots = Gauge("lethe_snapshots", "Snapshots by state", ["source", "state"], registry=r)
        self.snapshots_overdue = Gauge(
            "lethe_snapshots_overdue", "Snapshots past their time that are not held", ["source"], registry=r
        )
        self.snapshot_oldest_age = Gauge(
            "lethe_snapshot_oldest_age_seconds",
            "Age of the oldest snapshot that is not proven gone; NaN if there is none",
            ["source"],
            registry=r,
        )
        self.prunes = Counter("lethe_prunes", "Deletions of snapshots", ["source", "result"], registry=r)
        self.source_up = Gauge(
            "lethe_source_up", "Whether the source could be listed at the last scan", ["source"], registry=r
        )
        self.source_scan_age = Gauge(
            "lethe_source_last_scan_age_seconds",
            "Time since the last successful listing, or since the source was met",
            ["source"],
            registry=r,
        )
        self.drill_failed = Gauge(
            "lethe_restore_drill_failed",
            "Whether the last drill of a RestoreDrill failed",
            ["drill"],
            registry=r,
        )
        self.drill_age = Gauge(
            "lethe_restore_drill_passed_age_seconds",
            "Time since a drill passed, or since the RestoreDrill was made",
            ["drill"],
            registry=r,
        )
        self.drill_period = Gauge(
            "lethe_restore_drill_period_seconds",
            "Time between the next two drills of a RestoreDrill",
            ["drill"],
            registry=r,
        )
        self.legal_requests = Counter(
            "lethe_legal_requests", "Decisions on legal requests", ["level", "outcome"], registry=r
        )
        self.legal_holds = Gauge("lethe_legal_holds", "Legal requests that hold something", registry=r)
        self.notices = Gauge("lethe_notices", "Notices to users by state", ["state"], registry=r)
        self.notices_overdue = Gauge(
            "lethe_notices_overdue",
            "Notices that were due over an hour ago and have not gone",
            registry=r,
        )
        self.notices_without_end = Gauge(
            "lethe_notices_without_end",
            "Deferred notices that wait for a person, since their order names no day",
            registry=r,
        )
        self.ledger_head = Gauge("lethe_ledger_head", "Sequence of the ledger's last entry", registry=r)
        self.ledger_mirrored = Gauge(
            "lethe_ledger_mirrored", "Whether the ledger has a mirror outside", registry=r
        )
        self.leader = Gauge("lethe_leader", "Whether this replica acts", registry=r)
        self.queue_depth = Gauge("lethe_queue_depth", "Requests that wait to be taken in", registry=r)
        self.sweep_age = Gauge(
            "lethe_sweep_age_seconds",
            "Time since the last sweep that ended, or since the store was met",
            ["store"],
            registry=r,
        )
        self.setting_seconds = Gauge(
            "lethe_setting_seconds",
            "Settings that alerts go by: erasure_deadline, scan_interval, sweep_interval",
            ["setting"],
            registry=r,
        )
        self.api_writes = Counter("lethe_api_writes", "Writes to the API server", ["what"], registry=r)
        self.nearest_deadline.set(float("nan"))
        self.ledger_mirrored.set(0)

    def tell_settings(self, **seconds: float) -> None:
        """Show the settings that alerts go by; a calendar period counts from now."""
        for name, value in seconds.items():
            self.setting_seconds.labels(name).set(value)

    def forget_source(self, source: str) -> None:
        """Drop the gauges of a source that is gone."""
        for gauge in (self.snapshots_overdue, self.snapshot_oldest_age, self.source_scan_age, self.source_up):
            with suppress(KeyError):
                gauge.remove(source)
        with suppress(KeyError):
            self.snapshots.remove_by_labels({"source": source})

    def forget_drills(self) -> None:
        """Drop the gauges of all drills, to show those that there are."""
        for gauge in (self.drill_failed, self.drill_age, self.drill_period):
            gauge.clear()

    def forget_store(self, store: str) -> None:
        """Drop the gauges of a store that is gone, so that no alert fires for it for ever."""
        for gauge in (
            self.store_up,
            self.mapping_complete,
            self.missing,
            self.safe,
            self.glass_broken,
            self.restores_without_reason,
            self.restore_underway,
            self.sweep_age,
        ):
            with suppress(KeyError):
                gauge.remove(store)

"""Every way in which an object of ours can stand, with what GitOps tools are to make of it.

The statuses are rendered by the operator's own code, from what its domain says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple

from devtools.company import SUBJECTS
from lethe.api.status.backupsnapshot import backupsnapshot_status, unowned_backupsnapshot_status
from lethe.api.status.backupsource import backupsource_status
from lethe.api.status.base import troubled_status
from lethe.api.status.datastore import datastore_status
from lethe.api.status.deletionrequest import deletionrequest_status
from lethe.api.status.legalrequest import legalrequest_status
from lethe.api.status.restoredrill import restoredrill_status
from lethe.api.status.restoreevent import restoreevent_status
from lethe.domain.conditions.backupsnapshot import (
    Difficulty,
    backupsnapshot_conditions,
    unowned_backupsnapshot_conditions,
)
from lethe.domain.conditions.backupsource import BackupSourceObservation, backupsource_conditions
from lethe.domain.conditions.datastore import DataStoreObservation, datastore_conditions
from lethe.domain.conditions.deletionrequest import BackupsObservation, deletionrequest_conditions
from lethe.domain.conditions.legalrequest import LegalRequestObservation, legalrequest_conditions
from lethe.domain.conditions.restoredrill import DrillObservation, restoredrill_conditions
from lethe.domain.conditions.restoreevent import restoreevent_conditions
from lethe.domain.drill_facts import DrillEnded, DrillResult
from lethe.domain.facts import Accepted, DetectedBy, Outcome
from lethe.domain.legal import evolve_legal, notice_of
from lethe.domain.legal_facts import (
    Addressee,
    HoldPlaced,
    LegalDecided,
    LegalFact,
    LegalKind,
    LegalOutcome,
    LegalRegistered,
    LetterIntended,
    LetterSettled,
    NonDisclosureOrdered,
    SubjectResolved,
)
from lethe.domain.periods import Period
from lethe.domain.pruning import PruneBlock, RetentionHold
from lethe.domain.requests import RequestRecord, StoreProgress, StoreState
from lethe.domain.restores import RestoreEpisode
from lethe.domain.snapshots import SnapshotRecord
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.domain.trust import Blocker, BlockReason

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
GENERATION = 1
DIGEST = "sha256:" + "0" * 64


class Verdict(NamedTuple):
    """What kstatus and Argo CD say."""

    kstatus: str
    argo: str


DONE = Verdict("Current", "Healthy")
WORKS = Verdict("InProgress", "Progressing")
ASKS = Verdict("InProgress", "Suspended")
STUCK = Verdict("Failed", "Degraded")


class State(NamedTuple):
    """One way to stand. `told` is what Argo CD's message must hold, `flux` what Flux says by the example's
    expressions where it is not what kstatus says.
    """

    plural: str
    label: str
    reason: str
    status: Mapping[str, Any]
    verdict: Verdict
    flux: str | None = None
    told: str = "why"


SPECS: Mapping[str, Mapping[str, Any]] = {
    "datastores": {
        "role": "Primary",
        "owner": "Self",
        "sql": {"urlSecretRef": {"name": "site-db", "key": "url"}, "subjects": SUBJECTS},
    },
    "deletionrequests": {"subject": {"id": "7"}},
    "backupsources": {
        "stores": ["site"],
        "retention": "P6M",
        "s3": {
            "endpoint": "https://s3.internal.example",
            "bucket": "backups",
            "credentialsSecretRef": {"name": "backups-s3"},
            "name": "site-{takenAt:%Y%m%dT%H%M%SZ}.dump",
        },
    },
    "backupsnapshots": {"source": "nightly", "ref": "one.dump", "takenAt": "2026-11-01T03:00:00Z"},
    "restoreevents": {"store": "site", "reason": "Drill", "justification": "a drill"},
    "restoredrills": {
        "source": "nightly",
        "schedule": "0 4 * * SUN",
        "scratch": {"urlSecretRef": {"name": "scratch-db", "key": "url"}},
        "restore": {"command": "pg-restore"},
    },
    "legalrequests": {
        "type": "Disclosure",
        "authority": {"name": "County Sheriff's Office", "level": "Local", "country": "US"},
        "receivedAt": "2026-11-22T10:00:00Z",
        "reference": "CSO-55-2026",
        "subject": {"id": "7"},
    },
}


def every_state() -> Iterator[State]:
    """Return a state for each reason of each kind, and for what further conditions can say."""
    yield from _stores()
    yield from _requests()
    yield from _sources()
    yield from _snapshots()
    yield from _restores()
    yield from _legal()
    yield from _drills()


RELEASED = RestoreEpisode(
    *("ns/site", "e", NOW, DetectedBy.JOURNAL),
    safe_at=NOW,
    released_because="the shop has to open",
    released_by="e",
    left=2,
)

SIGHT = DataStoreObservation(
    third_party=False,
    proved=True,
    trouble=None,
    kinds_unmapped=(),
    lookalikes=(),
    pointing=(),
    copies=(),
    possible_copies=(),
    journal="Kept",
    journal_message="kept",
    without_backups=True,
    looked=True,
    replay=None,
)


def _stores() -> Iterator[State]:
    def state(label: str, reason: str, verdict: Verdict, told: str, **more: Any) -> State:
        condition_set = datastore_conditions(replace(SIGHT, **more))
        status = datastore_status(
            *(condition_set, {}),
            generation=GENERATION,
            now=NOW,
            seen_at=NOW,
            swept_at=None,
            applied=3,
            missing=0,
            journal_number=3,
            unmapped=(),
        )
        return State("datastores", label, reason, status, verdict, told=told)

    yield state("available", "Available", DONE, "its mapping fits")
    yield state("third party", "ThirdParty", DONE, "third party", third_party=True)
    yield state("not reached yet", "Pending", WORKS, "not reached yet", proved=False)
    for reason, verdict in (
        ("Unreachable", WORKS),
        ("InRecovery", WORKS),
        ("SecretMissing", WORKS),
        ("MappingInvalid", STUCK),
        ("Misconfigured", STUCK),
        ("DuplicatePrimary", STUCK),
        ("LedgerOnSameServer", STUCK),
        ("OtherName", STUCK),
        ("LedgerBehind", STUCK),
        ("Suspended", WORKS),
        ("RestoreUnderway", WORKS),
        ("InternalError", WORKS),
    ):
        yield state(reason, reason, verdict, "why", trouble=Trouble(TroubleReason(reason), "why"))
    further: dict[str, Mapping[str, Any]] = {
        "SafeToServe=False (RestoreDetected): why": {"replay": ("RestoreDetected", "why")},
        "SafeToServe=False (AwaitingRelease): why": {"replay": ("AwaitingRelease", "why")},
        "SafeToServe=False (Released): the glass was broken: RestoreEvent e let the store be served": {
            "release": RELEASED
        },
        "MappingComplete=False (KindsUnmapped)": {"kinds_unmapped": ("Locale",)},
        "MappingComplete=False (LookalikesUnmapped)": {"lookalikes": ("users.phone",)},
        "MappingComplete=False (TablesUnmapped)": {"pointing": ("addresses.user_id",)},
        "MappingComplete=False (CopiesUnmapped)": {"copies": ("search",)},
        "MappingComplete=False (CopiesPossible)": {"possible_copies": (("slot:debezium", "reads changes"),)},
        "MappingComplete=False (ErasedBefore)": {"catch_up": (100, 0, "0123456789abcdef", False)},
        "MappingComplete=Unknown (ErasedBefore)": {"uncounted": True},
        "Journaled=False (NotPermitted): kept": {"journal": "NotPermitted"},
        "Journaled=False (NotSupported): kept": {"journal": "NotSupported"},
        "StatisticsRenewed=False (SamplesRemain): GRANT MAINTAIN": {"samples_left": ("GRANT MAINTAIN",)},
        "BackupsCovered=False (NoSource)": {"without_backups": False},
        "BackupsCovered=False (NothingSeen)": {"without_backups": False, "sources": ("nightly",)},
    }
    for told, more in further.items():
        yield state(told, "Available", DONE, told, **more)


ACCEPTED = RequestRecord(
    Accepted("r", "ns", "n", "d", NOW, NOW, NOW + timedelta(days=30), subject_id="7"),
    sequence=1,
    digest=DIGEST,
)
SETTLED = replace(ACCEPTED, stores={"ns/site": StoreProgress(StoreState.VERIFIED, {"users": 1}, NOW)})
OBSTACLES: Mapping[BlockReason, Verdict] = {
    BlockReason.PENDING: WORKS,
    BlockReason.ERASING: WORKS,
    BlockReason.STORE_UNREACHABLE: WORKS,
    BlockReason.SECRET_MISSING: WORKS,
    BlockReason.INTERNAL_ERROR: WORKS,
    BlockReason.HELD: ASKS,
    BlockReason.NOTHING_FOUND: ASKS,
    BlockReason.NOTHING_TO_ASK_BY: ASKS,
    BlockReason.FIND_UNTRUSTED: ASKS,
    BlockReason.SHARED_RECORD: ASKS,
    BlockReason.KEY_ABOVE_RESTORE: ASKS,
    BlockReason.VALUE_REFUSED: STUCK,
    BlockReason.NAME_REUSED: STUCK,
}


def _requests() -> Iterator[State]:
    def status(
        record: RequestRecord | None, blockers: Mapping[str, Blocker], backups: BackupsObservation
    ) -> dict[str, Any]:
        condition_set = deletionrequest_conditions(record, tuple(blockers.values()), backups=backups, now=NOW)
        return deletionrequest_status(record, condition_set, blockers, {}, {}, generation=GENERATION, now=NOW)

    none = BackupsObservation()
    for reason, verdict in OBSTACLES.items():
        blockers = {"ns/site": Blocker(reason, "why")}
        for record, label, flux in ((None, "before it is accepted", None), (ACCEPTED, "accepted", "Current")):
            yield State(
                "deletionrequests",
                f"{reason} {label}",
                reason.value,
                status(record, blockers, none),
                verdict,
                flux=None if verdict is STUCK else flux,
                told="" if reason is BlockReason.PENDING else "why",  # what hinders it may not be said
            )
    erased = replace(SETTLED, outcome=Outcome.ERASED, completed_at=NOW)
    planned = replace(SETTLED, outcome=Outcome.PLANNED, completed_at=NOW)
    for label, record, backups, told in (
        ("erased", erased, none, "erased and read back"),
        ("purged", erased, BackupsObservation(without_backups=True), "erased and read back"),
        ("planned", planned, none, "dry run"),
    ):
        yield State(
            *("deletionrequests", label, "Planned" if record is planned else "Erased"),
            *(status(record, {}, backups), DONE),
            told=told,
        )


def _sources() -> Iterator[State]:
    def state(label: str, reason: str, verdict: Verdict, told: str, **more: Any) -> State:
        condition_set = backupsource_conditions(
            BackupSourceObservation(**{"scanned": True, "longest": "P6M", **more})
        )
        status = backupsource_status(
            *(condition_set, {}),
            generation=GENERATION,
            now=NOW,
            counts={"present": 3},
            oldest=NOW,
            scanned_at=NOW,
            next_=None,
            unparsable=(),
            partial=(),
        )
        return State("backupsources", label, reason, status, verdict, told=told)

    yield state("scanned", "Scanned", DONE, "is known")
    yield state("not listed yet", "Pending", WORKS, "not listed yet", scanned=False)
    yield state("too long", "RetentionTooLong", STUCK, "LETHE_RETENTION", too_long=True)
    yield state("unparsable", "NameUnparsable", STUCK, "name pattern", unparsable=("a.dump",))
    yield state("unfinished", "LeftUnfinished", STUCK, "abort an upload", left_behind=("a.part",))
    yield state("later than itself", "NameAfterContent", STUCK, "in UTC", misdated=("a.dump",))
    for reason, verdict in (
        ("Unreachable", WORKS),
        ("SecretMissing", WORKS),
        ("Misconfigured", STUCK),
        ("DuplicateSource", STUCK),
        ("InternalError", WORKS),
    ):
        yield state(reason, reason, verdict, "why", trouble=Trouble(TroubleReason(reason), "why"))
    for wait in PruneBlock:
        told = f"RetentionEffective=False ({wait.value}): why"
        yield state(f"waits: {wait}", "Scanned", DONE, told, waits=wait, waits_message="why")
    for reason, shown in (
        ("ObjectLocked", "ObjectLocked"),
        ("DeletedUnproven", "VersionsRemain"),
        ("NotPermitted", "NotPermitted"),
    ):
        told = f"RetentionEffective=False ({shown}): why"
        yield state(shown, "Scanned", DONE, told, difficulties=(Difficulty(reason, "why"),))
    yield state("last held", "Scanned", DONE, "RetentionEffective=False (LastSnapshotHeld)", held_last=True)
    yield state("legally held", "Scanned", DONE, "RetentionEffective=False (LegalHold)", held_legally=2)


def _snapshots() -> Iterator[State]:
    retention = Period(6, 0)
    taken = datetime(2026, 1, 31, 3, tzinfo=UTC)
    expired = datetime(2026, 7, 31, 3, tzinfo=UTC)
    known = SnapshotRecord("ns/nightly", "one.dump", ("ns/site",), taken, taken, pieces=("v1",))

    def state(
        label: str,
        reason: str,
        verdict: Verdict,
        told: str,
        *,
        record: SnapshotRecord = known,
        now: datetime = expired,
        held: RetentionHold | None = None,
        difficulty: Difficulty | None = None,
    ) -> State:
        condition_set = backupsnapshot_conditions(
            record, retention, now=now, held=held, difficulty=difficulty
        )
        status = backupsnapshot_status(record, condition_set, retention, generation=GENERATION)
        return State("backupsnapshots", label, reason, status, verdict, told=told)

    yield state("retained", "Retained", DONE, "until", now=taken)
    yield state("the last one", "Retained", DONE, "the only snapshot left", held=RetentionHold.LAST_SNAPSHOT)
    yield state("held legally", "Retained", DONE, "legal hold", held=RetentionHold.LEGAL_HOLD)
    yield state("held in secret", "Retained", DONE, "looked at with every scan", held=RetentionHold.UNSAID)
    yield state("overdue", "Overdue", WORKS, "its time was over")
    locked = Difficulty("ObjectLocked", "locked until 2027")
    yield state("locked", "Overdue", WORKS, "locked until 2027", difficulty=locked)
    deleted = replace(known, deleted_at=expired)
    yield state("deleted, unproven", "Overdue", WORKS, "looked for", record=deleted)
    purged = replace(deleted, purged_at=expired)
    yield state("purged", "Purged", DONE, "nothing of it is left", record=purged)
    other = Difficulty("IdentityMismatch", "another lies there")
    yield state("another", "IdentityMismatch", STUCK, "another lies there", difficulty=other)
    vanished = replace(known, vanished_at=taken)
    yield state("vanished", "Vanished", STUCK, "Lethe did not delete it", record=vanished)
    elsewhere = backupsnapshot_conditions(known, retention, now=taken, elsewhere="directory /backups/old")
    status = backupsnapshot_status(known, elsewhere, retention, generation=GENERATION)
    yield State("backupsnapshots", "elsewhere", "PlaceChanged", status, STUCK, told="looked before")
    for reason in ("NotSeen", "SourceMissing"):
        status = unowned_backupsnapshot_status(
            unowned_backupsnapshot_conditions(reason, "why"), generation=GENERATION, since=NOW
        )
        yield State("backupsnapshots", reason, reason, status, STUCK)


Shown = Literal[
    "Replaying", "IdentityUnclear", "HeldRowsReturned", "AwaitingRelease", "MappingDoesNotFit", "Waiting"
]


def _restores() -> Iterator[State]:
    def state(
        label: str,
        reason: str,
        verdict: Verdict,
        told: str,
        *,
        episode: RestoreEpisode | None,
        replay: tuple[Shown, str] | None = None,
        given: str = "Drill",
        expired: bool = False,
        underway: str | None = None,
        expected: tuple[str, bool] | None = None,
    ) -> State:
        condition_set = restoreevent_conditions(
            episode, reason=given, replay=replay, expired=expired, underway=underway, expected=expected
        )
        status = restoreevent_status(episode, condition_set, {}, generation=GENERATION, now=NOW)
        # Seen is enough for Flux: a restore that is declared before it happens may wait for a day.
        flux = "Failed" if verdict is STUCK else "Current"
        return State("restoreevents", label, reason, status, verdict, flux=flux, told=told)

    under_way = RestoreEpisode("ns/site", "e", NOW, DetectedBy.JOURNAL, missing=3)
    shown: Mapping[Shown, tuple[str, Verdict]] = {
        "Waiting": ("Replaying", WORKS),
        "Replaying": ("Replaying", WORKS),
        "IdentityUnclear": ("IdentityUnclear", ASKS),
        "HeldRowsReturned": ("HeldRowsReturned", ASKS),
        "AwaitingRelease": ("AwaitingRelease", ASKS),
        "MappingDoesNotFit": ("MappingDoesNotFit", STUCK),
    }
    yield state("declared", "Declared", WORKS, "declared", episode=None)
    yield state("underway", "Underway", WORKS, "let go of it", episode=None, underway="has let go of it")
    for kind, (reason, verdict) in shown.items():
        yield state(kind, reason, verdict, "why", episode=under_way, replay=(kind, "why"))
    safe = replace(under_way, safe_at=NOW, re_erased=3)
    yield state("safe", "SafeToServe", DONE, "3 erased again", episode=safe)
    word = replace(safe, detected_by=DetectedBy.DECLARATION, missing=0, re_erased=0)
    yield state("nothing came back", "NothingCameBack", DONE, "shows no restore", episode=word)
    undeclared = "Permitted=False (Undeclared)"
    yield state("safe, undeclared", "SafeToServe", DONE, undeclared, episode=safe, given="Undeclared")
    declared = state("declared", "Declared", WORKS, "declared", episode=None).status
    trouble = Trouble(TroubleReason.INTERNAL_ERROR, "why")
    failed = troubled_status(trouble, declared, generation=GENERATION, now=NOW)
    yield State("restoreevents", "InternalError", "InternalError", failed, WORKS, flux="Current", told="why")
    left = "SafeToServe=False (Released): the glass was broken: RestoreEvent e let the store be served"
    yield state("released", "Released", DONE, left, episode=RELEASED)
    yield state("expired", "Expired", DONE, "counts for none any more", episode=None, expired=True)
    announced: Mapping[str, Any] = {"episode": None, "given": "Undeclared"}
    yield state("expected", "Expected", WORKS, "why", **announced, expected=("why", False))
    yield state("not expected any more", "Expired", DONE, "why", **announced, expected=("why", True))
    superseded = replace(under_way, superseded_by="site-2")
    yield state("superseded", "Superseded", DONE, "went back once more", episode=superseded)


def _drills() -> Iterator[State]:
    def state(label: str, reason: str, verdict: Verdict, told: str, **more: Any) -> State:
        condition_set = restoredrill_conditions(DrillObservation(**more))
        status = restoredrill_status(
            *(None, condition_set, {}), generation=GENERATION, now=NOW, next_at=NOW, history=5
        )
        return State("restoredrills", label, reason, status, verdict, told=told)

    yield state("scheduled", "Scheduled", DONE, "the next one is due", next_at=NOW)
    yield state("running", "Running", WORKS, "why", running="why")
    yield state("suspended", "Suspended", ASKS, "no drill begins", suspended=True)
    passing = ("SecretMissing", "Unreachable", "RestoreUnderway")
    for reason, verdict in (("Misconfigured", STUCK), *((one, WORKS) for one in passing)):
        yield state(reason, reason, verdict, "why", trouble=Trouble(TroubleReason(reason), "why"))
    for result in DrillResult:
        failed = result.counts_as_failure
        told, verdict = ("why", STUCK) if failed else ("is due", DONE)
        ended = DrillEnded("d", NOW, result, "why")
        reason = result.value if failed else "Scheduled"
        yield state(f"ended: {result}", reason, verdict, told, ended=ended, next_at=NOW)


def _legal() -> Iterator[State]:
    registered = LegalRegistered(
        *("le", "ns", "le-1", "digest", NOW, LegalKind.DISCLOSURE, "Sheriff", "Local", "US", NOW),
        subject_id="7",
    )
    known, nobody = SubjectResolved("le", NOW, ("7",), (b"mail",)), SubjectResolved("le", NOW)
    decided = LegalDecided("le", NOW, LegalOutcome.REJECTED, "NoCourtOrder")
    review = LegalDecided("le", NOW, LegalOutcome.AWAITING_REVIEW, "CourtOrder")
    gag = NonDisclosureOrdered("le", NOW, "18 U.S.C. 2705(b)", date(2027, 2, 20), "America/New_York")
    reused = Blocker(BlockReason.NAME_REUSED, "why")
    missing = Blocker(BlockReason.SECRET_MISSING, "why")

    def letter(*, delivered: bool) -> tuple[LegalFact, ...]:
        return (
            LetterIntended("le", NOW, Addressee.USER, 1, "1@x", LegalOutcome.REJECTED),
            LetterSettled("le", NOW, Addressee.USER, 1, delivered, answer="" if delivered else "550 gone"),
        )

    def state(
        label: str,
        reason: str,
        verdict: Verdict,
        *facts: LegalFact,
        told: str = "why",
        seen: bool = True,
        **more: Any,
    ) -> State:
        record = evolve_legal(None, registered) if seen else None
        for fact in facts:
            record = evolve_legal(record, fact)
        record = replace(record, sequence=1, digest=DIGEST) if record else None
        notice = notice_of(record, NOW) if record else None
        condition_set = legalrequest_conditions(LegalRequestObservation(record, notice, **more))
        status = legalrequest_status(record, notice, condition_set, {}, generation=GENERATION, now=NOW)
        accepted = record is not None and record.decided is not None
        flux = verdict.kstatus if verdict is STUCK else "Current" if accepted else "InProgress"
        return State("legalrequests", label, reason, status, verdict, flux=flux, told=told)

    sent, refused = letter(delivered=True), letter(delivered=False)
    yield state("not registered", "Pending", WORKS, seen=False, told="not registered yet")
    yield state("its Secret is missing", "SecretMissing", WORKS, seen=False, blocker=missing)
    yield state("name reused", "NameReused", STUCK, seen=False, blocker=reused)
    trouble = Trouble(TroubleReason.INTERNAL_ERROR, "why")
    yield state("Lethe failed over it", "InternalError", WORKS, seen=False, trouble=trouble)
    yield state("told", "Registered", DONE, known, decided, *sent, told="the user was told")
    yield state("under a gag", "Registered", DONE, gag, known, decided, told="told at 2027-02-21")
    yield state("in review", "Registered", DONE, gag, known, review, told="told at 2027-02-21")
    placed = HoldPlaced("le", NOW, ("ns/site",), NOW + timedelta(days=90))
    yield state("holding", "Registered", DONE, known, placed, decided, *sent, told="the user was told")
    yield state("about to be told", "NoticePending", WORKS, known, decided, waits="why")
    yield state("unanswered", "AnswerPending", WORKS, known, decided, *sent, answer_waits="why")
    yield state("nobody", "SubjectUnknown", ASKS, nobody, decided, told="knows nobody")
    yield state("no document", "DocumentMissing", ASKS, known, review, document_problem="why")
    yield state("undeliverable", "NoticeUndeliverable", STUCK, known, decided, *refused, told="550 gone")

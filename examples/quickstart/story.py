"""The story: a company, six people who want to be forgotten, and a backup that is put back."""

import json
import os
import shlex
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from devtools.servers import CommandFailed, ServerFailed
from examples.quickstart.authorities import GAGGED, REJECTED, authorities_ask
from examples.quickstart.bucket import NIGHTS
from examples.quickstart.looking import SiteSight, Watch, holding, is_well, parties_with, party_is_erased
from examples.quickstart.people import Person, fill_site, made_up, sign_up
from examples.quickstart.stage import Stage, set_stage, start_operator
from examples.quickstart.telling import Account, CommandRefused, Failed, heading, say, step
from lethe.domain.periods import Period

HERE = "examples/quickstart"
K = "kubectl -n privacy"
CANARY = "canary@site.example"
BEFORE_THE_BACKUP, BY_ID, DRY_RUN, BY_EMAIL, SIGNED_UP_SINCE = 1848, 4711, 4712, 2718, 10_001
IN_CRM = 150
IN_HRM = 30


@dataclass
class Company:
    """Who is who. `parties` are the ids in Tryton of those whom the story is about, by (database, e-mail)."""

    people: list[Person]
    only_in_the_crm: Person
    signs_up_late: Person
    signs_up_last: Person
    parties: dict[tuple[str, str], int] = field(default_factory=dict)

    def site(self, key: int) -> Person:
        """Return the person with a key of the site."""
        return self.signs_up_late if key == SIGNED_UP_SINCE else self.people[key - 1]


@dataclass(frozen=True)
class Backup:
    """The backup's file, and what it holds of those who were not erased: how many they are, a digest of all
    their rows, and everything of the one whose erasure was only planned."""

    file: Path
    name: str
    others: tuple[int, str]
    planned_only: str


def tell(checkout: Path, *, keep: bool) -> int:
    """Tell the whole story; return the exit code: 0 if everything was as promised."""
    began = time.monotonic()
    stage: Stage | None = None
    try:
        heading("1  A cluster, and a company's databases")
        with set_stage(checkout) as stage:
            account = _acts(stage, (checkout / HERE / "schema.sql").read_text())
            heading("What was promised, and what was seen")
            account.show()
            say()
            took = time.monotonic() - began
            if account.holds:
                say(f"Everything was as promised. The demo took {took:.0f} s.")
            else:
                say(f"Not everything was as promised. The demo took {took:.0f} s. The operator said:")
                _show_log(stage)
            if keep:
                _leave_running(stage)
            return 0 if account.holds else 1
    except (CommandRefused, CommandFailed, ServerFailed, Failed) as failure:
        say(f"The demo can't go on: {failure}")
        return 1


def _acts(stage: Stage, schema: str) -> Account:
    account = Account()
    try:
        company = _fill(stage, schema)
        _install(stage)
        _prune(stage, account)
        backup = _back_up(stage, company)
        _erase(stage, company, account, backup)
        _restore(stage, company, account, backup)
        _drill(stage, account)
        _next_night(stage, account)
        authorities_ask(stage, account, company.site(REJECTED), company.site(GAGGED))
        _look_around(stage, company, account)
    except (CommandRefused, CommandFailed, ServerFailed, Failed):
        _show_log(stage)
        raise
    return account


def _fill(stage: Stage, schema: str) -> Company:
    with step("Making up 10,000 people"):
        people = made_up(10_003)
        company = Company(people[:10_000], people[10_000], people[10_001], people[10_002])
    with step("Filling the site's database"):
        rows = fill_site(stage.site_url, company.people, schema)
    say(f"  site: {rows['users']} users, {rows['sessions']} sessions, {rows['comments']} comments")
    with step("Filling CRM and HRM with some of the same people"):
        known = [company.site(key) for key in (BY_ID, BY_EMAIL, BEFORE_THE_BACKUP, DRY_RUN)]
        contacts = [*known, company.only_in_the_crm, *company.people[:IN_CRM]]
        staff = [company.site(BY_ID), *company.people[IN_CRM : IN_CRM + IN_HRM]]
        for database, those in (("crm", contacts), ("hrm", staff)):
            canary = [("Canary", CANARY, None)]
            ids = stage.tryton.create_parties(
                database, [*canary, *((p.name, p.email, p.language) for p in those)]
            )
            company.parties |= {(database, p.email): party for p, party in zip(those, ids[1:], strict=True)}
            if database == "hrm":
                stage.tryton.create_employees(database, ids[1:])
    say(f"  crm: {len(contacts)} contacts; hrm: {len(staff)} employees")
    with step("Filling a bucket with seven months of nightly dumps"):
        nights = stage.bucket.fill([*known, company.only_in_the_crm], datetime.now(UTC))
    say(f"  s3: {nights} dumps; the oldest was deleted by hand, which in a versioned bucket only hides it")
    return company


def _install(stage: Stage) -> None:
    heading("2  Lethe is installed and told where personal data is")
    run = stage.shell.run
    run("kubectl apply --server-side -f crds/")
    run("kubectl wait --for=condition=Established crd --all --timeout=60s", quiet=True)
    say("$ lethe run &")
    with step("  the operator starts"):
        start_operator(stage)
    run(f"kubectl apply --server-side -f {HERE}/00-namespace.yaml")
    run(f'{K} create secret generic site-db --from-literal=url="$SITE_URL"')
    for store in ("crm", "hrm"):
        run(
            f"{K} create secret generic {store}-tryton"
            ' --from-literal=username=admin --from-literal=password="$TRYTON_PASSWORD"'
        )
    run(
        f"{K} create secret generic backups-s3 --from-literal=AWS_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID"
        " --from-literal=AWS_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY"
    )
    run(
        f'sed "s|https://tryton.example:8000|$TRYTON_URL|; s|https://s3.example:9000|$S3_URL|"'
        f" {HERE}/[1-4]0-*.yaml"
        " | kubectl apply --server-side -f -"
    )
    run(f"{K} wait --for=condition=Ready dstore --all --timeout=60s", quiet=True)
    run(f"{K} wait --for=condition=SafeToServe dstore/site --timeout=60s", quiet=True)
    run(f"{K} wait --for=condition=BackupsCovered dstore --all --timeout=60s", quiet=True)
    run(f"{K} get dstore")


def _prune(stage: Stage, account: Account) -> None:
    """Let the dumps go whose time is over: too many at once, so a person is asked."""
    heading("3  No backup gets older than six months")
    run = stage.shell.run
    reason = 'jsonpath={.status.conditions[?(@.type=="RetentionEffective")].reason}'
    run(f"{K} wait --for='{reason}'=AwaitingConfirmation bsrc/nightly --timeout=60s", quiet=True)
    run(f"{K} get bsrc")
    limit, now = Period(6, 0), datetime.now(UTC)
    before = stage.bucket.dates_on_disk()
    expired = {date for date in before if limit.after(date + timedelta(minutes=4)) <= now}
    message = stage.shell.ask(
        f"{K} get bsrc nightly -o"
        " jsonpath='{.status.conditions[?(@.type==\"RetentionEffective\")].message}'"
    )
    say(f"  {message}")
    untouched_until_confirmed = len(before) == NIGHTS
    run(f"""{K} patch bsrc nightly --type=merge -p '{{"spec":{{"confirmPrunes":{len(expired)}}}}}'""")
    began = time.monotonic()
    run(f"{K} wait --for=condition=RetentionEffective bsrc/nightly --timeout=60s")
    took = time.monotonic() - began
    run(f"{K} get bsrc")
    run(f"{K} get bsnap --sort-by=.spec.takenAt | sed -n '1,3p;$p'")
    left = stage.bucket.dates_on_disk()
    account.claim(
        "Dumps whose six months are over went only when a person had named their number, and no other did",
        untouched_until_confirmed and left == before - expired and len(expired) > 10,
        f"{len(expired)} of {NIGHTS} went in {took:.1f} s; the oldest left is of {min(left):%Y-%m-%d}",
    )
    gone = [s for s in _statuses(stage, "bsnap").values() if s.get("purgedAt")]
    account.claim(
        "Each of them is proven gone: no version, no delete marker, no byte of it on the server's disk",
        len(gone) == len(expired) and all(s["state"] == "Purged" for s in gone),
        f"{len(gone)} Purged, the one that a delete marker had hidden among them",
    )


def _back_up(stage: Stage, company: Company) -> Backup:
    """Erase one person, then take the backup."""
    heading("4  Somebody is forgotten, and then the nightly backup runs")
    stage.shell.run(f"kubectl apply --server-side -f {HERE}/requests/before-the-backup.yaml")
    stage.shell.run(f"{K} wait --for=condition=Erased dreq/support-47999 --timeout=60s")
    sight = SiteSight(stage.site_url)
    others = sight.digest_without([BEFORE_THE_BACKUP, BY_ID, BY_EMAIL, SIGNED_UP_SINCE])
    untouched = sight.everything_of(DRY_RUN)
    dump = stage.directory / "site.dump"
    taken_at = _dump_begins()
    say('$ pg_dump --format=custom --file=site.dump "$SITE_URL"')
    began = time.monotonic()
    stage.postgres.dump("site", dump)
    name = stage.bucket.put(taken_at, dump.read_bytes())
    say(f"  {dump.stat().st_size / 1e6:.1f} MB in {time.monotonic() - began:.1f} s, uploaded as {name}")
    _until(lambda: name in _snapshots(stage), "the BackupSnapshot of tonight's dump")
    late = sign_up(stage.site_url, company.signs_up_late)
    say(f"Afterwards somebody signs up, and gets the key {late}.")
    if late != SIGNED_UP_SINCE:
        raise Failed(f"the sign-up after the backup got the key {late}, not {SIGNED_UP_SINCE}")
    return Backup(dump, name, others, untouched)


def _erase(stage: Stage, company: Company, account: Account, backup: Backup) -> None:
    heading("5  People ask to be forgotten")
    run, sight = stage.shell.run, SiteSight(stage.site_url)
    planned_before = sight.everything_of(DRY_RUN)
    addresses = {
        "support-48214": company.site(BY_EMAIL).email.upper(),  # as people write: not as it was stored
        "support-48215": company.only_in_the_crm.email,
    }
    for name, address in addresses.items():
        stage.shell.environment["EMAIL"] = address
        run(
            f'printf %s "$EMAIL" | {K} create secret generic {name}'
            " --type=lethe.dev/identifier --from-file=email=/dev/stdin"
        )
    del stage.shell.environment["EMAIL"]
    files = ("by-id", "by-email", "only-in-the-crm", "dry-run", "signed-up-since")
    began = time.monotonic()
    run("kubectl apply --server-side " + " ".join(f"-f {HERE}/requests/{name}.yaml" for name in files))
    wet = "dreq/support-48213 dreq/support-48214 dreq/support-48215 dreq/support-48217"
    run(f"{K} wait --for=condition=Erased {wet} --timeout=60s")
    took = time.monotonic() - began
    run(f"{K} wait --for=condition=Ready dreq/support-48216-plan --timeout=60s")
    run(f"{K} get dreq")
    run(f"{K} describe dreq support-48213")

    asked = _statuses(stage, "dreq")
    account.claim(
        "Everybody who asked was erased, and read back: rows and keys stay, every field of PII is gone",
        sight.erased([BEFORE_THE_BACKUP, BY_ID, BY_EMAIL, SIGNED_UP_SINCE]),
        f"{took:.1f} s from kubectl apply until the last of four was Erased",
    )
    in_tryton = [
        ("crm", company.site(BY_ID)),
        ("hrm", company.site(BY_ID)),
        ("crm", company.site(BY_EMAIL)),
        ("crm", company.only_in_the_crm),
    ]
    left = [db for db, person in in_tryton if parties_with(stage.tryton, db, person.email)]
    gone = all(
        party_is_erased(stage.tryton, db, company.parties[db, person.email]) for db, person in in_tryton
    )
    account.claim(
        "Their copies in CRM and HRM are erased too, by whichever way they were named",
        not left and gone,
        f"{len(in_tryton)} copies, {len(left)} left",
    )
    account.claim(
        "Whom only the CRM knows is found there, and the other stores proved that they don't know her",
        _stores(asked["support-48215"]) == {"site": "NotFound", "crm": "Verified", "hrm": "NotFound"},
        ", ".join(f"{store} {state}" for store, state in _stores(asked["support-48215"]).items()),
    )
    planned = {s["name"]: s.get("erased", {}) for s in asked["support-48216-plan"].get("stores", [])}
    account.claim(
        "The dry run told what would be erased, and changed nothing",
        planned.get("site", {}).get("users") == 1
        and planned_before == sight.everything_of(DRY_RUN)
        and bool(parties_with(stage.tryton, "crm", company.site(DRY_RUN).email)),
        "; ".join(f"{store}: {_rows(rows)}" for store, rows in planned.items() if rows),
    )
    _tell_of_last_copies(stage, account, backup)
    secrets = stage.shell.ask(f"{K} get secrets --field-selector=type=lethe.dev/identifier -o name").split()
    account.claim("The Secrets with the e-mail addresses are gone", not secrets, f"{len(secrets)} left")


def _tell_of_last_copies(stage: Stage, account: Account, backup: Backup) -> None:
    """Look whether each request says on which day the last dump dies that holds its person."""
    snapshots = _snapshots(stage)
    tonight = snapshots[backup.name]["expiresAt"]
    last_night = max(s["expiresAt"] for name, s in snapshots.items() if name != backup.name)
    promised = {name: last_night if name == "support-47999" else tonight for name in _last_copies(stage)}
    _until(lambda: _last_copies(stage) == promised, "the requests to say when their last copy dies")
    account.claim(
        "Each request says on which day its last copy in a backup dies",
        last_night < tonight,
        f"{tonight}; for the one who was erased before tonight's dump {last_night}",
    )


def _last_copies(stage: Stage) -> dict[str, str]:
    """Return what each request that erased somebody says of her last copy."""
    return {
        name: status.get("backups", {}).get("lastCopyGoneAt", "")
        for name, status in _statuses(stage, "dreq").items()
        if name != "support-48216-plan"
    }


def _next_night(stage: Stage, account: Account) -> None:
    """Let the nightly job run once more: nobody who was erased is in that dump."""
    known, told = len(_snapshots(stage)), _last_copies(stage)
    stage.bucket.put(_dump_begins(), b"the next night's dump, which nobody who was erased is in")
    _until(lambda: len(_snapshots(stage)) == known + 1, "the next night's dump to be known")
    time.sleep(3)  # more than a scan
    account.claim("The next night's dump changed none of these days", _last_copies(stage) == told)


def _dump_begins() -> datetime:
    """Return when a dump begins that is named by this moment: in a second in which nothing else was.

    Names tell whole seconds. One of the second in which somebody was read back erased, or a restored store
    was, can be that of a dump from before, and counts as holding everybody.
    """
    time.sleep(1)
    return datetime.now(UTC)


def _snapshot_called(stage: Stage, name: str) -> str:
    return stage.shell.ask(f"{K} get bsnap {name} -o jsonpath='{{.spec.ref}}'").strip()


def _snapshots(stage: Stage) -> dict[str, Any]:
    """Return the status of every BackupSnapshot that tells one, by the name of the dump."""
    items = json.loads(stage.shell.ask(f"{K} get bsnap -o json"))["items"]
    return {s["spec"]["ref"]: s["status"] for s in items if s["status"].get("expiresAt")}


def _restore(stage: Stage, company: Company, account: Account, backup: Backup) -> None:
    heading("6  Somebody puts the backup back, and tells nobody")
    run, sight = stage.shell.run, SiteSight(stage.site_url)
    back = {key: company.site(key).email for key in (BY_ID, BY_EMAIL)}
    condition = '{.status.conditions[?(@.type=="SafeToServe")].status}{"\\n"}'
    follow = [*shlex.split(f"{K} get dstore site --watch -o"), f"jsonpath={condition}"]
    with Watch(stage.site_url, back, _found(follow, stage), stage.shell.environment) as watch:
        _until(lambda: bool(watch.gate), "kubectl to watch the DataStore")
        say('$ pg_restore --exit-on-error --clean --if-exists --dbname "$SITE_URL" site.dump')
        began = time.monotonic()
        stage.postgres.restore("site", backup.file, "--clean", "--if-exists")
        ended = time.monotonic()
        newcomer = sign_up(stage.site_url, company.signs_up_late)
        hers = sight.everything_of(newcomer)
        say(f"  done in {ended - began:.1f} s")
        say(f"At once somebody signs up with an erased address; the site gives her the key {newcomer}.")
        run(f"{K} wait --for=condition=SafeToServe=False dstore/site --timeout=60s", quiet=True)
        run(f"{K} get dstore,revent")
        run(f"{K} wait --for=condition=SafeToServe revent --all --timeout=120s")
        _until(lambda: watch.first("True", after=began) is not None, "the DataStore to say that it is safe")
    cleared_now = sight.erased([BEFORE_THE_BACKUP, BY_ID, BY_EMAIL])
    run(f"{K} get dstore,revent")
    closed_at, opened_at = watch.first("False", after=began), watch.first("True", after=began)
    if closed_at is None or opened_at is None:
        raise Failed("the DataStore never said that it is not safe to serve")
    (event,) = _statuses(stage, "revent").values()
    replay = event["replay"]

    account.claim(
        "The restore really brought erased people back",
        watch.back_at is not None,
        "" if watch.back_at is None else f"first seen {watch.back_at - began:.1f} s after pg_restore began",
    )
    account.claim(
        "Nobody told Lethe, and it noticed by the store's own journal",
        event["detectedBy"] == "Journal",
        f"store not safe to serve {closed_at - began:.1f} s after pg_restore began, "
        f"{closed_at - ended:+.1f} s from its end",
    )
    last_seen = watch.last_seen_at or opened_at
    origin = event.get("restoredFrom", {}).get("snapshot", "")
    account.claim(
        "Which dump it was, the journal told, too",
        bool(origin) and _snapshot_called(stage, origin) == backup.name,
        f"BackupSnapshot {origin}",
    )
    account.claim(
        "One restore was one RestoreEvent, and is counted once",
        _metric(stage, "lethe_restores_total") == 1,
    )
    account.claim(
        "The store was called safe again only when nobody erased was left in it",
        cleared_now and last_seen < opened_at,
        f"safe {opened_at - ended:.1f} s after pg_restore ended; the last of them was gone "
        f"{opened_at - last_seen:.1f} s earlier",
    )
    account.claim(
        "Missing were the erasures since the backup, not the one before it, and each was looked after",
        (replay["missing"], replay["reErased"], replay["leftAlone"], replay["unclear"]) == (3, 2, 1, 0),
        f"missing {replay['missing']}: {replay['reErased']} erased again, {replay['leftAlone']} left alone, "
        f"{replay['unclear']} unclear",
    )
    account.claim(
        "The new person is untouched, although she has the key and the address of somebody erased",
        newcomer == SIGNED_UP_SINCE and sight.everything_of(newcomer) == hers,
        f"key {newcomer}",
    )
    now = sight.digest_without([BEFORE_THE_BACKUP, BY_ID, BY_EMAIL, SIGNED_UP_SINCE])
    account.claim(
        "Every row of everybody else is, byte for byte, what it was when the backup was taken",
        now == backup.others and sight.everything_of(DRY_RUN) == backup.planned_only,
        f"{backup.others[0]} people",
    )
    next_key = sign_up(stage.site_url, company.signs_up_last)
    account.claim(
        "The sequence goes on where it was before the restore: no key is given out twice any more",
        next_key > SIGNED_UP_SINCE,
        f"the next one was {next_key}",
    )


def _drill(stage: Stage, account: Account) -> None:
    """Rehearse on purpose what has just happened by accident."""
    say()
    say("Nobody wants to find out at three in the morning: from now on it is rehearsed on Sundays, and now.")
    run = stage.shell.run
    run(f'{K} create secret generic scratch-db --from-literal=url="$SCRATCH_URL"')
    run(f"kubectl apply --server-side -f {HERE}/50-drill.yaml")
    run(f"{K} wait --for=condition=Passed rdrill/sunday --timeout=60s")
    run(f"{K} get rdrill")
    (drill,) = _statuses(stage, "rdrill").values()
    found, took = drill["findings"], drill["measures"]
    left = stage.scratch.psql("SELECT count(*) FROM pg_database WHERE datname LIKE 'lethe%'")
    account.claim(
        "A drill restored that dump elsewhere, erased again whom it brought back, and left nothing there",
        (found["erasedAgain"], found["missed"], left) == (2, 0, "0"),
        f"restored in {took['restoredIn']}, erased again in {took['erasedAgainIn']}",
    )
    _until(
        lambda: bool((_statuses(stage, "dreq")["support-48213"].get("backups") or {}).get("rehearsedAt")),
        "the request to say when it was rehearsed",
    )


def _look_around(stage: Stage, company: Company, account: Account) -> None:
    heading("9  What is left behind")
    erased = [company.site(key).email for key in (BEFORE_THE_BACKUP, BY_ID, BY_EMAIL, SIGNED_UP_SINCE)]
    erased += [company.only_in_the_crm.email, company.site(GAGGED).email]
    files = [stage.operator_log, *sorted(stage.ledger.parent.glob("ledger.db*"))]
    if stage.cluster is not None:
        etcd = stage.directory / "etcd"
        stage.cluster.compact_etcd()
        etcd.write_bytes(stage.cluster.dump_etcd())
        files += [etcd, stage.cluster.audit_log]
    found = holding(files, erased)
    account.claim(
        "No address of an erased person is in what Lethe keeps, writes, or leaves in the cluster",
        not found,
        f"searched {', '.join(file.name for file in files)}" if not found else f"found in {', '.join(found)}",
    )
    strange = [line for line in _log_lines(stage) if not is_well(line)]
    for line in strange:
        say(f"  {line}")
    account.claim(
        "Lethe's log tells of no error, and its libraries warn of nothing",
        not strange,
        f"{len(_log_lines(stage))} lines",
    )
    try:
        verified = stage.shell.run("lethe ledger verify")
    except CommandRefused as refused:
        verified = ""
        say(f"  {refused}")
    account.claim("The ledger's chain holds", bool(verified), verified.strip())


def _leave_running(stage: Stage) -> None:
    environment = stage.shell.environment
    say()
    say("Everything goes on until Ctrl-C. In another terminal:")
    for name in ("KUBECONFIG", "SITE_URL", "TRYTON_URL", "LETHE_LEDGER_URL", "LETHE_KEYS_DIR"):
        say(f"  export {name}={shlex.quote(environment[name])}")
    ours = environment["PATH"].removesuffix(f":{os.environ.get('PATH', '')}")
    say(f"  export PATH={shlex.quote(ours)}:$PATH")
    say(f"  kubectl -n privacy get lethe; tail -f {stage.operator_log}")
    say(f"  curl http://{environment['LETHE_METRICS_ADDRESS']}/metrics")
    while True:
        signal.pause()


def _statuses(stage: Stage, kind: str) -> dict[str, Any]:
    """Return the status of every object of a kind, by name."""
    items = json.loads(stage.shell.ask(f"{K} get {kind} -o json"))["items"]
    return {item["metadata"]["name"]: item.get("status", {}) for item in items}


def _metric(stage: Stage, name: str) -> float:
    """Return the sum of all samples of one of the operator's metrics."""
    address = stage.shell.environment["LETHE_METRICS_ADDRESS"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0] == name)


def _stores(status: Any) -> dict[str, str]:
    return {store["name"]: store["state"] for store in reversed(status.get("stores", []))}


def _rows(rows: Any) -> str:
    return ", ".join(f"{table} {count}" for table, count in rows.items())


def _found(command: list[str], stage: Stage) -> list[str]:
    """Return a command with its program's whole path: Popen searches its own PATH, not the child's."""
    program = stage.shell.ask(f"command -v {command[0]}").strip()
    return [program, *command[1:]]


def _until(ready: Callable[[], bool], what: str, patience: float = 60) -> None:
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            raise Failed(f"waited {patience:.0f} s for {what}")
        time.sleep(0.05)


def _show_log(stage: Stage) -> None:
    for line in _log_lines(stage)[-30:]:
        say(f"  {line}")
    sys.stdout.flush()


def _log_lines(stage: Stage) -> list[str]:
    return stage.operator_log.read_text(errors="replace").splitlines() if stage.operator_log.exists() else []

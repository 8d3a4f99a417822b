"""The demo's stage: a cluster, the company's databases, and the operator; all gone when the story ends."""

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from devtools.cluster.build import binaries
from devtools.servers import ControlPlane, MailServer, PostgresServer
from devtools.servers.children import Child, free_port, wait_until
from devtools.servers.tryton import TrytonServer
from devtools.servers.versitygw import VersityServer
from examples.quickstart import telling
from examples.quickstart.bucket import Bucket

NAMESPACE = "privacy"
CRM_PASSWORD = TrytonServer.password


@dataclass
class Stage:
    """What stands on the stage. `cluster` is `None` where the person brought one of her own."""

    directory: Path
    shell: telling.Shell
    cluster: ControlPlane | None
    postgres: PostgresServer
    scratch: PostgresServer
    tryton: TrytonServer
    bucket: Bucket
    mail: MailServer
    operator: Child
    operator_log: Path
    operator_environment: Mapping[str, str]
    ledger: Path

    @property
    def site_url(self) -> str:
        """Where the site's database is."""
        return self.postgres.url("site")


@contextlib.contextmanager
def set_stage(checkout: Path) -> Iterator[Stage]:
    """Start everything but the operator, which is started by the story; take all down at the end."""
    programs = binaries()
    with ExitStack() as curtain:
        directory = curtain.enter_context(_own_folder())
        brought = os.environ.get("KUBECONFIG")
        cluster: ControlPlane | None = None
        kubeconfig = brought or ""
        if not brought:
            with telling.step("Starting etcd and kube-apiserver"):
                cluster = curtain.enter_context(ControlPlane(directory / "cluster"))
                kubeconfig = str(cluster.kubeconfig)
        environment = {
            "KUBECONFIG": _absolute(kubeconfig),
            "PATH": f"{Path(sys.executable).parent}:{programs}:{os.environ.get('PATH', '')}",
            "TRYTON_PASSWORD": CRM_PASSWORD,
            **_operators_settings(directory),
        }
        if cluster is not None:
            environment["HOME"] = str(directory)  # kubectl's caches go with the rest
        shell = telling.Shell(checkout, environment)
        if cluster is None:
            _require_room(shell)
            curtain.callback(_leave_as_found, shell)
        with telling.step("Starting PostgreSQL"):
            postgres = curtain.enter_context(PostgresServer(directory / "postgres", fsync=False))
            postgres.create_database("site")
        with telling.step("Starting a second PostgreSQL, for drills"):
            scratch = curtain.enter_context(PostgresServer(directory / "scratch", fsync=False))
        with telling.step("Starting Tryton, with a database as CRM and one as HRM"):
            tryton = curtain.enter_context(TrytonServer(directory / "tryton"))
        with telling.step("Starting an S3 server"):
            s3 = curtain.enter_context(VersityServer(directory / "s3"))
        shell.environment |= {
            "SITE_URL": postgres.url("site"),
            "SCRATCH_URL": scratch.url(),
            "TRYTON_URL": tryton.url,
            "S3_URL": s3.endpoint,
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        }
        with telling.step("Starting a mail server"):
            mail = curtain.enter_context(MailServer(directory / "mail"))
        environment |= {"LETHE_SMTP_URL": mail.url, "LETHE_MAIL_FROM": "Privacy <privacy@site.example>"}
        log = directory / "operator.log"
        operator = Child([Path(sys.executable).parent / "lethe", "run"], log=log, env=environment)
        ledger = directory / "operator" / "ledger.db"
        stage = Stage(
            directory,
            shell,
            cluster,
            postgres,
            scratch,
            tryton,
            Bucket(s3),
            mail,
            operator,
            log,
            environment,
            ledger,
        )
        _lay_command_down(directory / "drills" / "pg-restore", s3, scratch)
        curtain.callback(_stop_operator, stage)
        yield stage


def _lay_command_down(file: Path, s3: VersityServer, scratch: PostgresServer) -> None:
    """Lay down what restores a dump in a drill: it fetches it from the bucket, and hands it to pg_restore."""
    file.parent.mkdir()
    lines = (
        f"#!{sys.executable}",
        "import os, subprocess, sys",
        f"sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})",
        "from devtools.servers.versitygw import s3_client",
        f"client = s3_client({s3.endpoint!r}, {s3.access_key!r}, {s3.secret_key!r})",
        "bucket = os.environ['LETHE_SNAPSHOT_PLACE'].rpartition('/')[2]",
        "dump = client.get_object(Bucket=bucket, Key=os.environ['LETHE_SNAPSHOT'])['Body'].read()",
        f"command = [{str(scratch.program('pg_restore'))!r}, '--no-owner', '--exit-on-error']",
        "subprocess.run([*command, '--dbname', os.environ['LETHE_SCRATCH_URL']], input=dump, check=True)",
    )
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o700)


def start_operator(stage: Stage) -> None:
    """Start the operator and wait until it says that it is ready."""
    address = stage.shell.environment["LETHE_METRICS_ADDRESS"]

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://{address}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    stage.operator.start()
    wait_until(ready, what="the operator to be ready", children=[stage.operator])


def _stop_operator(stage: Stage) -> None:
    stage.operator.stop()  # whichever it is by then


def restart_later(stage: Stage, ahead: timedelta) -> None:
    """Start the operator, which was stopped, in a time to come."""
    stage.operator = Child(
        [sys.executable, "-m", "examples.quickstart.later", str(ahead.total_seconds())],
        log=stage.operator_log,
        env={**stage.operator_environment, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    start_operator(stage)


def _operators_settings(directory: Path) -> Mapping[str, str]:
    home = directory / "operator"
    (home / "keys").mkdir(mode=0o700, parents=True)
    return {
        "LETHE_NAMESPACES": NAMESPACE,
        "LETHE_LEDGER_URL": f"sqlite:///{home / 'ledger.db'}",
        "LETHE_KEYS_DIR": str(home / "keys"),
        "LETHE_STORE_HOSTS": "*,127.0.0.0/8,[::1]",
        "LETHE_DRILL_COMMANDS_DIR": str(directory / "drills"),
        "LETHE_JOURNAL_INTERVAL": "2s",
        "LETHE_SCAN_INTERVAL": "2s",
        "LETHE_CLOCK_SKEW": "1ms",  # all on one host
        "LETHE_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
        "LETHE_LOG_FORMAT": "text",
    }


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """Make a folder that is removed at the end, and remove those of demos that were killed."""
    root = Path(tempfile.gettempdir())
    for left_over in root.glob(f"lethe-demo-{os.getuid()}-*"):
        with contextlib.suppress(OSError), (left_over / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left_over, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"lethe-demo-{os.getuid()}-", dir=root))
    try:
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _absolute(kubeconfig: str) -> str:
    return os.pathsep.join(str(Path(part).absolute()) for part in kubeconfig.split(os.pathsep) if part)


def _require_room(shell: telling.Shell) -> None:
    """Refuse a cluster where something of ours is: it could be somebody's real installation."""
    telling.say(f"Using the cluster of KUBECONFIG: {shell.ask('kubectl config current-context').strip()}")
    there = shell.ask(
        f"kubectl get namespace {NAMESPACE} --ignore-not-found -o name; "
        "kubectl get crd -o name | grep '[.]lethe[.]dev$' || true"
    ).split()
    if there:
        raise telling.Failed(
            f"this cluster has {there[0]} already ({len(there)} things), and the demo would remove it; "
            "unset KUBECONFIG for a cluster of the demo's own, or name another one"
        )


def _leave_as_found(shell: telling.Shell) -> None:
    with (
        telling.step("Removing what the demo made in the cluster"),
        contextlib.suppress(telling.CommandRefused),
    ):
        shell.ask(
            "kubectl delete -f crds/ --ignore-not-found --timeout=60s; "
            f"kubectl delete namespace {NAMESPACE} --ignore-not-found --timeout=60s"
        )

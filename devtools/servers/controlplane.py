"""A real etcd and kube-apiserver, with RBAC, verified TLS and an audit log: what the operator talks to.

There is no controller-manager: namespaces that are deleted stay Terminating, nothing collects garbage, and
the aggregated roles `view`, `edit` and `admin` grant nothing.
"""

import base64
import json
import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from devtools.cluster.build import binaries
from devtools.servers.certificates import write_certificates
from devtools.servers.children import Child, Server, free_port, run, wait_until

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ControlPlane(Server):
    """etcd and kube-apiserver in `directory`; a context manager, ready in about two seconds.

    `url` is the API server's address, `kubeconfig` that of the user `admin` (system:masters, token
    `admin_token`), `audit_log` one line of JSON for each request that ended. `etcd` and `api_server` can
    be stopped, killed and started one by one; addresses and content stay.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.audit_log = self.directory / "audit.log"
        self._certificates = self.directory / "certificates"
        self._api_port = free_port()
        self.url = f"https://127.0.0.1:{self._api_port}"
        self.etcd_endpoint = f"http://127.0.0.1:{free_port()}"
        self._tokens: dict[str, tuple[str, Sequence[str]]] = {}
        self.admin_token = self.add_user("admin", ["system:masters"])
        self.kubeconfig = self.kubeconfig_of("admin")
        self._programs = binaries()
        self.etcd = Child(self._etcd_command(), log=self.directory / "etcd.log")
        self.api_server = Child(self._api_server_command(), log=self.directory / "kube-apiserver.log")

    def add_user(self, name: str, groups: Sequence[str] = ()) -> str:
        """Return the token of a new user, who may do what RBAC grants them. Only before `start`."""
        if (self._certificates / "ca.crt").exists():
            raise RuntimeError("the API server reads its users once, when it starts")
        token = secrets.token_urlsafe(24)
        self._tokens[name] = token, groups
        return token

    def kubeconfig_of(self, user: str) -> Path:
        """Return where a user's kubeconfig is, or will be after `start`."""
        return self.directory / ("kubeconfig" if user == "admin" else f"kubeconfig-{user}")

    def start(self) -> Self:
        """Start both and wait until the API server is ready; does nothing to what already runs."""
        if not (self._certificates / "ca.crt").exists():
            self._prepare()
        self.etcd.start()
        self.api_server.start()
        wait_until(self.ready, what="the API server to be ready", children=[self.etcd, self.api_server])
        return self

    def stop(self) -> None:
        """Stop both; `start` brings them back as they were."""
        # Nothing is lost by it: what the API server has acknowledged is in etcd. Asking takes it seconds.
        self.api_server.kill9()
        self.etcd.stop()

    def ready(self) -> bool:
        """Whether the API server says so, its caches and bootstrap roles included."""
        context = ssl.create_default_context(cafile=self._certificates / "ca.crt")
        request = urllib.request.Request(
            self.url + "/readyz", headers={"Authorization": f"Bearer {self.admin_token}"}
        )
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kubectl(self, *args: str, input: str | None = None, user: str = "admin") -> str:  # noqa: A002  of `run`
        """Run kubectl as `user` and return what it printed; raises `CommandFailed` with its error message."""
        program = self._programs / "kubectl"
        home = self.directory / "home"  # neither caches nor preferences of the person who runs the tests
        kubeconfig = str(self.kubeconfig_of(user))
        return run([program, *args], input=input, env={"KUBECONFIG": kubeconfig, "HOME": str(home)})

    def audit_events(self) -> Iterator[dict[str, Any]]:
        """Yield the audit events so far: who (`user.username`) did what (`verb`) to what (`objectRef`)."""
        if self.audit_log.exists():
            with self.audit_log.open() as log:
                for line in log:
                    if line.endswith("\n"):
                        yield json.loads(line)

    def dump_etcd(self) -> bytes:
        """Return all keys and values that etcd holds now, to search for what must not be there.

        Earlier revisions are not among them: `compact_etcd` destroys those, and `etcd_files` holds all bytes.
        """
        everything, start = bytearray(), b"\0"
        while True:
            page = self._ask_etcd("kv/range", key=start, range_end=b"\0", limit=2000)
            for pair in page.get("kvs", []):
                key = base64.b64decode(pair["key"])
                everything += key + b"\0" + base64.b64decode(pair.get("value", "")) + b"\0"
                start = key + b"\0"
            if not page.get("more"):
                return bytes(everything)

    def compact_etcd(self) -> None:
        """Destroy all revisions but the newest, as the API server has it done every five minutes."""
        revision = self._ask_etcd("kv/range", key=b"\0", range_end=b"\0", limit=1)["header"]["revision"]
        self._ask_etcd("kv/compaction", revision=revision, physical=True)
        self._ask_etcd("maintenance/defragment")

    @property
    def etcd_files(self) -> Path:
        """The folder of etcd's database and write-ahead log."""
        return self.directory / "etcd"

    def _ask_etcd(self, method: str, **body: bytes | int | str | bool) -> dict[str, Any]:
        encoded = {
            name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in body.items()
        }
        request = urllib.request.Request(
            f"{self.etcd_endpoint}/v3/{method}", data=json.dumps(encoded).encode()
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            said: dict[str, Any] = json.loads(answer.read())
        return said

    def _prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "home").mkdir(exist_ok=True)
        lines = [
            f'{token},{name},{name},"{",".join(groups)}"\n' for name, (token, groups) in self._tokens.items()
        ]
        (self.directory / "tokens.csv").write_text("".join(lines))
        (self.directory / "audit-policy.json").write_text(json.dumps(AUDIT_POLICY))
        self._write_certificates()
        authority = base64.b64encode((self._certificates / "ca.crt").read_bytes()).decode()
        for user, (token, _) in self._tokens.items():
            kubeconfig = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {
                        "name": "lethe",
                        "cluster": {"server": self.url, "certificate-authority-data": authority},
                    }
                ],
                "users": [{"name": user, "user": {"token": token}}],
                "contexts": [{"name": "lethe", "context": {"cluster": "lethe", "user": user}}],
                "current-context": "lethe",
            }
            file = self.kubeconfig_of(user)
            file.touch(mode=0o600)
            file.write_text(json.dumps(kubeconfig, indent=2))

    def _write_certificates(self) -> None:
        write_certificates(self._certificates)

    def _etcd_command(self) -> list[str]:
        peer = f"http://127.0.0.1:{free_port()}"
        return [
            str(self._programs / "etcd"),
            f"--data-dir={self.etcd_files}",
            f"--listen-client-urls={self.etcd_endpoint}",
            f"--advertise-client-urls={self.etcd_endpoint}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
            "--unsafe-no-fsync",  # it outlives kill -9, and a power cut ends the test anyway
        ]

    def _api_server_command(self) -> list[str]:
        service_accounts = self._certificates / "service-accounts.key"
        return [
            str(self._programs / "kube-apiserver"),
            f"--etcd-servers={self.etcd_endpoint}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._api_port}",
            f"--tls-cert-file={self._certificates / 'server.crt'}",
            f"--tls-private-key-file={self._certificates / 'server.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={service_accounts}",
            f"--service-account-signing-key-file={service_accounts}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            # Nobody makes the `default` ServiceAccount here; with this plugin no pod could be created.
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged",
            f"--audit-policy-file={self.directory / 'audit-policy.json'}",
            f"--audit-log-path={self.audit_log}",
        ]

"""A cluster and the operator in it, as its administrator sees them: by kubeconfig, kubectl and Helm.

Nothing here knows how the cluster came about.
"""

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from devtools.chart.copies import CHART
from devtools.chart.helm import NAMESPACE, Helm
from devtools.cluster.build import binaries
from devtools.company import Api, eventually
from devtools.servers.children import run

RELEASE = "lethe"
Manifest = dict[str, Any]

KILL = """
import os, pathlib, signal, sys
marks = (sys.argv[1], sys.argv[1].replace("-", "_"))
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        of_pod = any(mark in (process / "cgroup").read_text() for mark in marks)
        if of_pod and b"lethe" in (process / "cmdline").read_bytes():
            os.kill(int(process.name), signal.SIGKILL)
            print("killed")
    except OSError:
        pass
"""


class Outside:
    """What a cluster's administrator has: `image` is the operator's, known to the cluster's nodes.

    `address` is where pods reach what listens on this machine.
    """

    def __init__(self, kubeconfig: Path, *, image: str, address: str, home: Path) -> None:
        self.kubeconfig, self.image, self.address = kubeconfig, image, address
        self._home = home
        self._helm = Helm(home, kubeconfig)
        self._kubectl = binaries() / "kubectl"

    def kubectl(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002  as `run` calls it
        """Run kubectl and return what it printed; raises `CommandFailed`."""
        environment = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self._home)}
        return run([self._kubectl, *arguments], input=input, env=environment)

    def read(self, *arguments: str) -> Manifest:
        """Return what `kubectl get` says."""
        found: Manifest = json.loads(self.kubectl("get", *arguments, "--output=json"))
        return found

    def apply(self, *manifests: Manifest) -> None:
        """Apply objects."""
        self.kubectl("apply", "--filename=-", input=yaml.safe_dump_all(manifests))

    def restricted_namespace(self, name: str) -> None:
        """Make a namespace in which only restricted pods may run."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})

    def release(self, values: Mapping[str, str], *, wait: bool = True) -> None:
        """Install the chart, or upgrade it, with these values beside the image's."""
        repository, _, tag = self.image.rpartition(":")
        settings = {"image.repository": repository, "image.tag": tag, "image.pullPolicy": "Never", **values}
        self._helm(
            *("upgrade", "--install", RELEASE, str(CHART), "--namespace", NAMESPACE),
            *(part for name, value in settings.items() for part in ("--set", f"{name}={value}")),
            *(("--wait", "--timeout", "5m") if wait else ()),
        )

    def uninstall(self) -> None:
        """Uninstall the chart, and wait until the operator's pod is gone."""
        self._helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "5m")

    def operator_pod(self) -> Manifest:
        """Return the operator's pod, the newest where an older one is ending; raises `LookupError`."""
        selector = f"app.kubernetes.io/instance={RELEASE}"
        pods: list[Manifest] = self.read("pods", f"--namespace={NAMESPACE}", "--selector", selector)["items"]
        if not pods:
            raise LookupError("the operator has no pod")
        return max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def in_operator(self, *command: str) -> str:
        """Run a command beside the operator, in its container; return what it printed."""
        return self.kubectl("exec", f"--namespace={NAMESPACE}", f"deployment/{RELEASE}", "--", *command)

    def metrics(self) -> dict[str, float]:
        """Return the operator's metrics by name and labels, scraped through its Service."""
        path = f"/api/v1/namespaces/{NAMESPACE}/services/{RELEASE}:metrics/proxy/metrics"
        lines = (line for line in self.kubectl("get", "--raw", path).splitlines() if line and line[0] != "#")
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def kill9(self, pod: Manifest) -> None:
        """Kill a pod's processes as the kernel does, from a pod that sees them all: no one asks them."""
        name = "kills"
        script = {"command": ["python", "-c", KILL, pod["metadata"]["uid"]], "name": name}
        root = {"securityContext": {"runAsUser": 0}, "image": self.image, "imagePullPolicy": "Never"}
        spec = {"hostPID": True, "restartPolicy": "Never", "containers": [script | root]}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
        eventually(lambda: self.read("pod", name)["status"]["phase"] == "Succeeded", "the killer to end", 120)
        assert "killed" in self.kubectl("logs", name)
        self.kubectl("delete", "pod", name, "--grace-period=1")


class ApiFromOutside(Api):
    """`Api` by a kubeconfig with a token or a client's certificate, as kind writes it."""

    def __init__(self, outside: Outside, namespace: str) -> None:
        self.namespace = namespace
        config = yaml.safe_load(outside.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._server: str = cluster["server"]
        self._token: str | None = user.get("token")
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=authority)
        if "client-certificate-data" in user:
            pair = outside.kubeconfig.with_name("administrator.pem")
            pair.touch(mode=0o600)
            parts = (base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key"))
            pair.write_bytes(b"\n".join(parts))
            self._context.load_cert_chain(pair)

    def call(
        self, verb: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, Any]:
        """Return status and body of a call to the API server."""
        headers = {"Content-Type": content_type}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._server + path, method=verb, data=content, headers=headers)
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read() or b"{}")


def container_status(pod: Manifest) -> Manifest:
    """Return the state of a pod's only container; empty before it has one."""
    statuses: Sequence[Manifest] = pod["status"].get("containerStatuses", ())
    return statuses[0] if statuses else {}

"""A real node on this machine: control plane, kubelet, containerd, kube-proxy and names, without Docker.

There is one at most: what it changes (a bridge, control groups, tables of nftables) belongs to the machine.
It needs root and Debian's packages (`devtools.node.packages`), and is taken down completely, by the next one
if not by itself.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TextIO

import yaml

from devtools.cache import cache
from devtools.node import images, leftovers, packages
from devtools.node.build import node_binaries
from devtools.node.controlplane import API_SERVICE, KUBELET, NODE, PROXY, FullControlPlane
from devtools.servers.children import Child, CommandFailed, Server, free_port, run, wait_until

PODS = "10.88.0.0/24"
LOGS = images.CHECKOUT / "build" / "node-logs"


def obstacles() -> list[str]:
    """Return why no node can run here; empty if one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return ["a node needs Linux and root"]
    lacking = packages.missing()
    if lacking:
        return [f"Debian packages are missing: {' '.join(lacking)}; make node-e2e installs them"]
    if not os.access(leftovers.CGROUPS, os.W_OK):
        return [f"{leftovers.CGROUPS} can't be written: pods need control groups"]
    if subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False).returncode:
        return ["this root may make no mounts or networks of its own, as pods need them"]
    if not (cache() / "node").exists() and leftovers.traces(cache() / "node"):
        return ["this machine is somebody else's Kubernetes node already"]
    return []


class Node(Server):
    """A cluster of one node in the project's cache; `kubeconfig` is its administrator's.

    `address` is the machine's: pods reach it and each other, and nothing beyond.
    """

    def __init__(self) -> None:
        # At one place, so that the next one finds what a killed one left; short, as a socket's path must be.
        self.directory = cache() / "node"
        self.address = _own_address()
        self._lock: TextIO | None = None
        self._socket = self.directory / "containerd.sock"
        self._children: list[Child] = []
        self._control_plane: FullControlPlane | None = None

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.control_plane.kubeconfig

    @property
    def control_plane(self) -> FullControlPlane:
        """The API server and what belongs to it; raises `LookupError` before `start`."""
        if self._control_plane is None:
            raise LookupError("the node does not run")
        return self._control_plane

    def start(self) -> Self:
        """Take down what an earlier one left, start everything, and wait until pods can run."""
        self._lock = (cache() / "node.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        leftovers.remove(self.directory)
        self.directory.mkdir()
        leftovers.remember_machine(self.directory)
        leftovers.make_cgroup()
        self._start_containerd()
        self.load(images.pause_image())
        self._control_plane = FullControlPlane(self.directory / "control-plane", self.address)
        self._control_plane.start()
        self._start_kubelet()
        self._start_proxy_and_names()
        return self

    def stop(self) -> None:
        """Stop everything and leave nothing behind; does nothing when it does not run."""
        if self._lock is None:
            return
        for child in reversed(self._children):  # the kubelet before containerd: it would start pods again
            child.kill9()
        self._children.clear()
        if self._control_plane is not None:
            self._control_plane.stop()
            self._control_plane = None
        _keep_logs(self.directory)
        leftovers.remove(self.directory)
        self._lock.close()
        self._lock = None

    def load(self, tag: str) -> None:
        """Let pods use an image that was built here."""
        file = images.export(tag, self.directory / "image.tar")
        self._ctr("images", "import", str(file))
        file.unlink()

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """Apply an object as the administrator."""
        self.control_plane.kubectl("apply", "--filename=-", input=json.dumps(manifest))

    def phase(self, pod: str) -> str:
        """Return the phase of a pod in the namespace `default`."""
        return self.control_plane.kubectl("get", "pod", pod, "--output=jsonpath={.status.phase}")

    def add_volume(self, name: str) -> None:
        """Offer a volume of the node's disk to the first claim that asks for no StorageClass."""
        folder = self.directory / "volumes" / name
        folder.mkdir(parents=True)
        os.chown(folder, 65532, 65532)  # `fsGroup` does nothing for a folder of the host's
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(folder), "type": "Directory"},
            },
        }
        self.apply(volume)

    def _start_containerd(self) -> None:
        cni = self.directory / "cni"
        cni.mkdir()
        addresses = {
            "type": "host-local",
            "dataDir": str(cni / "addresses"),
            "ranges": [[{"subnet": PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {
            "type": "bridge",
            "bridge": leftovers.BRIDGE,
            "isGateway": True,
            "ipMasq": False,
            "ipam": addresses,
        }
        plugins = {"cniVersion": "1.0.0", "name": "lethe-node", "plugins": [bridge]}
        (cni / "10-lethe-node.conflist").write_text(json.dumps(plugins))
        config = self.directory / "containerd.toml"
        config.write_text(_CONTAINERD.format(directory=self.directory, pause=images.PAUSE))
        containerd = self._child("containerd", "containerd", "--config", config)
        wait_until(self._containerd_answers, what="containerd", children=[containerd])

    def _containerd_answers(self) -> bool:
        try:
            self._ctr("version")
        except CommandFailed:
            return False
        return True

    def _start_kubelet(self) -> None:
        config = self.directory / "kubelet.yaml"
        config.write_text(yaml.safe_dump(self._kubelet_settings()))
        kubelet = self._child(
            "kubelet",
            *(node_binaries() / "kubelet", "--config", config),
            *("--kubeconfig", self.control_plane.kubeconfig_of(KUBELET)),
            *("--root-dir", self.directory / "kubelet", "--cert-dir", self.directory / "kubelet-pki"),
            *("--hostname-override", NODE, "--node-ip", self.address),
        )
        wait_until(self._is_ready, what="the node to be ready", children=[kubelet], patience=300)
        leftovers.restore_sysctls(self.directory, but_forwarding=True)

    def _kubelet_settings(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "port": free_port(),
            "healthzPort": 0,
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{leftovers.CGROUP}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "podLogsDir": str(self.directory / "pod-logs"),
            "maxOpenFiles": 20000,
            "oomScoreAdj": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(self.control_plane.authority)},
            },
            "authorization": {"mode": "AlwaysAllow"},
            # A disk that others fill is no reason to evict, or to throw away what nobody can pull again.
            "evictionHard": dict.fromkeys(
                ("memory.available", "nodefs.available", "imagefs.available"), "100Mi"
            ),
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "clusterDomain": "cluster.local",
            "clusterDNS": [self.address],
        }

    def _is_ready(self) -> bool:
        ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        try:
            return self.control_plane.kubectl("get", "node", NODE, "--output", ready) == "True"
        except CommandFailed:
            return False

    def _start_proxy_and_names(self) -> None:
        settings = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": PODS,
            "hostnameOverride": NODE,
            "healthzBindAddress": "",
            "metricsBindAddress": "",
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
            "clientConnection": {"kubeconfig": str(self.control_plane.kubeconfig_of(PROXY))},
        }
        config = self.directory / "kube-proxy.yaml"
        config.write_text(yaml.safe_dump(settings))
        proxy = self._child("kube-proxy", node_binaries() / "kube-proxy", "--config", config)
        names = self._child(
            "dnsmasq",
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"),
            *("--bind-interfaces", f"--listen-address={self.address}", "--except-interface=lo"),
            *(
                "--local=/cluster.local/",
                "--user=root",
                f"--pid-file={self.directory}/dnsmasq.pid",
            ),  # by which it is found
            f"--address=/kubernetes.default.svc.cluster.local/{API_SERVICE}",
        )
        wait_until(_proxied, what="kube-proxy to know the API server", children=[proxy, names])

    def _child(self, name: str, *command: str | Path) -> Child:
        child = Child(command, log=self.directory / f"{name}.log")
        self._children.append(child)
        child.start()
        return child

    def _ctr(self, *arguments: str) -> str:
        return run(["ctr", f"--address={self._socket}", "--namespace=k8s.io", *arguments])


_CONTAINERD = """
version = 2
root = "{directory}/containerd"
state = "{directory}/containerd-state"
[grpc]
  address = "{directory}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def _keep_logs(directory: Path) -> None:
    """Keep what everybody said last, for whoever wants to know why a run failed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    for log in (*directory.glob("*.log"), *directory.glob("control-plane/[!a]*.log")):  # not the audit's
        shutil.copyfile(log, LOGS / log.name)
    for log in directory.glob("pod-logs/*/*/*.log"):
        shutil.copyfile(log, LOGS / f"{log.parts[-3]}.{log.name}")


def _proxied() -> bool:
    if "table ip kube-proxy" not in run(["nft", "list", "tables"]):
        return False
    return API_SERVICE in run(["nft", "list", "table", "ip", "kube-proxy"])


def _own_address() -> str:
    """Return the address by which this machine reaches others; nothing is sent."""
    route = run(["ip", "-4", "-o", "route", "get", "192.0.2.1"])
    source = re.search(r"\bsrc ([\d.]+)", route)
    if source is None:
        raise LookupError("this machine has no IPv4 address but loopback's: a node needs one")
    return source[1]

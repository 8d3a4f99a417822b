"""A node whose tests were killed: what it leaves is found and removed. Runs before the story's own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.cache import cache
from devtools.cluster.build import binaries
from devtools.company import eventually
from devtools.node import images, leftovers
from devtools.node.node import obstacles
from devtools.servers.children import run

PATIENCE = 180


@pytest.fixture
def node() -> Iterator["subprocess.Popen[str]"]:
    """A node in a process of its own."""
    reasons = obstacles()
    if reasons:
        pytest.skip(f"NO REAL NODE HERE: {'; '.join(reasons)}")
    process = subprocess.Popen([sys.executable, "-m", "devtools.node"], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.node
def test_what_a_killed_node_leaves_is_removed(node: "subprocess.Popen[str]") -> None:
    settings = {name: leftovers.sysctl(name).read_text() for name in leftovers.SYSCTLS}
    assert node.stdout is not None
    kubeconfig = node.stdout.readline().strip().partition("KUBECONFIG=")[2]
    run_pod("left", Path(kubeconfig))
    os.kill(node.pid, signal.SIGKILL)
    node.wait()
    left = "\n".join(leftovers.traces(cache() / "node"))
    for kind in ("process", "mount", "control group", "link", "kube-proxy"):
        assert kind in left

    leftovers.remove(cache() / "node")

    assert leftovers.traces(cache() / "node") == []
    assert {name: leftovers.sysctl(name).read_text() for name in leftovers.SYSCTLS} == settings


def run_pod(name: str, kubeconfig: Path) -> None:
    """Run a pod that does nothing, and wait until it does."""
    container = {"name": name, "image": images.PAUSE}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
    kubectl: list[str | Path] = [binaries() / "kubectl", f"--kubeconfig={kubeconfig}"]
    run([*kubectl, "apply", "--filename=-"], input=json.dumps(pod))
    phase: list[str | Path] = [*kubectl, "get", "pod", name, "--output=jsonpath={.status.phase}"]
    eventually(lambda: run(phase) == "Running", "the pod to run", PATIENCE)

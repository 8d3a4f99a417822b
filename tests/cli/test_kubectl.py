"""The plugin against a real API server, through the real kubectl."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from devtools.cluster.build import binaries
from devtools.node.outside import Outside
from devtools.servers.children import wait_until
from devtools.servers.controlplane import ControlPlane
from lethe.cli.callers_kubectl import Exit

CHECKOUT = Path(__file__).parents[2]


def plugin(
    control_plane: ControlPlane | Outside,
    namespace: str,
    *arguments: str,
    stdin: str = "",
    kubeconfig: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lethe.cli.kubectl", *arguments, "--namespace", namespace],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PATH": f"{binaries()}:{os.environ['PATH']}",
            "KUBECONFIG": str(kubeconfig or control_plane.kubeconfig),
            "PYTHONPATH": str(CHECKOUT / "operator"),
        },
    )


def kubeconfig_of(user: str, control_plane: ControlPlane, folder: Path) -> Path:
    """Return the kubeconfig of a user without any right."""
    config = yaml.safe_load(control_plane.kubeconfig.read_text(encoding="utf-8"))
    for one in config["users"]:
        one["user"]["as"] = user
    (written := folder / "kubeconfig").write_text(yaml.safe_dump(config), encoding="utf-8")
    return written


def test_an_address_goes_into_a_secret_and_into_nothing_else(
    control_plane: ControlPlane, namespace: str
) -> None:
    run = plugin(
        control_plane, namespace, "erase", "--email-stdin", "--reference", "T-1", "--name", "t1",
        stdin="ada@canary.example\n",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    request = json.loads(control_plane.kubectl("-n", namespace, "get", "dreq", "t1", "-o", "json"))
    secret = json.loads(control_plane.kubectl("-n", namespace, "get", "secret", "t1", "-o", "json"))
    assert request["spec"]["subject"] == {"identifierSecretRef": {"name": "t1", "key": "email"}}
    assert request["spec"]["reference"] == "T-1"
    assert secret["type"] == "lethe.dev/identifier"
    assert "annotations" not in secret["metadata"]
    assert "canary" not in run.stdout + run.stderr + json.dumps(request)


def test_a_request_that_is_refused_leaves_no_secret_behind(
    control_plane: ControlPlane, namespace: str
) -> None:
    run = plugin(
        control_plane, namespace, "erase", "--email-stdin", "--reference", "a@b.example", "--name", "t2",
        stdin="ada@canary.example",
    )  # fmt: skip
    assert run.returncode == 1
    assert "spec.reference" in run.stderr
    assert control_plane.kubectl("-n", namespace, "get", "secret", "--ignore-not-found", "t2") == ""


def test_what_is_no_address_is_refused_without_repeating_it(
    control_plane: ControlPlane, namespace: str
) -> None:
    run = plugin(control_plane, namespace, "erase", "--email-stdin", stdin="canary and more")
    assert run.returncode == 2
    assert "canary" not in run.stderr


def test_a_key_goes_into_the_request(control_plane: ControlPlane, namespace: str) -> None:
    run = plugin(control_plane, namespace, "erase", "--id", "4711", "--name", "t3", "--dry-run")
    assert run.returncode == 0, run.stderr
    request = json.loads(control_plane.kubectl("-n", namespace, "get", "dreq", "t3", "-o", "json"))
    assert request["spec"] == {"subject": {"id": "4711"}, "dryRun": True}


def test_who_lacks_a_right_is_told_which_one_and_of_the_secret_that_is_left(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    def erase(*words: str) -> subprocess.CompletedProcess[str]:
        return plugin(control_plane, namespace, "erase", *words, stdin="ada@canary.example", kubeconfig=dana)

    dana = kubeconfig_of("dana", control_plane, tmp_path)
    run = erase("--id", "4711")
    assert run.returncode == Exit.FORBIDDEN
    assert "Ask for the verb create on deletionrequests.lethe.dev" in run.stderr
    here = ("-n", namespace)
    control_plane.kubectl(*here, "create", "role", "write", "--verb=create", "--resource=secrets")
    control_plane.kubectl(*here, "create", "rolebinding", "write", "--role=write", "--user=dana")
    wait_until(lambda: '"deletionrequests"' in erase("--email-stdin").stderr, what="the right to be seen")
    run = erase("--email-stdin", "--name", "t4")
    assert run.returncode == Exit.FORBIDDEN
    assert 'secrets "t4" is forbidden' in run.stderr
    assert control_plane.kubectl(*here, "get", "secret", "t4", "-o", "name") == "secret/t4\n"
    assert "canary" not in run.stdout + run.stderr

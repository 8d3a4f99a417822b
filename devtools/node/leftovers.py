"""What a node leaves on the machine, also one that was killed: found by its own marks, and removed.

Nothing here needs the node's programs to run: pods are known by their control group, programs by the paths
that they were given, mounts by the node's folder.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from devtools.cache import cache
from devtools.servers.children import alive, wait_until

CGROUP = "lethe-node"
BRIDGE = "lethe-node0"
CGROUPS = Path("/sys/fs/cgroup")
SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
)
"""What the kubelet, kube-proxy and the bridge change for the whole machine."""

# Folders at fixed places, which the kubelet makes although it is given others.
_FIXED = (Path("/var/lib/kubelet/device-plugins"), Path("/var/log/containers"))
_FORWARDING = "net/ipv4/ip_forward"
_POLICIES = re.compile(r"\bKUBE-(ROUTER|NWPLCY|POD-FW)\b")
_SETS = re.compile(r"(inet6:)?KUBE-(SRC|DST)-")
"""How kube-router calls chains and sets of its own."""


def remember_machine(directory: Path) -> None:
    """Write down how the machine was, for `remove`."""
    settings = {name: sysctl(name).read_text().strip() for name in SYSCTLS}
    (directory / "sysctls.json").write_text(json.dumps(settings))


def restore_sysctls(directory: Path, *, but_forwarding: bool = False) -> None:
    """Set the machine's settings as they were; pods need packets to be forwarded for as long as they run."""
    file = directory / "sysctls.json"
    if file.exists():
        for name, value in json.loads(file.read_text()).items():
            if not (but_forwarding and name == _FORWARDING):
                sysctl(name).write_text(value)


def remove(directory: Path) -> None:
    """Remove everything of a node whose own programs have ended, its folder included."""
    _kill(lambda: _of_cgroup() | _started_with(directory))
    remove_policies()
    for mount in sorted(_mounts_below(directory), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)
    subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)
    for family in ("ip", "ip6"):
        subprocess.run(["nft", "delete", "table", family, "kube-proxy"], check=False, capture_output=True)
    for cgroup in sorted(_cgroups(), reverse=True):
        with contextlib.suppress(OSError):
            cgroup.rmdir()
    restore_sysctls(directory)
    for link in Path("/var/log/containers").glob("*"):
        if link.is_symlink() and str(link.readlink()).startswith(str(directory)):
            link.unlink()
    shutil.rmtree(_FIXED[0], ignore_errors=True)
    for folder in (*_FIXED[1:], _FIXED[0].parent):
        with contextlib.suppress(OSError):  # there are others' files in it
            folder.rmdir()
    if not _mounts_below(directory):  # never through a mount into what is not ours
        shutil.rmtree(directory, ignore_errors=True)


def traces(directory: Path) -> list[str]:
    """Return what of a node is still on the machine; empty after `remove`."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return [
        *(f"process {pid}" for pid in (*_of_cgroup(), *_started_with(directory))),
        *(f"mount {mount}" for mount in _mounts_below(directory)),
        *(f"control group {cgroup}" for cgroup in _cgroups()),
        *([f"link {BRIDGE}"] if BRIDGE in links else []),
        *(["nftables' kube-proxy"] if "kube-proxy" in tables else []),
        *(["iptables' kube-router"] if has_policies() else []),
        *(str(folder) for folder in _FIXED if folder.exists()),
        *([str(directory)] if directory.exists() else []),
    ]


def has_policies() -> bool:
    """Tell whether the machine's packets go by kube-router's rules."""
    return any(_POLICIES.search(rules) for rules in _rules().values())


def remove_policies() -> None:
    """Let everybody through whom kube-router keeps out, and leave all other rules as they are."""
    for program, rules in _rules().items():
        if _POLICIES.search(rules):
            kept = "".join(line for line in rules.splitlines(True) if not _POLICIES.search(line))
            subprocess.run([f"{program}-restore"], input=kept, text=True, check=True)
    if shutil.which("ipset"):
        sets = subprocess.run(["ipset", "list", "-name"], capture_output=True, text=True, check=True).stdout
        for one in sets.split():
            if _SETS.match(one):
                subprocess.run(["ipset", "destroy", one], check=True)


def _rules() -> dict[str, str]:
    """Return all rules by the program that writes them."""
    programs = [one for one in ("iptables", "ip6tables") if shutil.which(f"{one}-save")]
    return {
        one: subprocess.run([f"{one}-save"], capture_output=True, text=True, check=True).stdout
        for one in programs
    }


def make_cgroup() -> None:
    """Make the control group that all pods are below, in each hierarchy."""
    unified = (CGROUPS / "cgroup.controllers").exists()
    for hierarchy in [CGROUPS] if unified else [one for one in CGROUPS.iterdir() if one.is_dir()]:
        group = hierarchy / CGROUP
        with contextlib.suppress(FileExistsError):
            group.mkdir()
        for inherited in () if unified else ("cpuset.cpus", "cpuset.mems"):
            # A new group of version 1 may run nowhere until it is told where.
            if (group / inherited).exists():
                (group / inherited).write_text((hierarchy / inherited).read_text())


def _kill(found: Callable[[], set[int]]) -> None:
    for pid in found():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not found(), what="the node's pods to end")


def _cgroups() -> list[Path]:
    roots = [*CGROUPS.glob(CGROUP), *CGROUPS.glob(f"*/{CGROUP}")]
    return [folder for root in roots for folder in (root, *root.rglob("*/"))]


def _of_cgroup() -> set[int]:
    pids = set()
    for cgroup in _cgroups():
        with contextlib.suppress(OSError):
            pids |= {int(pid) for pid in (cgroup / "cgroup.procs").read_text().split()}
    return {pid for pid in pids if alive(pid)}


def _started_with(directory: Path) -> set[int]:
    """Return processes that were given a path of the node's; never this one or the one that started it."""
    pids = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if any(f"{directory}/" in one for one in file.read_text(errors="replace").split("\0")):
                pids.add(int(file.parent.name))
    return {pid for pid in pids - {os.getpid(), os.getppid()} if alive(pid)}


def _mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [line.split()[1].replace("\\040", " ") for line in lines]
    return [point for point in points if point.startswith(f"{directory}/")]


def sysctl(name: str) -> Path:
    """Return the file of a setting of the kernel's."""
    return Path("/proc/sys") / name


if __name__ == "__main__":
    with (cache() / "node.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("A node runs; it is taken down by the tests that started it.") from None
        remove(cache() / "node")

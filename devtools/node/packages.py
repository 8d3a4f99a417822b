"""The Debian packages that a real node needs: `python -m devtools.node.packages` installs what is missing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PACKAGES = {
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "dnsmasq": "dnsmasq-base",
    "nft": "nftables",
    "ip": "iproute2",
    "setpriv": "util-linux",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/lib/cni/host-local": "containernetworking-plugins",
    "/usr/lib/cni/loopback": "containernetworking-plugins",
}
"""By program."""


def missing(packages: Mapping[str, str] = PACKAGES) -> list[str]:
    """Return the packages whose programs are not here."""
    found = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return sorted({package for one, package in packages.items() if not shutil.which(one, path=found)})


def install(packages: Mapping[str, str] = PACKAGES) -> None:
    """Install what is missing; raises `SystemExit` with what to do where that can't be done."""
    wanted = missing(packages)
    if not wanted:
        return
    names = " ".join(wanted)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SystemExit(f"Missing here: {names}. Install it as root (Debian: apt-get install {names}).")
    sys.stderr.write(f"Installing Debian packages: {names}\n")
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=120", "-qq"]
    # No service may start by itself: the node has a containerd of its own.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (["update"], ["install", "-y", "--no-install-recommends", *wanted]):
            subprocess.run([*apt, *command], stdin=subprocess.DEVNULL, env=environment, check=True)
    finally:
        if ours:
            policy.unlink()


if __name__ == "__main__":
    install()

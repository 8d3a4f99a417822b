"""What makes a real node heed NetworkPolicies: kube-router, as the node's firewall and nothing else."""

from pathlib import Path
from typing import Self

from devtools.builds.kube_router.build import kube_router
from devtools.node import leftovers, packages
from devtools.node.controlplane import NODE, SERVICES
from devtools.servers.children import Child, Server, wait_until

PACKAGES = {"iptables": "iptables", "ipset": "ipset"}


class Policies(Server):
    """The machine's only node, by its administrator's `kubeconfig`, lets nobody through against a policy.

    Raises `SystemExit`, saying what to install, where a package is missing and can't be installed. What it
    leaves in the machine's tables is removed when it stops; after it was killed, by the next node.
    """

    def __init__(self, kubeconfig: Path, directory: Path) -> None:
        packages.install(PACKAGES)
        firewall = ("--run-firewall=true", "--run-router=false", "--run-service-proxy=false")
        self._router = Child(
            [
                kube_router(),
                f"--kubeconfig={kubeconfig}",
                f"--hostname-override={NODE}",
                *firewall,
                "--enable-cni=false",
                "--health-port=0",
                f"--service-cluster-ip-range={SERVICES}",
            ],
            log=directory / "kube-router.log",
        )

    def start(self) -> Self:
        """Start it, and wait until packets go by its rules."""
        self._router.start()
        wait_until(leftovers.has_policies, what="kube-router's rules", children=[self._router])
        return self

    def stop(self) -> None:
        """Stop it, and let everybody through."""
        self._router.kill9()
        leftovers.remove_policies()

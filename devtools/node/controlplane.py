"""The control plane of a real node: with controllers, a scheduler and the admission that clusters have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from devtools.node.build import node_binaries
from devtools.servers.certificates import write_certificates
from devtools.servers.children import Child, CommandFailed, wait_until
from devtools.servers.controlplane import ControlPlane

SERVICES = "10.96.0.0/24"
API_SERVICE = "10.96.0.1"
NODE = "lethe-node"
KUBELET = f"system:node:{NODE}"
PROXY = "system:kube-proxy"
CONTROLLERS = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"

_SETTINGS_OF_LONELY_API_SERVERS = (
    "--bind-address",
    "--service-cluster-ip-range",
    "--authorization-mode",
    "--disable-admission-plugins",
)


class FullControlPlane(ControlPlane):
    """etcd, kube-apiserver, kube-controller-manager and kube-scheduler, at an address that pods reach."""

    def __init__(self, directory: Path, address: str) -> None:
        self._address = address
        super().__init__(directory)
        self.url = f"https://{address}:{self._api_port}"
        for user, groups in ((KUBELET, ["system:nodes"]), (PROXY, []), (CONTROLLERS, []), (SCHEDULER, [])):
            self.add_user(user, groups)
        programs = node_binaries()
        self.controllers = Child(
            [
                programs / "kube-controller-manager",
                f"--kubeconfig={self.kubeconfig_of(CONTROLLERS)}",
                "--secure-port=0",
                "--leader-elect=false",
                "--use-service-account-credentials",
                f"--root-ca-file={self.authority}",
                f"--service-account-private-key-file={self._certificates / 'service-accounts.key'}",
            ],
            log=self.directory / "kube-controller-manager.log",
        )
        kubeconfig = self.kubeconfig_of(SCHEDULER)
        self.scheduler = Child(
            [
                programs / "kube-scheduler",
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--leader-elect=false",
                "--secure-port=0",
            ],
            log=self.directory / "kube-scheduler.log",
        )

    @property
    def authority(self) -> Path:
        """The certificate of the authority that everybody here trusts."""
        return self._certificates / "ca.crt"

    def start(self) -> Self:
        """Start all four, and wait until a pod may be created: the API server refuses it before."""
        super().start()
        children = (self.controllers, self.scheduler)
        for child in children:
            child.start()
        wait_until(self._accounts_exist, what="the default ServiceAccount", children=children)
        return self

    def stop(self) -> None:
        """Stop all four."""
        self.scheduler.kill9()
        self.controllers.kill9()
        super().stop()

    def _accounts_exist(self) -> bool:
        try:
            self.kubectl("get", "serviceaccount/default", "configmap/kube-root-ca.crt", "--namespace=default")
        except CommandFailed:
            return False
        return True

    def _write_certificates(self) -> None:
        service = "kubernetes.default.svc"
        names: Sequence[str] = ("kubernetes", "kubernetes.default", service, f"{service}.cluster.local")
        write_certificates(
            self._certificates,
            also_for=(self._address, API_SERVICE, *names),
            administrators=["asks-the-kubelet"],
        )

    def _api_server_command(self) -> list[str]:
        kept = [
            one
            for one in super()._api_server_command()
            if not one.startswith(_SETTINGS_OF_LONELY_API_SERVERS)
        ]
        return [
            *kept,
            f"--bind-address={self._address}",
            f"--advertise-address={self._address}",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--client-ca-file={self.authority}",
            f"--kubelet-client-certificate={self._certificates / 'asks-the-kubelet.crt'}",
            f"--kubelet-client-key={self._certificates / 'asks-the-kubelet.key'}",
            "--kubelet-preferred-address-types=InternalIP",
        ]

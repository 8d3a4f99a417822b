"""Every command of docs/install.md is run, in the order of the page, as a person who reads it would."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from itertools import groupby
from pathlib import Path

import pytest

from devtools.builds.helm.build import helm
from devtools.chart.copies import CHECKOUT
from devtools.chart.helm import NAMESPACE
from devtools.cluster.build import binaries
from devtools.operator_process import OperatorProcess
from devtools.servers import ControlPlane, PostgresServer
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from tests.chart.releases import keys_of, mount_keys

PAGE = CHECKOUT / "docs" / "install.md"

NOT_HERE = {
    "make image ": "tests/image builds it; it takes minutes",
    "kubectl -n lethe-system rollout status ": "nothing runs pods here; tests/node waits for one",
    "kubectl -n lethe-system wait --for=condition=Ready pod/": "nothing runs pods here",
    "kubectl -n lethe-system get lease ": "nothing runs pods here, and outside of one nobody has the Lease",
}

OLD, SHARED, NEW = "old", "shared", "new"
PLACES = {
    "Keys made by hand": SHARED,
    "A ledger in PostgreSQL, and more than one pod": SHARED,
    "Into a new cluster": NEW,
}
"""Sections that are another cluster's than the page begins with. Who has the old one goes to the new one."""

KINDS_LEFT = "crd,validatingadmissionpolicy,mutatingadmissionpolicy,clusterrole"

KUBECTL = """\
#!{python}
# kubectl; what it would run in a pod is run here, with the pod's folders.
import os, sys
words = sys.argv[1:]
if "exec" in words:
    command = [word.replace("/var/lib/lethe", {ledger!r}) for word in words[words.index("--") + 1:]]
    os.environ |= {{"LETHE_LEDGER_URL": "sqlite:///" + {ledger!r} + "/ledger.db", "LETHE_KEYS_DIR": {keys!r}}}
    os.execvp(command[0], command)
if "pvc" in words:
    words.append("--wait=false")  # nobody is here who would end a claim's protection
os.execv({kubectl!r}, ["kubectl", *words])
"""
OPENSSL = """\
#!{python}
# What the page asks of openssl, where there is none.
import base64, secrets
print(base64.b64encode(secrets.token_bytes(32)).decode())
"""
LETHE = """\
#!/bin/sh
exec env PYTHONPATH={operator} {python} -m lethe.cli.main "$@"
"""


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Yield the heading and the text of each command of a page: what is indented, continued lines joined.

    A line goes on where a quotation, or a loop, has not ended.
    """
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for block in re.findall(r"(?:^ {4}.*\n)+", prose, flags=re.MULTILINE):
            command = ""
            for line in textwrap.dedent(block).splitlines():
                command += line + "\n"
                if not (line.endswith("\\") or command.count('"') % 2 or _is_open_loop(command)):
                    yield heading, command
                    command = ""


def _is_open_loop(command: str) -> bool:
    return command.startswith("for ") and not command.endswith("done\n")


def shown(page: str, language: str) -> list[str]:
    """Return the blocks of a language that a page shows and that are not run as commands."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


class Recipient:
    """Somebody who has the programs of the page and types what it says, in a folder of their own."""

    def __init__(self, folder: Path, pod: Path) -> None:
        self._folder, self._pod = folder, pod
        (folder / "bin").mkdir(parents=True)
        (folder / "charts").symlink_to(CHECKOUT / "charts")
        (folder / "bin" / "helm").symlink_to(helm())
        self._write("lethe", LETHE.format(operator=CHECKOUT / "operator", python=sys.executable))
        if shutil.which("openssl") is None:
            self._write("openssl", OPENSSL.format(python=sys.executable))
        self._write("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')

    def _write(self, name: str, text: str) -> None:
        program = self._folder / "bin" / name
        program.write_text(text)
        program.chmod(0o755)

    def files(self, page: str) -> None:
        """Write the files that the page shows with their names."""
        for block in shown(page, "yaml"):
            named = re.match(r"# (\S+)\n", block)
            if named is not None:
                (self._folder / named[1]).write_text(block)
        (self._folder / "ca.crt").write_text("an authority\n")

    def types(self, command: str, cluster: ControlPlane, pod: str) -> subprocess.CompletedProcess[str]:
        """Run a command against a cluster, whose pods have the folder `pod`."""
        (self._pod / pod).mkdir(parents=True, exist_ok=True)
        self._write(
            "kubectl",
            KUBECTL.format(
                python=sys.executable,
                kubectl=str(binaries() / "kubectl"),
                ledger=str(self._pod / pod),
                keys=str(self._pod / pod / "keys"),
            ),
        )
        environment = {
            "PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self._folder),
            "KUBECONFIG": str(cluster.kubeconfig),
        }
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.mark.e2e
@pytest.mark.slow
def test_every_command_of_the_page_does_what_the_page_says(tmp_path: Path) -> None:
    page = PAGE.read_text()
    pods = tmp_path / "pods"
    reader, other = Recipient(tmp_path / "reader", pods), Recipient(tmp_path / "other", pods)
    skipped, ran = set(), 0
    operator: OperatorProcess | None = None
    with ExitStack() as ended_last:
        old = ended_last.enter_context(ControlPlane(tmp_path / OLD))
        for place, of_place in groupby(commands(page), key=lambda one: PLACES.get(one[0], OLD)):
            # Clusters but the old one live no longer than their sections: two at a time are enough.
            with nullcontext(old) if place == OLD else ControlPlane(tmp_path / place) as cluster:
                who = other if place == SHARED else reader
                if ran == 0 or place == SHARED:
                    who.files(page)
                for heading, command in of_place:
                    reason = next((start for start in NOT_HERE if command.startswith(start)), None)
                    if reason is not None:
                        skipped.add(reason)
                        continue
                    if heading == "Back up Lethe itself" and operator is None:
                        # The pod of the page: one that has a ledger, with the keys of the Secret.
                        mount_keys(keys_of(old), pods / OLD / "keys")
                        operator = OperatorProcess(pods / OLD, old.kubeconfig).start()
                        ended_last.callback(operator.stop)
                    if "exec -i lethe-restore" in command:
                        mount_keys(keys_of(cluster, "lethe-keys-restored"), pods / NEW / "keys")
                    ended = who.types(command, cluster, place)
                    assert ended.returncode == 0, f"{command}\n{ended.stderr}"
                    ran += 1
                    if "ledger verify" in command:
                        assert "each follows from the one before" in ended.stdout
                    if "helm install" in command:
                        assert " is missing" not in ended.stdout, (
                            "the notes miss a Secret that the page makes"
                        )
                if place == SHARED:
                    FileKeyring(tmp_path / "other" / "keys")  # raises for what are no keys
                    assert "pvc" not in cluster.kubectl("get", "pvc", "-n", NAMESPACE, "-o", "name")
                    assert deployed(cluster, "{.spec.replicas}") == "2"
                if place == NEW:
                    assert "lethe-keys-restored" in deployed(cluster, "{.spec.template.spec.volumes}")
        assert "lethe.dev" not in old.kubectl("get", KINDS_LEFT, "-o", "name")
    assert skipped == set(NOT_HERE), "a reason that is not needed any more"
    assert ran > 30


def deployed(cluster: ControlPlane, path: str) -> str:
    """Return what a JSONPath finds in the Deployment."""
    return cluster.kubectl("get", "deployment", "lethe", "-n", NAMESPACE, "-o", f"jsonpath={path}").strip()


@pytest.mark.e2e
def test_the_sql_of_the_page_makes_a_database_for_a_ledger(postgres: PostgresServer, tmp_path: Path) -> None:
    page = PAGE.read_text()
    (made,) = [block for block in shown(page, "sql") if "CREATE DATABASE" in block]
    (given,) = re.findall(r"'(postgresql://[^']*)'", page)
    tls = "sslmode=verify-full&sslrootcert=/etc/lethe/ca/ca.crt"  # this server has no certificate
    url = given.replace("ledger-db.example:5432", f"127.0.0.1:{postgres.port}").replace(f"?{tls}", "")
    assert given.endswith(tls)
    (tmp_path / "keys").mkdir()
    try:
        postgres.psql(made)
        ledger = open_ledger(url, FileKeyring(tmp_path / "keys"))
        try:
            assert ledger.verify().sequence == 0
        finally:
            ledger.close()
    finally:
        postgres.drop_database("lethe")
        postgres.psql("DROP ROLE IF EXISTS lethe")


def test_commands_of_several_lines_are_run_as_one() -> None:
    page = """# A page

## One

    a --b \\
      --c
    for x in y; do
      z
    done
    e "
    f" > g
"""
    assert [command for _, command in commands(page)] == [
        "a --b \\\n  --c\n",
        "for x in y; do\n  z\ndone\n",
        'e "\nf" > g\n',
    ]

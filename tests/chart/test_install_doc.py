"""Every command of docs/install.md is run, in the order of the page, as a person who reads it would."""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.copies import CHECKOUT
from tests.chart.releases import keys_of, mount_keys
from tests.cluster.build import binaries
from tests.cluster.helm.build import helm
from tests.e2e.process import OperatorProcess
from tests.servers import ControlPlane

PAGE = CHECKOUT / "docs" / "install.md"

NOT_HERE = {
    "make image ": "tests/image builds it; it takes minutes",
    "kubectl -n lethe rollout status ": "nothing runs pods here; tests/node waits for one",
    "kubectl -n lethe wait --for=condition=Ready pod/": "nothing runs pods here",
}

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


class Reader:
    """Somebody who has the programs of the page and types what it says, in a folder of their own."""

    def __init__(self, folder: Path, pod: Path) -> None:
        self._folder, self._pod = folder, pod
        (folder / "bin").mkdir(parents=True)
        (folder / "charts").symlink_to(CHECKOUT / "charts")
        (folder / "bin" / "helm").symlink_to(helm())
        self._write("lethe", LETHE.format(operator=CHECKOUT / "operator", python=sys.executable))
        self._write("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')

    def _write(self, name: str, text: str) -> None:
        program = self._folder / "bin" / name
        program.write_text(text)
        program.chmod(0o755)

    def files(self, page: str) -> None:
        """Write the files that the page shows with their names."""
        for name, text in re.findall(r"^```yaml\n# (\S+)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
            (self._folder / name).write_text(text)

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
    reader = Reader(tmp_path / "reader", tmp_path / "pods")
    reader.files(page)
    skipped, ran = set(), 0
    operator: OperatorProcess | None = None
    with ControlPlane(tmp_path / "old") as old, ControlPlane(tmp_path / "new") as new:
        try:
            for heading, command in commands(page):
                reason = next((start for start in NOT_HERE if command.startswith(start)), None)
                if reason is not None:
                    skipped.add(reason)
                    continue
                if heading == "Back up Lethe itself" and operator is None:
                    # The pod of the page: one that has a ledger, with the keys of the Secret.
                    mount_keys(keys_of(old, namespace="lethe"), tmp_path / "pods" / "old" / "keys")
                    operator = OperatorProcess(tmp_path / "pods" / "old", old.kubeconfig).start()
                there = heading == "Into a new cluster"
                if "exec -i lethe-restore" in command:
                    restored = keys_of(new, "lethe-keys-restored", "lethe")
                    mount_keys(restored, tmp_path / "pods" / "new" / "keys")
                ended = reader.types(command, new if there else old, "new" if there else "old")
                assert ended.returncode == 0, f"{command}\n{ended.stderr}"
                ran += 1
                if "ledger verify" in command:
                    assert "each follows from the one before" in ended.stdout
        finally:
            if operator is not None:
                operator.stop()
        assert "lethe.dev" not in old.kubectl("get", KINDS_LEFT, "-o", "name")
        assert "lethe-keys-restored" in new.kubectl("get", "deployment", "lethe", "-n", "lethe", "-o", "yaml")
    assert skipped == set(NOT_HERE), "a reason that is not needed any more"
    assert ran > 20


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

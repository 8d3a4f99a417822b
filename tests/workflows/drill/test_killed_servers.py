"""kill -9 of the scratch server at every step of a drill: what is left is dropped once it is back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from devtools.servers import PostgresServer
from lethe.adapters.drills.command import Commands
from lethe.domain.drill_facts import DrillResult
from lethe.ports.drills import RestoreOrder
from lethe.workflows.drill.conduct import end_interrupted
from tests.invariants.company import Company
from tests.workflows.drill.drilling import STEPS, Drills, Told
from tests.workflows.drill.test_conduct import erase, people_of


@pytest.fixture(scope="module")
def drills(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drills]:
    """A company with drills whose scratch server may be killed."""
    home = tmp_path_factory.mktemp("killed")
    company = Company(postgres, home / "company")
    with PostgresServer(tmp_path_factory.mktemp("scratch"), fsync=False) as server:
        yield Drills(company, server, home)
        company.close()


@pytest.fixture(scope="module")
def snapshot(drills: Drills) -> str:
    """A dump in which somebody stands who was erased since."""
    (ada,) = people_of(drills, "ada")
    snapshot = drills.dump()
    erase(drills, ada)
    return snapshot


@pytest.mark.parametrize("step", STEPS)
def test_a_scratch_server_that_is_killed_at_any_step_is_told_and_cleared_once_it_is_back(
    drills: Drills, snapshot: str, step: str
) -> None:
    passed: list[str] = []

    def pass_by(name: str) -> None:
        passed.append(name)
        if name == step and passed.count(name) == 1:
            drills.server.kill9()

    def restore(order: RestoreOrder, halted: Callable[[], bool]) -> None:
        pass_by("restore")
        Commands(drills.folder).restore("restore", order, halted)

    drills.watch = lambda port: Told(port, pass_by)
    ended = drills.run(snapshot, wrap=lambda scratch: Told(scratch, pass_by), restorer=restore)

    assert step in passed
    told = DrillResult.RESTORE_FAILED if step == "restore" else DrillResult.SCRATCH_UNREACHABLE
    told = DrillResult.PASSED if step == "drop" else told  # all was read back by then
    assert ended.result is told, ended
    assert ended.left == (step != "place")
    drills.server.start()
    end_interrupted(drills.record, drills.company.context, drills.scratch(), "")
    assert drills.left() == set()
    recorded = drills.record.ended
    assert recorded is not None
    assert (recorded.result, recorded.left) == (told, False)

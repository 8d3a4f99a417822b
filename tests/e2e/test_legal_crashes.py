"""kill -9 before and after every side effect of legal requests: start again, and everybody was told once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from devtools.company import Api, Site, eventually
from devtools.servers import MailServer
from devtools.servers.controlplane import ControlPlane
from devtools.servers.mail import Delivered
from devtools.servers.postgres import PostgresServer
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.domain.legal_facts import Addressee
from tests.e2e.crashing import Fatal
from tests.e2e.forking import end, fork_operator, made
from tests.e2e.notices import by_mail, gag

__all__ = ["made"]  # a fixture

pytestmark = pytest.mark.e2e

BECAUSE = {"lifted": {"because": "the case was closed"}}
STORIES = (("legalrequests", "le-ada"), ("legalrequests", "le-bob"), ("deletionrequests", "bob"))


class Stage:
    """A namespace, a database and an operator's folder of one's own, for one kill; mail is shared."""

    def __init__(
        self,
        folder: Path,
        control_plane: ControlPlane,
        postgres: PostgresServer,
        mail: MailServer,
        made: Path,
        namespace: str,
    ) -> None:
        self.api = Api(control_plane, namespace)
        self.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        self._control_plane, self._postgres, self._mail = control_plane, postgres, mail
        self.folder = folder / namespace
        shutil.copytree(made, self.folder)
        self.moments = self.folder / "moments"
        self.lived = 0
        """How many moments the operator that was to die has lived through."""
        self._database = namespace.replace("-", "_")
        self.site = Site(postgres.create_database(self._database))
        self.addresses = {name: f"{name}@{namespace}.example" for name in ("ada", "bob", "cleo")}
        self.ada, self.bob, self.cleo = self.site.sign_up(*self.addresses.values())

    def operator(self, fatal: Fatal) -> BaseProcess:
        """Start an operator that dies at a moment (0: never)."""
        # A tick of the journal is no part of this story: each would be one more moment to die at.
        seldom = {"LETHE_JOURNAL_INTERVAL": "1m"}
        return fork_operator(
            self.folder, self._control_plane, self.api.namespace, fatal, **seldom, **by_mail(self._mail)
        )

    def begin(self) -> None:
        """Apply everything that the story begins with."""
        api = self.api
        api.sql_store("site", self.site.url)
        api.secret("ada", {"email": self.addresses["ada"]}, "lethe.dev/identifier")
        who = {"identifierSecretRef": {"name": "ada", "key": "email"}}
        api.legal_request("le-ada", None, subject=who)
        api.legal_request("le-bob", self.bob, type="Preservation", preservation={}, nonDisclosure=gag())
        api.request_by_id("bob", self.bob)

    def may_be_lifted(self) -> bool:
        """Whether all that happens under the gag has happened."""
        told, hold, erasure = self.told().values()
        return (
            ("Ready", "True", "Registered") in told["conditions"]
            and ("Holding", "True", "Preserved") in hold["conditions"]
            and hold.get("notice", {}).get("state") == "Deferred"
            and erasure.get("state") == "Pending"
        )

    def lift(self) -> None:
        """End the gag and the hold at once: the user is told and erased, in whatever order."""
        spec = {"nonDisclosure": BECAUSE, "preservation": BECAUSE}
        assert self.api.patch_spec("legalrequests", "le-bob", spec)[0] == 200

    def ended(self) -> bool:
        """Whether all has come to its end."""
        _, hold, erasure = self.told().values()
        return hold.get("notice", {}).get("state") == "Sent" and erasure.get("state") == "Erased"

    def told(self) -> dict[str, dict[str, Any]]:
        """Return what each object's status says, without what differs from run to run."""
        return {name: _lasting((self.api.get(kind, name) or {}).get("status", {})) for kind, name in STORIES}

    def letters(self, name: str) -> list[Delivered]:
        """Return what was sent to a person."""
        return [one for one in self._mail.messages() if one.recipients == (self.addresses[name],)]

    def close(self) -> None:
        """Leave no database behind."""
        self._postgres.drop_database(self._database)


DIFFERENT = {"lastTransitionTime", "observedGeneration", "message", "ledger", "messageId"}


def _lasting(status: Any) -> Any:
    if isinstance(status, list):
        return [_lasting(one) for one in status]
    if not isinstance(status, dict):
        return status
    kept = {
        key: _lasting(value)
        for key, value in status.items()
        if key not in DIFFERENT and not key.endswith("At")
    }
    if "conditions" in kept:
        kept["conditions"] = sorted((one["type"], one["status"], one["reason"]) for one in kept["conditions"])
    return kept


def play(stage: Stage, fatal: Fatal) -> bool:
    """Play with an operator that dies at a moment, then with a sound one; return whether the first died."""
    stage.begin()
    fragile = stage.operator(fatal)
    lifted = False
    if until(lambda: not fragile.is_alive() or stage.may_be_lifted()) and fragile.is_alive():
        stage.lift()
        lifted = True
        until(lambda: not fragile.is_alive() or stage.ended())
    died = not fragile.is_alive()
    end(fragile)
    stage.lived = len(stage.moments.read_text().splitlines())
    sound = stage.operator(0)
    try:
        if not lifted:
            eventually(stage.may_be_lifted, lambda: f"the hold; it is {stage.told()}")
            stage.lift()
        eventually(stage.ended, lambda: f"the end; it is {stage.told()}")
        eventually(lambda: stage.api.get("secrets", "ada") is None, "the Secret to be deleted")
    finally:
        end(sound)
    return died


def until(claim: Callable[[], bool], patience: float = 120) -> bool:
    """Wait until a claim holds, but not for ever; tell whether it does."""
    ends = time.monotonic() + patience
    while time.monotonic() < ends:
        if claim():
            return True
        time.sleep(0.02)
    return False


def check(stage: Stage) -> None:
    """Each was told once, the authority has one answer, and exactly who asked for it is erased."""
    api = stage.api
    for name in ("ada", "bob"):
        letters = stage.letters(name)
        assert len(letters) in (1, 2), f"{len(letters)} messages to {name}: a kill repeats one at most"
        told = (api.get("legalrequests", f"le-{name}") or {})["status"]["notice"]
        assert {str(one.message["Message-ID"]) for one in letters} == {told["messageId"]}
        assert len({one.raw for one in letters}) == 1
    assert stage.letters("cleo") == []
    drafts = [one for one in api.list("secrets") if one["type"] == "lethe.dev/answer"]
    assert [one["metadata"]["name"] for one in drafts] == ["le-ada-answer"]
    assert stage.site.is_intact(stage.ada)
    assert stage.site.is_cleared(stage.bob)
    assert stage.site.is_intact(stage.cleo)
    ledger = open_ledger(f"sqlite:///{stage.folder / 'ledger.db'}", FileKeyring(stage.folder / "keys"))
    try:
        ledger.verify()
        records = {record.registered.name: record for record in ledger.legal_requests()}
        assert records.keys() == {"le-ada", "le-bob"}
        for record in records.values():
            assert record.letters[Addressee.USER].intended.number == 1
        assert not ledger.sealed([record.legal for record in records.values()])
    finally:
        ledger.close()


@pytest.mark.slow
def test_a_kill_at_any_side_effect_of_legal_requests_notifies_everybody_once(
    tmp_path: Path, control_plane: ControlPlane, postgres: PostgresServer, made: Path, namespace: str
) -> None:
    kinds = ("append", "send", "create_secret", "delete_secret", "write_status", "erase")
    unseen = {f"after {kind}" for kind in kinds}
    expected: dict[str, Any] | None = None
    with MailServer(tmp_path / "mail") as mail:

        def died(fatal: Fatal, number: int) -> list[str]:
            """Play, check, and return the moments until the kill; none if the story ended without it."""
            nonlocal expected
            stage = Stage(tmp_path, control_plane, postgres, mail, made, f"{namespace}-{number}")
            try:
                killed = play(stage, fatal)
                check(stage)
                told = stage.told()
                expected = expected or told
                assert told == expected
            except AssertionError as wrong:
                log = (stage.folder / "operator.log").read_text()[-3000:]
                raise AssertionError(f"killed at {fatal}: {stage.moments.read_text()}\n{log}") from wrong
            finally:
                stage.close()
            return stage.moments.read_text().splitlines()[: stage.lived] if killed else []

        died(0, 0)
        fatal = 1
        while moments := died(fatal, fatal):
            unseen.discard(moments[-1].partition(" ")[2])
            fatal = next_kill(moments, fatal)
        assert fatal > 40, "the story has more side effects than that"
        # Effects run side by side: the Nth moment of one run need not be that of another.
        for number, kind in enumerate(sorted(unseen), 1):
            assert died(kind, fatal + number)[-1].endswith(kind)


def next_kill(moments: list[str], fatal: int) -> int:
    """Return at which moment to kill next: right after an effect is the same as right before the next one.

    Nothing lasts that happens between the two. Where effects run side by side, each of their moments counts.
    """
    just_ended = fatal > 0 and " after " in moments[fatal - 1]
    return fatal + (2 if just_ended else 1)

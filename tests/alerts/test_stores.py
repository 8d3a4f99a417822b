"""What is measured of each store: how long ago it was swept, whether its mapping is complete, who owns it."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from devtools.company import SUBJECTS, Api, Site, eventually
from lethe.controllers.datastore_status import StoreStatus
from lethe.controllers.runtime.cache import ManagedStore, ObjectCache
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.status_writer import ShownStatus
from lethe.domain.mapping import StoreOwner, StoreRole
from lethe.workflows.store_session import StoreDescription, StoreSession
from tests.e2e.conftest import StartOperator, api, site, start_operator

__all__ = ["api", "site", "start_operator"]  # fixtures

HOUR = timedelta(hours=1)


class Measured:
    """The stores of a process, its clock turned by hand, and what it would show to Prometheus."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)
        self.cache, self.metrics = ObjectCache(), Metrics()
        nobody: Any = None  # measuring asks neither API server nor ledger
        self._status = StoreStatus(self.cache, self.metrics, nobody, lambda: self.now)

    def meet(self, name: str, owner: StoreOwner = StoreOwner.SELF, *, usable: bool = True) -> ManagedStore:
        """Make a guard, as is done for a store that is met, or met again."""
        described = StoreDescription("privacy", name, StoreRole.OTHER, owner)
        nothing: Any = None
        store = StoreSession(described, nothing, nothing) if usable else None
        guard = self.cache.stores["privacy", name] = ManagedStore({}, described, ShownStatus(""), store)
        return guard

    def after(self, time: timedelta) -> None:
        """Measure, let time pass, and measure again."""
        self._status.measure()
        self.now += time
        self._status.measure()

    def age(self, name: str) -> float | None:
        """Return a store's sample of the age of its sweep."""
        return self.metrics.registry.get_sample_value("lethe_sweep_age_seconds", {"store": f"privacy/{name}"})

    def owned(self, owner: str) -> float | None:
        """Return how many stores there are of an owner."""
        return self.metrics.registry.get_sample_value("lethe_stores", {"owner": owner})


def swept(guard: ManagedStore, at: datetime) -> None:
    """Let a sweep have ended."""
    assert guard.session is not None
    guard.session.note_swept(at, ())


def test_a_store_never_swept_is_as_old_as_its_first_meeting_and_not_hidden_by_others() -> None:
    seen = Measured()
    site = seen.meet("site")
    seen.meet("crm")
    seen.after(3 * HOUR)
    swept(site, seen.now)
    seen.after(HOUR)
    assert (seen.age("site"), seen.age("crm")) == (3600, 4 * 3600)


def test_a_store_that_can_t_be_connected_grows_older_however_often_it_is_met_anew() -> None:
    seen = Measured()
    for _ in range(5):
        seen.meet("crm", usable=False)
        seen.after(HOUR)
    assert seen.age("crm") == 5 * 3600


def test_a_sweep_is_not_forgotten_when_the_connection_is_made_anew() -> None:
    seen = Measured()
    seen.after(HOUR)
    swept(seen.meet("site"), seen.now)
    seen.after(HOUR)
    seen.meet("site")
    seen.after(HOUR)
    assert seen.age("site") == 2 * 3600


def test_a_process_that_has_just_started_counts_from_its_start() -> None:
    seen = Measured()
    seen.meet("site")
    seen.after(timedelta())
    assert seen.age("site") == 0


def test_a_store_that_is_applied_again_after_it_was_gone_counts_from_then() -> None:
    seen = Measured()
    seen.meet("site")
    seen.after(HOUR)
    seen.cache.stores.clear()
    seen.metrics.forget_store("privacy/site")
    seen.after(HOUR)
    assert seen.age("site") is None
    seen.meet("site")
    seen.after(HOUR)
    assert seen.age("site") == 3600


def test_a_third_party_is_counted_and_has_nothing_to_sweep() -> None:
    seen = Measured()
    seen.meet("mailer")
    seen.meet("site")
    seen.after(HOUR)
    assert (seen.owned("Self"), seen.owned("ThirdParty")) == (2, 0)
    assert seen.age("mailer") == 3600
    seen.metrics.store_up.labels("privacy/mailer").set(0)
    seen.meet("mailer", StoreOwner.THIRD_PARTY, usable=False)
    seen.after(HOUR)
    assert (seen.owned("Self"), seen.owned("ThirdParty")) == (1, 1)
    assert seen.age("mailer") is None
    up = seen.metrics.registry.get_sample_value("lethe_store_up", {"store": "privacy/mailer"})
    assert up is None, "LetheStoreAway would fire for a store that nobody is to reach"


@pytest.mark.e2e
@pytest.mark.slow
def test_the_operator_shows_of_each_store_what_alerts_must_not_be_blind_to(
    api: Api, site: Site, start_operator: StartOperator
) -> None:
    operator = start_operator()
    api.sql_store("site", site.url)
    nowhere = {"urlSecretRef": {"name": "nobody-made-it", "key": "url"}, "subjects": SUBJECTS}
    api.create("datastores", "crm", {"role": "CRM", "owner": "Self", "sql": nowhere})
    api.create("datastores", "mailer", {"role": "Other", "owner": "ThirdParty", "sql": nowhere})

    def shown(metric: str) -> dict[str, float]:
        found = re.findall(
            rf'^{metric}{{\w+="(?:[^"/]*/)?(\w+)"}} (.*)$', operator.page("metrics"), re.MULTILINE
        )
        return {label: float(value) for label, value in found}

    api.wait("datastores", "site", "SafeToServe", patience=60)
    api.wait_reason("datastores", "crm", "SecretMissing", patience=60)
    eventually(lambda: shown("lethe_stores") == {"Self": 2, "ThirdParty": 1}, "the owners", 60)
    eventually(lambda: shown("lethe_store_up") == {"site": 1, "crm": 0}, "one to be away", 60)
    api.wait("datastores", "site", "MappingComplete")
    assert shown("lethe_store_mapping_complete") == {"site": 1}

    # Longer than the pause after which a store that could not be connected is met anew, and than the
    # interval of sweeps: the one grows older, and does not begin again; the other is swept.
    eventually(lambda: shown("lethe_sweep_age_seconds").get("crm", 0) > 12, "the age to grow", 90)
    assert shown("lethe_sweep_age_seconds").keys() == {"site", "crm"}
    eventually(lambda: shown("lethe_sweep_age_seconds")["site"] < 10, "the site to be swept", 60)

    without_time_zone = {**SUBJECTS, "clear": SUBJECTS["clear"][:-1], "ignore": ["time_zone"]}
    api.patch_spec("datastores", "site", {"sql": {"subjects": without_time_zone}})
    api.wait("datastores", "site", "MappingComplete", status="False", patience=60)
    eventually(lambda: shown("lethe_store_mapping_complete") == {"site": 0}, "it to be incomplete", 60)

"""What a DataStore says of itself."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.conditions.datastore import DataStoreObservation, datastore_conditions
from lethe.domain.trouble import Trouble, TroubleReason
from tests.domain.conditions.reading import sound_statuses

TROUBLES = st.none() | st.sampled_from(TroubleReason).map(lambda reason: Trouble(reason, "why"))
OBSERVATIONS = st.builds(
    DataStoreObservation,
    third_party=st.booleans(),
    proved=st.booleans(),
    trouble=TROUBLES,
    kinds_unmapped=st.just(()) | st.just(("Email",)),
    lookalikes=st.just(()) | st.just(("users.phone",)),
    journal=st.sampled_from(["Kept", "NotPermitted", "NotSupported"]),
    journal_message=st.just("why"),
    without_backups=st.booleans(),
    looked=st.booleans(),
    replay=st.none() | st.just(("Replaying", "why")),
    sources=st.just(()) | st.just(("nightly",)),
    snapshots_seen=st.booleans(),
    snapshots_remain=st.none() | st.booleans(),
    samples_left=st.none() | st.just(()) | st.just(("why",)),
)


@given(OBSERVATIONS)
def test_a_store_is_never_shown_as_safe_in_trouble_or_during_a_replay(observed: DataStoreObservation) -> None:
    seen = sound_statuses(datastore_conditions(observed))
    if seen.get("SafeToServe") == "True":
        assert observed.looked
        assert observed.replay is None
        assert observed.trouble is None
    if seen.get("StatisticsRenewed") == "True":
        assert observed.proved
        assert observed.samples_left == ()
    if seen["Ready"] == "True":
        assert observed.third_party or (observed.proved and observed.trouble is None)


@given(OBSERVATIONS)
def test_a_store_that_its_restore_has_not_made_whole_yet_says_so(observed: DataStoreObservation) -> None:
    restored = replace(
        observed, third_party=False, proved=False, trouble=None, replay=("Replaying", "it is filled")
    )
    assert datastore_conditions(restored).ready.message == "it is filled"


@given(OBSERVATIONS)
def test_backups_are_covered_only_where_each_known_snapshot_is_looked_after(
    observed: DataStoreObservation,
) -> None:
    if sound_statuses(datastore_conditions(observed)).get("BackupsCovered") != "True":
        return
    looked_after = bool(observed.sources) and observed.snapshots_seen
    assert looked_after or (observed.without_backups and observed.snapshots_remain is False)

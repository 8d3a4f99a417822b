"""By which names applications store a time zone."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from lethe.adapters.notices.time_zones import find_zone

SUMMER, WINTER = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)

# The names that Rails offers in its lists (ActiveSupport::TimeZone), with the hours from UTC in winter.
RAILS = {
    -12: "International Date Line West",
    -11: "American Samoa|Midway Island",
    -10: "Hawaii",
    -9: "Alaska",
    -8: "Pacific Time (US & Canada)|Tijuana",
    -7: "Arizona|Mazatlan|Mountain Time (US & Canada)",
    -6: "Central America|Central Time (US & Canada)|Chihuahua|Guadalajara|Mexico City|Monterrey|Saskatchewan",
    -5: "Bogota|Eastern Time (US & Canada)|Indiana (East)|Lima|Quito",
    -4: "Atlantic Time (Canada)|Caracas|Georgetown|La Paz|Puerto Rico",
    -3.5: "Newfoundland",
    -3: "Brasilia|Buenos Aires|Montevideo|Santiago",
    -2: "Greenland|Mid-Atlantic",
    -1: "Azores|Cape Verde Is.",
    0: "Dublin|Edinburgh|Lisbon|London|Monrovia|UTC",
    1: "Amsterdam|Belgrade|Berlin|Bern|Bratislava|Brussels|Budapest|Casablanca|Copenhagen|Ljubljana|Madrid"
    "|Paris|Prague|Rome|Sarajevo|Skopje|Stockholm|Vienna|Warsaw|West Central Africa|Zagreb|Zurich",
    2: "Athens|Bucharest|Cairo|Harare|Helsinki|Jerusalem|Kaliningrad|Kyiv|Pretoria|Riga|Sofia|Tallinn"
    "|Vilnius",
    3: "Baghdad|Istanbul|Kuwait|Minsk|Moscow|Nairobi|Riyadh|St. Petersburg|Volgograd",
    3.5: "Tehran",
    4: "Abu Dhabi|Baku|Muscat|Samara|Tbilisi|Yerevan",
    4.5: "Kabul",
    5: "Almaty|Astana|Ekaterinburg|Islamabad|Karachi|Tashkent",
    5.5: "Chennai|Kolkata|Mumbai|New Delhi|Sri Jayawardenepura",
    5.75: "Kathmandu",
    6: "Dhaka|Urumqi",
    6.5: "Rangoon",
    7: "Bangkok|Hanoi|Jakarta|Krasnoyarsk|Novosibirsk",
    8: "Beijing|Chongqing|Hong Kong|Irkutsk|Kuala Lumpur|Perth|Singapore|Taipei|Ulaanbaatar",
    9: "Osaka|Sapporo|Seoul|Tokyo|Yakutsk",
    9.5: "Darwin",
    10: "Brisbane|Guam|Port Moresby|Vladivostok",
    10.5: "Adelaide",
    11: "Canberra|Hobart|Magadan|Melbourne|New Caledonia|Solomon Is.|Srednekolymsk|Sydney",
    12: "Fiji|Kamchatka|Marshall Is.",
    13: "Auckland|Nuku'alofa|Samoa|Tokelau Is.|Wellington",
    13.75: "Chatham Is.",
}


@pytest.mark.parametrize(
    ("hours", "name"), [(h, name) for h, names in RAILS.items() for name in names.split("|")]
)
def test_rails_names_of_time_zones_are_understood(hours: float, name: str) -> None:
    for shown in (name, f"(GMT+00:00) {name}", f" {name} "):
        distance = WINTER.astimezone(find_zone(shown)).utcoffset()
        assert distance is not None
        assert distance.total_seconds() / 3600 == hours


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("Eastern Time (US & Canada)", "America/New_York"),
        ("Indiana (East)", "America/Indiana/Indianapolis"),
        ("W. Europe Standard Time", "Europe/Berlin"),
        ("Europe/Berlin", "Europe/Berlin"),
        ("Arizona", "America/Phoenix"),
        ("Buenos Aires", "America/Argentina/Buenos_Aires"),
    ],
)
def test_a_zone_has_its_summer_time_by_every_name(name: str, zone: str) -> None:
    for moment in (SUMMER, WINTER):
        assert moment.astimezone(find_zone(name)).utcoffset() == moment.astimezone(ZoneInfo(zone)).utcoffset()


@pytest.mark.parametrize(
    "name", ["", None, "Eastern", "Paris Texas", "(GMT+01:00)", "(GMT" * 5_000, "é", "../Berlin"]
)
def test_a_name_that_nobody_knows_is_utc(name: str | None) -> None:
    assert WINTER.astimezone(find_zone(name)).utcoffset() == WINTER.utcoffset()

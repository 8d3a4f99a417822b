"""Time zones by the names that applications give them: IANA's, Rails' (a city or region), Windows'."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from babel.core import get_global

_DISTANCE = re.compile(r"\((?:GMT|UTC)[^)]*\)\s*")
"""What Rails shows before a name: `(GMT-05:00) Eastern Time (US & Canada)`."""

_RAILS: Mapping[str, str] = {
    "Abu Dhabi": "Asia/Muscat",
    "Alaska": "America/Juneau",
    "American Samoa": "Pacific/Pago_Pago",
    "Arizona": "America/Phoenix",
    "Astana": "Asia/Almaty",
    "Atlantic Time (Canada)": "America/Halifax",
    "Beijing": "Asia/Shanghai",
    "Bern": "Europe/Zurich",
    "Brasilia": "America/Sao_Paulo",
    "Canberra": "Australia/Sydney",
    "Cape Verde Is.": "Atlantic/Cape_Verde",
    "Central America": "America/Guatemala",
    "Central Time (US & Canada)": "America/Chicago",
    "Chatham Is.": "Pacific/Chatham",
    "Chennai": "Asia/Kolkata",
    "Chongqing": "Asia/Shanghai",
    "Eastern Time (US & Canada)": "America/New_York",
    "Edinburgh": "Europe/London",
    "Ekaterinburg": "Asia/Yekaterinburg",
    "Georgetown": "America/Guyana",
    "Greenland": "America/Nuuk",
    "Guadalajara": "America/Mexico_City",
    "Hanoi": "Asia/Bangkok",
    "Harare": "Africa/Harare",
    "Hawaii": "Pacific/Honolulu",
    "Indiana (East)": "America/Indiana/Indianapolis",
    "International Date Line West": "Etc/GMT+12",
    "Islamabad": "Asia/Karachi",
    "Kyiv": "Europe/Kiev",
    "Marshall Is.": "Pacific/Majuro",
    "Mid-Atlantic": "Atlantic/South_Georgia",
    "Midway Island": "Pacific/Midway",
    "Mountain Time (US & Canada)": "America/Denver",
    "Mumbai": "Asia/Kolkata",
    "New Caledonia": "Pacific/Noumea",
    "New Delhi": "Asia/Kolkata",
    "Newfoundland": "America/St_Johns",
    "Nuku'alofa": "Pacific/Tongatapu",
    "Osaka": "Asia/Tokyo",
    "Pacific Time (US & Canada)": "America/Los_Angeles",
    "Pretoria": "Africa/Johannesburg",
    "Quito": "America/Lima",
    "Samoa": "Pacific/Apia",
    "Sapporo": "Asia/Tokyo",
    "Saskatchewan": "America/Regina",
    "Solomon Is.": "Pacific/Guadalcanal",
    "Sri Jayawardenepura": "Asia/Colombo",
    "St. Petersburg": "Europe/Moscow",
    "Tokelau Is.": "Pacific/Fakaofo",
    "Wellington": "Pacific/Auckland",
    "West Central Africa": "Africa/Algiers",
}
"""Names of Rails that are no city of IANA's."""


def find_zone(name: str | None) -> tzinfo:
    """Return the time zone that a name means; UTC if there is none."""
    wanted = _DISTANCE.sub("", (name or "UTC").strip(), count=1)
    for iana in (wanted, _RAILS.get(wanted), get_global("windows_zone_mapping").get(wanted)):
        zone = _zone(iana) if iana else None
        if zone is not None:
            return zone
    return _zone(_cities().get(wanted, "")) or UTC


def _zone(iana: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(iana)
    except (LookupError, ValueError, OSError):
        return None


@cache
def _cities() -> Mapping[str, str]:
    """Return IANA's zones by the last part of their names, as people write it: `Buenos Aires`."""
    zones = [zone.split("/") for zone in sorted(available_timezones()) if "/" in zone]
    return {
        parts[-1].replace("_", " "): "/".join(parts)
        for parts in zones
        if parts[0] in {"Africa", "America", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific"}
    }

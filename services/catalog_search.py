"""Find runs in a catalog, by queries that its server answers: no run is read for it.

The catalog may be what `catalog.open_catalog` returns, ``databroker.catalog["mistral_txm"]`` in any flavour, or what
``tiled.client.from_uri`` returns.
"""

import contextlib
import math
from datetime import date, datetime, time, timedelta
from typing import Any

from tiled.queries import Key

TOLERANCE_EV = 0.05
"""Photon energies that differ by no more are the same, eV."""
TOLERANCE_DEG = 1.0
"""Azimuths that differ by no more are the same, deg."""

Moment = datetime | date | str
"""A time with or without time zone (local time then), a day, or ISO 8601 text of either."""


def find(
    cat: Any,
    *,
    sample: str | None = None,
    series: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    energy_ev: float | None = None,
    phi_deg: float | None = None,
    plan_name: str | None = None,
) -> Any:
    """Return the catalog narrowed to the runs for which all of this is true.

    Parameters
    ----------
    cat
        The catalog, or one that was narrowed before.
    sample
        Name of the sample.
    series
        Uid of the series, or its first characters.
    since, until
        The run began then or later, and before `until`; a day means from its beginning, and until its end.
    energy_ev
        Photon energy, within `TOLERANCE_EV`.
    phi_deg
        Azimuth that a person stated, within `TOLERANCE_DEG`.
    plan_name
        What was done: ``vector_tomography``, ``reject``, ``energy_scan``, ..

    Raises
    ------
    ValueError
        If a time or a number cannot be understood.
    """
    if sample is not None:
        cat = cat.search(Key("start.sample.name") == sample)
    if series is not None:
        # All texts that begin so; a pattern would take "_" for any character, and capitals for small letters.
        cat = cat.search(Key("start.series") >= series)
        cat = cat.search(Key("start.series") < series + "\U0010ffff")
    if plan_name is not None:
        cat = cat.search(Key("start.plan_name") == plan_name)
    if since is not None:
        cat = cat.search(Key("start.time") >= _seconds(since, "since", end_of_day=False))
    if until is not None:
        cat = cat.search(Key("start.time") < _seconds(until, "until", end_of_day=True))
    if energy_ev is not None:
        cat = _near(cat, "start.energy_ev", energy_ev, TOLERANCE_EV)
    if phi_deg is not None:
        cat = _near(cat, "start.phi_deg", phi_deg, TOLERANCE_DEG)
    return cat


def _near(cat: Any, name: str, value: float, tolerance: float) -> Any:
    if not math.isfinite(value):
        raise ValueError(f"{name.removeprefix('start.')}: {value}: expected a finite number")
    rounding = 1e-9 * (abs(value) + tolerance)
    found = cat.search(Key(name) >= float(value) - tolerance - rounding)
    return found.search(Key(name) <= float(value) + tolerance + rounding)


def _seconds(moment: Moment, name: str, *, end_of_day: bool) -> float:
    """Return a time in s since 1970-01-01 UTC.

    >>> _seconds("2026-11-21T12:00:00+00:00", "since", end_of_day=False)
    1795262400.0
    """
    if isinstance(moment, str):
        moment = _parsed(moment, name)
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time()) + timedelta(days=int(end_of_day))
    return moment.timestamp()


def _parsed(text: str, name: str) -> date:
    for kind in (date, datetime):
        with contextlib.suppress(ValueError):
            return kind.fromisoformat(text)
    raise ValueError(
        f"{name}: {text!r}: expected a day or a time, such as 2026-11-21 or 2026-11-21T03:20"
    )

"""The curves of the monitor: flux from the journal, drift and quality from the live reconstruction's status.

Everything here takes what it can use; numbers that are missing, or are none, are left out or are nan, which a plot
leaves open.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mistral_txm.services.exposures import Exposure, RunExposures

VIEW_NUMBERS = ("phi_deg", "theta_deg", "sharpness", "contrast")
HISTORY_NUMBERS = ("angles", "residual", "change", "resolution_nm", "latency_s")
DRIFTS = ("v_plus", "v_minus", "u_plus", "u_minus")
"""Of one exposure against the one before: the axis of the image, and the helicity."""


@dataclass(frozen=True)
class FluxPoint:
    """Light on the camera, averaged over exposures that were taken one after the other at one angle and helicity."""

    stream: str
    """``primary`` (through the sample) or ``flat`` (open beam)."""
    helicity: int
    theta_deg: float
    time: float
    """Of the last exposure, s since 1970."""
    flux: float
    """Mean counts of a pixel less those of the darks, per mA of ring current and s of exposure."""


def flux_points(runs: Iterable[RunExposures]) -> tuple[FluxPoint, ...]:
    """Return the flux of all runs, ``(mean counts - mean counts of the darks) / (ring current * exposure time)``.

    The darks of a run with the exposure time that comes next stand for its background; without darks there is no flux.
    """
    points = []
    for run in runs:
        levels = _dark_levels(run.stream("dark"))
        lit = (one for one in run.in_order() if one.stream != "dark")
        for (stream, key), group in groupby(lit, key=_place):
            fluxes = [(one, _flux(one, levels)) for one in group]
            known = [(one, flux) for one, flux in fluxes if flux is not None]
            if known:
                mean = sum(flux for _, flux in known) / len(known)
                points.append(FluxPoint(stream, key[2], key[1], known[-1][0].time, mean))
    return tuple(points)


def view_columns(status: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return what a status tells of each finished angle, by column, in time.

    Columns: `VIEW_NUMBERS`, and ``drift_v_pixels``, ``drift_u_pixels``.
    """
    columns: dict[str, list[float]] = {
        name: [] for name in (*VIEW_NUMBERS, "drift_v_pixels", "drift_u_pixels")
    }
    for view in entries(status, "views"):
        v, u = pair(view.get("drift_vu_pixels"))
        for name in VIEW_NUMBERS:
            columns[name].append(number(view.get(name)))
        columns["drift_v_pixels"].append(v)
        columns["drift_u_pixels"].append(u)
    return columns


def history_columns(status: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return what a status tells of each published volume, by column: `HISTORY_NUMBERS`."""
    history = entries(status, "history")
    return {name: [number(one.get(name)) for one in history] for name in HISTORY_NUMBERS}


def exposure_columns(status: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return how far exposures lie from those before of the same angle and helicity, by column, in time.

    Columns: ``time`` (s since 1970), and of each of v and u with each helicity, say ``v_plus``, the drift in pixels,
    which is nan in the rows of the other helicity. Those without a time are left out.
    """
    columns: dict[str, list[float]] = {name: [] for name in ("time", *DRIFTS)}
    for one in entries(status, "newest_exposures"):
        if math.isnan(number(one.get("time"))):
            continue
        columns["time"].append(number(one.get("time")))
        side = {1.0: "plus", -1.0: "minus"}.get(number(one.get("helicity")))
        drift = dict(zip("vu", pair(one.get("drift_vu_pixels")), strict=True))
        for name in DRIFTS:
            axis, of = name.split("_")
            columns[name].append(drift[axis] if of == side else math.nan)
    return columns


def pair(value: object) -> tuple[float, float]:
    """Return two numbers as they are, and nan for everything else.

    >>> pair([1, 2.5]), pair(None), pair([1])
    ((1.0, 2.5), (nan, nan), (nan, nan))
    """
    v, u = value if isinstance(value, list) and len(value) == 2 else (None, None)
    return number(v), number(u)


def entries(status: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return the objects in a list of a status; what else stands there is left out."""
    found = status.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def number(value: object) -> float:
    """Return a number as it is, and nan for everything else.

    >>> number(3), number("3"), number(None), number(True)
    (3.0, nan, nan, nan)
    """
    return float(value) if isinstance(value, int | float) and value is not True else math.nan


def _place(exposure: Exposure) -> tuple[str, tuple[float, float, int]]:
    key = exposure.key
    return exposure.stream, (key.phi_deg, key.theta_deg, key.helicity)


def _dark_levels(darks: Iterable[Exposure]) -> dict[float, float]:
    """Mean counts of the darks by their exposure time, s."""
    counts: dict[float, list[float]] = {}
    for dark in darks:
        if dark.mean_counts is not None:
            counts.setdefault(dark.exposure_s, []).append(dark.mean_counts)
    return {exposure_s: sum(found) / len(found) for exposure_s, found in counts.items()}


def _flux(exposure: Exposure, dark_levels: Mapping[float, float]) -> float | None:
    light_ma_s = exposure.ring_current_ma * exposure.exposure_s
    if exposure.mean_counts is None or not light_ma_s > 0 or not dark_levels:
        return None
    next_s = min(dark_levels, key=lambda exposure_s: abs(exposure_s - exposure.exposure_s))
    return (exposure.mean_counts - dark_levels[next_s]) / light_ma_s

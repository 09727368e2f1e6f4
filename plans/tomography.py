"""Vector tomography: both helicities at every tilt, around two azimuths."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from mistral_txm.devices.configuration import Axis, Configuration
from mistral_txm.devices.key import Key
from mistral_txm.plans.acquisition import PlanError, series_run
from mistral_txm.plans.measurement import Measurement, Step, steps
from mistral_txm.plans.operator import turn_sample

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument

RESERVED = frozenset(
    (
        "plan_name",
        "series",
        "phi_deg",
        "measurement",
        "scan",
        "sample",
        "n_planned",
        "planned_keys",
        "frames_directory",
        "pixel_nm",
        "saturation_counts",
    )
)
"""Metadata that the plans write themselves."""


def vector_tomography(
    instrument: Instrument,
    measurement: Measurement,
    *,
    series: str | None = None,
    skip: frozenset[Key] = frozenset(),
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[tuple[str, ...]]:
    """Measure all azimuths, one run each; in between the operator turns the sample.

    Parameters
    ----------
    instrument
        The devices.
    measurement
        What to take.
    series
        Uid that the runs of one measurement share; a new one if None.
    skip
        Keys that are done already: these are not taken again.
    md
        Metadata for all runs.

    Returns
    -------
    tuple of str
        The uids of the runs.

    Raises
    ------
    PlanError
        If metadata or positions cannot be accepted; nothing has moved then.
    """
    check(instrument, measurement, md or {})
    series = str(uuid.uuid4()) if series is None else series
    uids = []
    for phi_deg in measurement.azimuths_deg:
        if not steps(measurement, phi_deg, skip):
            continue
        yield from turn_sample(instrument, phi_deg)
        uid = yield from tilt_series(
            instrument, measurement, phi_deg, series=series, skip=skip, md=md
        )
        uids.append(uid)
    return tuple(uids)


def tilt_series(
    instrument: Instrument,
    measurement: Measurement,
    azimuth_deg: float,
    *,
    series: str | None = None,
    skip: frozenset[Key] = frozenset(),
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Measure one azimuth as one run: dark frames, flats, all tilts with both helicities.

    Parameters and errors are those of `vector_tomography`; `azimuth_deg` is the azimuth as planned.
    The run's `phi_deg` is what a person said of the sample.

    Returns
    -------
    str
        The uid of the run.

    Raises
    ------
    PlanError
        Also if nothing is left to take, or nobody has said how the sample is mounted.
    """
    taken = steps(measurement, azimuth_deg, skip)
    if not taken:
        raise PlanError(f"phi = {azimuth_deg:g} deg: all exposures are done, nothing to take")
    uid = yield from _run(instrument, measurement, taken, "vector_tomography", series, md)
    return uid


def flats(
    instrument: Instrument,
    measurement: Measurement,
    azimuth_deg: float,
    *,
    series: str | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take the flats of a measurement alone, both helicities, and the dark frames for them."""
    alone = measurement.flats.exposure_s
    taken = [
        step
        for step in steps(measurement, azimuth_deg)
        if step.stream == "flat" or (step.stream == "dark" and step.exposure_s == alone)
    ]
    uid = yield from _run(instrument, measurement, taken, "flats", series, md)
    return uid


def darks(
    instrument: Instrument,
    measurement: Measurement,
    azimuth_deg: float,
    *,
    series: str | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take the dark frames of a measurement alone."""
    taken = [step for step in steps(measurement, azimuth_deg) if step.stream == "dark"]
    uid = yield from _run(instrument, measurement, taken, "darks", series, md)
    return uid


def check(instrument: Instrument, measurement: Measurement, md: Mapping[str, Any]) -> None:
    """Look for what would stop a measurement on its way, before anything moves.

    Raises
    ------
    PlanError
        If a tilt or the energy is beyond a limit, or the metadata cannot be written.
    """
    check_metadata(md)
    check_positions(instrument.configuration, measurement)


def check_positions(configuration: Configuration, measurement: Measurement) -> None:
    """Refuse a measurement that a limit of the configuration would stop on its way.

    Raises
    ------
    PlanError
        If a tilt or the energy is beyond a limit.
    """
    axes = configuration.axes
    check_range("theta", axes.theta, (*measurement.angles_deg, measurement.flats.theta_deg))
    check_range("energy", axes.energy, (measurement.energy_ev,))


def manifest(measurement: Measurement) -> list[list[float]]:
    """Return what the whole series plans, ``[phi_deg, theta_deg, helicity, repeats]`` in the order of taking.

    It stands in the start document of every run, so that what is left can be told from any of them.
    """
    return [
        [step.phi_deg, step.theta_deg, step.helicity, len(step.repeats)]
        for phi_deg in measurement.azimuths_deg
        for step in steps(measurement, phi_deg)
        if step.stream == "primary"
    ]


def check_metadata(md: Mapping[str, Any]) -> None:
    """Refuse metadata that a run or the catalog would refuse in the middle.

    Raises
    ------
    PlanError
        If a key contains "." or "/", is not a text, or is one that the plans write themselves, or a
        value cannot be written as JSON.
    """
    if taken := sorted(RESERVED & set(md)):
        raise PlanError(f"metadata: the key {taken[0]!r} is written by the plan; choose another")
    _check_keys(md, "metadata")
    for key, value in md.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as refusal:
            raise PlanError(f"metadata: {key!r} cannot be written as JSON ({refusal})") from None


def _check_keys(value: object, where: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or not key or "." in key or "/" in key:
                raise PlanError(f"{where}: the key {key!r} must be a text without '.' and '/'")
            _check_keys(inner, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_keys(inner, where)


def check_range(name: str, axis: Axis, targets: Sequence[float]) -> None:
    """Refuse targets that an axis cannot reach.

    Raises
    ------
    PlanError
        Naming the first of them, and the range.
    """
    low, high = axis.low_limit + axis.approach, axis.high_limit
    for target in targets:
        if not low <= target <= high:
            raise PlanError(
                f"{name}: {target:g} {axis.unit} is planned, but can be reached only from {low:g} "
                f"to {high:g} {axis.unit} (limits and approach in the configuration)"
            )


def stated_azimuth(instrument: Instrument) -> MsgGenerator[float]:
    """Return how a person said that the sample is mounted, in deg; the sample has to stand in or out.

    Raises
    ------
    PlanError
        If nobody has said it, or the sample stands neither in nor out.
    """
    phi_deg = yield from bps.rd(instrument.azimuth, default_value=math.nan)
    if math.isnan(phi_deg):
        raise PlanError("azimuth: nobody has said how the sample is mounted; set it first")
    place = yield from bps.rd(instrument.sample_position, default_value="in")
    if place == "between":
        raise PlanError(
            "sample_position: the sample stands neither in nor out; move it in, or put where it "
            "stands now into sample_position.in_x_um and in_z_um"
        )
    return float(phi_deg)


def _run(
    instrument: Instrument,
    measurement: Measurement,
    taken: Sequence[Step],
    plan_name: str,
    series: str | None,
    md: Mapping[str, Any] | None,
) -> MsgGenerator[str]:
    check(instrument, measurement, md or {})
    series = str(uuid.uuid4()) if series is None else series
    phi_deg = yield from stated_azimuth(instrument)
    planned = sum(len(step.repeats) for step in taken if step.stream == "primary")
    description = measurement.to_dict()
    metadata = {
        **(md or {}),
        "plan_name": plan_name,
        "series": series,
        "phi_deg": phi_deg,
        "measurement": description,
        "sample": description["sample"],
        "n_planned": planned,
        **({"planned_keys": manifest(measurement)} if planned else {}),
        "frames_directory": str(instrument.ccd.frames_directory / series),
        "pixel_nm": instrument.configuration.ccd.pixel_nm,
        "saturation_counts": instrument.configuration.ccd.saturation_counts,
        "hints": {"dimensions": [[["theta"], "primary"]]},
    }
    uid = yield from series_run(instrument, series, taken, metadata)
    return uid

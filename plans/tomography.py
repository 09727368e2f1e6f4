"""Vector tomography: both helicities at every tilt, around two azimuths, at one or several edges."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from mistral_txm.devices.key import Key
from mistral_txm.plans.checks import PlanError
from mistral_txm.plans.exposure_control import Looked
from mistral_txm.plans.measurement import Measurement
from mistral_txm.plans.return_to_zero import return_keys
from mistral_txm.plans.series_runs import check, order_of, stated_azimuth, take_azimuths, take_runs
from mistral_txm.plans.steps import NOTHING, steps

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument


def vector_tomography(
    instrument: Instrument,
    measurement: Measurement,
    *,
    series: str | None = None,
    skip: Mapping[float, Collection[Key]] = NOTHING,
    looked: Looked | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[tuple[str, ...]]:
    """Measure all azimuths, one run each; in between the operator turns the sample.

    Parameters
    ----------
    instrument
        The devices.
    measurement
        What to take. With several photon energies each is a series of its own, see `edge_series`, and
        has a run of its own for each azimuth.
    series
        Uid that the runs of one measurement share; a new one if None.
    skip
        By photon energy in eV, keys that are done already: these are not taken again.
    looked
        What was seen when they were taken, by which exposure times and repeats are chosen on.
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
    order = order_of(measurement, series, md, skip=skip, looked=looked or Looked())
    uids = yield from take_azimuths(instrument, [order])
    return uids


def sample_queue(
    instrument: Instrument,
    measurements: Sequence[Measurement],
    *,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[tuple[str, ...]]:
    """Measure the samples of a holder, each a series of its own; the holder is turned once for each azimuth.

    Parameters, results and errors are those of `vector_tomography`. Each sample needs a `place`.

    Raises
    ------
    PlanError
        Also if a sample has no place, or two have the same name.
    """
    names = [measurement.sample.name for measurement in measurements]
    for number, measurement in enumerate(measurements):
        if measurement.sample.place is None:
            raise PlanError(
                f"sample {names[number]!r}: has no place in the holder; give [sample.place]"
            )
        if names[number] in names[:number]:
            raise PlanError(
                f"sample {names[number]!r}: is there twice; give each a name of its own"
            )
        check(instrument, measurement, md or {})
    uids = yield from take_azimuths(instrument, [order_of(each, None, md) for each in measurements])
    return uids


def tilt_series(
    instrument: Instrument,
    measurement: Measurement,
    azimuth_deg: float,
    *,
    series: str | None = None,
    skip: Mapping[float, Collection[Key]] = NOTHING,
    looked: Looked | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[tuple[str, ...]]:
    """Measure one azimuth, as one run for each photon energy: dark frames, flats, all tilts, both helicities.

    Parameters, results and errors are those of `vector_tomography`; `azimuth_deg` is the azimuth as
    planned. The runs' `phi_deg` is what a person said of the sample.

    Raises
    ------
    PlanError
        Also if nothing is left to take, or nobody has said how the sample is mounted.
    """
    taken = steps(measurement, azimuth_deg, skip)
    if not taken:
        raise PlanError(f"phi = {azimuth_deg:g} deg: all exposures are done, nothing to take")
    order = order_of(measurement, series, md, skip=skip, looked=looked or Looked())
    uids = yield from take_runs(instrument, order, taken)
    return uids


def retake(
    instrument: Instrument,
    measurement: Measurement,
    keys: Iterable[Key],
    *,
    series: str,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[tuple[str, ...]]:
    """Take exposures of a measurement again, with flats and dark frames of their own; the new ones count then.

    All of them are taken, also where the measurement lets repeats end early. Parameters, results and
    errors are those of `vector_tomography`.

    Raises
    ------
    PlanError
        Also if there are no keys, or one is not planned.
    """
    wanted, planned = frozenset(keys), frozenset(measurement.planned_keys())
    if unknown := sorted(wanted - planned):
        key = tuple(unknown[0])
        raise PlanError(f"retake: {key} is not a key (phi, theta, helicity, repeat) of the series")
    if not wanted:
        raise PlanError("retake: expected at least one key (phi, theta, helicity, repeat)")
    skip = dict.fromkeys(
        measurement.energies_ev, (planned - wanted).union(return_keys(measurement))
    )
    check(instrument, measurement, md or {})
    order = order_of(measurement, series, md, skip=skip, whole=True)
    uids = yield from take_azimuths(instrument, [order])
    return uids


def reject(
    instrument: Instrument, series: str, keys: Iterable[Key], reason: str
) -> MsgGenerator[str]:
    """Record that exposures of a series do not count: a run without exposures. Nothing moves, nothing is deleted.

    Raises
    ------
    PlanError
        If there are no keys, or no reason is given.
    """
    rejected = [list(key) for key in sorted(set(keys))]
    if not rejected or not reason.strip():
        raise PlanError("reject: expected at least one exposure, and a reason")
    uid: str = yield from bps.open_run(
        {"plan_name": "reject", "series": series, "rejected_keys": rejected, "reason": reason}
    )
    yield from bps.close_run()
    return uid


def dichroic_projection(
    instrument: Instrument,
    measurement: Measurement,
    theta_deg: float,
    *,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[tuple[str, ...]]:
    """Take both helicities at one tilt, with flats and dark frames: a series of its own.

    Exposure and repeats are those that the measurement has at the planned tilt nearest to it; the
    azimuth is how the sample is mounted. Results and errors are those of `tilt_series`.
    """
    phi_deg = yield from stated_azimuth(instrument)
    nearest_deg = min(measurement.angles_deg, key=lambda each: abs(each - theta_deg))
    exposed = measurement.exposures_at(nearest_deg)
    alone = exposed.model_copy(update={"first_deg": float(theta_deg), "last_deg": float(theta_deg)})
    description = {
        **measurement.to_dict(),
        "tilts": [alone.model_dump()],
        "azimuths_deg": [phi_deg],
    }
    description.pop("return_to_zero", None)
    one = Measurement.from_dict(description)
    order = order_of(one, None, md, plan_name="dichroic_projection")
    uids = yield from take_runs(instrument, order, steps(one, phi_deg))
    return uids


def flats(
    instrument: Instrument,
    measurement: Measurement,
    azimuth_deg: float,
    *,
    series: str | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[tuple[str, ...]]:
    """Take the flats of a measurement alone, both helicities, and the dark frames for them."""
    alone_s = measurement.flats.exposure_s
    taken = [
        step
        for step in steps(measurement, azimuth_deg)
        if step.stream == "flat" or (step.stream == "dark" and step.exposure_s == alone_s)
    ]
    order = order_of(measurement, series, md, plan_name="flats")
    uids = yield from take_runs(instrument, order, taken)
    return uids


def darks(
    instrument: Instrument,
    measurement: Measurement,
    azimuth_deg: float,
    *,
    series: str | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[tuple[str, ...]]:
    """Take the dark frames of a measurement alone."""
    taken = [step for step in steps(measurement, azimuth_deg) if step.stream == "dark"]
    order = order_of(measurement, series, md, plan_name="darks")
    uids = yield from take_runs(instrument, order, taken)
    return uids

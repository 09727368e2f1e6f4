"""Vector tomography: both helicities at every tilt, around two azimuths, at one or several edges."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from mistral_txm.devices.key import Key
from mistral_txm.plans.acquisition import (
    change_energy,
    columns,
    in_run,
    set_up,
    take,
    whole_runs,
)
from mistral_txm.plans.checks import PlanError, check_metadata, check_positions
from mistral_txm.plans.exposing import note
from mistral_txm.plans.exposure_control import Seen
from mistral_txm.plans.measurement import Measurement
from mistral_txm.plans.operator import turn_sample
from mistral_txm.plans.steps import NOTHING, Step, edge_series, manifest, steps

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument


def vector_tomography(
    instrument: Instrument,
    measurement: Measurement,
    *,
    series: str | None = None,
    skip: Mapping[float, Collection[Key]] = NOTHING,
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
    uids = yield from _azimuths(instrument, [(measurement, _uid(series), skip)], md)
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
    uids = yield from _azimuths(instrument, [(each, _uid(), NOTHING) for each in measurements], md)
    return uids


def tilt_series(
    instrument: Instrument,
    measurement: Measurement,
    azimuth_deg: float,
    *,
    series: str | None = None,
    skip: Mapping[float, Collection[Key]] = NOTHING,
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
    uids = yield from _runs(instrument, measurement, taken, "vector_tomography", _uid(series), md)
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

    Parameters, results and errors are those of `vector_tomography`.

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
    skip = dict.fromkeys(measurement.energies_ev, planned - wanted)
    uids = yield from vector_tomography(instrument, measurement, series=series, skip=skip, md=md)
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
    one = Measurement.from_dict(description)
    uids = yield from _runs(instrument, one, steps(one, phi_deg), "dichroic_projection", _uid(), md)
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
    uids = yield from _runs(instrument, measurement, taken, "flats", _uid(series), md)
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
    uids = yield from _runs(instrument, measurement, taken, "darks", _uid(series), md)
    return uids


def check(instrument: Instrument, measurement: Measurement, md: Mapping[str, Any]) -> None:
    """Look for what would stop a measurement on its way, before anything moves.

    Raises
    ------
    PlanError
        If a position is beyond a limit or collides, or the metadata cannot be written.
    """
    check_metadata(md)
    check_positions(instrument.configuration, measurement)


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


def _uid(series: str | None = None) -> str:
    return str(uuid.uuid4()) if series is None else series


def _azimuths(
    instrument: Instrument,
    queue: Sequence[tuple[Measurement, str, Mapping[float, Collection[Key]]]],
    md: Mapping[str, Any] | None,
) -> MsgGenerator[tuple[str, ...]]:
    """Take measurements, each with its series and what is done of it, azimuth by azimuth."""
    uids: list[str] = []
    began_s = time.monotonic()
    for phi_deg in dict.fromkeys(
        phi for measurement, *_ in queue for phi in measurement.azimuths_deg
    ):
        for measurement, series, skip in queue:
            if phi_deg not in measurement.azimuths_deg or _is_over(measurement, began_s):
                continue
            if taken := steps(measurement, phi_deg, skip):
                yield from turn_sample(instrument, phi_deg)
                uids += yield from _runs(
                    instrument, measurement, taken, "vector_tomography", series, md, began_s
                )
    return tuple(uids)


def _is_over(measurement: Measurement, began_s: float) -> bool:
    """Tell whether the time of a measurement that began then, on the monotonic clock, is over."""
    stop = measurement.stop
    return stop is not None and time.monotonic() - began_s > 3600 * stop.max_duration_h


def _runs(
    instrument: Instrument,
    measurement: Measurement,
    taken: Sequence[Step],
    plan_name: str,
    series: str,
    md: Mapping[str, Any] | None,
    began_s: float | None = None,
) -> MsgGenerator[tuple[str, ...]]:
    """Take steps of one azimuth, as one run for each photon energy: one after the other, or side by side."""
    check(instrument, measurement, md or {})
    phi_deg = yield from stated_azimuth(instrument)
    began_s = time.monotonic() if began_s is None else began_s
    legs = [taken]
    if measurement.edges == "in_turn":
        legs = [list(leg) for _, leg in groupby(taken, key=lambda step: step.energy_ev)]
    uids: list[str] = []
    for leg in legs:
        uids += yield from _leg(
            instrument, measurement, leg, (plan_name, series, phi_deg, md or {}), began_s
        )
    return tuple(uids)


def _leg(
    instrument: Instrument,
    measurement: Measurement,
    taken: Sequence[Step],
    said: tuple[str, str, float, Mapping[str, Any]],
    began_s: float,
) -> MsgGenerator[list[str]]:
    """Take steps, their runs side by side where they are of several photon energies."""
    plan_name, series, phi_deg, md = said
    energies_ev = tuple(dict.fromkeys(step.energy_ev for step in taken))
    edges = {
        "series": series,
        "energies_ev": list(measurement.energies_ev),
        "order": measurement.edges,
    }
    metadata: dict[Hashable, dict[str, Any]] = {
        energy_ev: _metadata(
            instrument,
            measurement.at_energy(energy_ev),
            [step for step in taken if step.energy_ev == energy_ev],
        )
        | {
            "plan_name": plan_name,
            "series": edge_series(series, measurement, energy_ev),
            "phi_deg": phi_deg,
            **({"edges": edges} if len(measurement.energies_ev) > 1 else {}),
            **md,
        }
        for energy_ev in energies_ev
    }
    for start in metadata.values():
        start["frames_directory"] = str(instrument.ccd.frames_directory / start["series"])

    def body(_uids: object) -> MsgGenerator[None]:
        for energy_ev in energies_ev:
            for stream in dict.fromkeys(s.stream for s in taken if s.energy_ev == energy_ev):
                declared = bps.declare_stream(*columns(instrument), name=stream)
                yield from in_run(energy_ev, declared)
        yield from set_up(instrument, measurement)
        seen, now_ev, tilt_deg = (
            Seen(instrument.configuration.ccd),
            measurement.energies_ev[0],
            None,
        )
        for step in taken:
            begins = step.stream == "primary" and step.theta_deg != tilt_deg
            if begins and _is_over(measurement, began_s):
                yield from in_run(
                    step.energy_ev, note(instrument, "note", _over(measurement, step))
                )
                return
            tilt_deg = step.theta_deg if step.stream == "primary" else None
            if step.energy_ev != now_ev:
                yield from change_energy(instrument, now_ev, step.energy_ev)
                now_ev = step.energy_ev
            folder = edge_series(series, measurement, step.energy_ev)
            yield from in_run(step.energy_ev, take(instrument, folder, step, measurement, seen))

    uids: dict[Hashable, str] = yield from whole_runs(instrument, metadata, body)
    return list(uids.values())


def _over(measurement: Measurement, step: Step) -> str:
    assert measurement.stop is not None
    return (
        f"stopped before theta {step.theta_deg:g} deg: the {measurement.stop.max_duration_h:g} h of this "
        "measurement are over; resume takes the rest"
    )


def _metadata(
    instrument: Instrument, measurement: Measurement, taken: Sequence[Step]
) -> dict[str, Any]:
    """Return what the start document of a run says of its measurement, which has one photon energy."""
    description, ccd = measurement.to_dict(), instrument.configuration.ccd
    planned = sum(len(step.repeats) for step in taken if step.stream == "primary")
    return {
        "energy_ev": measurement.energies_ev[0],
        "measurement": description,
        "sample": description["sample"],
        "n_planned": planned,
        **({"planned_keys": manifest(measurement)} if planned else {}),
        "pixel_nm": ccd.pixel_nm,
        "saturation_counts": ccd.saturation_counts,
        "hints": {"dimensions": [[["theta"], "primary"]]},
    }

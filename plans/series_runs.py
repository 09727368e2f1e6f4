"""The runs of a series: one for each azimuth and photon energy, from the steps of a measurement."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from mistral_txm.devices.key import Key
from mistral_txm.plans.acquisition import (
    change_energy,
    columns,
    set_up,
    take,
    whole_runs,
)
from mistral_txm.plans.advice import Heeding
from mistral_txm.plans.checks import (
    PlanError,
    Pose,
    check_clearance,
    check_metadata,
    check_positions,
    check_series,
)
from mistral_txm.plans.exposing import note, until_done
from mistral_txm.plans.exposure_control import Looked, Seen
from mistral_txm.plans.measurement import Measurement
from mistral_txm.plans.opened_runs import in_run
from mistral_txm.plans.operator import AGREEMENT_DEG, turn_sample
from mistral_txm.plans.steps import Step, edge_series, manifest, steps

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument


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
        raise PlanError(
            "azimuth: nobody has said how the sample is mounted; say it first: %mov azimuth 0, or what it is"
        )
    place = yield from bps.rd(instrument.sample_position, default_value="in")
    if place == "between":
        raise PlanError(
            "sample_position: the sample stands neither in nor out; move it in, or put where it "
            "stands now into sample_position.in_x_um and in_z_um"
        )
    return float(phi_deg)


@dataclass
class Order:
    """A measurement to be taken, with the name of its series, what is done of it, and what the runs say."""

    measurement: Measurement
    series: str
    skip: Mapping[float, Collection[Key]] = field(default_factory=dict)
    md: Mapping[str, Any] = field(default_factory=dict)
    plan_name: str = "vector_tomography"
    whole: bool = False
    """Whether all repeats are taken, also where the measurement allows fewer."""
    looked: Looked = field(default_factory=Looked)
    """What was seen of the sample so far."""
    spent_s: float = 0.0
    """How long its runs have taken so far."""
    told: dict[str, set[str]] = field(default_factory=dict)
    """By the series of each photon energy: the flags that were told."""

    def is_over(self, more_s: float = 0.0) -> bool:
        """Tell whether the time of the measurement is over."""
        stop = self.measurement.stop
        if stop is None or stop.max_duration_h is None:
            return False
        return self.spent_s + more_s > 3600 * stop.max_duration_h

    def why_over(self) -> str:
        """Say why it is over."""
        assert self.measurement.stop is not None
        return f"its {self.measurement.stop.max_duration_h:g} h are over"

    def told_over(self, where: str, why: str) -> str:
        """Say that no more is taken."""
        return f"{self.series}: stopped before {where}: {why}; resume takes the rest"


def order_of(
    measurement: Measurement, series: str | None, md: Mapping[str, Any] | None, **options: Any
) -> Order:
    """Order a measurement, under a new name if none is given.

    Raises
    ------
    PlanError
        If a series cannot have that name.
    """
    if series is not None:
        check_series(series)
    return Order(
        measurement, str(uuid.uuid4()) if series is None else series, md=md or {}, **options
    )


def take_azimuths(instrument: Instrument, queue: Sequence[Order]) -> MsgGenerator[tuple[str, ...]]:
    """Take measurements azimuth by azimuth."""
    uids: list[str] = []
    azimuths = [
        (phi_deg, order, taken)
        for phi_deg in dict.fromkeys(phi for one in queue for phi in one.measurement.azimuths_deg)
        for order in queue
        if phi_deg in order.measurement.azimuths_deg
        and (taken := steps(order.measurement, phi_deg, order.skip))
    ]
    for number, (phi_deg, order, taken) in enumerate(azimuths, start=1):
        if order.is_over():
            text = order.told_over(f"phi {phi_deg:g} deg", order.why_over())
            yield from bps.mv(instrument.log, ("note", text))
            continue
        yield from turn_sample(instrument, phi_deg)
        more = any(later is order for _, later, _ in azimuths[number:])
        uids += yield from take_runs(instrument, order, taken, more=more)
    return tuple(uids)


def take_runs(
    instrument: Instrument, order: Order, taken: Sequence[Step], *, more: bool = False
) -> MsgGenerator[tuple[str, ...]]:
    """Take steps of one azimuth, as one run for each photon energy: one after the other, or side by side.

    `more` says whether another azimuth comes, which a flag of the last exposures may hold up.

    Raises
    ------
    PlanError
        If something stands in the way, or the sample is said to stand at another azimuth.
    """
    check(instrument, order.measurement, order.md)
    phi_deg = yield from stated_azimuth(instrument)
    if abs(phi_deg - taken[0].phi_deg) > AGREEMENT_DEG:
        raise PlanError(
            f"azimuth: {taken[0].phi_deg:g} deg is asked for, but the sample is said to stand at "
            f"{phi_deg:g} deg; turn it, and say so with azimuth"
        )
    yield from _check_room(instrument, order.measurement)
    legs = [taken]
    if order.measurement.edges == "in_turn":
        legs = [list(leg) for _, leg in groupby(taken, key=lambda step: step.energy_ev)]
    uids: list[str] = []
    for number, leg in enumerate(legs, start=1):
        began_s = time.monotonic()
        is_last = number == len(legs) and not more
        uids += yield from _leg(instrument, order, leg, phi_deg, began_s, more=not is_last)
        order.spent_s += time.monotonic() - began_s
    return tuple(uids)


def _check_room(instrument: Instrument, measurement: Measurement) -> MsgGenerator[None]:
    """Refuse a measurement in which the holder would touch something, from where everything stands now."""
    place, inside = instrument.sample_position, measurement.sample.place
    theta_deg = yield from bps.rd(instrument.theta, default_value=0.0)
    x_um = yield from bps.rd(instrument.sample_x, default_value=0.0)
    z_um = yield from bps.rd(instrument.sample_z, default_value=0.0)
    in_x_um = yield from bps.rd(place.in_x_um, default_value=0.0)
    in_z_um = yield from bps.rd(place.in_z_um, default_value=0.0)
    if inside is not None:
        in_x_um, in_z_um = inside.x_um, inside.z_um
    check_clearance(
        instrument.configuration,
        measurement,
        Pose(0.0, in_x_um, in_z_um),
        begin=Pose(theta_deg, x_um, z_um),
    )


def _leg(
    instrument: Instrument,
    order: Order,
    taken: Sequence[Step],
    phi_deg: float,
    began_s: float,
    *,
    more: bool,
) -> MsgGenerator[list[str]]:
    """Take steps, their runs side by side where they are of several photon energies; `more` come after them."""
    measurement, series = order.measurement, order.series
    energies_ev = tuple(dict.fromkeys(step.energy_ev for step in taken))
    metadata: dict[Hashable, dict[str, Any]] = {
        energy_ev: {
            **order.md,
            **_metadata(
                instrument,
                measurement.at_energy(energy_ev),
                [step for step in taken if step.energy_ev == energy_ev],
            ),
            **_identity(instrument, order, energy_ev),
            "phi_deg": phi_deg,
        }
        for energy_ev in energies_ev
    }

    def body(_uids: object) -> MsgGenerator[None]:
        for energy_ev in energies_ev:
            for stream in dict.fromkeys(s.stream for s in taken if s.energy_ev == energy_ev):
                declared = bps.declare_stream(*columns(instrument), name=stream)
                yield from in_run(energy_ev, declared)
        first = partial(set_up, instrument, measurement)
        yield from in_run(energies_ev[0], until_done(instrument, "setting up", first))
        seen = Seen(instrument.configuration.ccd, order.looked)
        now_ev = measurement.energies_ev[0]
        tilt_deg: float | None = None
        control = measurement.exposure_control
        if order.whole and control is not None:
            control = control.model_copy(update={"signal_to_noise": None})
        heeding = {
            energy_ev: Heeding(
                instrument,
                measurement,
                edge_series(series, measurement, energy_ev),
                order.told,
                begun=bool(order.skip.get(energy_ev)),
            )
            for energy_ev in energies_ev
        }
        looked: dict[float, tuple[str, float]] = {}
        enough: set[float] = set()
        for step in taken:
            begins = step.shows_sample and step.theta_deg != tilt_deg
            if begins and order.is_over(time.monotonic() - began_s):
                text = order.told_over(f"theta {step.theta_deg:g} deg", order.why_over())
                yield from in_run(step.energy_ev, note(instrument, "note", text))
                break
            tilt = step.stream, step.theta_deg
            if step.shows_sample and looked.get(step.energy_ev) != tilt:
                looked[step.energy_ev] = tilt
                if step.energy_ev not in enough:
                    why = yield from in_run(step.energy_ev, heeding[step.energy_ev].look())
                    if why and step.stream == "primary":
                        enough.add(step.energy_ev)
                        text = order.told_over(f"theta {step.theta_deg:g} deg", why)
                        yield from in_run(step.energy_ev, note(instrument, "note", text))
            if step.energy_ev in enough:
                continue
            tilt_deg = step.theta_deg if step.shows_sample else None
            if step.energy_ev != now_ev:
                change = partial(change_energy, instrument, step.energy_ev)
                what = f"{step.energy_ev:g} eV"
                yield from in_run(step.energy_ev, until_done(instrument, what, change))
                now_ev = step.energy_ev
            folder = edge_series(series, measurement, step.energy_ev)
            exposures = take(instrument, folder, step, control, seen)
            if step.shows_sample:
                exposures = heeding[step.energy_ev].exposing(exposures)
            yield from in_run(step.energy_ev, exposures)
        order.looked = seen.looked
        comes = more and not order.is_over(time.monotonic() - began_s)
        for energy_ev in looked:
            yield from in_run(energy_ev, heeding[energy_ev].look_back(more=comes))

    uids: dict[Hashable, str] = yield from whole_runs(instrument, metadata, body)
    return list(uids.values())


def _identity(instrument: Instrument, order: Order, energy_ev: float) -> dict[str, Any]:
    """Return what the start document of a run says of its series, and of those at other photon energies."""
    measurement = order.measurement
    series = edge_series(order.series, measurement, energy_ev)
    identity: dict[str, Any] = {
        "plan_name": order.plan_name,
        "series": series,
        "frames_directory": str(instrument.ccd.frames_directory / series),
    }
    if len(measurement.energies_ev) > 1:
        identity["edges"] = {
            "series": order.series,
            "energies_ev": list(measurement.energies_ev),
            "order": measurement.edges,
        }
    return identity


def _metadata(
    instrument: Instrument, measurement: Measurement, taken: Sequence[Step]
) -> dict[str, Any]:
    """Return what the start document of a run says of its measurement, which has one photon energy."""
    description, ccd = measurement.to_dict(), instrument.configuration.ccd
    planned = sum(len(step.repeats) for step in taken if step.stream == "primary")
    with_sample = any(step.shows_sample for step in taken)
    return {
        "energy_ev": measurement.energies_ev[0],
        "measurement": description,
        "sample": description["sample"],
        "n_planned": planned,
        **({"planned_keys": manifest(measurement)} if with_sample else {}),
        "pixel_nm": ccd.pixel_nm,
        "saturation_counts": ccd.saturation_counts,
        "hints": {"dimensions": [[["theta"], "primary"]]},
    }

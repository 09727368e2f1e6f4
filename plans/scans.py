"""Scans that characterize light and microscope: photon energy, focus, vertical angle of the light.

Each is one run. A scan belongs to no series: its start document says under ``scan`` what is
scanned, and its exposures are numbered through, so that their keys differ.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator, short_uid

from mistral_txm.devices.configuration import Axis, Configuration
from mistral_txm.devices.key import Key
from mistral_txm.plans.acquisition import columns, expose_into, whole_run
from mistral_txm.plans.checks import PlanError, check_metadata, check_range
from mistral_txm.plans.series_runs import stated_azimuth

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument

FEWEST_FOCUS_POSITIONS = 5
"""A maximum with its height, width and background cannot be found from fewer."""


@dataclass(frozen=True)
class Exposing:
    """How each state of the beamline is exposed: repeats and exposure times of sample and flats."""

    exposure_s: float
    repeats: int
    flat_exposure_s: float
    flat_repeats: int
    dark_repeats: int


@dataclass(frozen=True)
class State:
    """A state of the beamline and how often it is exposed, into one file.

    `helicity` is that of the jaws; 0 where `jaws_mm`, lower and upper edge, says where they stand, and
    for dark frames. Energy, focus and tilt stay where they are if they are None, and so do the jaws and the focus
    if `light_stays`. The sample stands at `stage_um`, x, y and z of its stages; at its place if that is None.
    """

    stream: Literal["dark", "flat", "primary"]
    file_name: str
    exposure_s: float
    repeats: int
    helicity: int = 0
    jaws_mm: tuple[float, float] | None = None
    energy_ev: float | None = None
    zone_plate_z_um: float | None = None
    theta_deg: float | None = None
    stage_um: tuple[float, float, float] | None = None
    light_stays: bool = False


def energy_scan(
    instrument: Instrument,
    energies_ev: Sequence[float],
    *,
    exposure_s: float,
    repeats: int,
    flat_exposure_s: float,
    flat_repeats: int,
    dark_repeats: int = 5,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Expose sample and open beam in both helicities at each photon energy, at the present tilt.

    The zone plate follows the focus, which moves with the energy. The helicities alternate as in a
    tilt series, + - then - +, so that the slit moves once for each energy. Dark frames come first.

    Parameters
    ----------
    instrument
        The devices.
    energies_ev
        Photon energies in eV, ascending.
    exposure_s, repeats
        Of the sample, for each energy and helicity.
    flat_exposure_s, flat_repeats
        Of the open beam, for each energy and helicity; at least 2 repeats, which tell the noise.
    dark_repeats
        Dark frames for each exposure time, at least 2.
    md
        Metadata of the run.

    Returns
    -------
    str
        The uid of the run.

    Raises
    ------
    PlanError
        If a number is out of range, a position cannot be reached, the metadata cannot be written,
        or nobody has said how the sample is mounted; nothing has moved then.
    """
    exposing = Exposing(exposure_s, repeats, flat_exposure_s, flat_repeats, dark_repeats)
    check_exposing(exposing, fewest_repeats=1)
    check_ascending("energies_ev", energies_ev, fewest=1)
    configuration = instrument.configuration
    check_range("energy", configuration.axes.energy, energies_ev)
    states = tuple(energy_states(configuration, energies_ev, exposing))
    _check_states(configuration, states)
    scan = {"motor": "energy", "unit": "eV", "positions": [float(e) for e in energies_ev]}
    uid = yield from scan_run(instrument, "energy_scan", scan, states, md)
    return uid


def focus_series(
    instrument: Instrument,
    helicity: int,
    z_um: Sequence[float],
    *,
    exposure_s: float,
    repeats: int,
    flat_exposure_s: float,
    flat_repeats: int,
    dark_repeats: int = 5,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Expose the sample at positions of the zone plate, in one helicity, at the present energy.

    The open beam is exposed once, at the middle position. Parameters not named here, and what is
    returned and raised, are those of `energy_scan`.

    Parameters
    ----------
    helicity
        +1 or -1.
    z_um
        Positions of the zone plate in um, ascending, at least 5.
    repeats
        At least 2 for each position: their noise differs, their image is the same.
    """
    exposing = Exposing(exposure_s, repeats, flat_exposure_s, flat_repeats, dark_repeats)
    check_exposing(exposing, fewest_repeats=2)
    if helicity not in (1, -1):
        raise PlanError(f"helicity {helicity!r}: expected +1 or -1")
    check_ascending("z_um", z_um, fewest=FEWEST_FOCUS_POSITIONS)
    states = tuple(focus_states(helicity, z_um, exposing))
    _check_states(instrument.configuration, states)
    scan = {
        "motor": "zone_plate_z",
        "unit": "um",
        "positions": [float(z) for z in z_um],
        "helicity": helicity,
    }
    uid = yield from scan_run(instrument, "focus_series", scan, states, md)
    return uid


def polarization_scan(
    instrument: Instrument,
    heights_mm: Sequence[float],
    opening_mm: float,
    *,
    exposure_s: float,
    repeats: int,
    flat_exposure_s: float,
    flat_repeats: int,
    dark_repeats: int = 5,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Move a narrow slit over the vertical angle of the light; open beam and sample at each height.

    The open beam tells the intensity. The sample tells the circular degree: its dichroic contrast,
    compared with that in both helicities' own jaw positions, which are exposed first. The zone plate
    follows the focus, which is taken as linear in the height, through those of the helicities.
    Energy and tilt stay. Parameters not named here, and what is returned and raised, are those of
    `energy_scan`.

    Parameters
    ----------
    heights_mm
        Middle of the slit above the orbit plane in mm, ascending.
    opening_mm
        Distance of the jaws in mm.
    """
    exposing = Exposing(exposure_s, repeats, flat_exposure_s, flat_repeats, dark_repeats)
    check_exposing(exposing, fewest_repeats=1)
    check_ascending("heights_mm", heights_mm, fewest=1)
    configuration = instrument.configuration
    axes = configuration.axes
    least_mm = axes.jaw_up.tolerance + axes.jaw_down.tolerance
    if not (is_number(opening_mm) and opening_mm > least_mm):
        raise PlanError(
            f"opening_mm = {opening_mm!r}: expected more than {least_mm:g} mm, which the jaws' "
            "tolerances allow for"
        )
    energy_ev = yield from bps.rd(instrument.energy, default_value=math.nan)
    if math.isnan(energy_ev):  # nobody answers: a plan that is only looked at
        energy_ev = configuration.polarization.focus_energy_eV
    states = tuple(jaw_states(configuration, heights_mm, opening_mm, energy_ev, exposing))
    _check_states(configuration, states)
    scan = {
        "motor": "jaws",
        "unit": "mm",
        "positions": [float(height) for height in heights_mm],
        "opening_mm": float(opening_mm),
        "slit_distance_m": configuration.polarization.slit_distance_m,
    }
    uid = yield from scan_run(instrument, "polarization_scan", scan, states, md)
    return uid


def energy_states(
    configuration: Configuration, energies_ev: Sequence[float], exposing: Exposing
) -> Iterator[State]:
    """Yield what an energy scan exposes, in order: decided before anything moves."""
    yield from dark_states(exposing)
    for index, energy_ev in enumerate(energies_ev):
        for helicity in (1, -1) if index % 2 == 0 else (-1, 1):
            yield from _flat_and_sample(
                exposing,
                f"{energy_ev:g}eV_{_side(helicity)}",
                helicity=helicity,
                energy_ev=float(energy_ev),
                zone_plate_z_um=configuration.polarization.focus_um(helicity, energy_ev),
            )


def focus_states(helicity: int, z_um: Sequence[float], exposing: Exposing) -> Iterator[State]:
    """Yield what a focus series exposes, in order."""
    yield from dark_states(exposing)
    middle_um = float(z_um[len(z_um) // 2])
    times = exposing.flat_exposure_s, exposing.flat_repeats
    yield State(
        "flat", f"flat_{_side(helicity)}", *times, helicity=helicity, zone_plate_z_um=middle_um
    )
    for z in z_um:
        times = exposing.exposure_s, exposing.repeats
        yield State(
            "primary",
            f"z_{z:g}um_{_side(helicity)}",
            *times,
            helicity=helicity,
            zone_plate_z_um=float(z),
        )


def jaw_states(
    configuration: Configuration,
    heights_mm: Sequence[float],
    opening_mm: float,
    energy_ev: float,
    exposing: Exposing,
) -> Iterator[State]:
    """Yield what a polarization scan exposes, in order: both helicities, then the heights."""
    yield from dark_states(exposing)
    positions = configuration.polarization
    for helicity in (1, -1):
        yield from _flat_and_sample(
            exposing,
            _side(helicity),
            helicity=helicity,
            zone_plate_z_um=positions.focus_um(helicity, energy_ev),
        )
    middles_mm = {
        helicity: (positions.of(helicity).jaw_down_mm + positions.of(helicity).jaw_up_mm) / 2
        for helicity in (1, -1)
    }
    foci_um = {helicity: positions.focus_um(helicity, energy_ev) for helicity in (1, -1)}
    slope = (foci_um[1] - foci_um[-1]) / (middles_mm[1] - middles_mm[-1])
    for height_mm in heights_mm:
        yield from _flat_and_sample(
            exposing,
            f"height_{height_mm:g}mm",
            jaws_mm=(height_mm - opening_mm / 2, height_mm + opening_mm / 2),
            zone_plate_z_um=foci_um[1] + slope * (height_mm - middles_mm[1]),
        )


def dark_states(exposing: Exposing) -> Iterator[State]:
    """Yield the dark frames of both exposure times."""
    for exposure_s in sorted({exposing.exposure_s, exposing.flat_exposure_s}):
        yield State("dark", f"dark_{exposure_s:g}s", exposure_s, exposing.dark_repeats)


def _flat_and_sample(exposing: Exposing, name: str, **where: Any) -> Iterator[State]:
    yield State("flat", f"flat_{name}", exposing.flat_exposure_s, exposing.flat_repeats, **where)
    yield State("primary", name, exposing.exposure_s, exposing.repeats, **where)


def _side(helicity: int) -> str:
    return "plus" if helicity > 0 else "minus"


def check_exposing(exposing: Exposing, fewest_repeats: int) -> None:
    """Refuse times and repeats that make no scan.

    Raises
    ------
    PlanError
        Naming the first of them.
    """
    for name in ("exposure_s", "flat_exposure_s"):
        seconds = getattr(exposing, name)
        if not (is_number(seconds) and 0 < seconds <= 600):
            raise PlanError(f"{name} = {seconds!r}: expected seconds, more than 0, at most 600")
    for name, fewest in (("repeats", fewest_repeats), ("flat_repeats", 2), ("dark_repeats", 2)):
        count = getattr(exposing, name)
        if isinstance(count, bool) or not isinstance(count, int) or not fewest <= count <= 1000:
            raise PlanError(f"{name} = {count!r}: expected a whole number from {fewest} to 1000")


def check_ascending(name: str, values: Sequence[float], fewest: int) -> None:
    """Refuse positions that are too few, no numbers, or not ascending.

    Raises
    ------
    PlanError
        Naming the first of them.
    """
    values = list(values)
    if len(values) < fewest:
        raise PlanError(f"{name}: {len(values)} given, expected at least {fewest}")
    if wrong := [value for value in values if not is_number(value)]:
        raise PlanError(f"{name}: {wrong[0]!r} is not a finite number")
    for low, high in pairwise(values):
        if not low < high:
            raise PlanError(
                f"{name}: {high:g} follows {low:g}; expected ascending values, each once"
            )


def is_number(value: object) -> bool:
    """Whether it is a finite number, and no text or truth value."""
    try:
        return not isinstance(value, bool | str) and math.isfinite(float(value))  # type: ignore[arg-type]  # tried
    except (TypeError, ValueError):
        return False


def _check_states(configuration: Configuration, states: Sequence[State]) -> None:
    axes = configuration.axes

    def check(name: str, axis: Axis, targets: Sequence[float | None]) -> None:
        check_range(name, axis, [target for target in targets if target is not None])

    check("zone_plate_z", axes.zone_plate_z, [state.zone_plate_z_um for state in states])
    jaws_mm = [state.jaws_mm for state in states if state.jaws_mm is not None]
    check("jaw_down", axes.jaw_down, [down for down, _ in jaws_mm])
    check("jaw_up", axes.jaw_up, [up for _, up in jaws_mm])


def scan_run(
    instrument: Instrument,
    plan_name: str,
    scan: Mapping[str, Any],
    states: Sequence[State],
    md: Mapping[str, Any] | None,
) -> MsgGenerator[str]:
    """Take states as one run and return its uid; `scan` says what is scanned.

    Raises
    ------
    PlanError
        If the metadata cannot be written, or nobody has said how the sample is mounted; nothing has moved then.
    """
    check_metadata(md or {})
    phi_deg = yield from stated_azimuth(instrument)
    theta_deg = yield from bps.rd(instrument.theta, default_value=0.0)
    ccd = instrument.configuration.ccd
    dimensions = {"jaws": ["jaw_up"], "stage": ["sample_x", "sample_y"]}
    metadata = {
        **(md or {}),
        "plan_name": plan_name,
        "phi_deg": phi_deg,
        "scan": dict(scan),
        "n_planned": sum(state.repeats for state in states if state.stream == "primary"),
        "pixel_nm": ccd.pixel_nm,
        "saturation_counts": ccd.saturation_counts,
        "hints": {"dimensions": [[dimensions.get(scan["motor"], [scan["motor"]]), "primary"]]},
    }
    read = (
        *columns(instrument),
        instrument.energy,
        instrument.zone_plate_z,
        instrument.jaw_down,
        instrument.jaw_up,
        instrument.sample_x,
        instrument.sample_y,
        instrument.sample_z,
    )

    def body(uid: str) -> MsgGenerator[None]:
        for stream in dict.fromkeys(state.stream for state in states):
            yield from bps.declare_stream(*read, name=stream)
        taken: Counter[tuple[str, int]] = Counter()
        jaws_mm = None
        for state in states:
            first = taken[state.stream, state.helicity]
            taken[state.stream, state.helicity] += state.repeats
            tilt_deg = float(theta_deg if state.theta_deg is None else state.theta_deg)
            keys = tuple(
                Key(phi_deg, tilt_deg, state.helicity, first + repeat)
                for repeat in range(state.repeats)
            )
            moved = state.jaws_mm is not None and state.jaws_mm != jaws_mm
            jaws_mm = state.jaws_mm
            yield from _take(instrument, uid, state, keys, read, rest=moved)

    uid: str = yield from whole_run(instrument, metadata, body)
    return uid


def _take(
    instrument: Instrument,
    folder: str,
    state: State,
    keys: Sequence[Key],
    read: Sequence[Any],
    *,
    rest: bool,
) -> MsgGenerator[None]:
    """Bring the beamline to a state and expose; `rest`: the jaws move, and have to come to rest."""
    group = short_uid("state")
    yield from bps.checkpoint()
    if state.stream != "dark":
        # The polarization moves the zone plate to these: two masters of one axis would not agree
        # when a pause stops them.
        polarization = instrument.polarization
        focus = {1: polarization.focus_positive_um, -1: polarization.focus_negative_um}
        if state.helicity in focus and not state.light_stays:
            if state.zone_plate_z_um is not None:
                yield from bps.abs_set(focus[state.helicity], state.zone_plate_z_um, group=group)
                yield from bps.wait(group)
            yield from bps.abs_set(polarization, state.helicity, group=group)
        if state.jaws_mm is not None:
            yield from bps.abs_set(instrument.jaw_down, state.jaws_mm[0], group=group)
            yield from bps.abs_set(instrument.jaw_up, state.jaws_mm[1], group=group)
            yield from bps.abs_set(instrument.zone_plate_z, state.zone_plate_z_um, group=group)
        if state.stage_um is None:
            place = "out" if state.stream == "flat" else "in"
            yield from bps.abs_set(instrument.sample_position, place, group=group)
        else:
            stages = instrument.sample_x, instrument.sample_y, instrument.sample_z
            for stage, target_um in zip(stages, state.stage_um, strict=True):
                yield from bps.abs_set(stage, target_um, group=group)
        if state.theta_deg is not None:
            yield from bps.abs_set(instrument.theta, state.theta_deg, group=group)
        if state.energy_ev is not None:
            yield from bps.abs_set(instrument.energy, state.energy_ev, group=group)
        yield from bps.wait(group)
        if rest:
            yield from bps.sleep(instrument.configuration.polarization.settle_time_s)
    yield from expose_into(
        instrument,
        f"{folder}/{state.file_name}",
        state.exposure_s,
        state.stream,
        keys,
        group,
        read,
    )

"""Brings the region in the middle of the field of view onto the tilt axis."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import MsgGenerator

from mistral_txm.plans.checks import PlanError, Pose, check_range, check_reach
from mistral_txm.plans.scans import (
    Exposing,
    State,
    check_exposing,
    dark_states,
    is_number,
    scan_run,
)
from mistral_txm.plans.survey import check_helicity, standing_helicity

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument

FIRST_STEP_DEG = 1.0
"""Next to the present tilt: a region 10 um off the axis moves by 0.17 um."""
LEAST_TILTS = 5
ON_AXIS_UM = 0.025
"""So near, a region needs no correction: half the tolerance of a stage."""
MOST_SERIES = 4


@dataclass(frozen=True)
class Offset:
    """Where a region lies against the tilt axis in the stage frame, um, with standard deviations."""

    x_um: float
    z_um: float
    std_x_um: float
    std_z_um: float

    def __str__(self) -> str:
        """Say it in nm.

        >>> print(Offset(0.012, -3.2, 0.02, 0.014))
        x = 12 ± 20 nm, z = -3200 ± 14 nm
        """
        return (
            f"x = {1000 * self.x_um:.0f} ± {1000 * self.std_x_um:.0f} nm, "
            f"z = {1000 * self.z_um:.0f} ± {1000 * self.std_z_um:.0f} nm"
        )

    @property
    def is_on_axis(self) -> bool:
        """Whether it is within `ON_AXIS_UM`, or two standard deviations, of the axis."""
        return abs(self.x_um) <= max(ON_AXIS_UM, 2 * self.std_x_um) and abs(self.z_um) <= max(
            ON_AXIS_UM, 2 * self.std_z_um
        )


@dataclass(frozen=True)
class Centring:
    """What `centre_rotation` found and left: the runs, the first offset, the last, and the sample's place."""

    uids: tuple[str, ...]
    found: Offset
    left: Offset
    in_x_um: float
    in_z_um: float


def centre_rotation(
    instrument: Instrument,
    *,
    locate: Callable[[str], Offset],
    exposure_s: float,
    repeats: int = 1,
    flat_exposure_s: float,
    flat_repeats: int,
    dark_repeats: int = 5,
    first_deg: float = -55.0,
    last_deg: float = 55.0,
    step_deg: float = 5.0,
    helicity: int | None = None,
    limit_um: float = 0.2,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[Centring]:
    """Bring the region that is in the middle of the camera at the present tilt onto the tilt axis.

    A series of views at tilts around the present one, in one helicity, tells where the region lies
    against the axis; the sample's place is corrected by that, and another series verifies it, up to 4 in
    all, which follow the same region. Each is a run. If it does not succeed, the sample's place is what it was.

    Parameters not named here are those of `mosaic`.

    Parameters
    ----------
    locate
        Returns where the region of a run lies; called in a thread with the run's uid when the run has
        ended. A `ValueError` says in one line why it cannot.
    first_deg, last_deg, step_deg
        Range of the tilts and their distance; next to the present tilt they are closer, so that a
        region far off the axis can be followed.
    limit_um
        Largest standard deviation with which a place is corrected.

    Returns
    -------
    Centring
        The runs, what was found and what is left.

    Raises
    ------
    PlanError
        If a number is out of range, a position cannot be reached, the offset is not sure enough, or
        was not made less; the sample's place is what it was.
    """
    exposing = Exposing(exposure_s, repeats, flat_exposure_s, flat_repeats, dark_repeats)
    check_exposing(exposing, fewest_repeats=1)
    check_helicity(helicity)
    if not (is_number(limit_um) and limit_um > 0):
        raise PlanError(f"limit_um = {limit_um!r}: expected um, more than 0")
    present_deg = yield from bps.rd(instrument.theta, default_value=0.0)
    tilts_deg = centring_tilts(present_deg, first_deg, last_deg, step_deg)
    check_range("theta", instrument.configuration.axes.theta, tilts_deg)
    place = instrument.sample_position
    before_x_um = yield from bps.rd(place.in_x_um, default_value=0.0)
    before_z_um = yield from bps.rd(place.in_z_um, default_value=0.0)
    _check_clearance(instrument, tilts_deg, before_x_um, before_z_um)
    stands = yield from standing_helicity(instrument, helicity)
    light: dict[str, Any] = {"helicity": stands, "light_stays": helicity is None}
    states = tuple(centring_states(exposing, tilts_deg, present_deg, light))

    def go_to(x_um: float, z_um: float) -> MsgGenerator[None]:
        yield from bps.mv(place.in_x_um, x_um, place.in_z_um, z_um)
        # The stages themselves: to the sample's position, what is within their tolerance is "in" already.
        yield from bps.mv(instrument.sample_x, x_um, instrument.sample_z, z_um)
        yield from bps.mv(place, "in")

    def series(x_um: float, z_um: float) -> MsgGenerator[tuple[str, Offset]]:
        # The region that was in the middle at first: what the stages do, it does, too.
        angle = math.radians(present_deg)
        region_u_um = (x_um - before_x_um) * math.cos(angle) - (z_um - before_z_um) * math.sin(
            angle
        )
        scan = {
            "motor": "theta",
            "unit": "deg",
            "positions": list(tilts_deg),
            "reference": float(present_deg),
            "region_u_um": region_u_um,
            "helicity": stands,
        }
        uid = yield from scan_run(instrument, "centre_rotation", scan, states, md)
        offset = yield from _located(locate, uid)
        return uid, offset

    def body() -> MsgGenerator[Centring]:
        x_um, z_um = before_x_um, before_z_um
        uids: list[str] = []
        found: list[Offset] = []
        while True:
            uid, offset = yield from series(x_um, z_um)
            uids.append(uid)
            found.append(offset)
            yield from bps.abs_set(
                instrument.log, ("note", f"centre_rotation: the region is at {offset} of the axis")
            )
            if offset.is_on_axis:
                return Centring(tuple(uids), found[0], offset, x_um, z_um)
            if len(uids) == MOST_SERIES:
                raise PlanError(
                    f"centre_rotation: after {MOST_SERIES} series the region is still at {offset} of the axis; the "
                    "sample's place is what it was; take more tilts or longer exposures"
                )
            x_um, z_um = corrected(instrument, offset, x_um, z_um, limit_um)
            _check_clearance(instrument, tilts_deg, x_um, z_um)
            yield from go_to(x_um, z_um)

    def undo(_failure: Exception) -> MsgGenerator[None]:
        now_um = yield from bps.rd(place.in_x_um, default_value=before_x_um)
        now_z_um = yield from bps.rd(place.in_z_um, default_value=before_z_um)
        if (now_um, now_z_um) != (before_x_um, before_z_um):
            yield from go_to(before_x_um, before_z_um)

    result: Centring = yield from bpp.contingency_wrapper(body(), except_plan=undo)
    return result


def centring_tilts(
    present_deg: float, first_deg: float, last_deg: float, step_deg: float
) -> tuple[float, ...]:
    """Return tilts around the present one, the first at 1 deg from it, then twice as far, up to the step.

    Raises
    ------
    PlanError
        If the range does not hold the present tilt, or too few tilts.

    >>> centring_tilts(0.0, -12.0, 12.0, 5.0)
    (-12.0, -7.0, -3.0, -1.0, 0.0, 1.0, 3.0, 7.0, 12.0)
    """
    for name, value in (("first_deg", first_deg), ("last_deg", last_deg), ("step_deg", step_deg)):
        if not is_number(value):
            raise PlanError(f"{name} = {value!r}: expected degrees")
    if not step_deg > 0:
        raise PlanError(f"step_deg = {step_deg!r}: expected degrees, more than 0")
    if not first_deg <= present_deg <= last_deg:
        raise PlanError(
            f"theta is at {present_deg:g} deg, outside the range of the tilts from {first_deg:g} to {last_deg:g} deg; "
            "turn it to where the region is in the middle of the camera"
        )
    if (last_deg - first_deg) / step_deg > 500:
        raise PlanError(f"step_deg = {step_deg:g}: more than 500 tilts; take larger steps")
    tilts = [float(present_deg)]
    for sign, end_deg in ((1, last_deg), (-1, first_deg)):
        off, step = 0.0, min(FIRST_STEP_DEG, step_deg)
        while sign * present_deg + off + step <= sign * end_deg + 1e-9:
            off += step
            tilts.append(float(present_deg + sign * off))
            step = min(2 * step, step_deg)
    if len(tilts) < LEAST_TILTS:
        raise PlanError(
            f"tilts: {len(tilts)} from {first_deg:g} to {last_deg:g} deg, at least {LEAST_TILTS} are needed"
        )
    return tuple(sorted(tilts))


def centring_states(
    exposing: Exposing, tilts_deg: Sequence[float], present_deg: float, light: Mapping[str, Any]
) -> Iterator[State]:
    """Yield what a series exposes, in order: flats at the present tilt, then all tilts ascending."""
    yield from dark_states(exposing)
    times = exposing.flat_exposure_s, exposing.flat_repeats
    yield State("flat", "flat", *times, theta_deg=present_deg, **light)
    for theta_deg in tilts_deg:
        times = exposing.exposure_s, exposing.repeats
        yield State("primary", f"theta_{theta_deg:g}deg", *times, theta_deg=theta_deg, **light)


def corrected(
    instrument: Instrument, offset: Offset, x_um: float, z_um: float, limit_um: float
) -> tuple[float, float]:
    """Return the sample's place that brings an offset to zero: the stages ride on the tilt.

    Raises
    ------
    PlanError
        If the offset is not sure to `limit_um`, or a stage cannot go there.
    """
    numbers = (offset.x_um, offset.z_um, offset.std_x_um, offset.std_z_um)
    if not all(math.isfinite(number) for number in numbers) or not (
        max(offset.std_x_um, offset.std_z_um) <= limit_um
    ):
        raise PlanError(
            f"centre_rotation: the region is at {offset} of the axis, not sure to {1000 * limit_um:g} nm; nothing is "
            "corrected; take more tilts or longer exposures"
        )
    target_um = x_um - offset.x_um, z_um - offset.z_um
    axes = instrument.configuration.axes
    check_range("sample_x", axes.sample_x, [target_um[0]])
    check_range("sample_z", axes.sample_z, [target_um[1]])
    return target_um


def _check_clearance(
    instrument: Instrument, tilts_deg: Sequence[float], x_um: float, z_um: float
) -> None:
    for theta_deg in tilts_deg:
        check_reach(instrument.configuration, Pose(theta_deg, x_um, z_um))


def _located(locate: Callable[[str], Offset], uid: str) -> MsgGenerator[Offset]:
    """Call in a thread, so that the RunEngine can still be paused."""
    answers: list[Offset] = []
    failures: list[Exception] = []

    async def work() -> None:
        try:
            answers.append(await asyncio.to_thread(locate, uid))
        except Exception as failure:  # raised again in the plan, where it can be dealt with
            failures.append(failure)

    yield from bps.checkpoint()
    yield from bps.wait_for([work])
    if failures and isinstance(failures[-1], ValueError):
        raise PlanError(f"{failures[-1]}; the sample's place is what it was") from failures[-1]
    if not answers:
        raise failures[-1] if failures else PlanError("centre_rotation: the analysis was ended")
    return answers[-1]

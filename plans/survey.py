"""A survey of the sample, and the choice of what of it becomes the field of view."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
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

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument

MOST_TILES = 400
"""More are rather a mistake in a unit."""
LARGEST_OVERLAP = 0.8
USUAL_PIXELS = 1024
"""Width of a frame where nobody answers: a plan that is only looked at."""


def mosaic(
    instrument: Instrument,
    width_um: float,
    height_um: float,
    *,
    x_um: float | None = None,
    y_um: float | None = None,
    overlap: float = 0.15,
    helicity: int | None = None,
    exposure_s: float,
    repeats: int = 1,
    flat_exposure_s: float,
    flat_repeats: int,
    dark_repeats: int = 5,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Expose fields of view side by side, at the present tilt and energy, after dark frames and flats.

    Parameters
    ----------
    instrument
        The devices.
    width_um, height_um
        What is seen, in um of the sample: across the tilt axis and along it.
    x_um, y_um
        Middle of it: where the stages stand when it is in the middle of the camera; by default the
        sample's place.
    overlap
        Of neighbouring fields of view, as a fraction of one, from 0 to 0.8.
    helicity
        +1 or -1; if None, jaws and zone plate stay where they are.
    exposure_s, repeats
        Of each field of view.
    flat_exposure_s, flat_repeats
        Of the open beam; at least 2 repeats, which tell the noise.
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
    check_helicity(helicity)
    for name, size_um in (("width_um", width_um), ("height_um", height_um)):
        if not (is_number(size_um) and size_um > 0):
            raise PlanError(f"{name} = {size_um!r}: expected um, more than 0")
    if not (is_number(overlap) and 0 <= overlap <= LARGEST_OVERLAP):
        raise PlanError(f"overlap = {overlap!r}: expected a fraction from 0 to {LARGEST_OVERLAP}")
    for name, middle_um in (("x_um", x_um), ("y_um", y_um)):
        if not (middle_um is None or is_number(middle_um)):
            raise PlanError(f"{name} = {middle_um!r}: expected um")
    place = instrument.sample_position
    if x_um is None:
        x_um = yield from bps.rd(place.in_x_um, default_value=0.0)
    if y_um is None:
        y_um = yield from bps.rd(place.in_y_um, default_value=0.0)
    z_um = yield from bps.rd(place.in_z_um, default_value=0.0)
    theta_deg = yield from bps.rd(instrument.theta, default_value=0.0)
    size = instrument.ccd.cam.max_size
    pixels_u = yield from bps.rd(size.max_size_x, default_value=USUAL_PIXELS)
    pixels_v = yield from bps.rd(size.max_size_y, default_value=USUAL_PIXELS)
    configuration = instrument.configuration
    pixel_um = configuration.ccd.pixel_nm / 1000
    stretch = 1 / math.cos(math.radians(theta_deg))
    columns_um = tile_positions(x_um, width_um, pixels_u * pixel_um * stretch, overlap)
    rows_um = tile_positions(y_um, height_um, pixels_v * pixel_um, overlap)
    if (count := len(columns_um) * len(rows_um)) > MOST_TILES:
        raise PlanError(
            f"mosaic: {len(columns_um)} x {len(rows_um)} = {count} fields of view, at most {MOST_TILES} are taken; "
            "are width and height in um?"
        )
    beside_um = configuration.sample_position.out_x_um
    check_reach(configuration, *(Pose(theta_deg, x, z_um) for x in (*columns_um, beside_um)))
    check_range("sample_x", configuration.axes.sample_x, columns_um)
    check_range("sample_y", configuration.axes.sample_y, rows_um)
    stands = yield from standing_helicity(instrument, helicity)
    light: dict[str, Any] = {"helicity": stands, "light_stays": helicity is None}
    places_um = [
        (x, y)
        for index, y in enumerate(rows_um)
        for x in (columns_um if index % 2 == 0 else columns_um[::-1])
    ]
    states = tuple(mosaic_states(exposing, places_um, z_um, light))
    scan = {
        "motor": "stage",
        "unit": "um",
        "positions": [[float(x), float(y)] for x, y in places_um],
        "helicity": stands,
        "theta_deg": float(theta_deg),
    }
    uid = yield from scan_run(instrument, "mosaic", scan, states, md)
    return uid


def field_of_view(instrument: Instrument, x_um: float, y_um: float) -> MsgGenerator[None]:
    """Make a place of the sample its place, and bring it into the middle of the camera.

    From then on every plan takes the sample "in" there. Height along the beam and tilt stay.

    Parameters
    ----------
    x_um, y_um
        Where the stages stand when it is in the middle: what the axes of a mosaic say.

    Raises
    ------
    PlanError
        If a stage cannot go there, or the holder would touch something; nothing has moved then.
    """
    for name, value in (("x_um", x_um), ("y_um", y_um)):
        if not is_number(value):
            raise PlanError(f"{name} = {value!r}: expected um")
    axes = instrument.configuration.axes
    check_range("sample_x", axes.sample_x, [x_um])
    check_range("sample_y", axes.sample_y, [y_um])
    place = instrument.sample_position
    theta_deg = yield from bps.rd(instrument.theta, default_value=0.0)
    z_um = yield from bps.rd(place.in_z_um, default_value=0.0)
    check_reach(instrument.configuration, Pose(theta_deg, float(x_um), z_um))
    yield from bps.mv(instrument.shutter, "closed")
    yield from bps.mv(place.in_x_um, float(x_um), place.in_y_um, float(y_um))
    # The stages themselves: to the sample's position, what is within their tolerance is "in" already.
    yield from bps.mv(instrument.sample_x, float(x_um), instrument.sample_y, float(y_um))
    yield from bps.mv(place, "in")


def tile_positions(
    middle_um: float, size_um: float, field_um: float, overlap: float
) -> tuple[float, ...]:
    """Return where fields of view have to be to cover a length, ascending, evenly about its middle.

    >>> tile_positions(10.0, 5.0, 2.0, 0.25)
    (8.5, 10.0, 11.5)
    """
    step_um = field_um * (1 - overlap)
    count = 1 + max(0, math.ceil((size_um - field_um) / step_um - 1e-9))
    return tuple(middle_um + (index - (count - 1) / 2) * step_um for index in range(count))


def mosaic_states(
    exposing: Exposing,
    places_um: Sequence[tuple[float, float]],
    z_um: float,
    light: Mapping[str, Any],
) -> Iterator[State]:
    """Yield what a mosaic exposes, in order."""
    yield from dark_states(exposing)
    yield State("flat", "flat", exposing.flat_exposure_s, exposing.flat_repeats, **light)
    for number, (x_um, y_um) in enumerate(places_um):
        yield State(
            "primary",
            f"field_{number}",
            exposing.exposure_s,
            exposing.repeats,
            stage_um=(x_um, y_um, z_um),
            **light,
        )


def check_helicity(helicity: int | None) -> None:
    """Refuse what is neither +1, -1 nor None.

    Raises
    ------
    PlanError
        Saying what is expected.
    """
    if helicity not in (None, 1, -1):
        raise PlanError(f"helicity {helicity!r}: expected +1, -1, or None for light as it is")


def standing_helicity(instrument: Instrument, helicity: int | None) -> MsgGenerator[int]:
    """Return the helicity that is asked for, else that of the light as it is; 0 for neither."""
    if helicity is not None:
        return helicity
    stands = yield from bps.rd(instrument.polarization, default_value=0)
    return int(stands)

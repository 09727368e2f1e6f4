"""What would stop a measurement on its way, found before anything moves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from mistral_txm.devices.configuration import Axis, Configuration
from mistral_txm.plans.measurement import Measurement
from mistral_txm.plans.quantities import told_size
from mistral_txm.plans.steps import steps


class PlanError(ValueError):
    """A plan cannot be carried out; found before anything moved, one line."""


RESERVED = frozenset(
    (
        "uid",
        "time",
        "scan_id",
        "hints",
        "plan_name",
        "series",
        "phi_deg",
        "edges",
        "energy_ev",
        "measurement",
        "scan",
        "sample",
        "n_planned",
        "planned_keys",
        "rejected_keys",
        "reason",
        "frames_directory",
        "pixel_nm",
        "saturation_counts",
    )
)
"""Metadata that the plans write themselves."""


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


def check_positions(configuration: Configuration, measurement: Measurement) -> None:
    """Refuse a measurement that a limit of the configuration would stop on its way, or that collides.

    Raises
    ------
    PlanError
        If a planned position is beyond a limit, or the holder would touch something there or on the
        way there.
    """
    axes = configuration.axes
    check_range("theta", axes.theta, (*measurement.angles_deg, measurement.flats.theta_deg))
    check_range("energy", axes.energy, measurement.energies_ev)
    if (place := measurement.sample.place) is not None:
        check_range("sample_x", axes.sample_x, (place.x_um,))
        check_range("sample_y", axes.sample_y, (place.y_um,))
        check_range("sample_z", axes.sample_z, (place.z_um,))
    if (focus := measurement.focus) is not None:
        check_range("zone_plate_z", axes.zone_plate_z, (focus.positive_um, focus.negative_um))
    else:
        foci_um = [
            configuration.polarization.focus_um(helicity, energy_ev)
            for helicity in (1, -1)
            for energy_ev in measurement.energies_ev
        ]
        check_range("zone_plate_z", axes.zone_plate_z, foci_um)
    inside, places = measurement.sample.place, configuration.sample_position
    check_clearance(
        configuration,
        measurement,
        Pose(0.0, places.in_x_um, places.in_z_um)
        if inside is None
        else Pose(0.0, inside.x_um, inside.z_um),
    )


class Pose(NamedTuple):
    """Where the goniometer stands."""

    theta_deg: float
    x_um: float
    z_um: float


def check_clearance(
    configuration: Configuration,
    measurement: Measurement,
    inside: Pose,
    begin: Pose | None = None,
) -> None:
    """Refuse a measurement in which the holder would touch something, at a tilt or on the way to the next.

    All axes move at once, so the largest tilt and displacement before and after a move count together.

    Parameters
    ----------
    inside
        Where the sample is in the beam; its tilt does not matter.
    begin
        Where the goniometer stands now, and comes back to; not looked at if it is None.

    Raises
    ------
    PlanError
        Naming the first tilt that is too steep.
    """
    outside = configuration.sample_position
    for phi_deg in measurement.azimuths_deg:
        states = [
            Pose(step.theta_deg, inside.x_um, inside.z_um)
            if step.shows_sample
            else Pose(step.theta_deg, outside.out_x_um, outside.out_z_um)
            for step in steps(measurement, phi_deg)
            if step.stream != "dark"
        ]
        around = [] if begin is None else [begin]
        for before, after in pairwise((*around, states[0], *states, *around)):
            check_reach(configuration, before, after)


def check_reach(configuration: Configuration, *states: Pose) -> None:
    """Refuse a move between states of the goniometer on which the holder would touch something.

    Raises
    ------
    PlanError
        With how far it would reach, and how much is free.
    """
    clearance = configuration.clearance
    theta_deg, x_um, z_um = (max(values, key=abs) for values in zip(*states, strict=True))
    reach_um = clearance.reach_um(theta_deg, x_um, z_um)
    if reach_um > clearance.free_um:
        raise PlanError(
            f"theta: at {theta_deg:g} deg the holder would reach {reach_um:.0f} um along the beam, "
            f"{clearance.free_um:g} um are free ([clearance] in the configuration); tilt less, or "
            "move the sample nearer to the axis"
        )


def check_series(series: str) -> None:
    """Refuse the name of a series that cannot be that of a folder.

    Raises
    ------
    PlanError
        If it is empty, contains ``/``, begins with ``.`` or has characters that cannot be printed.
    """
    if not series.isprintable() or "/" in series or series[:1] in ("", "."):
        raise PlanError(
            f"series {series!r}: expected the name of a folder, without '/' and no '.' at its begin"
        )


def disk_trouble(folder: Path, needed_bytes: int) -> str:
    """Say in one line if a disk has less room than is needed; empty where it has, or the folder is not here."""
    try:
        free_bytes = shutil.disk_usage(folder).free
    except FileNotFoundError:  # it is made with the first file
        return ""
    if free_bytes >= needed_bytes:
        return ""
    return f"{folder}: {told_size(free_bytes)} are free, the next angles need {told_size(needed_bytes)}; make room"

"""Figures of topological charges, in the style of module `figures`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mistral_txm.reconstruction.topology import ChargeProfile, PlanarProfile
from mistral_txm.services.drawing import line_colours, new_figure, open_frame, plain
from mistral_txm.services.spot_charges import ChargeWithDepth


def charge_figure(
    profiles: Sequence[tuple[str, NDArray[Any], NDArray[Any], NDArray[Any]]],
    true_charges: Sequence[float] = (),
) -> Figure:
    """Topological charge inside a box around each singularity against the side of the box.

    Args:
        profiles: for each singularity its name, box sides in nm, Q of the boxes by solid angles (an
            integer; drawn as markers) and by finite differences (drawn as a line); NaN where a box
            leaves the field.
        true_charges: charges of the true singularities, drawn as dotted lines.
    """
    figure = new_figure(7.6, 3.4)
    axes = figure.subplots()
    for level in (-1, 0, 1):
        axes.axhline(level, color="0.85", linewidth=0.8, zorder=0)
    for number, charge in enumerate(sorted(set(true_charges))):
        label = None if number else "charge of a true singularity"
        axes.axhline(charge, color="0.2", linewidth=1.0, linestyle=":", label=label, zorder=1)
    for (name, side_nm, lattice, flux), colour in zip(
        profiles, line_colours(len(profiles)), strict=True
    ):
        axes.plot(side_nm, lattice, linestyle="none", marker="o", markersize=4, color=colour)
        axes.plot(side_nm, flux, color=colour, linewidth=1.2, label=name)
    axes.set_xlabel("side of the box (nm)")
    axes.set_ylabel("charge Q inside (1)")
    axes.set_title("charge against box side")
    axes.set_ylim(min(axes.get_ylim()[0], -1.2), max(axes.get_ylim()[1], 1.2))
    figure.legend(loc="outside right upper")
    open_frame(axes)
    return figure


def box_profile_figure(profile: ChargeProfile, centre_nm: float, width_nm: float | None) -> Figure:
    """Charge of boxes that move along a line through a singularity, a line for each side of the box.

    Args:
        profile: of `topology.charge_profile`, by finite differences.
        centre_nm: where the singularity was found on that line.
        width_nm: 10-90 % width of the edges of the largest box, if it has one; named in the title.
    """
    figure = new_figure(7.6, 3.2)
    axes = figure.subplots()
    for level in (-1, 0, 1):
        axes.axhline(level, color="0.85", linewidth=0.8, zorder=0)
    axes.axvline(0.0, color="0.2", linewidth=1.0, linestyle=":", zorder=1)
    for side_nm, charge_p, colour in zip(
        profile.side_nm, profile.charge_sp, line_colours(len(profile.side_nm)), strict=True
    ):
        if not np.isfinite(charge_p).any():
            continue
        label = f"box of {plain(float(side_nm))} nm"
        offset_nm = profile.position_nm - centre_nm
        axes.plot(offset_nm, charge_p, color=colour, linewidth=1.2, label=label)
    edge = "" if width_nm is None else f", edges {plain(width_nm)} nm wide"
    axes.set_title(f"charge of a box against its place{edge}")
    axes.set_xlabel(f"{profile.axis} of the box, from the singularity (nm)")
    axes.set_ylabel("charge Q inside (1)")
    axes.set_ylim(min(axes.get_ylim()[0], -1.2), max(axes.get_ylim()[1], 1.2))
    figure.legend(loc="outside right upper")
    open_frame(axes)
    return figure


def planar_profile_figure(profiles: Sequence[tuple[str, float, PlanarProfile]]) -> Figure:
    """Planar charge of squares that move along a line, with the spread of squares without a singularity.

    Args:
        profiles: for each line its name, where the singularity was found on it, and the charges.
    """
    figure = new_figure(7.6, 3.2)
    axes = figure.subplots()
    for level in (-0.5, 0, 0.5):
        axes.axhline(level, color="0.85", linewidth=0.8, zorder=0)
    for (name, centre_nm, profile), colour in zip(
        profiles, line_colours(len(profiles)), strict=True
    ):
        offset_nm = profile.position_nm - centre_nm
        axes.plot(offset_nm, profile.charge_p, color=colour, linewidth=1.2, label=name)
        low, high = profile.charge_p - profile.std, profile.charge_p + profile.std
        axes.fill_between(offset_nm, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_title(f"planar charge of a square of {plain(profiles[0][2].side_nm)} nm")
    axes.set_xlabel(f"{profiles[0][2].axis} of the square, from the singularity (nm)")
    axes.set_ylabel("planar charge (1)")
    axes.set_ylim(min(axes.get_ylim()[0], -0.7), max(axes.get_ylim()[1], 0.7))
    figure.legend(loc="outside right upper")
    open_frame(axes)
    return figure


def depth_figure(spots: Sequence[tuple[str, ChargeWithDepth]]) -> Figure:
    """Planar charge of discs against the height of the slice, with what noise makes of it as bars.

    Args:
        spots: for each its name and `spot_charges.charge_with_depth`.
    """
    figure = new_figure(7.6, 3.6)
    axes = figure.subplots()
    for level in (-1, -0.5, 0, 0.5, 1):
        axes.axhline(level, color="0.85", linewidth=0.8, zorder=0)
    for (name, profile), colour in zip(spots, line_colours(len(spots)), strict=True):
        axes.errorbar(
            profile.z_nm,
            profile.charge_z,
            profile.std_z,
            color=colour,
            marker="o",
            markersize=3,
            linewidth=1.0,
            elinewidth=0.8,
            capsize=1.5,
            label=name,
        )
    axes.set_xlabel("z of the slice (nm)")
    axes.set_ylabel("planar charge (1)")
    axes.set_title("planar charge slice by slice")
    charges = np.concatenate([profile.charge_z for _, profile in spots])
    axes.set_ylim(np.nanmin(charges, initial=0.0) - 0.2, np.nanmax(charges, initial=0.0) + 0.2)
    figure.legend(loc="outside right upper")
    open_frame(axes)
    return figure


def streamline_figure(lines: Sequence[NDArray[Any]], centre_nm: Sequence[float]) -> Figure:
    """Streamlines of the emergent field around a Bloch point, those that end above it and below it in two colours.

    Args:
        lines: of `topology.streamlines`, each (points, 3) in nm.
        centre_nm: the Bloch point (x, y, z).
    """
    figure = new_figure(5.4, 4.4)
    axes: Any = figure.add_subplot(projection="3d")
    below, above = line_colours(2)
    offsets = [line - np.asarray(centre_nm) for line in lines if len(line) > 1]
    for off in offsets:
        farthest = off[np.argmax(np.linalg.norm(off, axis=1))]
        axes.plot(*off.T, color=above if farthest[2] > 0 else below, linewidth=0.9)
    axes.scatter([0], [0], [0], s=50, color="black", depthshade=False)
    reach = np.max([np.abs(off).max(axis=0) for off in offsets], axis=0)
    reach = np.array([max(reach[:2]), max(reach[:2]), reach[2]])
    axes.set(xlim=(-reach[0], reach[0]), ylim=(-reach[1], reach[1]), zlim=(-reach[2], reach[2]))
    axes.set_box_aspect(reach)
    axes.locator_params(axis="z", nbins=4)
    axes.set_xlabel("x from it (nm)")
    axes.set_ylabel("y from it (nm)")
    axes.set_zlabel("z from it (nm)")
    axes.set_title("emergent field around the Bloch point")
    return figure

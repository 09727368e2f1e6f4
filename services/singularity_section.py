"""The report's section on singularities: what was found, and the charges along lines through it."""

from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction import topology
from mistral_txm.services import topology_figures
from mistral_txm.services.drawing import plain
from mistral_txm.services.report_parts import (
    LISTED,
    Drawn,
    Section,
    Subject,
    Table,
    charge_text,
    counted,
    position_text,
    words,
)
from mistral_txm.services.truth import FoundSingularity, in_layers

_PROFILED = 4
_LARGEST_BOX_NM = 250.0
_LINE_BOX_CELLS = (2, 3, 4, 5, 6, 8)
_SQUARE_NM = 210.0
_LINE_REACH_NM = 300.0
_STREAM_REACH_NM = 150.0
_SEED_RADIUS_NM = 30.0
_SEEDS = 40


def singularity_section(subject: Subject) -> Section:
    """List the singularities, compare them with the truth where there is one, and draw their charges."""
    section = Section("Singularities")
    where = "in the magnetic layers" if subject.layers_nm else "in the whole volume"
    n_points = sum(point.kind == "Bloch point" for point in subject.seen)
    n_merons = len(subject.seen) - n_points
    n_outside = len(subject.found) - len(subject.seen)
    section.paragraphs.append(
        f"Searched {where}: {counted(n_points, 'Bloch point')} and "
        f"{counted(n_merons, 'meron')} found. The charge of a Bloch point is that of a closed "
        "surface around it (an integer), the charge of a meron that of a disc in the middle slice "
        "of its layer. The radius is that of the smallest surface or disc that holds the charge."
        + (
            f" {counted(n_outside, 'more lies', 'more lie')} within {subject.margin_nm:.0f} nm of the border of the "
            "field, where not all views look, and count for nothing."
            if n_outside
            else ""
        )
    )
    if subject.comparison is not None and (
        subject.comparison["singularities"]["true"] or subject.comparison["singularities"]["found"]
    ):
        section.tables.append(_matched_table(subject))
    elif subject.seen:
        section.tables.append(_found_table(subject))
    if len(subject.seen) > LISTED and subject.comparison is None:
        section.paragraphs.append(f"The {LISTED} strongest of {len(subject.seen)} are listed.")
    profiles = _profiles(subject)
    if profiles:
        section.figures.append(
            subject.draw(
                "charge",
                topology_figures.charge_figure(
                    profiles, [p.charge for p in subject.points.true if abs(p.charge) >= 0.75]
                ),
                "Charge inside a cube around each Bloch point found, against the side of the cube. "
                "Markers: summed solid angles, an integer; lines: finite differences, as usual in "
                "the literature. A line ends where the cube leaves the magnetic material.",
            )
        )
    section.figures += _lines(subject)
    return section


def _found_table(subject: Subject) -> Table:
    """List what was found, with how sure the live reconstruction was of it where the volume is its last one."""
    told = subject.measured.status.get("singularities") if subject.measured is not None else None
    sureness = {
        (one["kind"], position_text(one)): f"{one['sureness']:.0%}"
        for one in told or ()
        if "sureness" in one
    }
    rows = []
    for number, point in enumerate(subject.seen[:LISTED], start=1):
        place = position_text(asdict(point))
        row = (f"{number}. {point.kind}", place, charge_text(point.charge), plain(point.radius_nm))
        rows.append((*row, sureness.get((point.kind, place), "–")) if sureness else row)
    head = ("", "(x, y, z) nm", "Q", "radius (nm)")
    return Table("Found", rows, (*head, "in the last volumes") if sureness else head)


def _matched_table(subject: Subject) -> Table:
    assert subject.comparison is not None
    judged = subject.comparison["singularities"]
    rows = [
        (
            words(pair["true"]["kind"]),
            position_text(pair["true"]),
            charge_text(pair["true"]["charge"]),
            position_text(pair["found"]),
            charge_text(pair["found"]["charge"]),
            plain(pair["distance_nm"]),
        )
        for pair in judged["matched"]
    ]
    rows += [
        (
            words(point["kind"]),
            position_text(point),
            charge_text(point["charge"]),
            "missed",
            "–",
            "–",
        )
        for point in judged["missed"]
    ]
    rows += [
        ("not in the truth", "–", "–", position_text(point), charge_text(point["charge"]), "–")
        for point in judged["false"][:LISTED]
    ]
    more = len(judged["false"]) - LISTED
    if more > 0:
        rows.append((f"and {more} more not in the truth", "–", "–", "–", "–", "–"))
    return Table(
        f"True and found, matched within {plain(judged['within_nm'])} nm, "
        f"{subject.comparison['margin_nm']:.0f} nm off the border of the field",
        rows,
        ("", "true (x, y, z) nm", "true Q", "found (x, y, z) nm", "found Q", "distance (nm)"),
    )


def _profiles(
    subject: Subject,
) -> list[tuple[str, NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Charge against box side of the strongest Bloch points, on the part of the field around
    each."""
    voxel_nm = subject.volume.voxel_nm
    m_czyx = in_layers(subject.volume, subject.layers_nm)
    largest = int(_LARGEST_BOX_NM / voxel_nm)
    profiles = []
    for point in [p for p in subject.seen if p.kind == "Bloch point"][:_PROFILED]:
        block, centre_nm = _around(m_czyx, voxel_nm, point, largest // 2 + 2)
        sides_nm = np.arange(2, largest + 1) * voxel_nm
        charges: dict[str, list[float]] = {"lattice": [], "flux": []}
        for side_nm in sides_nm:
            for form, charge in (("lattice", topology.box_charge), ("flux", topology.box_flux)):
                try:
                    charges[form].append(
                        float(charge(block, voxel_nm, center_nm=centre_nm, side_nm=float(side_nm)))
                    )
                except ValueError:  # the box leaves the block, or the magnetic material
                    charges[form].append(np.nan)
        name = f"at ({position_text(asdict(point))}) nm"
        profiles.append((name, sides_nm, np.array(charges["lattice"]), np.array(charges["flux"])))
    return profiles


def _around(
    m_czyx: NDArray[np.float32], voxel_nm: float, point: FoundSingularity, reach: int
) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    """The part of a field around a point, and where in it the point is, from its centre."""
    axes: tuple[Literal["z", "y", "x"], ...] = ("z", "y", "x")
    slices, centre_nm = [], []
    for axis, n in zip(axes, m_czyx.shape[1:], strict=True):
        position = getattr(point, f"{axis}_nm") / voxel_nm + (n - 1) / 2
        first, last = max(0, round(position) - reach), min(n, round(position) + reach + 1)
        slices.append(slice(first, last))
        centre_nm.append((position - (first + last - 1) / 2) * voxel_nm)
    z_nm, y_nm, x_nm = centre_nm
    return m_czyx[(slice(None), *slices)], (x_nm, y_nm, z_nm)


def _lines(subject: Subject) -> list[Drawn]:
    """Charges along lines through the strongest Bloch point and merons, and the field around that Bloch point."""
    voxel_nm = subject.volume.voxel_nm
    m_czyx = in_layers(subject.volume, subject.layers_nm)
    bloch_points = [p for p in subject.seen if p.kind == "Bloch point"]
    drawn = []
    if bloch_points:
        first = bloch_points[0]
        reach = int(_LINE_REACH_NM / voxel_nm)
        block, (x_nm, y_nm, z_nm) = _around(m_czyx, voxel_nm, first, reach)
        profile = topology.charge_profile(
            block,
            voxel_nm,
            center_nm=(x_nm, y_nm, z_nm),
            sides_nm=[cells * voxel_nm for cells in _LINE_BOX_CELLS],
        )
        if np.isfinite(profile.charge_sp).any():
            largest = max(np.flatnonzero(np.isfinite(profile.charge_sp).any(axis=1)))
            try:
                width_nm = topology.edge_width_nm(profile.position_nm, profile.charge_sp[largest])
            except ValueError:  # the box leaves the magnetic material before its edge
                width_nm = None
            figure = topology_figures.box_profile_figure(profile, x_nm, width_nm)
            caption = (
                f"Charge of boxes that move along x through the Bloch point at ({position_text(asdict(first))}) nm, "
                "by finite differences, as far as they fit into the magnetic material. Dotted: the Bloch point."
            )
            drawn.append(subject.draw("charge_along_x", figure, caption))
        drawn += _streamlines(subject, block, (x_nm, y_nm, z_nm))
    drawn += _squares_along_x(subject, m_czyx)
    return drawn


def _streamlines(
    subject: Subject, block: NDArray[np.float32], centre_nm: tuple[float, float, float]
) -> list[Drawn]:
    """Streamlines through points evenly spread on a sphere around a Bloch point (a golden spiral)."""
    voxel_nm = subject.volume.voxel_nm
    if min(block.shape[1:]) < 3:
        return []
    number = np.arange(_SEEDS) + 0.5
    height, turn = 1 - 2 * number / _SEEDS, np.pi * (1 + np.sqrt(5)) * number
    across = np.sqrt(1 - height**2)
    sphere = np.column_stack([across * np.cos(turn), across * np.sin(turn), height])
    lines = topology.streamlines(
        topology.emergent_field(block, voxel_nm),
        voxel_nm,
        np.asarray(centre_nm) + _SEED_RADIUS_NM * sphere,
        length_nm=2 * _STREAM_REACH_NM,
    )
    if not any(len(line) > 1 for line in lines):
        return []
    figure = topology_figures.streamline_figure(lines, centre_nm)
    caption = (
        "Streamlines of the emergent field through a sphere around that Bloch point, which is a source "
        "(Q = +1) or a sink (Q = −1) of it; in two colours by where they end, above or below. Lines end "
        "where the direction of m is undefined, at the latest at the layer's faces."
    )
    return [subject.draw("emergent_field", figure, caption)]


def _squares_along_x(subject: Subject, m_czyx: NDArray[np.float32]) -> list[Drawn]:
    """Planar charges of squares along x through the strongest merons."""
    profiles = []
    for point in [p for p in subject.seen if p.kind == "meron"][:_PROFILED]:
        centre_nm = (point.x_nm, point.y_nm, point.z_nm)
        try:
            profile = topology.planar_profile(
                m_czyx, subject.volume.voxel_nm, center_nm=centre_nm, side_nm=_SQUARE_NM
            )
        except ValueError:  # the square around a meron near the border leaves the slice
            continue
        at = int(np.argmin(np.abs(profile.position_nm - point.x_nm)))
        if not np.isfinite(profile.charge_p[at]):  # m is undefined somewhere in that square
            continue
        charge = f"{charge_text(float(profile.charge_p[at]))} ± {profile.std:.2f}"
        profiles.append((f"at ({position_text(asdict(point))}) nm: {charge}", point.x_nm, profile))
    if not profiles:
        return []
    caption = (
        "Planar charge of squares that move along x through each meron found, in the slice where it was found; the "
        "band is the spread (robust standard deviation) of all squares of that size in the slice, most of which "
        "hold no singularity."
    )
    figure = topology_figures.planar_profile_figure(profiles)
    return [subject.draw("planar_charge", figure, caption)]

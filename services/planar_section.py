"""The report's section on charges in the plane: layers, skyrmions, charges slice by slice, hopfions."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction import topology
from mistral_txm.reconstruction.planar_charges import PlanarCharge
from mistral_txm.services import topology_figures
from mistral_txm.services.drawing import plain
from mistral_txm.services.report_parts import (
    LISTED,
    Section,
    Subject,
    Table,
    charge_text,
    counted,
    number_text,
    position_text,
)
from mistral_txm.services.spot_charges import (
    ChargeWithDepth,
    Core,
    centred_on_cores,
    charge_with_depth,
    nearest_distances_nm,
)
from mistral_txm.services.truth import FoundSingularity, in_layers

_DRAWN = 6
"""Spots whose charge is drawn slice by slice."""
_DRAWN_BLOCH_POINTS = 2
_DISC_NM = 105.0
"""Radius of the disc about a Bloch point whose planar charge is drawn."""


def planar_section(subject: Subject) -> Section | None:
    """Tell the charges of layers and of what is localised in them, and the Hopf index."""
    voxel_nm = subject.volume.voxel_nm
    m_czyx = in_layers(subject.volume, subject.layers_nm)
    layers = topology.layer_charges(m_czyx, voxel_nm)
    centred = centred_on_cores(m_czyx, voxel_nm, topology.find_merons(m_czyx, voxel_nm))
    placed = [
        (_with_charge(m_czyx, voxel_nm, spot, layer), core, layer)
        for spot, core in centred
        if subject.is_seen(spot)
        if (layer := _layer_of(spot, layers)) is not None
    ]
    placed.sort(key=lambda one: -abs(one[0].charge or 0.0))
    spots = [spot for spot, _, _ in placed]
    section = Section("Charges in the plane")
    section.paragraphs.append(
        "The planar charge is the solid angle that m covers over a part of a slice, divided by 4π: −1 or +1 for a "
        "skyrmion, about ±1/2 for a meron. Standard deviations are what the noise of the volume, stated by the "
        "reconstruction and taken as independent from voxel to voxel, makes of a charge; what a prior or the missing "
        "tilts do to it is not in them."
    )
    with_depth = [
        (spot, core, charge_with_depth(m_czyx, subject.volume.std, voxel_nm, spot, layer))
        for spot, core, layer in placed[:LISTED]
    ]
    if layers:
        section.tables.append(_layers(layers, spots))
    if any(spot.kind == "skyrmion" for spot in spots):
        section.tables.append(_skyrmions(subject, [(spot, core) for spot, core, _ in placed]))
    bloch_points = [
        (f"Bloch point at ({position_text(asdict(point))}) nm", disc, layer)
        for point in subject.seen
        if point.kind == "Bloch point"
        if (layer := _layer_of(disc := _disc_about(point), layers)) is not None
    ]
    drawn = [
        (name, charge_with_depth(m_czyx, subject.volume.std, voxel_nm, disc, layer))
        for name, disc, layer in bloch_points[:_DRAWN_BLOCH_POINTS]
    ]
    drawn += [
        (f"{spot.kind} at ({position_text(_place(spot))}) nm", profile)
        for spot, _, profile in with_depth[: _DRAWN - len(drawn)]
    ]
    if with_depth:
        section.tables.append(_spots(with_depth, len(spots)))
    if drawn:
        section.figures.append(
            subject.draw(
                "charge_with_depth",
                topology_figures.depth_figure(drawn),
                "Planar charge of the disc about the strongest Bloch points, merons and skyrmions in each slice of "
                "their layer. Bars: standard deviation from noise. A texture that does not change with depth keeps "
                "its charge; it jumps by the charge of a Bloch point where there is one. Slices at the faces of a "
                "layer are the least certain.",
            )
        )
    section.tables += _against_truth(subject)
    index, reason = _hopf_index(m_czyx, voxel_nm, layers)
    section.paragraphs.append(
        f"Hopf index of what is in the layer: {number_text(index, 2)} (a whole number for a hopfion)."
        if index is not None
        else f"No Hopf index: {reason}."
    )
    return section if layers else None


def _layer_of(spot: PlanarCharge, layers: Sequence[PlanarCharge]) -> PlanarCharge | None:
    for layer in layers:
        faces_nm = layer.z0_nm, layer.z1_nm
        if None not in faces_nm and (layer.z0_nm or 0) <= spot.z_nm <= (layer.z1_nm or 0):
            return layer
    return None


def _with_charge(
    m_czyx: NDArray[np.float32], voxel_nm: float, spot: PlanarCharge, layer: PlanarCharge
) -> PlanarCharge:
    """Return a spot with the charge of its disc as it is now; unchanged where m is undefined there."""
    profile = charge_with_depth(m_czyx, None, voxel_nm, spot, layer)
    charge = float(profile.charge_z[np.argmin(np.abs(profile.z_nm - spot.z_nm))])
    return replace(spot, charge=charge) if np.isfinite(charge) else spot


def _disc_about(point: FoundSingularity) -> PlanarCharge:
    return PlanarCharge("meron", point.z_nm, None, point.x_nm, point.y_nm, _DISC_NM)


def _place(spot: PlanarCharge) -> dict[str, float]:
    return {name: float(asdict(spot)[name] or 0.0) for name in ("x_nm", "y_nm", "z_nm")}


def _layers(layers: Sequence[PlanarCharge], spots: Sequence[PlanarCharge]) -> Table:
    rows = []
    for layer in layers:
        here = [spot for spot in spots if _layer_of(spot, [layer]) is not None]
        kinds = [sum(spot.kind == kind for spot in here) for kind in ("skyrmion", "meron")]
        rows.append(
            (
                f"{plain(layer.z0_nm or 0)} to {plain(layer.z1_nm or 0)} nm",
                "m undefined somewhere" if layer.charge is None else charge_text(layer.charge),
                *(str(count) for count in kinds),
            )
        )
    head = ("layer", "charge of its middle slice", "skyrmions", "merons")
    return Table("Layers", rows, head)


def _skyrmions(subject: Subject, spots: Sequence[tuple[PlanarCharge, Core | None]]) -> Table:
    cores = [core for _, core in spots if core is not None]
    charges = np.array([spot.charge for spot, _ in spots if spot.kind == "skyrmion"], dtype=float)
    _, n_y, n_x = subject.volume.mx.shape
    sides_um = [(n * subject.volume.voxel_nm - 2 * subject.margin_nm) / 1e3 for n in (n_x, n_y)]
    rows = [
        ("number, of charge −1 and +1", f"{(charges < 0).sum()} and {(charges > 0).sum()}"),
        ("density (1/µm²)", f"{charges.size / (sides_um[0] * sides_um[1]):.2f}"),
        ("charge, mean and standard deviation", _mean(charges, 3)),
    ]
    if cores:
        radii_nm = np.array([core.radius_nm for core in cores])
        rows.append(("radius of the core, m_z = 0 (nm)", _mean(radii_nm, 0)))
    apart_nm = nearest_distances_nm(cores)
    if apart_nm.size:
        rows.append(("distance to the nearest (nm)", _mean(apart_nm, 0)))
    return Table("Skyrmions where all views look", rows, ("", "value"))


def _mean(values: NDArray[np.float64], digits: int) -> str:
    return f"{values.mean():.{digits}f} ± {values.std():.{digits}f}".replace("-", "−")


def _spots(
    with_depth: Sequence[tuple[PlanarCharge, Core | None, ChargeWithDepth]], number: int
) -> Table:
    rows = []
    for spot, core, profile in with_depth:
        at = int(np.argmin(np.abs(profile.z_nm - spot.z_nm)))
        charge = charge_text(spot.charge or 0.0)
        if profile.std_z is not None and np.isfinite(profile.std_z[at]):
            charge = f"{spot.charge:+.3f} ± {profile.std_z[at]:.3f}".replace("-", "−")
        rows.append(
            (
                spot.kind,
                position_text(_place(spot)),
                charge,
                "–" if core is None else f"{core.radius_nm:.0f}",
                plain(spot.radius_nm or 0.0),
            )
        )
    head = ("", "(x, y, z) nm", "planar Q", "core radius (nm)", "disc radius (nm)")
    return Table(f"The strongest {len(rows)} of {number}", rows, head)


def _against_truth(subject: Subject) -> list[Table]:
    if subject.comparison is None:
        return []
    tables = []
    skyrmions: dict[str, Any] = subject.comparison["skyrmions"]
    if skyrmions["true"]:
        rows = [
            ("true ones, inside the margin", str(skyrmions["true"])),
            ("with the right charge in the volume", str(skyrmions["recovered"])),
            ("mean error of the charge", number_text(skyrmions["mean_charge_error"], 3)),
        ]
        tables.append(Table("Skyrmions against the truth", rows, ("", "value")))
    hopfions: dict[str, Any] = subject.comparison["hopfions"]
    if hopfions["true"]:
        rows = [
            (
                f"Hopf index {charge_text(round(one['true']['charge'], 3))} at "
                f"({position_text(one['true'])}) nm",
                number_text(one["hopf_index"], 2)
                if one["hopf_index"] is not None
                else _first_part(one["reason"]),
            )
            for one in hopfions["compared"]
        ]
        tables.append(Table("Hopfions against the truth", rows))
    return tables


def _hopf_index(
    m_czyx: NDArray[np.float32], voxel_nm: float, layers: Sequence[PlanarCharge]
) -> tuple[float | None, str]:
    """Return the Hopf index of the field within its only layer, or why there is none."""
    if len(layers) != 1:
        return None, f"there are {counted(len(layers), 'layer')}, and it is that of one"
    (layer,) = layers
    n_z = m_czyx.shape[1]
    z_nm = (np.arange(n_z) - (n_z - 1) / 2) * voxel_nm
    low_nm, high_nm = layer.z0_nm or 0.0, layer.z1_nm or 0.0
    inside = (z_nm >= low_nm - voxel_nm / 4) & (z_nm <= high_nm + voxel_nm / 4)
    try:
        return topology.hopf_index(m_czyx[:, inside]), ""
    except ValueError as refusal:
        return None, _first_part(refusal)


def _first_part(refusal: object) -> str:
    """Return why there is no Hopf index, without what to do about it in a program."""
    return str(refusal).removeprefix("Hopf index: ").split(";", maxsplit=1)[0]

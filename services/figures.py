"""The figures of frames and volumes: matplotlib figures from arrays, one function a figure, nothing
read and nothing written.

Every figure is made with the object interface (no global figure list), so that it can be made in
any thread. Lateral axes are in um, heights in nm, both from the centre of the volume; images are
drawn with the second lateral axis upwards. Magnetization is drawn with a diverging map and
symmetric limits, its in-plane direction with a cyclic map and arrows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mistral_txm.services.drawing import (
    SIGNED_MAP,
    colour_bar,
    direction_rgb,
    extent_um,
    image_upwards,
    new_figure,
    plain,
    scale_bar,
)
from mistral_txm.services.fields import Field, Points

COMPONENTS = ("mx", "my", "mz")
COMPONENT_NAMES = ("$m_x$", "$m_y$", "$m_z$")


def frames_figure(
    frame_vu: NDArray[Any],
    absorption_vu: NDArray[Any],
    dichroic_vu: NDArray[Any],
    pixel_nm: float,
    view: str,
) -> Figure:
    """One raw frame, and the absorption and the dichroic signal of the angle it belongs to, as
    images ``[v, u]``.

    Args:
        frame_vu: counts.
        absorption_vu: (A(+) + A(-)) / 2.
        dichroic_vu: (A(+) - A(-)) / 2.
        pixel_nm: pixel size in the sample.
        view: the view in words, for the title.
    """
    figure = new_figure(10.6, 3.75)
    figure.suptitle(view)
    raw, absorption, dichroic = figure.subplots(1, 3)
    for axes, image_vu, title, unit in (
        (raw, frame_vu, "raw frame", "counts"),
        (absorption, absorption_vu, "absorption $(A_+ + A_-)/2$", "absorbance"),
    ):
        low, high = np.nanpercentile(image_vu, (0.5, 99.5))
        drawn = image_upwards(
            axes, image_vu, cmap="gray", vmin=low, vmax=high, extent=extent_um(image_vu, pixel_nm)
        )
        colour_bar(figure, drawn, axes, unit, extend="both")
        axes.set_title(title)
    limit = float(np.nanpercentile(np.abs(dichroic_vu), 99.5)) or 1.0
    drawn = image_upwards(
        dichroic,
        dichroic_vu,
        cmap=SIGNED_MAP,
        vmin=-limit,
        vmax=limit,
        extent=extent_um(dichroic_vu, pixel_nm),
    )
    colour_bar(figure, drawn, dichroic, "absorbance", extend="both")
    dichroic.set_title("dichroic signal $(A_+ - A_-)/2$")
    for axes in (raw, absorption, dichroic):
        axes.set_xlabel("u (µm)")
        scale_bar(axes)
    raw.set_ylabel("v (µm)")
    return figure


def components_figure(
    volume: Field, z_nm: float, title: str, truth: Field | None = None, points: Points | None = None
) -> Figure:
    """The three components in the slice at a height, beside the true ones and the difference if
    these are given.

    Args:
        volume: the reconstructed field.
        z_nm: height of the slice from the middle of the film.
        title: what the slice is.
        truth: the true field on the same grid.
        points: singularities to mark in the slices of m_z, those within 40 nm of the slice.
    """
    columns = _columns(volume, truth)
    extent = extent_um(volume.m_czyx[0, 0], volume.voxel_nm)
    # With a truth a row is a component; without one the three stand side by side.
    figure = new_figure(9.6, 8.6) if truth is not None else new_figure(10.6, 3.75)
    figure.suptitle(f"{title}, slice at z = {plain(z_nm)} nm")
    grid = (
        figure.subplots(3, 3, sharex=True, sharey=True)
        if truth is not None
        else figure.subplots(1, 3)
    )
    panels = np.atleast_2d(grid) if truth is not None else np.reshape(grid, (3, 1))
    k = volume.index_of(z_nm, "z")
    drawn: Any = None
    for c, name in enumerate(COMPONENT_NAMES):
        for (column, m_czyx), axes in zip(columns, panels[c], strict=True):
            drawn = image_upwards(
                axes,
                m_czyx[c, k],
                cmap=SIGNED_MAP,
                vmin=-volume.limit,
                vmax=volume.limit,
                extent=extent,
            )
            if truth is None:
                axes.set_title(name)
            elif c == 0:
                axes.set_title(column)
        if truth is not None:
            panels[c, 0].set_ylabel(f"{name}      y (µm)")
    if truth is None:
        panels[0, 0].set_ylabel("y (µm)")
    for axes in panels[-1] if truth is not None else panels[:, 0]:
        axes.set_xlabel("x (µm)")
    for axes in panels[2, : 2 if truth is not None else 1]:
        _mark(axes, points, z_nm, volume.voxel_nm)
    scale_bar(panels[0, 0])
    figure.colorbar(drawn, ax=panels.ravel().tolist(), label=volume.label, shrink=0.6, pad=0.015)
    return figure


def direction_figure(
    volume: Field,
    slices_nm: Sequence[tuple[str, float]],
    truth: Field | None = None,
    points: Points | None = None,
) -> Figure:
    """In-plane direction in slices: the angle of (m_x, m_y) as colour, the vector as arrows, a
    wheel as the key.

    Arrows are scaled in each panel, so that the direction can be read where the amplitude is low.
    Grey where the in-plane part is shorter than a tenth of the colour limit of the components: it
    has no direction.

    Args:
        volume: the reconstructed field.
        slices_nm: name and height of each slice, one row each.
        truth: the true field on the same grid, drawn in a second column.
        points: singularities to mark, those within 40 nm of a slice.
    """
    columns = _columns(volume, truth)[:2]
    n_rows, n_columns = len(slices_nm), len(columns)
    figure = new_figure(4.3 * n_columns + 1.7, 4.1 * n_rows + 0.35, "constrained")
    layout = figure.add_gridspec(n_rows, n_columns + 1, width_ratios=[*[4.3] * n_columns, 1.5])
    figure.suptitle("in-plane direction")
    for row, (name, z_nm) in enumerate(slices_nm):
        for column, (title, m_czyx) in enumerate(columns):
            axes = figure.add_subplot(layout[row, column])
            _draw_direction(axes, m_czyx[:, volume.index_of(z_nm, "z")], volume)
            axes.set_title(f"{name}, z = {plain(z_nm)} nm: {title}")
            axes.set_xlabel("x (µm)")
            axes.set_ylabel("y (µm)")
            scale_bar(axes)
            _mark(axes, points, z_nm, volume.voxel_nm)
    _colour_wheel(figure, layout[0, n_columns])
    return figure


def section_figure(
    volume: Field,
    y_nm: float,
    centre_x_nm: float,
    title: str,
    layers_nm: Sequence[tuple[float, float]] = (),
    truth: Field | None = None,
    points: Points | None = None,
) -> Figure:
    """Cross-section xz of the three components, with arrows of (m_x, m_z), beside the truth and the
    difference.

    Args:
        volume: the reconstructed field.
        y_nm: where the section is.
        centre_x_nm: middle of the part that is shown; its width is three to four times the height
            of the volume.
        title: what the section goes through.
        layers_nm: lower and upper face of each magnetic layer, drawn as dashed lines.
        truth: the true field on the same grid.
        points: singularities to mark, those within 40 nm of the section.
    """
    columns = _columns(volume, truth)
    x_nm, z_nm = volume.centres_nm("x"), volume.centres_nm("z")
    half_width_nm = min(1.75 * z_nm.size, x_nm.size / 2) * volume.voxel_nm
    edge_nm = x_nm.size * volume.voxel_nm / 2
    middle_nm = float(np.clip(centre_x_nm, half_width_nm - edge_nm, edge_nm - half_width_nm))
    shown_x = np.abs(x_nm - middle_nm) <= half_width_nm
    x_nm = x_nm[shown_x]
    half = volume.voxel_nm / 2
    extent = (x_nm[0] - half, x_nm[-1] + half, z_nm[0] - half, z_nm[-1] + half)
    panel_width = 3.3 if truth is not None else 5.4
    panel_height = panel_width * (extent[3] - extent[2]) / (extent[1] - extent[0])
    figure = new_figure(panel_width * len(columns) + 1.5, 3 * (panel_height + 0.22) + 1.1)
    figure.suptitle(f"{title}, section at y = {plain(y_nm)} nm")
    panels = figure.subplots(3, len(columns), sharex=True, sharey=True, squeeze=False)
    j = volume.index_of(y_nm, "y")
    drawn: Any = None
    for c, name in enumerate(COMPONENT_NAMES):
        for (column, m_czyx), axes in zip(columns, panels[c], strict=True):
            part_czx = m_czyx[:, :, j, shown_x]
            drawn = image_upwards(
                axes,
                part_czx[c],
                cmap=SIGNED_MAP,
                vmin=-volume.limit,
                vmax=volume.limit,
                extent=extent,
            )
            for face_nm in {face for layer in layers_nm for face in layer}:
                axes.axhline(face_nm, color="black", linewidth=0.6, linestyle=(0, (4, 3)))
            if c == 0:
                axes.set_title(column)
        panels[c, 0].set_ylabel(f"{name}    z (nm)")
    for (_, m_czyx), axes in zip(columns[:2], panels[2], strict=False):
        part_czx = m_czyx[:, :, j, shown_x]
        step = max(1, round(part_czx.shape[2] / 26))
        offset = step // 2
        arrows = part_czx[:, offset::step, offset::step]
        axes.quiver(
            x_nm[offset::step],
            z_nm[offset::step],
            arrows[0] / volume.limit,
            arrows[2] / volume.limit,
            pivot="mid",
            angles="xy",
            scale_units="xy",
            scale=1 / (step * volume.voxel_nm),
            width=0.004,
            color="black",
        )
        _mark_section(axes, points, y_nm)
    for axes in panels[-1]:
        axes.set_xlabel("x (nm)")
    scale_bar(panels[0, 0], per_um=1000.0)
    figure.colorbar(drawn, ax=panels.ravel().tolist(), label=volume.label, shrink=0.8, pad=0.015)
    return figure


def _draw_direction(axes: Axes, m_cyx: NDArray[Any], volume: Field) -> None:
    limit, voxel_um = volume.limit, volume.voxel_nm * 1e-3
    image_upwards(
        axes,
        direction_rgb(m_cyx[0], m_cyx[1], 0.1 * limit),
        extent=extent_um(m_cyx[0], volume.voxel_nm),
    )
    step = max(1, round(max(m_cyx.shape[1:]) / 20))
    offset = step // 2
    longest = float(np.nanpercentile(np.hypot(m_cyx[0], m_cyx[1]), 95)) or 1.0
    y_um, x_um = ((np.arange(n)[offset::step] - (n - 1) / 2) * voxel_um for n in m_cyx.shape[1:])
    axes.quiver(
        x_um,
        y_um,
        m_cyx[0, offset::step, offset::step] / longest,
        m_cyx[1, offset::step, offset::step] / longest,
        pivot="mid",
        angles="xy",
        scale_units="xy",
        scale=1 / (step * voxel_um),
        width=0.006,
        color="white",
        edgecolor="black",
        linewidth=0.4,
    )


def _colour_wheel(figure: Figure, where: Any) -> None:
    axes = figure.add_subplot(where)
    axis = np.linspace(-1, 1, 241)
    mx, my = np.meshgrid(axis, axis)
    ring = (np.hypot(mx, my) <= 1) & (np.hypot(mx, my) >= 0.45)
    colours = np.concatenate([direction_rgb(mx, my, 0.0), ring[..., None].astype(float)], axis=2)
    image_upwards(axes, colours, extent=(-1, 1, -1, 1))
    axes.set_axis_off()
    for label, x, y in (("+x", 1.28, 0), ("+y", 0, 1.25), ("−x", -1.3, 0), ("−y", 0, -1.25)):
        axes.text(x, y, label, ha="center", va="center")
    axes.set_xlim(-1.6, 1.6)
    axes.set_ylim(-1.5, 1.5)


def _mark(axes: Axes, points: Points | None, z_nm: float, voxel_nm: float) -> None:
    """Mark the singularities within 40 nm (or a voxel and a half) of a slice; found: rings, true:
    crosses."""
    reach_nm = max(40.0, 1.5 * voxel_nm)
    points = points or Points()
    _scatter(
        axes,
        [(p.x_nm * 1e-3, p.y_nm * 1e-3) for p in points.found if abs(p.z_nm - z_nm) <= reach_nm],
        [(p.x_nm * 1e-3, p.y_nm * 1e-3) for p in points.true if abs(p.z_nm - z_nm) <= reach_nm],
    )


def _mark_section(axes: Axes, points: Points | None, y_nm: float) -> None:
    points = points or Points()
    _scatter(
        axes,
        [(p.x_nm, p.z_nm) for p in points.found if abs(p.y_nm - y_nm) <= 40.0],
        [(p.x_nm, p.z_nm) for p in points.true if abs(p.y_nm - y_nm) <= 40.0],
    )


def _scatter(
    axes: Axes, found: Sequence[tuple[float, float]], true: Sequence[tuple[float, float]]
) -> None:
    limits = axes.get_xlim(), axes.get_ylim()
    for width, colour in ((2.6, "white"), (1.2, "black")):
        if found:
            x, y = zip(*found, strict=True)
            axes.scatter(
                x, y, s=70, facecolors="none", edgecolors=colour, linewidths=width, zorder=5
            )
        if true:
            x, y = zip(*true, strict=True)
            axes.scatter(x, y, s=45, marker="x", color=colour, linewidths=width, zorder=6)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def _columns(volume: Field, truth: Field | None) -> list[tuple[str, NDArray[np.float32]]]:
    columns = [("reconstructed", volume.m_czyx)]
    if truth is not None:
        columns += [("true", truth.m_czyx), ("reconstructed − true", volume.m_czyx - truth.m_czyx)]
    return columns

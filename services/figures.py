"""The figures of the report: matplotlib figures from arrays, one function a figure, nothing read
and nothing written.

Every figure is made with the object interface (no global figure list), so that it can be made in
any thread. Lateral axes are in um, heights in nm, both from the centre of the volume; images are
drawn with the second lateral axis upwards. Magnetization is drawn with a diverging map and
symmetric limits, its in-plane direction with a cyclic map and arrows; all maps change in lightness,
and can be told apart by colour-blind people and in a grey print.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray

from mistral_txm.reconstruction.volume_file import Volume
from mistral_txm.services.truth import PointCharge

SIGNED_MAP = "RdBu_r"
CYCLIC_MAP = "twilight_shifted"
FRACTION_MAP = "cividis"
COMPONENTS = ("mx", "my", "mz")
COMPONENT_NAMES = ("$m_x$", "$m_y$", "$m_z$")
# Okabe and Ito's palette, without its yellow.
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

STYLE: Mapping[str, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "axes.linewidth": 0.7,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.direction": "out",
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.06,
    "figure.facecolor": "white",
    "mathtext.fontset": "dejavusans",
}


@dataclass(frozen=True)
class Field:
    """A vector field to draw: ``[component, z, y, x]``, its voxel in nm, and what one unit of it
    is.

    ``unit`` is empty for unit magnetization, and "1/nm" for a field in units of the dichroic
    signal.
    """

    m_czyx: NDArray[np.float32]
    voxel_nm: float
    unit: str = ""

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Voxels along z, y and x."""
        _, n_z, n_y, n_x = self.m_czyx.shape
        return n_z, n_y, n_x

    @property
    def limit(self) -> float:
        """Symmetric colour limit: 1 for unit magnetization, else what 99.5 % of the voxels stay
        below."""
        if not self.unit:
            return 1.0
        return float(np.nanpercentile(np.abs(self.m_czyx), 99.5)) or 1.0

    @property
    def label(self) -> str:
        """What the colour bar of a component says."""
        return (
            f"component of $m\\,\\delta$ ({self.unit})"
            if self.unit
            else "component of $m$ (unit vector)"
        )

    @property
    def strongest_height_nm(self) -> float:
        """Height of the slice with the largest sum of squares."""
        power_z = np.nansum(np.square(self.m_czyx, dtype=np.float64), axis=(0, 2, 3))
        return float(self.centres_nm("z")[int(np.argmax(power_z))])

    def index_of(self, position_nm: float, axis: Literal["z", "y", "x"]) -> int:
        """Index of the voxel that holds a position, the nearest one if it lies outside."""
        n = self.m_czyx.shape[1 + "zyx".index(axis)]
        return int(np.clip(round(position_nm / self.voxel_nm + (n - 1) / 2), 0, n - 1))

    def centres_nm(self, axis: Literal["z", "y", "x"]) -> NDArray[np.float64]:
        """Positions of the voxel centres along an axis."""
        n = self.m_czyx.shape[1 + "zyx".index(axis)]
        centres: NDArray[np.float64] = (np.arange(n) - (n - 1) / 2) * self.voxel_nm
        return centres


def field_of(volume: Volume) -> Field:
    """The field of a volume, to draw."""
    return Field(volume.m_czyx, volume.voxel_nm, "" if volume.unit == "1" else volume.unit)


@dataclass(frozen=True)
class Points:
    """Singularities to mark: those found in the volume and, where a truth is at hand, the true
    ones."""

    found: Sequence[PointCharge] = ()
    true: Sequence[PointCharge] = ()


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
        drawn = _image(
            axes, image_vu, cmap="gray", vmin=low, vmax=high, extent=_extent_um(image_vu, pixel_nm)
        )
        _colour_bar(figure, drawn, axes, unit, extend="both")
        axes.set_title(title)
    limit = float(np.nanpercentile(np.abs(dichroic_vu), 99.5)) or 1.0
    drawn = _image(
        dichroic,
        dichroic_vu,
        cmap=SIGNED_MAP,
        vmin=-limit,
        vmax=limit,
        extent=_extent_um(dichroic_vu, pixel_nm),
    )
    _colour_bar(figure, drawn, dichroic, "absorbance", extend="both")
    dichroic.set_title("dichroic signal $(A_+ - A_-)/2$")
    for axes in (raw, absorption, dichroic):
        axes.set_xlabel("u (µm)")
        _scale_bar(axes)
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
    extent = _extent_um(volume.m_czyx[0, 0], volume.voxel_nm)
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
            drawn = _image(
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
    _scale_bar(panels[0, 0])
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
            _scale_bar(axes)
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
            drawn = _image(
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
    _scale_bar(panels[0, 0], per_um=1000.0)
    figure.colorbar(drawn, ax=panels.ravel().tolist(), label=volume.label, shrink=0.8, pad=0.015)
    return figure


def data_fraction_figure(
    fraction_zyx: NDArray[Any], voxel_nm: float, slices_nm: Sequence[tuple[str, float]], y_nm: float
) -> Figure:
    """How much of each voxel comes from the data, 0 to 1: slices at heights, and the section xz at
    a y.

    Args:
        fraction_zyx: the fraction, ``[z, y, x]``.
        voxel_nm: voxel edge.
        slices_nm: name and height of each slice.
        y_nm: where the section is.
    """
    as_field = Field(np.asarray(fraction_zyx, dtype=np.float32)[None], voxel_nm)
    n = len(slices_nm)
    n_z, _, n_x = fraction_zyx.shape
    section_height = 3.4 * max(n, 2) * n_z / n_x
    figure = new_figure(3.6 * max(n, 2) + 1.0, 3.6 + section_height + 1.0, "constrained")
    layout = figure.add_gridspec(2, n, height_ratios=[3.4, max(section_height, 0.35)])
    figure.suptitle("share of each voxel that comes from the data")
    panels = []
    norm = Normalize(0, 1)
    for column, (name, z_nm) in enumerate(slices_nm):
        axes = figure.add_subplot(layout[0, column])
        k = as_field.index_of(z_nm, "z")
        drawn = _image(
            axes,
            fraction_zyx[k],
            cmap=FRACTION_MAP,
            norm=norm,
            extent=_extent_um(fraction_zyx[k], voxel_nm),
        )
        axes.set_title(f"{name}, z = {plain(z_nm)} nm")
        axes.set_xlabel("x (µm)")
        axes.set_ylabel("y (µm)")
        _scale_bar(axes)
        panels.append(axes)
    axes = figure.add_subplot(layout[1, :])
    half_x_um, half_z_nm = n_x * voxel_nm / 2000, n_z * voxel_nm / 2
    _image(
        axes,
        fraction_zyx[:, as_field.index_of(y_nm, "y")],
        cmap=FRACTION_MAP,
        norm=norm,
        extent=(-half_x_um, half_x_um, -half_z_nm, half_z_nm),
        aspect=1e-3,
    )
    axes.set_title(f"section at y = {plain(y_nm)} nm")
    axes.set_xlabel("x (µm)")
    axes.set_ylabel("z (nm)")
    panels.append(axes)
    figure.colorbar(drawn, ax=panels, label="data fraction (1)", shrink=0.7, pad=0.015)
    return figure


def residual_figure(
    views: Sequence[tuple[str, NDArray[Any], NDArray[Any]]], unit: str = "absorbance"
) -> Figure:
    """What the model leaves of each view: the rms residual against the tilt, a line for each
    azimuth.

    Args:
        views: for each azimuth its name, tilts in deg, and the rms residual of each tilt.
        unit: unit of the residual.
    """
    figure = new_figure(5.6, 3.6)
    axes = figure.subplots()
    for (name, tilt_deg, residual_rms), colour in zip(views, line_colours(len(views)), strict=True):
        order = np.argsort(tilt_deg)
        axes.plot(
            np.asarray(tilt_deg)[order],
            np.asarray(residual_rms)[order],
            marker="o",
            markersize=3.5,
            linewidth=1.0,
            color=colour,
            label=name,
        )
    axes.set_ylim(0, 1.2 * max(float(np.max(residual_rms)) for _, _, residual_rms in views))
    axes.set_xlabel("tilt θ (deg)")
    axes.set_ylabel(f"rms residual ({unit})")
    axes.set_title("what the volume leaves of each view")
    axes.legend()
    open_frame(axes)
    return figure


def agreement_figure(
    r_cn: NDArray[Any],
    t_cn: NDArray[Any],
    correlations: Sequence[float | None],
    angle_error_deg: NDArray[Any],
) -> Figure:
    """Reconstructed against true value of each component, and the distribution of the angle between
    both vectors.

    Args:
        r_cn: reconstructed components of the compared voxels, ``[component, voxel]``.
        t_cn: the true ones.
        correlations: Pearson's, per component; None where it is not defined.
        angle_error_deg: angle between both, for the voxels where it is defined.
    """
    figure = new_figure(10.6, 2.9)
    *panels, histogram = figure.subplots(1, 4)
    reach = 1.25
    for c, axes in enumerate(panels):
        counts, x_edges, y_edges = np.histogram2d(
            t_cn[c], r_cn[c], bins=60, range=[[-reach, reach]] * 2
        )
        _image(
            axes,
            np.log10(np.where(counts > 0, counts, np.nan)).T,
            cmap="cividis_r",
            extent=(x_edges[0], x_edges[-1], y_edges[0], y_edges[-1]),
        )
        axes.plot([-1, 1], [-1, 1], color="black", linewidth=0.8, linestyle=(0, (4, 3)))
        correlation = correlations[c]
        name = COMPONENT_NAMES[c]
        axes.set_title(name if correlation is None else f"{name}, correlation {correlation:.2f}")
        axes.set_xlabel(f"true {name}")
        axes.set_ylabel(f"reconstructed {name}")
    histogram.hist(angle_error_deg, bins=np.arange(0, 181, 3), color=LINE_COLOURS[0], density=True)
    median_deg = float(np.median(angle_error_deg))
    histogram.axvline(median_deg, color="black", linewidth=0.9, linestyle=(0, (4, 3)))
    histogram.set_title(f"angle error, median {median_deg:.1f}°")
    histogram.set_xlabel("angle to the true vector (deg)")
    histogram.set_ylabel("share of voxels per deg")
    histogram.set_xlim(0, 180 if np.percentile(angle_error_deg, 95) > 90 else 90)
    histogram.set_xticks(np.arange(0, histogram.get_xlim()[1] + 1, 30))
    histogram.set_box_aspect(1)
    open_frame(histogram)
    return figure


def direction_rgb(mx_yx: NDArray[Any], my_yx: NDArray[Any], shortest: float) -> NDArray[np.float64]:
    """Colours ``[y, x, RGB]`` of in-plane direction: the cyclic map of the angle, grey where it is
    not defined.

    Args:
        mx_yx: component x.
        my_yx: component y.
        shortest: length of the in-plane part below which a pixel is grey.
    """
    angle_turns = np.mod(np.arctan2(my_yx, mx_yx) / (2 * np.pi), 1.0)
    colours: NDArray[np.float64] = mpl.colormaps[CYCLIC_MAP](angle_turns)[..., :3]
    colours[~(np.hypot(mx_yx, my_yx) >= shortest)] = 0.6
    return colours


def _draw_direction(axes: Axes, m_cyx: NDArray[Any], volume: Field) -> None:
    limit, voxel_um = volume.limit, volume.voxel_nm * 1e-3
    _image(
        axes,
        direction_rgb(m_cyx[0], m_cyx[1], 0.1 * limit),
        extent=_extent_um(m_cyx[0], volume.voxel_nm),
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
    _image(axes, colours, extent=(-1, 1, -1, 1))
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


def _image(axes: Axes, image: NDArray[Any], **drawing: Any) -> Any:
    """Draw rows upwards, as the axes of the sample and the detector run."""
    return axes.imshow(image, origin="lower", **drawing)


def new_figure(
    width_inch: float,
    height_inch: float,
    layout: Literal["constrained", "compressed"] = "compressed",
) -> Figure:
    """A figure whose layout, as it stands, also closes gaps between images in a regular grid."""
    return Figure(figsize=(width_inch, height_inch), layout=layout)


def _extent_um(image: NDArray[Any], pixel_nm: float) -> tuple[float, float, float, float]:
    half_rows, half_columns = (n * pixel_nm / 2000 for n in image.shape[:2])
    return (-half_columns, half_columns, -half_rows, half_rows)


def _colour_bar(figure: Figure, drawn: Any, axes: Axes, label: str, extend: str) -> None:
    figure.colorbar(drawn, ax=axes, label=label, shrink=0.8, pad=0.02, extend=extend)


def _scale_bar(axes: Axes, *, per_um: float = 1.0) -> None:
    """A bar of a round length, about a fifth of the width, in axes whose unit is um (or um /
    ``per_um``)."""
    low, high = axes.get_xlim()
    width_um = (high - low) / per_um
    length_um = max(
        (mantissa * 10.0**power for power in range(-3, 4) for mantissa in (1, 2, 5)),
        key=lambda length: -abs(np.log(length / (0.22 * width_um))),
    )
    label = f"{length_um:g} µm" if length_um >= 1 else f"{1000 * length_um:g} nm"
    bar = AnchoredSizeBar(
        axes.transData,
        length_um * per_um,
        label,
        loc="lower left",
        frameon=True,
        color="black",
        size_vertical=0.008 * width_um * per_um * _shape_factor(axes),
        pad=0.3,
        borderpad=0.4,
        sep=2,
    )
    bar.patch.set(facecolor="white", edgecolor="none", alpha=0.75)
    axes.add_artist(bar)


def _shape_factor(axes: Axes) -> float:
    (x_low, x_high), (y_low, y_high) = axes.get_xlim(), axes.get_ylim()
    return float(min(1.0, 2 * (y_high - y_low) / (x_high - x_low)))


def open_frame(axes: Axes) -> None:
    """Leave out the upper and the right side of the frame."""
    axes.spines[["top", "right"]].set_visible(False)


def line_colours(n: int) -> list[str]:
    """Return colours for n lines, again from the first where they are used up."""
    return [LINE_COLOURS[i % len(LINE_COLOURS)] for i in range(n)]


def plain(value: float) -> str:
    """A number in words for people: one decimal at most, a true minus sign.

    >>> plain(-84.0), plain(0.04), plain(5.25)
    ('−84', '0', '5.2')
    """
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text.replace("-", "−")

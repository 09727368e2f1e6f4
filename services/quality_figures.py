"""The figures of how good a volume is: what comes from the data, what is left of them, what the truth says.

As those of `figures`: matplotlib figures from arrays, nothing read and nothing written.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mistral_txm.services.drawing import (
    LINE_COLOURS,
    extent_um,
    image_upwards,
    line_colours,
    new_figure,
    open_frame,
    plain,
    scale_bar,
)
from mistral_txm.services.fields import Field
from mistral_txm.services.figures import COMPONENT_NAMES

FRACTION_MAP = "cividis"


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
        drawn = image_upwards(
            axes,
            fraction_zyx[k],
            cmap=FRACTION_MAP,
            norm=norm,
            extent=extent_um(fraction_zyx[k], voxel_nm),
        )
        axes.set_title(f"{name}, z = {plain(z_nm)} nm")
        axes.set_xlabel("x (µm)")
        axes.set_ylabel("y (µm)")
        scale_bar(axes)
        panels.append(axes)
    axes = figure.add_subplot(layout[1, :])
    half_x_um, half_z_nm = n_x * voxel_nm / 2000, n_z * voxel_nm / 2
    image_upwards(
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
        image_upwards(
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

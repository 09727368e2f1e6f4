"""The film in three dimensions: arrows of the magnetization in colours of their direction, and the singularities.

Drawn in the browser by plotly.js, from a figure that is made here once for all who watch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from mistral_txm.services.drawing import direction_rgb
from mistral_txm.services.live_volume import LiveVolume
from mistral_txm.services.monitor_words import signed

MOST_ARROWS = 900
SHEETS = 2
"""Arrows stand in at most so many slices of the magnetic layers."""
HUES = 16
SHORTEST = 0.2
"""Arrows shorter than this part of the longest are left out."""

_BACKGROUND = "#dde2e6"
"""Neither as light nor as dark as any of the colours of direction."""
_MARK = "#D55E00"
_UPRIGHT = "#9a9a9a"
"""Colour of arrows that hardly lie in the plane."""


def scene(volume: LiveVolume, points: Sequence[dict[str, float]]) -> str:
    """Return the figure of a volume and its singularities as JSON that plotly.js draws.

    Positions in um. A colour is the direction in the plane of the film, the same as in the cuts; each arrow is scaled
    by its length relative to `Field.limit`.
    """
    places_um, m = arrows(volume)
    rgb = direction_rgb(m[None, :, 0], m[None, :, 1], SHORTEST)[0]
    turns = np.mod(np.arctan2(m[:, 1], m[:, 0]) / (2 * np.pi) + 0.5 / HUES, 1.0)
    flat = np.hypot(m[:, 0], m[:, 1]) >= SHORTEST
    groups = np.where(flat, (turns * HUES).astype(int), HUES)
    spacing_um = _spacing_um(volume)
    traces: list[Any] = []
    for group in np.unique(groups):
        chosen = groups == group
        if group < HUES:
            middle = 2 * np.pi * group / HUES
            rgb = direction_rgb(np.array([[np.cos(middle)]]), np.array([[np.sin(middle)]]), 0.0)
            colour = to_hex(rgb[0, 0])
        else:
            colour = _UPRIGHT
        traces.append(_cones(places_um[chosen], m[chosen], spacing_um, colour))
    for plus in (True, False):
        traces.append(_markers([one for one in points if (one["charge"] > 0) == plus], plus))
    axis = {
        "showbackground": False,
        "gridcolor": "#ffffff",
        "zeroline": False,
        "tickfont": {"size": 9},
    }
    figure = go.Figure(
        traces,
        layout={
            "uirevision": "kept",  # a new volume leaves the camera where it was turned to
            "margin": dict.fromkeys("lrtb", 0),
            "showlegend": True,
            "legend": {"x": 0, "y": 1, "bgcolor": "rgba(255,255,255,.6)", "font": {"size": 10}},
            "paper_bgcolor": _BACKGROUND,
            "scene": {
                "aspectmode": "data",
                "annotations": _labels(points),
                "camera": {
                    "eye": {"x": 0.6, "y": -1.55, "z": 1.35},
                    "center": {"x": 0, "y": 0, "z": -0.1},
                },
                **{
                    f"{one}axis": axis | {"title": {"text": f"{one} (µm)", "font": {"size": 10}}}
                    for one in "xyz"
                },
            },
        },
    )
    return str(figure.to_json())


def arrows(volume: LiveVolume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Choose where arrows stand: ``[arrow, xyz]`` in um, and the field there over its limit, ``[arrow, xyz]``.

    At most `SHEETS` slices of the magnetic layers, and in each a square grid.
    """
    field = volume.field
    sheets, step = _grid(volume)
    m_czyx = field.m_czyx[:, sheets][:, :, step // 2 :: step, step // 2 :: step] / field.limit
    axes_nm = (
        field.centres_nm("z")[sheets],
        field.centres_nm("y")[step // 2 :: step],
        field.centres_nm("x")[step // 2 :: step],
    )
    z, y, x = np.meshgrid(*axes_nm, indexing="ij")
    places_um = np.stack([x, y, z], axis=-1).reshape(-1, 3) / 1000
    m = np.moveaxis(m_czyx, 0, -1).reshape(-1, 3).astype(np.float64)
    length = np.linalg.norm(np.nan_to_num(m), axis=1)
    long_enough = length >= SHORTEST
    return places_um[long_enough], m[long_enough]


def _grid(volume: LiveVolume) -> tuple[NDArray[np.int_], int]:
    """Slices in which arrows stand, and every how many voxels."""
    inside = np.flatnonzero(volume.in_layers_z)
    middles = (np.arange(SHEETS) + 0.5) * inside.size / SHEETS
    sheets = inside[np.unique(middles.astype(int))]
    _, n_y, n_x = volume.field.shape_zyx
    step = max(1, int(np.ceil(np.sqrt(sheets.size * n_y * n_x / MOST_ARROWS))))
    return sheets, step


def _spacing_um(volume: LiveVolume) -> float:
    return _grid(volume)[1] * volume.field.voxel_nm / 1000


def _cones(
    places_um: NDArray[np.float64], m: NDArray[np.float64], size_um: float, colour: str
) -> go.Cone:
    (x, y, z), (u, v, w) = places_um.T.round(4), m.T.round(3)
    return go.Cone(
        x=x, y=y, z=z, u=u, v=v, w=w,
        anchor="cm", sizemode="raw", sizeref=1.1 * size_um,
        colorscale=[[0, colour], [1, colour]], showscale=False, hoverinfo="skip", showlegend=False,
    )  # fmt: skip


def _markers(points: Sequence[dict[str, float]], plus: bool) -> go.Scatter3d:
    texts = [
        f"charge {signed(point['charge'])}"
        + (f", {point['sureness']:.0%} sure" if "sureness" in point else "")
        for point in points
    ]
    return go.Scatter3d(
        x=[point["x_nm"] / 1000 for point in points],
        y=[point["y_nm"] / 1000 for point in points],
        z=[point["z_nm"] / 1000 for point in points],
        mode="markers",
        name="charge +" if plus else "charge −",
        text=texts,
        hovertemplate="%{text}<br>x %{x:.3f}, y %{y:.3f}, z %{z:.3f} µm<extra></extra>",
        marker={
            "size": 8,
            "symbol": "circle" if plus else "diamond",
            "color": "#ffffff" if plus else "#000000",
            "line": {"color": _MARK, "width": 4},
        },
    )


def _labels(points: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """The charge of each singularity, above it and in front of all arrows; of some that lie close together, too."""
    return [
        {
            **{axis: point[f"{axis}_nm"] / 1000 for axis in "xyz"},
            "text": signed(point["charge"]),
            "ax": 0,
            "ay": -25 - 22 * (number % 3),
            "arrowcolor": _MARK,
            "arrowwidth": 1.5,
            "arrowhead": 0,
            "bgcolor": "rgba(255,255,255,.85)",
            "font": {"size": 11, "color": "#000000"},
        }
        for number, point in enumerate(points)
    ]

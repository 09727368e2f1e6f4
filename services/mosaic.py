"""The picture of a survey: fields of view stitched in the coordinates of the sample's stages.

A point that falls on (u, v) while the stages stand at (X, Y) comes into the middle of the camera where they stand at

    ``x = X - u / cos(theta)``, ``y = Y - v``:

these are the coordinates of the picture, so whatever is read off its axes is where to go. Both run against u and v; the
picture is drawn with its axes reversed, so that it looks as on the camera.

Each field of view lies where the readbacks say, to a fraction of a pixel. Where neighbours overlap, correlation tells
how they really lie (module `image_shift`); the places are then those of least squares, in which a readback counts with
`STAGE_STD_UM`. In overlaps the mean is taken, with weights that fade towards the edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import matplotlib as mpl
import numpy as np
import scipy.ndimage
from bokeh.embed import file_html
from bokeh.events import SelectionGeometry, Tap
from bokeh.layouts import column
from bokeh.models import BoxSelectTool, CustomJS, Div, Range1d
from bokeh.palettes import gray
from bokeh.plotting import figure
from bokeh.resources import INLINE
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mistral_txm.reconstruction.files import replaced_when_complete
from mistral_txm.reconstruction.image_shift import NoCommonStructureError, image_shift, translated
from mistral_txm.services.drawing import STYLE
from mistral_txm.services.scans import Rates, Scan, ScanError, expect

STAGE_STD_UM = 0.05
"""How surely a stage stands where its readback says: the tolerance of a finished move."""

LARGEST_PICTURE = 1600
"""Pixels a side, at most, of what is drawn; the file has all."""
PAGE_PIXELS = 800
"""Longer side of the picture on the page, in pixels of a screen."""

_LEAST_OVERLAP_PIXELS = 16
_LEAST_STD_PIXELS = 0.1
_MOST_STD = 4.0

_SAY = """
const box = cb_obj.geometry
if (box === undefined && cb_obj.x === undefined || box !== undefined && !cb_obj.final) return
const x = box === undefined ? cb_obj.x : (box.x0 + box.x1) / 2
const y = box === undefined ? cb_obj.y : (box.y0 + box.y1) / 2
const size = box === undefined ? "" :
    `, a box of ${Math.abs(box.x1 - box.x0).toFixed(2)} × ${Math.abs(box.y1 - box.y0).toFixed(2)} µm`
told.text = `Type <code>RE(field_of_view(${x.toFixed(3)}, ${y.toFixed(3)}))</code>${size}`
"""

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Mosaic:
    """Transmittance ``[y, x]`` in stage coordinates, both axes ascending, NaN where nothing was seen.

    `places_um` is where the fields of view lie, (n, 2) x and y; `readbacks_um` where the stages said they were.
    """

    name: str
    transmittance_yx: Float32
    x_um: Float64
    y_um: Float64
    places_um: Float64
    readbacks_um: Float64
    theta_deg: float
    helicity: int


def stitch(scan: Scan, *, refine: bool = True) -> Mosaic:
    """Stitch the fields of view of a mosaic; `refine` corrects the readbacks by the overlaps.

    Fields of view that lack, because the run was ended, are left out.

    Raises
    ------
    ScanError
        If the run is another scan, or has no field of view or no flats.
    FrameError
        If a frame cannot be read or is damaged.
    """
    expect(scan, "stage")
    told = scan.start["scan"]
    theta_deg, helicity = float(told["theta_deg"]), int(told["helicity"])
    places = sorted(scan.sample, key=lambda place: scan.readbacks[place])
    if not places:
        raise ScanError(f"{scan.name}: no field of view was taken")
    rates = Rates(scan)
    # The camera's pixels, turned round into the order of the stages' coordinates.
    tiles = [rates.transmittance(place, (helicity, None))[::-1, ::-1] for place in places]
    readbacks_um = np.array([scan.stages_um[place] for place in places])
    pixel_um = scan.pixel_nm / 1000
    step_yx_um = np.array([pixel_um, pixel_um / math.cos(math.radians(theta_deg))])
    at_yx = readbacks_um[:, ::-1] / step_yx_um
    if refine:
        at_yx = refined(tiles, at_yx, STAGE_STD_UM / step_yx_um)
    picture_yx, first_yx = blended(tiles, at_yx)
    y_um, x_um = (
        (np.arange(n) + first) * step
        for n, first, step in zip(picture_yx.shape, first_yx, step_yx_um, strict=True)
    )
    return Mosaic(
        scan.name,
        picture_yx,
        x_um,
        y_um,
        (at_yx * step_yx_um)[:, ::-1],
        readbacks_um,
        theta_deg,
        helicity,
    )


def refined(tiles: Sequence[Float32], at_yx: Float64, std_yx: Float64) -> Float64:
    """Return where tiles lie, (n, 2) y and x of their middles in pixels, by their overlaps and where they should lie.

    Parameters
    ----------
    tiles
        Transmittances of one shape.
    at_yx
        Where they should lie, pixels.
    std_yx
        Standard deviation of that in y and x, pixels; overlaps that disagree with it by more than 4 of these, or
        have nothing in common, count nothing.
    """
    measured = [
        (i, j, *overlap)
        for i, j in combinations(range(len(tiles)), 2)
        if (overlap := _overlap_shift(tiles[i], tiles[j], at_yx[j] - at_yx[i], std_yx)) is not None
    ]
    result = at_yx.copy()
    for axis in range(2):
        matrix = np.eye(len(tiles)) / std_yx[axis] ** 2
        vector = at_yx[:, axis] / std_yx[axis] ** 2
        for i, j, apart_yx, apart_std_yx in measured:
            weight = 1 / np.hypot(apart_std_yx[axis], _LEAST_STD_PIXELS) ** 2
            matrix[[i, j, i, j], [i, j, j, i]] += weight * np.array([1, 1, -1, -1])
            vector[[i, j]] += weight * apart_yx[axis] * np.array([-1, 1])
        result[:, axis] = np.linalg.solve(matrix, vector)
    return result


def blended(tiles: Sequence[Float32], at_yx: Float64) -> tuple[Float32, Float64]:
    """Lay tiles at their middles (n, 2), pixels: the weighted mean, and where its first pixel lies."""
    rows, columns = tiles[0].shape
    corner_yx = at_yx - (np.array([rows, columns]) - 1) / 2
    first_yx = np.floor(corner_yx.min(axis=0))
    offsets = corner_yx - first_yx
    height, width = (int(np.ceil(n)) for n in offsets.max(axis=0) + np.array([rows, columns]))
    total, weights = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    # Nothing at the outermost pixels, into which the shift by a part of a pixel brings what is beyond.
    fading_y, fading_x = (np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in (rows, columns))
    fading = np.minimum(fading_y[:, None], fading_x[None, :]).astype(np.float32)
    for tile, offset in zip(tiles, offsets, strict=True):
        whole = np.floor(offset).astype(int)
        known = np.isfinite(tile)
        filled = np.where(known, tile, np.median(tile[known]) if known.any() else 0.0)
        moved = translated(filled, offset - whole).astype(np.float32)
        # A pixel that is not known spoils those it is spread to.
        spoiled = scipy.ndimage.binary_dilation(~known, np.ones((3, 3), bool))
        weight = np.where(spoiled, np.float32(0), fading)
        window = slice(whole[0], whole[0] + rows), slice(whole[1], whole[1] + columns)
        total[window] += weight * moved
        weights[window] += weight
    with np.errstate(invalid="ignore"):
        return np.where(weights > 0, total / weights, np.nan).astype(np.float32), first_yx


def _overlap_shift(
    one: Float32, other: Float32, apart_yx: Float64, std_yx: Float64
) -> tuple[Float64, Float64] | None:
    """How far `other` lies from `one`, and the standard deviation of that, pixels; None if they do not tell."""
    whole = np.round(apart_yx).astype(int)
    common = np.array(one.shape) - np.abs(whole)
    if common.min() < _LEAST_OVERLAP_PIXELS:
        return None
    begin, begin_other = np.maximum(whole, 0), np.maximum(-whole, 0)
    pair = []
    for tile, (row, col) in ((one, begin), (other, begin_other)):
        part = tile[row : row + common[0], col : col + common[1]]
        pair.append(np.sqrt(np.maximum(part, 0)))
    most = float(_MOST_STD * math.sqrt(2) * std_yx.max())
    try:
        found = image_shift(pair[0], pair[1], most_pixels=min(most, common.min() / 3))
    except NoCommonStructureError:
        return None
    measured = whole - found.shift_vu
    if np.any(np.abs(measured - apart_yx) > most):
        return None
    return measured, found.std_vu


def write_mosaic(path: Path, mosaic: Mosaic) -> None:
    """Write the picture with its axes into an HDF5 file, whole or not at all."""
    with replaced_when_complete(path) as temporary, h5py.File(temporary, "w") as file:
        data = file.create_dataset(
            "transmittance", data=mosaic.transmittance_yx, chunks=True, compression="gzip"
        )
        for number, (name, values) in enumerate((("y_um", mosaic.y_um), ("x_um", mosaic.x_um))):
            file[name] = values
            file[name].make_scale(name)
            data.dims[number].attach_scale(file[name])
        file["places_um"], file["readbacks_um"] = mosaic.places_um, mosaic.readbacks_um
        file.attrs.update(run=mosaic.name, theta_deg=mosaic.theta_deg, helicity=mosaic.helicity)


def mosaic_figure(mosaic: Mosaic) -> Figure:
    """Draw the picture as on the camera; its axes say where the stages bring a point into the middle."""
    picture_yx, x_um, y_um = _reduced(mosaic)
    width, height = np.ptp(x_um), np.ptp(y_um)
    size = 6.0 / max(width, height)
    drawing = Figure(figsize=(size * width + 1.6, size * height + 0.8), layout="constrained")
    axes = drawing.subplots()
    low, high = np.nanpercentile(picture_yx, [0.1, 99.9])
    half_x, half_y = (x_um[1] - x_um[0]) / 2, (y_um[1] - y_um[0]) / 2
    image = axes.imshow(
        picture_yx,
        origin="lower",
        cmap=mpl.colormaps["gray"].with_extremes(bad="#c5d5e5"),
        vmin=low,
        vmax=high,
        extent=(x_um[0] - half_x, x_um[-1] + half_x, y_um[0] - half_y, y_um[-1] + half_y),
    )
    axes.invert_xaxis()
    axes.invert_yaxis()
    axes.set_xlabel("sample_x (µm)")
    axes.set_ylabel("sample_y (µm)")
    drawing.colorbar(image, ax=axes, label="transmittance", shrink=0.7, aspect=30)
    return drawing


def write_picture(path: Path, mosaic: Mosaic) -> None:
    """Draw the picture into a PNG file."""
    with mpl.rc_context(dict(STYLE)), replaced_when_complete(path) as temporary:
        mosaic_figure(mosaic).savefig(temporary, format="png")


def write_page(path: Path, mosaic: Mosaic) -> None:
    """Write a page on which a region is drawn, and which says what to type; it needs nothing from outside."""
    picture_yx, x_um, y_um = _reduced(mosaic)
    low, high = np.nanpercentile(picture_yx, [0.1, 99.9])
    grey_yx = np.nan_to_num((picture_yx - low) / max(high - low, 1e-9), nan=0.75).clip(0, 1)
    half_x, half_y = (x_um[1] - x_um[0]) / 2, (y_um[1] - y_um[0]) / 2
    left, right = x_um[0] - half_x, x_um[-1] + half_x
    bottom, top = y_um[0] - half_y, y_um[-1] + half_y
    scale = PAGE_PIXELS / max(right - left, top - bottom)
    shown = figure(
        frame_width=round(scale * (right - left)),
        frame_height=round(scale * (top - bottom)),
        x_range=Range1d(right, left),
        y_range=Range1d(top, bottom),
        x_axis_label="sample_x (µm)",
        y_axis_label="sample_y (µm)",
        tools="pan,wheel_zoom,reset",
        toolbar_location="above",
    )
    shown.grid.visible = False
    shown.image(
        image=[np.round(255 * grey_yx).astype(np.uint8)],
        x=left,
        y=bottom,
        dw=right - left,
        dh=top - bottom,
        palette=gray(256),
    )
    drawing = BoxSelectTool(persistent=True)
    shown.add_tools(drawing)
    shown.toolbar.active_drag = drawing
    head = Div(text=f"<h1>{escape(mosaic.name)}, tilt {mosaic.theta_deg:g} deg</h1>")
    told = Div(text="Draw a box, or click: its middle becomes the middle of the field of view.")
    say = CustomJS(args={"told": told}, code=_SAY)
    shown.js_on_event(SelectionGeometry, say)
    shown.js_on_event(Tap, say)
    page = file_html(column(head, told, shown), INLINE, title=mosaic.name)
    with replaced_when_complete(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _reduced(mosaic: Mosaic) -> tuple[Float32, Float64, Float64]:
    """Average blocks of pixels until at most `LARGEST_PICTURE` are left along each axis."""
    times = math.ceil(max(mosaic.transmittance_yx.shape) / LARGEST_PICTURE)
    rows, columns = (n // times for n in mosaic.transmittance_yx.shape)

    def means(values: NDArray[Any], shape: tuple[int, ...], axes: tuple[int, ...]) -> NDArray[Any]:
        return np.asarray(values.reshape(shape).mean(axis=axes))

    kept = mosaic.transmittance_yx[: rows * times, : columns * times]
    return (
        means(kept, (rows, times, columns, times), (1, 3)),
        means(mosaic.x_um[: columns * times], (columns, times), (1,)),
        means(mosaic.y_um[: rows * times], (rows, times), (1,)),
    )

"""Images of the monitor's page: one plot each, with axes in um and a bar of colours."""

from typing import Any

import matplotlib as mpl
import numpy as np
from bokeh.models import (
    ColorBar,
    ColumnDataSource,
    CustomJSTickFormatter,
    LinearColorMapper,
    Range1d,
)
from bokeh.plotting import figure
from matplotlib.colors import to_hex
from numpy.typing import NDArray

LARGEST_IMAGE = 512
"""Images are averaged down to at most this many pixels a side before they are sent."""

TITLE_SIZE = "12px"
SMALL = "10px"


class ImagePanel:
    """One image with its axes, in um from the centre, and its colour bar if it has a palette.

    Args:
        name: of the plot; its source of data has the same with `` image``.
        title: above it.
        axes: names of the axis to the right and of that upwards.
        palette: of matplotlib; None for images that are colours already.
        unit: of what the colours mean.
        height: of the image, pixels of the screen.
        width: the same; None takes the room there is, and shows pixels that need not be square.
    """

    def __init__(
        self,
        name: str,
        title: str,
        axes: tuple[str, str],
        palette: str | None,
        unit: str = "",
        *,
        height: int,
        width: int | None = None,
    ) -> None:
        self.source = ColumnDataSource(
            {"image": [], "x": [], "y": [], "dw": [], "dh": []}, name=f"{name} image"
        )
        size = {"sizing_mode": "stretch_width"} if width is None else {"frame_width": width}
        self.figure = figure(
            name=name,
            title=title,
            frame_height=height,
            **size,
            x_range=Range1d(-1, 1),
            y_range=Range1d(-1, 1),
            tools="pan,wheel_zoom,reset",
            active_scroll=None,
            active_drag=None,
            min_border=2,
            min_border_left=44,
            x_axis_label=f"{axes[0]} (µm)",
            y_axis_label=f"{axes[1]} (µm)",
        )
        self.figure.toolbar.autohide = True
        self.figure.title.text_font_size = TITLE_SIZE
        self.figure.axis.axis_label_standoff = 0
        self.figure.axis.major_label_text_font_size = SMALL
        self.figure.axis.axis_label_text_font_size = SMALL
        self.figure.yaxis.ticker.desired_num_ticks = 3 if height < 120 else 6
        self.figure.grid.visible = False
        self.figure.background_fill_color = "#f5f7f9"
        place = {name: name for name in ("image", "x", "y", "dw", "dh")}
        self._mapper: LinearColorMapper | None = None
        if palette is None:
            self.figure.image_rgba(source=self.source, **place)
            return
        colours = mpl.colormaps[palette](np.linspace(0, 1, 256))
        self._mapper = LinearColorMapper([to_hex(colour) for colour in colours], low=0, high=1)
        self.figure.image(source=self.source, color_mapper=self._mapper, **place)
        self._numbers = CustomJSTickFormatter(
            args={"factor": 1}, code="return String(Number((tick * factor).toPrecision(3)))"
        )
        self._bar = ColorBar(
            color_mapper=self._mapper,
            width=8,
            padding=3,
            title_text_font_size=SMALL,
            major_label_text_font_size=SMALL,
            formatter=self._numbers,
        )
        self.figure.add_layout(self._bar, "right")
        self.label(unit)

    def label(self, unit: str, factor: float = 1) -> None:
        """Name the unit at the colour bar, in which numbers are so many times larger: there is room for four digits."""
        self._bar.title = unit
        self._numbers.args = {"factor": factor}

    def show(
        self, image: NDArray[Any], pixel_nm: float, limits: tuple[float, float] | None
    ) -> None:
        """Show an image, rows upwards; ``limits`` of the colours, if it has any."""
        height_um, width_um = (n * pixel_nm / 1000 for n in image.shape[:2])
        if limits is not None and self._mapper is not None:
            low, high = limits
            self._mapper.update(low=low, high=high if high > low else low + 1)
        ranges = (self.figure.x_range, width_um / 2), (self.figure.y_range, height_um / 2)
        for shown, half_um in ranges:
            if shown.reset_end != half_um:
                shown.update(start=-half_um, end=half_um, reset_start=-half_um, reset_end=half_um)
        self.source.data = {
            "image": [image],
            "x": [-width_um / 2],
            "y": [-height_um / 2],
            "dw": [width_um],
            "dh": [height_um],
        }


def smaller(image: NDArray[Any], pixel_nm: float) -> tuple[NDArray[np.float32], float]:
    """Average an image down to at most `LARGEST_IMAGE` pixels a side; a rest at the border is cut off.

    A side that is short already, as that of a cut through a film, is averaged as the long one, but never to nothing.
    """
    step = -(-max(image.shape) // LARGEST_IMAGE)
    if min(image.shape) < step:
        step = 1
    rows, columns = (n // step for n in image.shape)
    blocks = image[: rows * step, : columns * step].reshape(rows, step, columns, step)
    return blocks.mean(axis=(1, 3), dtype=np.float32), pixel_nm * step


def symmetric_limit(image: NDArray[Any]) -> float:
    """Limit of the colours on both sides of zero: 99.5 % of the pixels stay below."""
    return float(np.nanpercentile(np.abs(image), 99.5)) or 1.0


def rgba(rgb: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Pack colours ``[y, x, RGB]`` of 0 to 1 as Bokeh takes them."""
    packed = np.full((*rgb.shape[:2], 4), 255, dtype=np.uint8)
    packed[..., :3] = np.rint(255 * rgb)
    return packed.view(np.uint32)[..., 0]

"""What all figures share: style, colours, axes with a scale, numbers in words.

All maps change in lightness, and can be told apart by colour-blind people and in a grey print: a diverging one with
symmetric limits for what has a sign, a cyclic one for directions.
"""

from collections.abc import Mapping
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray

SIGNED_MAP = "RdBu_r"


CYCLIC_MAP = "twilight_shifted"


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


def image_upwards(axes: Axes, image: NDArray[Any], **drawing: Any) -> Any:
    """Draw rows upwards, as the axes of the sample and the detector run."""
    return axes.imshow(image, origin="lower", **drawing)


def new_figure(
    width_inch: float,
    height_inch: float,
    layout: Literal["constrained", "compressed"] = "compressed",
) -> Figure:
    """A figure whose layout, as it stands, also closes gaps between images in a regular grid."""
    return Figure(figsize=(width_inch, height_inch), layout=layout)


def extent_um(image: NDArray[Any], pixel_nm: float) -> tuple[float, float, float, float]:
    """Left, right, lower and upper edge of an image that is centred, in um."""
    half_rows, half_columns = (n * pixel_nm / 2000 for n in image.shape[:2])
    return (-half_columns, half_columns, -half_rows, half_rows)


def colour_bar(figure: Figure, drawn: Any, axes: Axes, label: str, extend: str) -> None:
    """A colour bar beside axes; `extend`: at which ends values may lie outside, as matplotlib says it."""
    figure.colorbar(drawn, ax=axes, label=label, shrink=0.8, pad=0.02, extend=extend)


def scale_bar(axes: Axes, *, per_um: float = 1.0) -> None:
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

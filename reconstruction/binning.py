"""Images on coarser pixels: means over squares of pixels."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Floating = TypeVar("Floating", bound=np.floating)


def binned(image_vu: npt.NDArray[Floating], binning: int) -> npt.NDArray[Floating]:
    """Means over squares of `binning` pixels a side, a border left over is cut evenly; NaN where any pixel is.

    >>> binned(np.arange(8.0).reshape(2, 4), 2)
    array([[2.5, 4.5]])
    """
    n_v, n_u = (n // binning for n in image_vu.shape)
    first_v, first_u = (
        (n - m * binning) // 2 for n, m in zip(image_vu.shape, (n_v, n_u), strict=True)
    )
    cut = image_vu[first_v : first_v + n_v * binning, first_u : first_u + n_u * binning]
    return np.asarray(cut.reshape(n_v, binning, n_u, binning).mean(axis=(1, 3)))


def centre_moved_pixels(shape_vu: Sequence[int], binning: int) -> npt.NDArray[np.float64]:
    """By how many unbinned pixels cutting the border moved the image's centre, (v, u).

    >>> centre_moved_pixels((7, 8), 2)
    array([-0.5,  0. ])
    """
    left = np.array([n % binning for n in shape_vu])
    return np.asarray(left // 2 - left / 2)

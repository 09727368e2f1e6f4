"""Views resampled to where the film's points should fall, for files that know of no alignment."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage

Float64 = npt.NDArray[np.float64]


def straightened(
    image_vu: npt.ArrayLike, warp_vu: npt.ArrayLike, shift_vu_nm: npt.ArrayLike, pixel_nm: float
) -> Float64:
    """Resample an image to where the film's points should fall: no shift, inclination or lean is left.

    A cubic spline evaluated at ``warp (v0, u0) + shift`` (`Alignment.warp_t`).

    Args:
        image_vu: [v, u], NaN where masked.
        warp_vu: shape (2, 2). shift_vu_nm: (v, u). pixel_nm: pixel, nm.

    Returns:
        The image, NaN where a masked pixel or what lies outside would be needed.
    """
    image = np.asarray(image_vu, dtype=np.float64)
    warp = np.asarray(warp_vu, dtype=np.float64)
    bad = ~np.isfinite(image)
    middle = (np.array(image.shape) - 1) / 2
    offset = middle + np.asarray(shift_vu_nm, np.float64) / pixel_nm - warp @ middle
    # Masked pixels are given their neighbours' values for the spline alone.
    nearest = scipy.ndimage.distance_transform_edt(bad, return_distances=False, return_indices=True)
    filled = image[tuple(nearest)] if bad.any() else image
    result = scipy.ndimage.affine_transform(filled, warp, offset, order=3, mode="nearest")
    unknown = scipy.ndimage.affine_transform(
        bad.astype(np.float64), warp, offset, order=1, cval=1.0
    )
    return np.where(unknown > 1e-6, np.nan, result)

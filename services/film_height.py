"""Where the film's middle is in the frame of the fiducials that lie on it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.fiducials import DIAMETER_NM

CLEARLY = 2.0
"""By how much better one assignment of spheres to surfaces has to be than any other."""
HEIGHT_NM = 15.0
"""How well a sphere's height and its surface agree: spheres are not all of one size."""
FARTHEST_NM = 2000.0
"""Nobody puts a film farther from the tilt axis than this: it would leave the field of view."""


def middle_height_nm(
    z_nm: NDArray[np.float64], surfaces_nm: tuple[float, float]
) -> tuple[float | None, str]:
    """Return at which height of the spheres' frame the film's middle is, by the surfaces that they lie on.

    Every sphere is on the lower or the upper surface, by its radius below or above it. Where all spheres lie on one
    of them, it is the one that leaves the film nearer to the tilt axis.

    >>> z_nm, reason = middle_height_nm(np.array([100.0, 95.0, -275.0]), (-170.0, 120.0))
    >>> round(z_nm, 1), reason
    (-65.0, '')

    Returns
    -------
    The height, None if it cannot be told, and what to say of it.
    """
    radius_nm = DIAMETER_NM / 2
    levels_nm = np.array([surfaces_nm[0] - radius_nm, surfaces_nm[1] + radius_nm])
    ranked: list[tuple[float, float]] = []
    for sphere_nm in z_nm:
        for level_nm in levels_nm:
            height_nm = float(sphere_nm - level_nm)
            for _ in range(2):
                off_nm = z_nm[:, None] - height_nm - levels_nm
                nearest = np.abs(off_nm).argmin(axis=1)
                off_nm = off_nm[np.arange(len(z_nm)), nearest]
                height_nm += float(np.median(off_nm))
            off_nm = np.minimum(np.abs(z_nm[:, None] - height_nm - levels_nm).min(axis=1), 100.0)
            height_nm_fine = float(np.mean(z_nm - levels_nm[nearest]))
            misfit = float(np.sum((off_nm / HEIGHT_NM) ** 2))
            if misfit < 4 * len(z_nm) and abs(height_nm) < FARTHEST_NM:
                ranked.append((misfit, height_nm_fine))
    if not ranked:
        return None, "the fiducials' heights fit no surfaces of the sample: z from the tilt axis"
    best = min(misfit for misfit, _ in ranked)
    as_good = [height for misfit, height in ranked if misfit < best + 4.0]
    height_nm = min(as_good, key=abs)
    rivals = [one for one in as_good if abs(one - height_nm) > 2 * HEIGHT_NM]
    if not rivals:
        return height_nm, ""
    if min(map(abs, rivals)) < CLEARLY * abs(height_nm):
        return (
            None,
            "all fiducials lie on one surface, and it is open on which: z from the tilt axis",
        )
    return (
        height_nm,
        "all fiducials lie on one surface: the one that leaves the film nearer the axis",
    )


def surfaces_of(sample: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the sample's surfaces on which spheres lie, if a start document's ``sample`` states them."""
    surfaces = sample.get("surfaces_nm")
    return None if surfaces is None else (float(surfaces[0]), float(surfaces[1]))

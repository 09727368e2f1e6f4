"""What lattices of skyrmions share: the way to the nearest centre, the profile, the list of them.

About a centre the direction turns from one normal to the other: with r the distance,

    tan(angle / 2) = b / r,   b = core (1 - r^2 / reach^2)^2,

which is 180 deg in the centre and 0 from `reach` on. So m_z = (r^2 - b^2) / (r^2 + b^2) outside
positive, and the part in the plane is 2 b r / (r^2 + b^2).
"""

import math
from typing import Any

import numpy as np
from numba import njit

from mistral_txm.simulated_beamline.textures import Singularity

WIDEST_FIELD_NM = 10752.0
"""Side of the square in which skyrmions are listed: the largest frame."""

_HALF = np.float32(0.5)
_SMALL = np.float32(1e-30)


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def _folded(value: Any, period: Any) -> Any:
    return value - period * np.floor(value / period + _HALF)


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def from_square_centre(x: Any, y: Any, spacing: Any) -> tuple[Any, Any]:
    """Return the vector from the nearest centre of a square lattice; one is at the origin."""
    return _folded(x, spacing), _folded(y, spacing)


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def from_hexagonal_centre(x: Any, y: Any, spacing: Any) -> tuple[Any, Any]:
    """Return the vector from the nearest centre of a hexagonal lattice; one is at the origin.

    The lattice is two rectangular ones, the second in the middle of the first; rows lie along x.
    """
    rows = np.float32(math.sqrt(3)) * spacing
    x_1, y_1 = _folded(x, spacing), _folded(y, rows)
    x_2, y_2 = _folded(x + _HALF * spacing, spacing), _folded(y + _HALF * rows, rows)
    first = x_1 * x_1 + y_1 * y_1 < x_2 * x_2 + y_2 * y_2
    return (x_1 if first else x_2), (y_1 if first else y_2)


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def profile(dx: Any, dy: Any, core: Any, reach: Any) -> tuple[Any, Any]:
    """Return (m_z, in-plane part over r) at a vector from a centre."""
    square = dx * dx + dy * dy
    inside = max(np.float32(1) - square / (reach * reach), np.float32(0))
    b = core * inside * inside
    scale = np.float32(1) / (square + b * b + _SMALL)
    return (square - b * b) * scale, np.float32(2) * b * scale


def skyrmions(spacing_nm: float, radius_nm: float, *, hexagonal: bool) -> tuple[Singularity, ...]:
    """Return the skyrmions of a lattice in the largest frame, nearest to the middle first."""
    count = math.ceil(WIDEST_FIELD_NM / spacing_nm)
    numbers = np.arange(-count, count + 1)
    column, row = np.meshgrid(numbers, numbers)
    x_nm = (column + (0.5 * (row % 2) if hexagonal else 0.0)) * spacing_nm
    y_nm = row * spacing_nm * (math.sqrt(3) / 2 if hexagonal else 1.0)
    seen = np.maximum(np.abs(x_nm), np.abs(y_nm)) < WIDEST_FIELD_NM / 2
    places_nm = np.stack([x_nm[seen], y_nm[seen]], axis=1)
    places_nm = places_nm[np.argsort(np.hypot(*places_nm.T), kind="stable")]
    return tuple(Singularity(float(x), float(y), 0.0, "skyrmion", radius_nm) for x, y in places_nm)

"""Topological charges of a field that can be evaluated anywhere, by solid angles.

Three directions on a lattice triangle span the signed solid angle Omega with

    tan(Omega / 2) = a . (b x c) / (1 + a.b + b.c + c.a)

(A. Van Oosterom, J. Strackee, IEEE Trans. Biomed. Eng. 30, 125 (1983)). Summed over a closed
surface and divided by 4 pi it is an integer, the charge inside; over a square, the planar charge.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Directions = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From points (..., 3) in nm to unit vectors (..., 3)."""


def _solid_angle(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]
) -> NDArray[np.float64]:
    volume = np.sum(a * np.cross(b, c), axis=-1)
    cosines = np.sum(a * b, axis=-1) + np.sum(b * c, axis=-1) + np.sum(c * a, axis=-1)
    angle: NDArray[np.float64] = 2 * np.arctan2(volume, 1 + cosines)
    return angle


def square_charge(
    directions: Directions,
    centre_nm: NDArray[np.float64],
    first_nm: NDArray[np.float64],
    second_nm: NDArray[np.float64],
    cells: int,
) -> float:
    """Return the charge of the parallelogram centre +- first +- second, normal first x second.

    `first_nm` and `second_nm` are half its sides; each is cut into `cells` parts.
    """
    parts = np.linspace(-1, 1, cells + 1)
    points = centre_nm + parts[:, None, None] * first_nm + parts[None, :, None] * second_nm
    m = directions(points)
    corner, right, upper, far = m[:-1, :-1], m[1:, :-1], m[:-1, 1:], m[1:, 1:]
    total = _solid_angle(corner, right, far).sum() + _solid_angle(corner, far, upper).sum()
    return float(total / (4 * np.pi))


def cube_charge(
    directions: Directions, centre_nm: NDArray[np.float64], half_side_nm: float, cells: int
) -> float:
    """Return the charge inside a cube: the sum over its six faces, normals outwards."""
    total = 0.0
    for axis in range(3):
        first, second, normal = np.roll(np.eye(3), axis, axis=0) * half_side_nm
        total += square_charge(directions, centre_nm + normal, first, second, cells)
        total += square_charge(directions, centre_nm - normal, second, first, cells)
    return total

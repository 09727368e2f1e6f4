"""Topological charges of a field that can be evaluated anywhere, by solid angles.

Three directions on a lattice triangle span the signed solid angle Omega with

    tan(Omega / 2) = a . (b x c) / (1 + a.b + b.c + c.a)

(A. Van Oosterom, J. Strackee, IEEE Trans. Biomed. Eng. 30, 125 (1983)). Summed over a closed
surface and divided by 4 pi it is an integer, the charge inside; over a square, the planar charge.
Where the direction is the same all around, preimages are closed, and link: the Hopf index.
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


def hopf_index(
    directions: Directions,
    low_zyx_nm: NDArray[np.float64],
    high_zyx_nm: NDArray[np.float64],
    cells_zyx: tuple[int, int, int],
) -> float:
    """Return the Hopf index of a field that is uniform on the surface of a box and beyond.

    The integral of J. H. C. Whitehead, Proc. Natl. Acad. Sci. 33, 117 (1947),

        H = 1 / (4 pi)^2 integral q . A dV,   q_i = 1/2 eps_ijk m . (d_j m x d_k m),   curl A = q,

    with derivatives and A in Fourier space: A(k) = i k x q(k) / k^2. Nearly an integer: the error
    is that of derivatives on a lattice.
    """
    axes = [
        low + (np.arange(n) + 0.5) * (high - low) / n
        for low, high, n in zip(low_zyx_nm, high_zyx_nm, cells_zyx, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    m = np.moveaxis(directions(np.stack([x, y, z], axis=-1)), -1, 0)
    size_zyx = high_zyx_nm - low_zyx_nm
    k_zyx = np.meshgrid(
        *(
            2 * np.pi * np.fft.fftfreq(n, size / n)
            for size, n in zip(size_zyx, cells_zyx, strict=True)
        ),
        indexing="ij",
    )
    k = np.stack(k_zyx[::-1])
    spectrum = np.fft.fftn(m, axes=(1, 2, 3))
    d_x, d_y, d_z = (
        np.fft.ifftn(1j * k[axis] * spectrum, axes=(1, 2, 3)).real for axis in range(3)
    )
    q = np.stack(
        [
            np.sum(m * np.cross(first, second, axis=0), axis=0)
            for first, second in ((d_y, d_z), (d_z, d_x), (d_x, d_y))
        ]
    )
    q_spectrum = np.fft.fftn(q, axes=(1, 2, 3))
    square = np.sum(k**2, axis=0)
    square[0, 0, 0] = 1
    potential = 1j * np.cross(k, q_spectrum, axis=0) / square
    density = np.sum((potential * q_spectrum.conj()).real)
    volume_nm3 = float(np.prod(size_zyx))
    cells = float(np.prod(cells_zyx))
    return float(density * volume_nm3 / cells**2 / (4 * np.pi) ** 2)

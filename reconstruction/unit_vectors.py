"""Fields of unit vectors on a grid: tangent planes, steps on the spheres, and the exchange between neighbours."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_FAST = {"reassoc", "contract", "nsz", "arcp"}


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def moved(n, step, direction, out):  # type: ignore[no-untyped-def]
    """``n + step direction``, brought to length one; what has no length points along x, as good as any."""
    _, nz, ny, nx = n.shape
    for row in numba.prange(nz * ny):
        z, y = row // ny, row % ny
        for x in range(nx):
            a = n[0, z, y, x] + step * direction[0, z, y, x]
            b = n[1, z, y, x] + step * direction[1, z, y, x]
            c = n[2, z, y, x] + step * direction[2, z, y, x]
            length = np.sqrt(a * a + b * b + c * c)
            if length < np.float32(1e-12):
                a, b, c, length = np.float32(1), np.float32(0), np.float32(0), np.float32(1)
            out[0, z, y, x] = a / length
            out[1, z, y, x] = b / length
            out[2, z, y, x] = c / length


def normalized(vectors: Float32) -> Float32:
    """Vectors [component, z, y, x] brought to length one."""
    out = np.empty_like(vectors)
    moved(vectors, np.float32(0), vectors, out)
    return out


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def turned(direction, beta, n, gradient):  # type: ignore[no-untyped-def]
    """``direction = beta direction - gradient``, less what of the old direction is along n."""
    _, nz, ny, nx = n.shape
    for row in numba.prange(nz * ny):
        z, y = row // ny, row % ny
        for x in range(nx):
            along = (
                direction[0, z, y, x] * n[0, z, y, x]
                + direction[1, z, y, x] * n[1, z, y, x]
                + direction[2, z, y, x] * n[2, z, y, x]
            )
            for c in range(3):
                old = direction[c, z, y, x] - along * n[c, z, y, x]
                direction[c, z, y, x] = beta * old - gradient[c, z, y, x]


@numba.njit(inline="always")
def _laplacian_row(n, bound, z, y, out):  # type: ignore[no-untyped-def]
    """Sum of the differences to the six neighbours along a row of a component [z, y, x]."""
    nz, ny, nx = n.shape
    here = n[z, y]
    before, after = n[z, y - 1], n[z, (y + 1) % ny]
    below = n[z - 1, y] if z > 0 and bound[z - 1] else here
    above = n[z + 1, y] if z < nz - 1 and bound[z] else here
    for x in range(nx):
        out[x] = np.float32(6) * here[x] - before[x] - after[x] - below[x] - above[x]
    for x in range(1, nx - 1):
        out[x] -= here[x - 1] + here[x + 1]
    out[0] -= here[nx - 1] + here[1 % nx]
    if nx > 1:
        out[nx - 1] -= here[nx - 2] + here[0]


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _energy(n, bound, out):  # type: ignore[no-untyped-def]
    _, nz, ny, nx = n.shape
    for row in numba.prange(nz * ny):
        z, y = row // ny, row % ny
        differences = np.empty(nx, np.float32)
        total = np.float32(0)
        for c in range(3):
            _laplacian_row(n[c], bound, z, y, differences)
            here = n[c, z, y]
            for x in range(nx):
                total += here[x] * differences[x]
        out[row] = total


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _pull(n, bound, scale, weight, gradient):  # type: ignore[no-untyped-def]
    _, nz, ny, nx = n.shape
    for row in numba.prange(nz * ny):
        z, y = row // ny, row % ny
        differences = np.empty(nx, np.float32)
        for c in range(3):
            _laplacian_row(n[c], bound, z, y, differences)
            target = gradient[c, z, y]
            for x in range(nx):
                target[x] = scale * target[x] + weight * differences[x]
        for x in range(nx):
            along = (
                gradient[0, z, y, x] * n[0, z, y, x]
                + gradient[1, z, y, x] * n[1, z, y, x]
                + gradient[2, z, y, x] * n[2, z, y, x]
            )
            for c in range(3):
                gradient[c, z, y, x] -= along * n[c, z, y, x]


class Exchange:
    """Sum of squared differences between neighbours, periodic along y and x, within each layer along z.

    Args:
        z_nm: heights of the grid's layers; those further apart than a voxel do not touch.
        voxel_nm: voxel edge.
    """

    def __init__(self, z_nm: Float64, voxel_nm: float) -> None:
        self._bound = np.diff(z_nm) < 1.5 * voxel_nm

    def energy(self, n: Float32) -> float:
        """``<n, L n>``: the sum over pairs of neighbours."""
        rows = np.empty(n.shape[1] * n.shape[2])
        _energy(n, self._bound, rows)
        return float(rows.sum())

    def pull(self, n: Float32, scale: float, weight: float, gradient: Float32) -> None:
        """Turn gradient into ``scale gradient + weight L n``, less what is along n."""
        _pull(n, self._bound, np.float32(scale), np.float32(weight), gradient)

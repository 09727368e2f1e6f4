"""The sheared ray sum of a vector field and its exact transpose, in float32 on all cores.

In the sheared frame (module `geometry`) a view is the sum over the layers of the layer's ``w . m`` shifted by
``z t e``, with one shift for the whole layer:

    ``p_i(r0) = dz * sum over z of (t_i a_phi + m_z)(r0 + z t_i e, z)``, ``a_phi = cos(phi) m_x - sin(phi) m_y``.

The shift is a bilinear interpolation with constant weights, so the inner loops run along whole rows without
any gather and the compiler turns them into vector instructions. Rays that leave the lateral domain come back on
its other side: the domain is periodic, as the lateral Fourier transform of `direct` is, and whoever builds the domain
pads it so that no ray that carries data goes round (`views.padded_domain`).

Why views are resampled once to the sheared frame instead of being projected pixel by pixel in every iteration: the
resampling is done with a cubic spline (the iterations need only linear interpolation in the shift), the loops above get
constant weights, and all solvers, direct ones included, see the very same numbers.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field, replace

import numba
import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import
from mistral_txm.reconstruction.geometry import beam_direction

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_FAST = {"reassoc", "contract", "nsz", "arcp"}
_ROWS = 4
_LAYERS = 16


@numba.njit(inline="always")
def _gather(a1, a2, c1, c2, t, frac_y, frac_x, acc):  # type: ignore[no-untyped-def]
    """``acc[x] += (1 - frac_x) r[x] + frac_x r[x + 1]``, ``r = (1 - frac_y) (t a1 + c1) + frac_y (t a2 + c2)``.

    Every number is read once and the neighbour kept in a register, which the compiler turns into vector instructions.
    """
    keep_x, keep_y = np.float32(1) - frac_x, np.float32(1) - frac_y
    if frac_y == 0:
        here = t * a1[0] + c1[0]
        for x in range(acc.shape[0]):
            right = t * a1[x + 1] + c1[x + 1]
            acc[x] += keep_x * here + frac_x * right
            here = right
    else:
        here = keep_y * (t * a1[0] + c1[0]) + frac_y * (t * a2[0] + c2[0])
        for x in range(acc.shape[0]):
            right = keep_y * (t * a1[x + 1] + c1[x + 1]) + frac_y * (t * a2[x + 1] + c2[x + 1])
            acc[x] += keep_x * here + frac_x * right
            here = right


@numba.njit(inline="always")
def _spread(p1, p2, frac_y, frac_x, t, a, c):  # type: ignore[no-untyped-def]
    """``s = frac_x r[x] + (1 - frac_x) r[x + 1]``, ``r = (1 - frac_y) p1 + frac_y p2``; a += t s, c += s."""
    keep_x, keep_y = np.float32(1) - frac_x, np.float32(1) - frac_y
    here = keep_y * p1[0] + frac_y * p2[0]
    for x in range(a.shape[0]):
        right = keep_y * p1[x + 1] + frac_y * p2[x + 1]
        s = frac_x * here + keep_x * right
        a[x] += t * s
        c[x] += s
        here = right


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _forward(a, c, t, sx, sy, margin, number, ends, p):  # type: ignore[no-untyped-def]
    """Ray sums of ``t a + c``, into the views of those numbers; sx, sy [view, z] are shifts in voxels, rows are wrapped
    by a margin, and only the rays between the ends of a row are summed."""
    nz, ny, _ = a.shape
    nv = t.shape[0]
    nx = p.shape[2]
    for block in numba.prange((ny + _ROWS - 1) // _ROWS):
        acc = np.empty(nx, np.float32)
        y0 = block * _ROWS
        y1 = min(y0 + _ROWS, ny)
        for z0 in range(0, nz, _LAYERS):
            z1 = min(z0 + _LAYERS, nz)
            for v in range(nv):
                tv = t[v]
                for y in range(y0, y1):
                    target = p[number[v], y]
                    low, high = ends[number[v], y]
                    if z0 == 0:
                        target[:] = 0
                    if high <= low:
                        continue
                    some = acc[: high - low]
                    some[:] = 0
                    for z in range(z0, z1):
                        iy = int(np.floor(sy[v, z]))
                        ix = int(np.floor(sx[v, z]))
                        fy = np.float32(sy[v, z] - iy)
                        fx = np.float32(sx[v, z] - ix)
                        y_first = (y + iy) % ny
                        y_second = (y_first + 1) % ny
                        x0 = margin + ix + low
                        x1 = margin + ix + high + 1
                        _gather(
                            a[z, y_first, x0:x1],
                            a[z, y_second, x0:x1],
                            c[z, y_first, x0:x1],
                            c[z, y_second, x0:x1],
                            tv,
                            fy,
                            fx,
                            some,
                        )
                    target[low:high] += some


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _back(p, t, sx, sy, margin, number, ends, a, c):  # type: ignore[no-untyped-def]
    """Add the transpose of `_forward` to a and c; here the rows of p are wrapped, and zero beyond their ends."""
    nz, ny, nx = a.shape
    nv = t.shape[0]
    for block in numba.prange((ny + _ROWS - 1) // _ROWS):
        y0 = block * _ROWS
        y1 = min(y0 + _ROWS, ny)
        for z0 in range(0, nz, _LAYERS):
            z1 = min(z0 + _LAYERS, nz)
            for v in range(nv):
                tv = t[v]
                for z in range(z0, z1):
                    iy = int(np.floor(sy[v, z]))
                    ix = int(np.floor(sx[v, z]))
                    fy = np.float32(sy[v, z] - iy)
                    fx = np.float32(sx[v, z] - ix)
                    for y in range(y0, y1):
                        y_first = (y - iy) % ny
                        y_second = (y_first - 1) % ny
                        low = ix + min(ends[number[v], y_first, 0], ends[number[v], y_second, 0])
                        high = (
                            ix + 1 + max(ends[number[v], y_first, 1], ends[number[v], y_second, 1])
                        )
                        if high <= low + 1:
                            continue
                        if low < 0 or high > nx:
                            low, high = 0, nx
                        x0 = margin - ix - 1 + low
                        x1 = margin - ix + high
                        _spread(
                            p[v, y_first, x0:x1],
                            p[v, y_second, x0:x1],
                            fy,
                            fx,
                            tv,
                            a[z, y, low:high],
                            c[z, y, low:high],
                        )


@numba.njit(inline="always")
def _wrap(row, margin):  # type: ignore[no-untyped-def]
    """Repeat what is in the middle of a row periodically in its margins."""
    nx = row.shape[0] - 2 * margin
    for x in range(margin):
        row[margin - 1 - x] = row[margin + nx - 1 - x % nx]
        row[margin + nx + x] = row[margin + x % nx]


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _wrap_views(p, number, scale, ends, margin, out):  # type: ignore[no-untyped-def]
    """The views of those numbers, each times its scale, zero beyond the ends, with rows wrapped by a margin."""
    _, ny, nx = p.shape
    for block in numba.prange(number.shape[0] * ny):
        v, y = block // ny, block % ny
        row = out[v, y]
        low, high = ends[number[v], y]
        row[margin : margin + nx] = 0
        if high > low:
            row[margin + low : margin + high] = scale[v] * p[number[v], y, low:high]
        _wrap(row, margin)


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _wrap_mixture(a, b, weight_a, weight_b, thickness, margin, out):  # type: ignore[no-untyped-def]
    """``weight_a a + weight_b b`` times each layer's thickness, with rows wrapped by a margin."""
    nz, ny, nx = a.shape
    for block in numba.prange(nz * ny):
        z, y = block // ny, block % ny
        row, first, second = out[z, y], a[z, y], b[z, y]
        wa, wb = thickness[z] * weight_a, thickness[z] * weight_b
        for x in range(nx):
            row[margin + x] = wa * first[x] + wb * second[x]
        _wrap(row, margin)


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _add_along(along, cos_phi, sin_phi, field):  # type: ignore[no-untyped-def]
    """Add what belongs to the in-plane component along the beam to x and y."""
    nz, ny, nx = along.shape
    for block in numba.prange(nz * ny):
        z, y = block // ny, block % ny
        for x in range(nx):
            field[0, z, y, x] += cos_phi * along[z, y, x]
            field[1, z, y, x] -= sin_phi * along[z, y, x]


def _cos_sin(angle_deg: float) -> tuple[np.float32, np.float32]:
    return np.float32(np.cos(np.deg2rad(angle_deg))), np.float32(np.sin(np.deg2rad(angle_deg)))


def seen_ends(seen_vyx: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """First seen ray of each row and the one after the last, shape (views, y, 2); (nx, 0) where there is none.

    >>> seen_ends(np.array([[[False, True, False, True, False], [False] * 5]])).tolist()
    [[[1, 4], [5, 0]]]
    """
    nx = seen_vyx.shape[-1]
    any_seen = seen_vyx.any(axis=-1)
    first = np.where(any_seen, seen_vyx.argmax(axis=-1), nx)
    last = np.where(any_seen, nx - seen_vyx[..., ::-1].argmax(axis=-1), 0)
    return np.stack([first, last], axis=-1)


@dataclass(frozen=True)
class ShearedProjector:
    """Ray sums of all views over one periodic lateral domain.

    Args:
        theta_deg_v, phi_deg_v: tilt and azimuth of each view, deg.
        z_nm: heights of the layers that may hold magnetization, shape (nz,).
        voxel_nm: voxel edge, also the layers' thickness.
        scalar: whether the field is a number per voxel instead of a vector; its weight is ``1 / cos(theta)``.
        ends_vy2: first ray along x of each row that is used, and the one after the last, shape (views, ny, 2); the
            others are left at zero. None: all are used.

    The field is float32 ``[component, z, y, x]`` (one component if scalar), the views float32 ``[view, y, x]`` in
    field times nm.

    >>> projector = ShearedProjector(np.array([0.0]), np.array([0.0]), np.array([-5.0, 5.0]), 10.0)
    >>> field = np.zeros((3, 2, 4, 4), np.float32)
    >>> field[2] = 1.0
    >>> float(projector.forward(field)[0, 0, 0])
    20.0
    """

    theta_deg_v: Float64
    phi_deg_v: Float64
    z_nm: Float64
    voxel_nm: float
    scalar: bool = False
    ends_vy2: npt.NDArray[np.int64] | None = None
    _arrays: dict[tuple[int, str], Float32] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def obliquity_v(self) -> Float64:
        """Cosine of the angle between each beam and the film's normal: by so much the detector is squeezed."""
        return np.asarray(np.cos(np.deg2rad(self.theta_deg_v)))

    @property
    def weight_vc(self) -> Float64:
        """What a voxel's components count in each view, shape (views, components): ``k / cos(theta)``."""
        inverse = 1 / self.obliquity_v[:, None]
        return (
            inverse if self.scalar else beam_direction(self.theta_deg_v, self.phi_deg_v) * inverse
        )

    def field_shape(self, shape_ab: tuple[int, int]) -> tuple[int, int, int, int]:
        """Shape [component, z, y, x] of a field on the domain of views of a shape."""
        return (1 if self.scalar else 3, len(self.z_nm), *shape_ab)

    def path_nm(self, coverage_z: Float32) -> Float32:
        """Length of a ray inside the covered part of the film, along its normal, shape (1, 1, 1): one for all."""
        path = self.voxel_nm * coverage_z.sum(dtype=np.float64)
        return np.full((1, 1, 1), path, np.float32)

    def of_views(self, which: slice | npt.NDArray[np.intp]) -> ShearedProjector:
        """Return the projector of some views."""
        return replace(
            self,
            theta_deg_v=self.theta_deg_v[which],
            phi_deg_v=self.phi_deg_v[which],
            ends_vy2=None if self.ends_vy2 is None else self.ends_vy2[which],
        )

    def _ends(self, ny: int, nx: int) -> npt.NDArray[np.int64]:
        if self.ends_vy2 is not None:
            return self.ends_vy2
        return np.broadcast_to(np.array([0, nx]), (len(self.theta_deg_v), ny, 2)).copy()

    def _groups(self) -> list[tuple[float, npt.NDArray[np.intp]]]:
        return [
            (float(phi), np.flatnonzero(self.phi_deg_v == phi)) for phi in np.unique(self.phi_deg_v)
        ]

    def _shifts(
        self, phi_deg: float, views: npt.NDArray[np.intp]
    ) -> tuple[Float32, Float64, Float64, int]:
        t = np.tan(np.deg2rad(self.theta_deg_v[views]))
        shift_vz = t[:, None] * self.z_nm[None, :] / self.voxel_nm
        sx = shift_vz * np.cos(np.deg2rad(phi_deg))
        sy = -shift_vz * np.sin(np.deg2rad(phi_deg))
        return t.astype(np.float32), sx, sy, int(np.ceil(np.abs(sx).max())) + 2

    def forward(
        self, field_czyx: Float32, out: Float32 | None = None, coverage_z: Float32 | None = None
    ) -> Float32:
        """Project the field along every view, ``p = A m``, shape [view, y, x].

        Args:
            field_czyx: the field.
            out: to be filled and returned, if given.
            coverage_z: part of each layer that the field is in; all, if not given.
        """
        _, nz, ny, nx = field_czyx.shape
        p = np.empty((len(self.theta_deg_v), ny, nx), np.float32) if out is None else out
        thickness_z = np.full(nz, self.voxel_nm, np.float32)
        if coverage_z is not None:
            thickness_z *= coverage_z
        ends = self._ends(ny, nx)
        one, none = np.float32(1), np.float32(0)
        for phi_deg, views in self._groups():
            t, sx, sy, margin = self._shifts(phi_deg, views)
            mixtures = self._kept("rows", (1 if self.scalar else 2, nz, ny, nx + 2 * margin))
            upright, along = mixtures[0], mixtures[-1]
            _wrap_mixture(field_czyx[-1], field_czyx[-1], one, none, thickness_z, margin, upright)
            if self.scalar:
                t = np.zeros_like(t)
            else:
                c, s = _cos_sin(phi_deg)
                _wrap_mixture(field_czyx[0], field_czyx[1], c, -s, thickness_z, margin, along)
            _forward(along, upright, t, sx, sy, margin, views, ends, p)
            if self.scalar:
                p[views] *= self.weight_vc[views][:, :, None].astype(np.float32)
        return p

    def adjoint(self, views_vyx: Float32, out: Float32 | None = None) -> Float32:
        """Spread the views back, ``A^T p``, shape [component, z, y, x], into `out` if it is given."""
        _, ny, nx = views_vyx.shape
        nz = len(self.z_nm)
        field = np.empty(self.field_shape((ny, nx)), np.float32) if out is None else out
        field[:] = 0
        ends = self._ends(ny, nx)
        for phi_deg, views in self._groups():
            t, sx, sy, margin = self._shifts(phi_deg, views)
            scale = np.full(len(views), self.voxel_nm)
            if self.scalar:
                scale *= self.weight_vc[views, 0]
                t = np.zeros_like(t)
            wrapped = self._kept("rows", (len(views), ny, nx + 2 * margin))
            _wrap_views(views_vyx, views, scale.astype(np.float32), ends, margin, wrapped)
            along = self._kept("along", (nz, ny, nx))
            along[:] = 0
            _back(wrapped, t, sx, sy, margin, views, ends, along, field[-1])
            if not self.scalar:
                _add_along(along, *_cos_sin(phi_deg), field)
        return field

    def _kept(self, use: str, shape: tuple[int, ...]) -> Float32:
        """An array for use during one call, the same in the next one: the system is slow to give large ones."""
        key, size = (threading.get_ident(), use), math.prod(shape)
        if key not in self._arrays or self._arrays[key].size < size:
            self._arrays[key] = np.empty(size, np.float32)
        return self._arrays[key][:size].reshape(shape)

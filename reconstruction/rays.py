"""Ray sums through an isolated structure, along any direction, and their exact transpose.

Nothing is magnetic outside the volume, so a ray needs no more of the world than the volume, and any direction will
do: full rotations, rolled mountings, leaning axes. Every view is taken along the axis p of the volume with which its
beam k makes the smallest angle (x, y or z), on which the model is again a sum of shifted layers:

    ``S(r0) = dz * sum over layers of w . m(r0 + p k_ab / k_p, p)``, ``w = k / |k_p|``,

r0 in the plane p = 0, a and b the other two axes, slopes ``k_ab / k_p`` of at most one. The shift is a bilinear
interpolation with constant weights per layer (Joseph, IEEE Trans. Med. Imaging 1, 192 (1982)). Outside the volume
the field is zero. A number per voxel instead of a vector has the weight ``1 / |k_p|``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Intp = npt.NDArray[np.intp]

_FAST = {"reassoc", "contract", "nsz", "arcp"}


def principal_axis(k_xyz: npt.ArrayLike) -> int:
    """Return 0, 1 or 2: the axis x, y or z of the volume along which a beam mostly runs; z in a draw.

    >>> principal_axis([0.1, -0.9, 0.4]), principal_axis([0.6, 0.0, 0.6])
    (1, 2)
    """
    size = np.abs(np.asarray(k_xyz, dtype=np.float64))
    return 2 - int(np.argmax(size[::-1] > size.max() * (1 - 1e-9)))


def plane_axes(axis: int) -> tuple[int, int]:
    """Components (slow, fast) that span the plane of the views along an axis: the other two, z before y before x.

    >>> plane_axes(2), plane_axes(1), plane_axes(0)
    ((1, 0), (2, 0), (2, 1))
    """
    slow, fast = (component for component in (2, 1, 0) if component != axis)
    return slow, fast


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _project(field, weight, start_a, start_b, views):  # type: ignore[no-untyped-def]
    """Add the ray sums to views [view, A, B]; field [component, layer, a, b], weight [view, component].

    start [view, layer]: the position, in voxels, of the plane's first row and column in a layer.
    """
    components, layers, na, nb = field.shape
    count, rows, _ = views.shape
    for row in numba.prange(rows):
        line = np.zeros(nb + 2, np.float32)
        for v in range(count):
            for p in range(layers):
                ia = int(np.floor(start_a[v, p])) + row
                if ia < -1 or ia >= na:
                    continue
                fa = np.float32(start_a[v, p] - np.floor(start_a[v, p]))
                line[1 : nb + 1] = 0
                for c in range(components):
                    w = weight[v, c]
                    if ia >= 0:
                        w0 = w * (np.float32(1) - fa)
                        for x in range(nb):
                            line[x + 1] += w0 * field[c, p, ia, x]
                    if ia + 1 < na and fa > 0:
                        w1 = w * fa
                        for x in range(nb):
                            line[x + 1] += w1 * field[c, p, ia + 1, x]
                ib = int(np.floor(start_b[v, p]))
                fb = np.float32(start_b[v, p] - np.floor(start_b[v, p]))
                keep = np.float32(1) - fb
                out = views[v, row, -ib - 1 : nb - ib]
                for x in range(nb + 1):
                    out[x] += keep * line[x] + fb * line[x + 1]


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _spread(views, weight, start_a, start_b, field):  # type: ignore[no-untyped-def]
    """Add the transpose of `_project` to the field."""
    components, layers, na, nb = field.shape
    count, rows, _ = views.shape
    for a in numba.prange(na):
        line = np.empty(nb + 1, np.float32)
        for v in range(count):
            for p in range(layers):
                ia = int(np.floor(start_a[v, p]))
                fa = np.float32(start_a[v, p] - ia)
                ib = int(np.floor(start_b[v, p]))
                fb = np.float32(start_b[v, p] - ib)
                row = a - ia
                line[:] = 0
                if 0 <= row < rows:
                    w0 = np.float32(1) - fa
                    for x in range(nb + 1):
                        line[x] += w0 * views[v, row, x - ib - 1]
                if 0 <= row - 1 < rows and fa > 0:
                    for x in range(nb + 1):
                        line[x] += fa * views[v, row - 1, x - ib - 1]
                keep = np.float32(1) - fb
                for c in range(components):
                    w = weight[v, c]
                    target = field[c, p, a]
                    for x in range(nb):
                        target[x] += w * (keep * line[x + 1] + fb * line[x])


def plane_shape(k_vc: Float64, shape_zyx: tuple[int, int, int]) -> tuple[int, int]:
    """Rows and columns of planes that hold every ray which meets the volume, for every direction in use.

    Planes are wider than the volume by an even number, so that straight rays fall on voxels.

    >>> plane_shape(np.array([[0.0, 0.0, 1.0]]), (4, 10, 20))
    (14, 24)
    """
    size_xyz = shape_zyx[::-1]
    rows, columns = 1, 1
    for k in k_vc:
        axis = principal_axis(k)
        slow, fast = plane_axes(axis)
        half = (size_xyz[axis] - 1) / 2 / abs(k[axis])
        rows = max(rows, size_xyz[slow] + 2 * (int(half * abs(k[slow])) + 2))
        columns = max(columns, size_xyz[fast] + 2 * (int(half * abs(k[fast])) + 2))
    return rows, columns


@dataclass(frozen=True)
class RayProjector:
    """Ray sums of all views through an isolated volume.

    Args:
        k_vc: beam direction of each view in the sample frame, shape (views, 3).
        shape_zyx, voxel_nm: the volume.
        shape_ab: of the planes, at least `plane_shape`.
        scalar: whether the field is a number per voxel instead of a vector.

    The field is float32 ``[component, z, y, x]`` (one component if scalar), the views float32 ``[view, a, b]`` in
    field times nm, on planes centred on the volume.

    >>> along_x = np.array([[1.0, 0.0, 0.0]])
    >>> projector = RayProjector(along_x, (4, 4, 6), 10.0, plane_shape(along_x, (4, 4, 6)))
    >>> field = np.zeros((3, 4, 4, 6), np.float32)
    >>> field[0] = 1.0
    >>> float(projector.forward(field)[0].max())
    60.0
    """

    k_vc: Float64
    shape_zyx: tuple[int, int, int]
    voxel_nm: float
    shape_ab: tuple[int, int]
    scalar: bool = False

    @property
    def z_nm(self) -> Float64:
        """Heights of the layers, shape (nz,)."""
        n = self.shape_zyx[0]
        return np.asarray((np.arange(n) - (n - 1) / 2) * self.voxel_nm)

    @property
    def axis_v(self) -> Intp:
        """Axis along which each view is taken, 0, 1 or 2 for x, y or z."""
        return np.array([principal_axis(k) for k in self.k_vc], dtype=np.intp)

    @property
    def obliquity_v(self) -> Float64:
        """Cosine of the angle between each beam and its axis: by so much the detector is squeezed."""
        return np.asarray(np.abs(self.k_vc).max(axis=1))

    @property
    def weight_vc(self) -> Float64:
        """What a voxel's components count in each view, shape (views, components)."""
        inverse = 1 / self.obliquity_v[:, None]
        return np.asarray(inverse if self.scalar else self.k_vc * inverse)

    def _along(self, field_czyx: Float32, axis: int) -> Float32:
        """The field with its layers along an axis: [component, layer, slow, fast]."""
        slow, fast = plane_axes(axis)
        order = (0, 3 - axis, 3 - slow, 3 - fast)
        return np.ascontiguousarray(np.transpose(field_czyx, order))

    def _groups(self) -> list[tuple[int, Intp, Float32, Float64, Float64]]:
        """Views of one axis with their weights, and where each plane begins in each layer, in voxels."""
        size_xyz = self.shape_zyx[::-1]
        rows, columns = self.shape_ab
        groups = []
        for axis in np.unique(self.axis_v):
            views = np.flatnonzero(self.axis_v == axis)
            slow, fast = plane_axes(int(axis))
            layer = np.arange(size_xyz[axis]) - (size_xyz[axis] - 1) / 2
            slope = self.k_vc[views] / self.k_vc[views, axis][:, None]
            start_a = (size_xyz[slow] - rows) / 2 + slope[:, slow, None] * layer
            start_b = (size_xyz[fast] - columns) / 2 + slope[:, fast, None] * layer
            weight = self.weight_vc[views].astype(np.float32)
            groups.append((int(axis), views, weight, start_a, start_b))
        return groups

    def forward(
        self, field_czyx: Float32, out: Float32 | None = None, coverage_z: Float32 | None = None
    ) -> Float32:
        """Project the field along every view, shape [view, a, b]; arguments as of `ShearedProjector.forward`."""
        if coverage_z is not None:
            field_czyx = field_czyx * coverage_z[:, None, None]
        projected = np.empty((len(self.k_vc), *self.shape_ab), np.float32) if out is None else out
        for axis, views, weight, start_a, start_b in self._groups():
            part = np.zeros((len(views), *self.shape_ab), np.float32)
            _project(self._along(field_czyx, axis), weight, start_a, start_b, part)
            projected[views] = part
        projected *= np.float32(self.voxel_nm)
        return projected

    def adjoint(self, views_vab: Float32, out: Float32 | None = None) -> Float32:
        """Spread the views back, the transpose of `forward`, shape [component, z, y, x], into `out` if it is given."""
        components = 1 if self.scalar else 3
        size_xyz = self.shape_zyx[::-1]
        field = np.empty((components, *self.shape_zyx), np.float32) if out is None else out
        field[:] = 0
        for axis, views, weight, start_a, start_b in self._groups():
            slow, fast = plane_axes(axis)
            part = np.zeros(
                (components, size_xyz[axis], size_xyz[slow], size_xyz[fast]), np.float32
            )
            _spread(np.ascontiguousarray(views_vab[views]), weight, start_a, start_b, part)
            back = np.argsort((0, 3 - axis, 3 - slow, 3 - fast))
            field += np.transpose(part, tuple(int(i) for i in back))
        field *= np.float32(self.voxel_nm)
        return field

    def field_shape(self, _shape_ab: tuple[int, int]) -> tuple[int, int, int, int]:
        """Shape [component, z, y, x] of the volume's field, whatever the views' planes."""
        return (1 if self.scalar else 3, *self.shape_zyx)

    def path_nm(self, coverage_z: Float32) -> Float32:
        """Length of a ray inside the covered part of the volume, along its axis, shape [view, a, b]."""
        covered = np.broadcast_to(coverage_z[:, None, None], self.shape_zyx).astype(np.float32)
        scalar = replace(self, scalar=True)
        path = scalar.forward(covered[None])
        path *= self.obliquity_v[:, None, None].astype(np.float32)
        return path

    def of_views(self, which: slice | npt.NDArray[np.intp]) -> RayProjector:
        """Return the projector of some views."""
        return replace(self, k_vc=self.k_vc[which])

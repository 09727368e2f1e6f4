"""The projector and the solvers at the size of the publication, beside ASTRA and SciPy on the same machine.

One scalar pass through one azimuth is the unit: volume (nz, n, n), views (nt, n, n) of the sheared frame, float32. A
vector iteration is one forward and one back projection of three components through both azimuths. The peers know
scalars and slices alone, so theirs is counted as the scalar passes that it takes: two per azimuth and direction, one
for m_z and one for the in-plane component, each weighted per view (and as if the second azimuth were as easy for them
as the first, whose rays stay within slices).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import astra
import numpy as np
import scipy.ndimage
import scipy.sparse

from mistral_txm.reconstruction.projector import ShearedProjector

VOXEL_NM = 10.5
THETA_DEG = np.r_[np.arange(-55, -23), np.arange(-22, 23, 2), np.arange(24, 56)].astype(float)
"""The publication's 87 tilts."""


@dataclass(frozen=True)
class Line:
    """One row of the table: seconds of ours, of a peer, and how the peer's were measured."""

    what: str
    peer: str
    ours_s: float
    peer_s: float
    note: str


def _seconds(run: Callable[[], object], repeats: int = 2) -> float:
    """Best of some runs, after one that compiles and warms up."""
    run()
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def _astra_seconds(n: int, nz: int, slices: int) -> tuple[float, float]:
    """Forward and back projection of n slices with ASTRA's linear projector, scaled from some slices."""
    theta = np.deg2rad(THETA_DEG)
    ray = np.stack(
        [np.sin(theta), np.cos(theta), 0 * theta, 0 * theta, np.cos(theta), -np.sin(theta)], axis=1
    )
    volume_geometry = astra.create_vol_geom(nz, n)
    view_geometry = astra.create_proj_geom("parallel_vec", n, ray)
    projector = astra.create_projector("linear", view_geometry, volume_geometry)
    rng = np.random.default_rng(0)
    image, sinogram = rng.random((nz, n), np.float32), rng.random((theta.size, n), np.float32)

    def run(make: Callable[..., tuple[int, object]], data: object) -> None:
        for _ in range(slices):
            number, _ = make(data, projector)
            astra.data2d.delete(number)

    forward = _seconds(lambda: run(astra.create_sino, image), 1) * n / slices
    back = _seconds(lambda: run(astra.create_backprojection, sinogram), 1) * n / slices
    astra.projector.delete(projector)
    return forward, back


def _sparse_seconds(n: int, nz: int, views: int) -> tuple[float, float]:
    """Forward and back projection of n slices with a sparse matrix of some views, scaled to all."""
    chosen = np.linspace(0, THETA_DEG.size - 1, views).round().astype(int)
    t = np.tan(np.deg2rad(THETA_DEG[chosen]))
    shift = t[:, None] * (np.arange(nz) - (nz - 1) / 2)
    low = np.floor(shift).astype(int)
    rows, columns, values = [], [], []
    x = np.arange(n)
    for v in range(views):
        for z in range(nz):
            for step, weight in ((0, 1 - (shift[v, z] - low[v, z])), (1, shift[v, z] - low[v, z])):
                rows.append(v * n + x)
                columns.append(z * n + (x + low[v, z] + step) % n)
                values.append(np.full(n, weight, np.float32))
    matrix = scipy.sparse.csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=(views * n, nz * n),
    )
    transposed = matrix.T.tocsr()
    rng = np.random.default_rng(0)
    volume, projections = (
        rng.random((nz * n, n), np.float32),
        rng.random((views * n, n), np.float32),
    )
    scale = THETA_DEG.size / views
    return _seconds(lambda: matrix @ volume, 1) * scale, _seconds(
        lambda: transposed @ projections, 1
    ) * scale


def projector_lines(n: int = 400, nz: int = 80) -> list[Line]:
    """Scalar-equivalent passes and vector iterations of ours and the peers."""
    rng = np.random.default_rng(0)
    z_nm = (np.arange(nz) - (nz - 1) / 2) * VOXEL_NM
    both = ShearedProjector(
        np.r_[THETA_DEG, THETA_DEG], np.repeat([0.0, 102.0], THETA_DEG.size), z_nm, VOXEL_NM
    )
    field = rng.random((3, nz, n, n), np.float32)
    views = rng.random((2 * THETA_DEG.size, n, n), np.float32)
    forward, back = _seconds(lambda: both.forward(field)), _seconds(lambda: both.adjoint(views))
    lines = []
    for peer, (peer_forward, peer_back), note in (
        (
            "ASTRA linear, CPU",
            _astra_seconds(n, nz, 8),
            f"8 of {n} slices on 1 thread, scaled, halved for 2 processes",
        ),
        (
            "SciPy sparse",
            _sparse_seconds(n, nz, 8),
            "8 of 87 views on 1 thread, scaled, halved for 2 threads",
        ),
    ):
        threads = min(2, os.cpu_count() or 1)
        lines += [
            Line(
                "forward, 3 components, 174 views", peer, forward, 4 * peer_forward / threads, note
            ),
            Line("back, 3 components, 174 views", peer, back, 4 * peer_back / threads, note),
            Line(
                "vector iteration",
                peer,
                forward + back,
                4 * (peer_forward + peer_back) / threads,
                note,
            ),
        ]
    return lines

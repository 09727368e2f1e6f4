"""Shifts of some views among others whose shifts are known, by what the film shows: no known view moves.

A view is first laid on the known one of its azimuth at the nearest tilt. Then all others predict it: with C^-1 of
module `coupling`, F as a function of the shift of this view alone has the gradient ``2 Re sum of b_i^* (C^-1 p)_i``,
and Gauss-Newton steps lead to its minimum. For that no other view is laid anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.coupling import Coupling, inverse_less_noise
from mistral_txm.reconstruction.film_field import VOXEL_NM, FilmField
from mistral_txm.reconstruction.film_poses import FilmPoses
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.neighbours import Contrast, shift_beside

Float64 = npt.NDArray[np.float64]

SWEEPS = 2
"""How often each view is placed: the second time those placed after it say something, too."""
STEPS = 10
"""At most so many for one view."""
SETTLED_PIXELS = 0.01
"""Step, pixels, from which on a view is where the others predict it."""
LARGEST_STEP_PIXELS = 2.0
LEAST_STIFFNESS = 0.4
"""Part of the matrix that is no noise at least, so that no step goes too far."""


def place_views(
    contrasts: Sequence[Contrast], pixel_nm: float, known_st: Sequence[Float64]
) -> tuple[tuple[Float64, ...], tuple[Float64, ...]]:
    """Find the shifts of the views that are not known.

    Args:
        contrasts: at least one; the series of all are the same views, with their azimuths and warps.
        pixel_nm: pixel, nm.
        known_st: shifts (v, u) in nm of each series, shape (views, 2), NaN where they are to be found.

    Returns:
        The shifts of all views, and the standard deviations against the known ones, zero for these.

    Raises:
        InputError: for series that cannot be used, or have no known view, or no structure in common.
    """
    binning = max(1, round(VOXEL_NM / pixel_nm))
    fields = [FilmField.of(one, pixel_nm, binning) for one in contrasts]
    started_st, order = _laid_beside(fields, known_st)
    phi_deg_s = tuple(float(one.phi_deg) for one in fields[0].series)
    poses = FilmPoses(started_st, phi_deg_s, None)
    to_vu = poses.to_vu(fields[0].series)
    std_st = tuple(np.zeros_like(one) for one in started_st)
    first = np.cumsum([0, *(len(one) for one in started_st)])
    for _ in range(SWEEPS if len(order) > 1 else 1):
        views = [field.laid(poses) for field in fields]
        couplings = [
            Coupling.of(laid, field.grid, field.domain, field.support, scalar=field.scalar)
            for field, laid in zip(fields, views, strict=True)
        ]
        spectra = [one.spectra(laid) for one, laid in zip(couplings, views, strict=True)]
        repeats = max(one.window.repeats for one in couplings)
        for k, i in order:
            number = int(first[k]) + i
            for _ in range(STEPS):
                laid = [field.laid_some(poses, k, [i])[0] for field in fields]
                pull = reduce(
                    add,
                    (
                        coupling.pull(p_vq, number, view)
                        for coupling, p_vq, view in zip(couplings, spectra, laid, strict=True)
                    ),
                )
                if not np.trace(pull.matrix) > 0:
                    raise InputError("alignment: the views have no structure to compare")
                inverse = inverse_less_noise(pull.matrix, pull.noise, LEAST_STIFFNESS)
                step = -inverse @ pull.gradient
                step *= min(1.0, LARGEST_STEP_PIXELS * pixel_nm / max(np.hypot(*step), 1e-12))
                poses = poses.moved_one(k, i, to_vu[number] @ step)
                if np.hypot(*step) < SETTLED_PIXELS * pixel_nm:
                    break
            for coupling, p_vq, view in zip(couplings, spectra, laid, strict=True):
                p_vq[number] = coupling.spectra([view])[0]
            frequencies = sum(len(coupling.y) for coupling in couplings)
            covariance = repeats * inverse * max(pull.misfit / frequencies, 1.0)
            of_shift = to_vu[number] @ covariance @ to_vu[number].T
            std_st[k][i] = np.sqrt(np.maximum(np.diag(of_shift), 0))
    return poses.shift_st, std_st


def _laid_beside(
    fields: Sequence[FilmField], known_st: Sequence[Float64]
) -> tuple[tuple[Float64, ...], list[tuple[int, int]]]:
    """All shifts to begin with, and the views (series, number) that were not known: each by the nearest known one."""
    shift_st = tuple(np.array(one, dtype=np.float64) for one in known_st)
    order = []
    for k, shift in enumerate(shift_st):
        series = [field.series[k] for field in fields]
        theta = np.asarray(series[0].theta_deg_t, dtype=np.float64)
        known = np.asarray(np.isfinite(shift).all(axis=1))
        if not known.any():
            raise InputError(f"phi = {series[0].phi_deg:g} deg: no view whose shift is known")
        while not known.all():
            apart = np.abs(theta[:, None] - theta)
            apart[known] = np.inf
            apart[:, ~known] = np.inf
            number, beside = (int(n) for n in np.unravel_index(int(apart.argmin()), apart.shape))
            shift[number] = shift_beside(
                series, number, beside, shift[beside], fields[0].grid.voxel_nm
            )
            known[number] = True
            order.append((k, number))
    return shift_st, order

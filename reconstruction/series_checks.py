"""What can be wrong with tilt series that have the right shape: seen in the data themselves, and told in one line each.

*Helicities.* A swap of the helicities' labels turns the sign of a signal. Of a single view it is seen because views
at neighbouring tilts show nearly the same: a view that is anticorrelated with both its neighbours, which are correlated
with each other, is turned. Of a whole series it is seen where series at several azimuths share m_z: on coarse voxels
the joint residual is then several times smaller with that series turned. A film without m_z tells nothing, and a swap
in all series turns all of m, which no data of absorption and dichroism tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.binning import binned
from mistral_txm.reconstruction.geometry import Grid, InputError
from mistral_txm.reconstruction.reconstruct import reconstruct
from mistral_txm.reconstruction.tilt_series import TiltSeries

__all__ = [
    "Turned",
    "binned_images",
    "checked_series",
    "coarse_factor",
    "coarse_grid",
    "turned_series",
]

LARGEST_COARSE_FIELD = 48
"""Pixels of the images that the series are compared on."""
LARGEST_COARSE_DEPTH = 12
ENOUGH_VIEWS = 30
"""Views of each series that are compared, every so many'th tilt."""
COARSE_NOISE = 0.1
"""Standard deviation that the coarse solution allows for, in units of the signal's rms."""
CLEARLY_SMALLER = 0.7
"""The residual with one series turned, in units of that as given, from which on the series is turned for sure.

Measured on films with m_z: 0.15 to 0.4; without: 0.98 to 1.02.
"""
ALIKE = 0.5
"""Correlation of two views that show nearly the same."""
LARGE_GAP_DEG = 5.0
"""A gap between tilts that is worth a word, if it is also more than twice the usual step."""
SAME_DIRECTION_DEG = 5.0
"""Azimuths, modulo 180 deg, that give no more than one does."""


def checked_series(
    series: Sequence[TiltSeries], names: Sequence[str], grid: Grid, *, isolated: bool = False
) -> tuple[list[TiltSeries], list[str]]:
    """Return the series without views that say nothing, and a line for all that is not as it should be.

    Args:
        series: each with images and tilts that fit (`read_aligned` sees to that).
        names: of their files.
        grid: of the volume that is wanted.
        isolated: whether nothing lies outside it (`reconstruct.reconstruct`).

    Raises:
        InputError: if a series is none, holds a view twice, or helicities are swapped.
    """
    checked, coarse_ones, notes = [], [], []
    for one, name in zip(series, names, strict=True):
        kept, of_it = _views_with_signal(one, name)
        _refuse_no_series(kept, name)
        coarse = binned_images(np.asarray(kept.dichroic_tvu))
        _refuse_turned_views(kept, coarse, name)
        checked.append(kept)
        coarse_ones.append(coarse)
        notes += of_it
        notes += _gaps(kept, name)
    notes += _azimuths(checked)
    _refuse_turned_series(checked, coarse_ones, names, grid, isolated)
    return checked, notes


def _views_with_signal(one: TiltSeries, name: str) -> tuple[TiltSeries, list[str]]:
    signal_tvu, theta_deg = np.asarray(one.dichroic_tvu), np.asarray(one.theta_deg_t)
    empty = np.array([not np.isfinite(image).any() for image in signal_tvu])
    if not empty.any():
        return one, []
    told = ", ".join(f"{theta:g}" for theta in theta_deg[empty])
    if empty.all():
        raise InputError(f"{name}: no pixel of any view has a value; was there light?")
    return one.of_views(~empty), [f"{name}: no pixel has a value at theta {told} deg: left out"]


def _refuse_no_series(one: TiltSeries, name: str) -> None:
    theta_deg, signal_tvu = np.asarray(one.theta_deg_t), np.asarray(one.dichroic_tvu)
    if theta_deg.size > 1 and np.ptp(theta_deg) == 0:
        raise InputError(
            f"{name}: all {theta_deg.size} tilts are {theta_deg[0]:g} deg; expected a tilt series"
        )
    if not any(np.any(image[np.isfinite(image)]) for image in signal_tvu):
        raise InputError(
            f"{name}: the dichroic signal is zero in every view; were both helicities made from one file?"
        )
    order = np.argsort(theta_deg, kind="stable")
    for first, second in pairwise(order):
        same = theta_deg[first] == theta_deg[second] and signal_tvu[first].any()
        if same and np.array_equal(signal_tvu[first], signal_tvu[second], equal_nan=True):
            raise InputError(
                f"{name}: views {first} and {second} at theta {theta_deg[first]:g} deg are one image; leave one out"
            )


def _gaps(one: TiltSeries, name: str) -> list[str]:
    theta_deg = np.unique(np.asarray(one.theta_deg_t))
    if theta_deg.size < 3:
        return []
    steps = np.diff(theta_deg)
    worst = int(steps.argmax())
    if steps[worst] <= max(LARGE_GAP_DEG, 2 * float(np.median(steps))):
        return []
    return [
        f"{name}: no view between theta {theta_deg[worst]:g} and {theta_deg[worst + 1]:g} deg; what lies in that "
        "direction is less certain"
    ]


def _azimuths(series: Sequence[TiltSeries]) -> list[str]:
    if any(one.roll_deg != series[0].roll_deg for one in series):
        return []
    phi_deg = np.array([one.phi_deg for one in series])
    apart = np.abs((phi_deg - phi_deg[0] + 90) % 180 - 90)
    if apart.max() > SAME_DIRECTION_DEG:
        return []
    twice = f" ({len(series)} series at it)" if len(series) > 1 else ""
    return [
        f"one azimuth alone, phi {phi_deg[0]:g} deg{twice}: the data tell m_z and the in-plane component across the "
        "tilt axis, nothing of the one along it; give a series at another azimuth"
    ]


def _refuse_turned_views(one: TiltSeries, coarse_tvu: NDArray[np.float32], name: str) -> None:
    theta_deg = np.asarray(one.theta_deg_t)
    order = np.argsort(theta_deg, kind="stable")
    if len(order) < 3:
        return
    images = coarse_tvu[order].reshape(len(order), -1)
    length = np.linalg.norm(images, axis=1, keepdims=True)
    images /= np.where(length > 0, length, np.float32(1))
    for number in range(len(order)):
        first = min(max(number - 1, 0), len(order) - 3)
        one_side, other = (i for i in range(first, first + 3) if i != number)
        alike = float(images[one_side] @ images[other])
        own = max(float(images[number] @ images[i]) for i in (one_side, other))
        if alike > ALIKE and own < -ALIKE:
            raise InputError(
                f"{name}: the view at theta {theta_deg[order[number]]:g} deg is the negative of its neighbours "
                f"(correlation {own:.2f}); are its helicities swapped?"
            )


def _refuse_turned_series(
    series: Sequence[TiltSeries],
    coarse_ones: Sequence[NDArray[np.float32]],
    names: Sequence[str],
    grid: Grid,
    isolated: bool,
) -> None:
    if len(series) < 2:
        return
    height, width = np.shape(series[0].dichroic_tvu)[1:]
    factor = coarse_factor(height, width)
    some, binned = [], []
    for one, images_tvu in zip(series, coarse_ones, strict=True):
        order = np.argsort(np.asarray(one.theta_deg_t), kind="stable")
        chosen = order[:: ceil(len(order) / ENOUGH_VIEWS)]
        some.append(one.of_views(chosen))
        binned.append(images_tvu[chosen])
    found = turned_series(
        [replace(one, dichroic_tvu=images) for one, images in zip(some, binned, strict=True)],
        coarse_grid(grid, factor, binned[0].shape),
        isolated=isolated,
    )
    if found is not None:
        which = names[found.number] if len(series) > 2 else f"{names[0]} or {names[1]}"
        raise InputError(
            f"{which}: its helicities are swapped, or its --phi is wrong: the series contradict each other, and fit "
            f"with its sign turned (residual {found.given:.2f} of the signal as given, {found.turned:.2f} turned)"
        )


class Turned(NamedTuple):
    """Which series contradicts the others, and the residual as it was given and with its sign turned, by the signal."""

    number: int
    given: float
    turned: float


def coarse_grid(grid: Grid, factor: int, shape_tvu: tuple[int, ...]) -> Grid:
    """Return the volume of images that were averaged over squares of so many pixels."""
    layers = min(max(round(grid.shape_zyx[0] / factor), 2), LARGEST_COARSE_DEPTH)
    return Grid((layers, shape_tvu[1], shape_tvu[2]), grid.voxel_nm * factor)


def turned_series(
    series: Sequence[TiltSeries], coarse: Grid, *, isolated: bool = False
) -> Turned | None:
    """Find the series whose sign is turned: with it turned back the residual is several times smaller.

    Of two series the second is named; nothing tells them apart. None where no series is turned for sure.

    Args:
        series: at least two, with images on coarse pixels (`binned`), some 30 views each.
        coarse: of the volume (`coarse_grid`).
        isolated: whether nothing lies outside it (`reconstruct.reconstruct`).
    """
    images = [np.asarray(one.dichroic_tvu) for one in series]
    rms = float(np.sqrt(np.mean(np.concatenate([one.ravel() for one in images]) ** 2)))

    def residual(turned: int | None) -> float:
        parts = [
            replace(
                one,
                dichroic_tvu=-image if number == turned else image,
                std_tvu=np.full(len(image), COARSE_NOISE * rms),
            )
            for number, (one, image) in enumerate(zip(series, images, strict=True))
        ]
        found = reconstruct(
            parts, coarse, method="cgls" if isolated else "direct", isolated=isolated
        ).residual_rms_per_view
        return float(np.sqrt(np.mean(found**2))) / rms

    given = residual(None)
    # Of two series it makes no difference which one is turned.
    turned = {
        number: residual(number) for number in range(0 if len(series) > 2 else 1, len(series))
    }
    worst = min(turned, key=lambda number: turned[number])
    return Turned(worst, given, turned[worst]) if turned[worst] < CLEARLY_SMALLER * given else None


def coarse_factor(height: int, width: int) -> int:
    """Return over how many pixels along each side images are averaged to be compared."""
    return ceil(max(height, width) / LARGEST_COARSE_FIELD)


def binned_images(images_tvu: NDArray[np.floating]) -> NDArray[np.float32]:
    """Average over squares of pixels; what has no value counts as nothing."""
    n, height, width = images_tvu.shape
    factor = min(coarse_factor(height, width), height, width)
    coarse = np.empty((n, height // factor, width // factor), np.float32)
    for image, blocks in zip(images_tvu, coarse, strict=True):
        blocks[:] = binned(np.nan_to_num(image, posinf=0.0, neginf=0.0), factor)
    return coarse

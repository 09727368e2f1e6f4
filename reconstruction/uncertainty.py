"""Standard deviation of every voxel of a volume, from the data alone: the bootstrap.

A volume is made again and again from data drawn from the data; the scatter of the volumes is the uncertainty that the
noise makes, whatever the method and the prior. What a prior assumes and no view tells is the same in all of them and
does not show: the analytic uncertainty of the method "direct" (`reconstruct.Reconstruction.std`) holds it too, if the
field is as smooth as its prior.

- over views (`views_drawn`): each view counts with a random weight, exponentially distributed of mean 1 (the Bayesian
  bootstrap, D. B. Rubin, Ann. Statist. 9, 130 (1981)): the weight w divides its variance. No view is lost, which
  would open the wedge further. All that differs from view to view is in it, errors of the alignment too; but views
  are no repeats of each other, and against the scatter of many measurements it was a third too small (direct) and a
  third too large (cgls).
- over repeats (`repeats_drawn`): of K independent measurements of the same views K are drawn with replacement and
  averaged (B. Efron, Ann. Statist. 7, 1 (1979)); the scatter is too small by ``sqrt((K - 1) / K)``, which is made good.
  It agreed with the scatter of many measurements within 10 %: the one to take where repeats were kept apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.reconstruct import Reconstruction
from mistral_txm.reconstruction.tilt_series import TiltSeries
from mistral_txm.reconstruction.workers import Spread, in_process

Series = Sequence[TiltSeries]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def views_drawn(series: Series, times: int, rng: np.random.Generator) -> Iterator[list[TiltSeries]]:
    """Draw random weights of the views so many times.

    Raises:
        InputError: for a series without standard deviations, which the weights would have to divide.
    """
    for one in series:
        if one.std_tvu is None:
            raise InputError(
                f"bootstrap: the series at phi = {one.phi_deg:g} deg has no standard deviations; give them"
            )
    for _ in range(times):
        drawn = []
        for one in series:
            std = np.asarray(one.std_tvu, dtype=np.float64)
            weight = rng.exponential(size=np.size(one.theta_deg_t)).reshape(
                -1, *[1] * (std.ndim - 1)
            )
            drawn.append(replace(one, std_tvu=std / np.sqrt(np.maximum(weight, 1e-3))))
        yield drawn


def repeats_drawn(
    repeats: Sequence[Series], times: int, rng: np.random.Generator
) -> Iterator[list[TiltSeries]]:
    """Draw from K measurements of the same series, and average, so many times.

    The scatter about the mean of all repeats is stretched by ``sqrt(K / (K - 1))``.

    Args:
        repeats: K times all series, each with the same views.
        times: how often.
        rng: draws.

    Raises:
        InputError: for fewer than two repeats, or series that are not of the same views.
    """
    count = len(repeats)
    if count < 2:
        raise InputError(f"bootstrap: {count} repeats, at least two are needed")
    shapes = {tuple(np.shape(one.dichroic_tvu) for one in each) for each in repeats}
    if len(shapes) > 1:
        raise InputError("bootstrap: the repeats hold different views; expected the same in each")
    stacks = [
        np.stack([np.asarray(each[k].dichroic_tvu, np.float64) for each in repeats])
        for k in range(len(repeats[0]))
    ]
    stretch = np.sqrt(count / (count - 1))
    for _ in range(times):
        weight = np.bincount(rng.integers(count, size=count), minlength=count) / count
        drawn = []
        for one, stack in zip(repeats[0], stacks, strict=True):
            mean = stack.mean(axis=0)
            signal = mean + stretch * (np.tensordot(weight, stack, 1) - mean)
            std = None if one.std_tvu is None else np.asarray(one.std_tvu) / np.sqrt(count)
            drawn.append(replace(one, dichroic_tvu=signal, std_tvu=std))
        yield drawn


def bootstrap_std(
    drawn: Iterable[Series],
    solve: Callable[[Series], Reconstruction],
    *,
    spread: Spread = in_process,
) -> Float32:
    """Standard deviation of every component of every voxel, shape (3, z, y, x), over volumes solved from drawn data.

    What is drawn, and the order in which the volumes are summed up, do not depend on `spread`, so neither does
    the result.

    Args:
        drawn: `views_drawn` or `repeats_drawn`, at least two; with n of them the result is good to
            ``1 / sqrt(2 n)``.
        solve: makes a volume of series, such as ``functools.partial(reconstruct, grid=grid)``.
        spread: where the volumes are solved (`workers.spread_over`); as many are held at once as it has workers.

    Raises:
        InputError: for fewer than two.
    """
    rest = iter(drawn)
    count = 0
    mean, squares = np.zeros(1), np.zeros(1)
    while batch := list(islice(rest, spread.workers)):
        for volume in spread(_solved, batch, solve):
            if count == 0:
                mean, squares = np.zeros(volume.shape), np.zeros(volume.shape)
            count += 1
            for component, value in enumerate(volume):  # one at a time: half of the memory
                before = value - mean[component]
                mean[component] += before / count
                squares[component] += before * (value - mean[component])
    if count < 2:
        raise InputError(f"bootstrap: {count} volumes, at least two are needed")
    return np.asarray(np.sqrt(squares / (count - 1)), dtype=np.float32)


def _solved(series: Series, solve: Callable[[Series], Reconstruction]) -> Float32:
    return solve(series).m_czyx


def check_bootstrap(method: str) -> None:
    """Refuse methods for which the bootstrap over views says nothing, in one line."""
    if method in ("art", "sirt"):
        raise InputError(
            f"bootstrap: the method '{method}' weights all views alike, whatever is drawn; choose 'direct' or 'cgls'"
        )


def with_bootstrap_std(
    result: Reconstruction,
    series: Series,
    solve: Callable[[Series], Reconstruction],
    times: int,
    *,
    spread: Spread = in_process,
) -> Reconstruction:
    """Give a reconstruction the standard deviation that the bootstrap over views finds.

    The draws are the same each time. Where a series has no standard deviations, its views' noise as estimated for
    `result` takes their place.

    Args:
        result: what `solve` makes of the series.
        series: the views.
        solve, spread: as for `bootstrap_std`.
        times: how many volumes are solved, at least two.

    Returns:
        The same volume; std is the root mean square of the three components' standard deviations.

    Raises:
        InputError: for fewer than two, and for the methods "art" and "sirt": they weight all views alike, so that
            nothing is drawn.
    """
    check_bootstrap(result.method)
    if times < 2:
        raise InputError(f"bootstrap: {times} volumes, at least two are needed")
    sizes = [np.size(one.theta_deg_t) for one in series]
    noise = np.split(result.noise_per_view, np.cumsum(sizes)[:-1])
    known = [
        one if one.std_tvu is not None else replace(one, std_tvu=std)
        for one, std in zip(series, noise, strict=True)
    ]
    std_czyx = bootstrap_std(
        views_drawn(known, times, np.random.default_rng(0)), solve, spread=spread
    )
    std_zyx = np.sqrt(np.mean(std_czyx**2, axis=0, dtype=np.float64))
    return replace(result, std=np.asarray(std_zyx, dtype=np.float32))

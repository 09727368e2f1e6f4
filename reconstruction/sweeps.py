"""The same series reconstructed with one setting after the other, to see what a choice does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mistral_txm.reconstruction.geometry import Grid, InputError
from mistral_txm.reconstruction.reconstruct import Reconstruction, check_options, reconstruct
from mistral_txm.reconstruction.tilt_series import TiltSeries
from mistral_txm.reconstruction.workers import Spread, in_process


def sweep(
    series: Sequence[TiltSeries],
    grid: Grid,
    settings: Sequence[Mapping[str, Any]],
    *,
    spread: Spread = in_process,
) -> list[Reconstruction]:
    """Reconstruct once with each of several settings.

    Each volume is what `reconstruct.reconstruct` makes with this setting alone, wherever it is solved.

    Args:
        series: the views, as for `reconstruct`.
        grid: the volume.
        settings: options of `reconstruct` by name, such as ``{"method": "cgls", "iterations": 20}``.
        spread: where the volumes are solved (`workers.spread_over`): each whole on one worker.

    Returns:
        The volumes, in the order of the settings.

    Raises:
        InputError: for a setting that `reconstruct` refuses, before the first volume is solved where options do not
            go together.

    >>> import numpy as np
    >>> theta_deg = np.arange(-50.0, 51.0, 20.0)
    >>> signal_tvu = np.random.default_rng(0).normal(size=(6, 16, 16))
    >>> series = [TiltSeries(0.0, theta_deg, signal_tvu, np.full(6, 0.1))]
    >>> settings = [{"method": "cgls", "iterations": n} for n in (1, 4)]
    >>> few, more = (one.residual_rms_per_view.mean() for one in sweep(series, Grid((4, 16, 16), 10.5), settings))
    >>> bool(more < few)
    True
    """
    for number, setting in enumerate(settings):
        try:
            check_options(
                setting.get("method", "direct"),
                setting.get("prior", "none"),
                setting.get("layers_nm", ()),
                setting.get("delta_per_nm"),
            )
        except InputError as refusal:
            raise InputError(f"setting {number}: {refusal}") from None
    return spread(_reconstructed, settings, (series, grid))


def _reconstructed(
    setting: Mapping[str, Any], data: tuple[Sequence[TiltSeries], Grid]
) -> Reconstruction:
    series, grid = data
    return reconstruct(series, grid, **setting)

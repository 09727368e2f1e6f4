"""Draws the pictures of docs/explanation/simulated-beamline.md: measures on a simulated beamline, with the plans.

Usage: .venv/bin/python docs/draw_simulated_beamline.py [--conditions ideal|real]
"""

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from mistral_txm.plans import energy_scan, focus_series, polarization_scan
from mistral_txm.profile_collection import start
from mistral_txm.services.drawing import SIGNED_MAP, STYLE
from mistral_txm.services.scan_figures import energy_figure, focus_figure, polarization_figure
from mistral_txm.services.scan_results import (
    evaluate_energy_scan,
    evaluate_focus_series,
    evaluate_polarization_scan,
)
from mistral_txm.services.scans import read_scan

IMAGES = Path(__file__).with_name("images")
ENERGIES_EV = (
    *np.arange(700.0, 705.0, 1.0),
    *np.arange(705.0, 710.1, 0.5),
    *np.arange(711.0, 718.0, 1.0),
    *np.arange(718.0, 723.1, 0.5),
    *np.arange(724.0, 728.0, 1.0),
)
EXPOSING: dict[str, Any] = {
    "exposure_s": 8.0,
    "repeats": 3,
    "flat_exposure_s": 3.0,
    "flat_repeats": 4,
}


def main() -> None:
    """Measure, evaluate and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conditions", default="real", help="of the simulated beamline")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of the pictures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, mpl.rc_context(dict(STYLE)):
        data = Path(folder)
        with start(
            simulated=True, data=data, size="paper", conditions=options.conditions
        ) as session:
            uids = measure(session)
        for name, figure in draw(data, uids):
            save(figure, options.images / f"simulated-{name}.png")


def save(figure: Figure, path: Path) -> None:
    """Write a picture with 256 colours: grey levels and noise do not need more."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120)
    Image.open(buffer).convert("RGB").quantize(256).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB", file=sys.stderr)


def measure(session: Any) -> dict[str, str]:
    """Take the scans and return their uids."""
    instrument, RE = session.instrument, session.RE
    RE(session.bps.mv(instrument.azimuth, 0.0))
    plans = {
        "jaws": polarization_scan(instrument, list(np.arange(-5, 5.1, 0.5)), 0.5, **EXPOSING),
        "focus +": focus_series(instrument, 1, list(np.arange(-4, 6.1, 0.5)), **EXPOSING),
        "focus -": focus_series(instrument, -1, list(np.arange(-4, 6.1, 0.5)), **EXPOSING),
        "energy": energy_scan(instrument, list(ENERGIES_EV), **EXPOSING),
    }
    return {name: RE(plan)[0] for name, plan in plans.items()}


def draw(data: Path, uids: dict[str, str]) -> Iterator[tuple[str, Figure]]:
    """Yield the pictures with their names."""
    jaws = read_scan(data, uids["jaws"])
    yield "jaw-scan", polarization_figure(evaluate_polarization_scan(jaws))
    foci = [evaluate_focus_series(read_scan(data, uids[f"focus {sign}"])) for sign in "+-"]
    yield "focus-scan", focus_figure(foci)
    yield "energy-scan", energy_figure(evaluate_energy_scan(read_scan(data, uids["energy"])))
    yield "frames", frames_figure(jaws)
    yield "pair", pair_figure(jaws)


def transmittance(scan: Any, helicity: int) -> NDArray[np.float64]:
    """Average repeats, subtract the dark level, divide by the flat: as anybody would."""
    levels = {
        time_s: np.median([one.read() for one in of_it], axis=0)
        for time_s, of_it in scan.darks.items()
    }
    rates = [
        np.mean(
            [
                (one.read() - levels[one.exposure_s]) / (one.exposure_s * one.ring_current_ma)
                for one in exposures[helicity, None]
            ],
            axis=0,
        )
        for exposures in (scan.sample, scan.flats)
    ]
    passed: NDArray[np.float64] = rates[0] / rates[1]
    return passed


def frames_figure(scan: Any) -> Figure:
    """Draw one raw frame of the sample and one flat, both as the camera gives them."""
    figure = Figure(figsize=(7.6, 3.6), layout="compressed")
    shown = (
        ("sample, 8 s, helicity +1", scan.sample[1, None][0]),
        ("flat, 3 s, helicity +1", scan.flats[1, None][0]),
    )
    for axes, (title, exposure) in zip(figure.subplots(1, 2), shown, strict=True):
        frame_vu = exposure.read()
        low, high = np.percentile(frame_vu, (0.2, 99.8))
        drawn = axes.imshow(
            frame_vu, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="antialiased"
        )
        figure.colorbar(drawn, ax=axes, label="counts", shrink=0.8, pad=0.02, extend="both")
        axes.set_title(title)
        scale_bar(axes, scan.pixel_nm, 2000)
    return figure


def pair_figure(scan: Any) -> Figure:
    """Draw the transmittance of both helicities in the same grey levels, their difference, and a fiducial."""
    passed = {helicity: transmittance(scan, helicity) for helicity in (1, -1)}
    figure = Figure(figsize=(10.4, 3.1), layout="compressed")
    axes = figure.subplots(1, 4)
    around = fiducial(passed)
    whole = window(around, 128, passed[1].shape)
    close = window(around, 24, passed[1].shape)
    low, high = np.percentile(np.stack([one[whole] for one in passed.values()]), (0.2, 99.8))
    grey: dict[str, Any] = {"cmap": "gray", "vmin": low, "vmax": high, "origin": "lower"}
    for one, helicity in ((axes[0], 1), (axes[1], -1)):
        drawn = one.imshow(passed[helicity][whole], **grey)
        one.set_title(f"helicity {'+' if helicity > 0 else '−'}1")
        scale_bar(one, scan.pixel_nm, 500)
    figure.colorbar(drawn, ax=axes[1], label="transmittance", shrink=0.8, pad=0.02, extend="both")
    signal_vu = -np.log(passed[1][whole] / passed[-1][whole]) / 2
    limit = float(np.nanpercentile(np.abs(signal_vu), 99.5))
    drawn = axes[2].imshow(signal_vu, cmap=SIGNED_MAP, vmin=-limit, vmax=limit, origin="lower")
    axes[2].set_title("$(A_+ - A_-)/2$")
    scale_bar(axes[2], scan.pixel_nm, 500)
    figure.colorbar(drawn, ax=axes[2], label="dichroic signal", shrink=0.8, pad=0.02, extend="both")
    drawn = axes[3].imshow((passed[1][close] + passed[-1][close]) / 2, **(grey | {"vmin": None}))
    axes[3].set_title("a gold sphere, both helicities")
    scale_bar(axes[3], scan.pixel_nm, 100)
    figure.colorbar(drawn, ax=axes[3], label="transmittance", shrink=0.8, pad=0.02, extend="both")
    return figure


def fiducial(passed: dict[int, NDArray[np.float64]]) -> tuple[int, int]:
    """Return the pixel (v, u) of the darkest disc near the middle."""
    mean = gaussian_filter(passed[1] + passed[-1], 3)
    size = mean.shape[0]
    margin = size // 4
    middle = mean[margin : size - margin, margin : size - margin]
    v, u = np.unravel_index(np.argmin(middle), middle.shape)
    return int(v) + margin, int(u) + margin


def window(middle_vu: tuple[int, int], half: int, shape_vu: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the pixels around one of them, moved into the image."""
    first = [
        min(max(middle - half, 0), size - 2 * half)
        for middle, size in zip(middle_vu, shape_vu, strict=True)
    ]
    return slice(first[0], first[0] + 2 * half), slice(first[1], first[1] + 2 * half)


def scale_bar(axes: Axes, pixel_nm: float, length_nm: int) -> None:
    """Draw a bar of a length instead of the axes' ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    label = f"{length_nm / 1000:g} µm" if length_nm >= 1000 else f"{length_nm} nm"
    height = 0.008 * abs(np.diff(axes.get_ylim())[0])
    bar = AnchoredSizeBar(
        axes.transData, length_nm / pixel_nm, label, "lower left", size_vertical=height, sep=2
    )
    bar.patch.set(facecolor="white", edgecolor="none", alpha=0.85)
    axes.add_artist(bar)


if __name__ == "__main__":
    main()

"""Draws the pictures of docs/explanation/reconstruction.md, and prints its tables.

Usage: .venv/bin/python -m docs.draw_reconstruction [--every 3] [--textures stripes vortex hopfion neel_skyrmions]

Without a name behind --textures it draws what few photons give alone (table: python -m benchmarks.likelihood).
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from benchmarks import likelihood
from benchmarks.priors import TEXTURES
from benchmarks.tilt_series import Measured, measure
from mistral_txm.reconstruction import Reconstruction, reconstruct
from mistral_txm.reconstruction.residual_maps import residual_maps
from mistral_txm.reconstruction.resolution import ROSENTHAL_HENDERSON, shell_correlation
from mistral_txm.reconstruction.uncertainty import bootstrap_std, views_drawn
from mistral_txm.services.drawing import STYLE

IMAGES = Path(__file__).with_name("images")
SLICE_NM = {"stripes": 80.0}
WORST_DEG = 60.0
BOOTSTRAPS = 12
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rung:
    """A way to reconstruct: its name in the table, and whether it has a column in the pictures."""

    name: str
    solve: Callable[[Measured], Float32]
    drawn: str = ""


def joint(method: str, prior: str) -> Callable[[Measured], Float32]:
    """All views of both series at once, each with its own direction."""
    return lambda case: solved(case, method, prior).m_czyx


def solved(case: Measured, method: str, prior: str) -> Reconstruction:
    """Reconstruct a case."""
    return reconstruct(
        case.series,
        case.grid,
        method=method,
        prior=prior,
        layers_nm=() if prior == "none" else case.layers_nm,
        delta_per_nm=None if prior == "norm" else case.delta_per_nm,
    )


def series_by_series(case: Measured) -> Float32:
    """As the facility's published code: each series alone, the second's in-plane component taken for my."""
    first, second = (
        reconstruct([one], case.grid, method="sirt", delta_per_nm=case.delta_per_nm)
        for one in case.series
    )
    return np.stack([first.mx, -second.parallel_to(102.0), (first.mz + second.mz) / 2])


RUNGS = (
    Rung("each series alone, SIRT", series_by_series, "series alone"),
    Rung("joint, ART", joint("art", "none")),
    Rung("joint, SIRT", joint("sirt", "none")),
    Rung("joint, CGLS", joint("cgls", "none")),
    Rung("joint, direct", joint("direct", "none"), "none"),
    Rung("joint, CGLS, layers", joint("cgls", "layers")),
    Rung("joint, direct, layers", joint("direct", "layers"), "layers"),
    Rung("joint, direct, norm", joint("direct", "norm"), "norm"),
)


def colours(m_cab: Float32) -> npt.NDArray[np.float64]:
    """Hue for the direction in the plane, white up, black down; grey where there is no direction."""
    length = np.linalg.norm(m_cab, axis=0)
    n = m_cab / np.where(length > 0, length, 1)
    hue = np.arctan2(n[1], n[0]) / (2 * np.pi) % 1
    value = np.where(n[2] < 0, 1 + n[2], 1.0)
    saturation = np.where(n[2] > 0, 1 - n[2], 1.0)
    rgb = hsv_to_rgb(np.stack([hue, np.clip(saturation, 0, 1), np.clip(value, 0, 1)], axis=-1))
    rgb[length == 0] = 0.6
    return np.asarray(rgb)


def texture_figure(case: Measured | likelihood.Case, fields: dict[str, Float32]) -> Figure:
    """Truth and rungs: the field in a plane and in a section, and its angle to the truth there."""
    grid = case.grid
    k = int(np.argmin(np.abs(grid.z_nm - SLICE_NM.get(case.name, 0.0))))
    j = grid.shape_zyx[1] // 2
    half_um = grid.shape_zyx[2] * grid.voxel_nm / 2000
    half_z_um = grid.shape_zyx[0] * grid.voxel_nm / 2000
    plane = (-half_um, half_um, -half_um, half_um)
    section = (-half_um, half_um, -half_z_um, half_z_um)
    figure = Figure(figsize=(2.1 * len(fields) + 0.6, 6.2), layout="constrained")
    axes = figure.subplots(4, len(fields), height_ratios=[1, 0.38, 1, 0.38], squeeze=False)
    shown = None
    magnetic = np.linalg.norm(case.truth_czyx, axis=0) > 0.5
    for column, (name, m) in enumerate(fields.items()):
        masked = m * magnetic
        angle = case.angles_deg(m)
        for row, (image, extent) in enumerate(
            [(colours(m[:, k]), plane), (colours(m[:, :, j]), section)]
        ):
            axes[row, column].imshow(image, origin="lower", extent=extent, aspect="auto")
        for row, (image, extent) in enumerate([(angle[k], plane), (angle[:, j], section)]):
            shown = axes[2 + row, column].imshow(
                image,
                origin="lower",
                extent=extent,
                aspect="auto",
                vmin=0,
                vmax=WORST_DEG,
                cmap="magma",
            )
            axes[2 + row, column].set_facecolor("0.8")
        axes[0, column].set_title(
            name if column == 0 else f"{name}\n{case.errors(masked)[1]:.1f} deg"
        )
        for row in range(4):
            axes[row, column].set_xticks([])
            axes[row, column].set_yticks([])
    for row, label in enumerate(
        [f"plane, z = {grid.z_nm[k]:.0f} nm", "section", "angle to truth", "section"]
    ):
        axes[row, 0].set_ylabel(label)
    if shown is not None:
        figure.colorbar(shown, ax=axes[2:, :], label="deg", shrink=0.8, extend="max")
    return figure


def errors_row(case: Measured, m: Float32) -> str:
    """Vector error, median angle, median angle where the truth leans from the normal, part that is wrong."""
    error, angle = case.errors(m)
    angles = case.angles_deg(m)
    turned = np.isfinite(angles) & (np.abs(case.truth_czyx[2]) < 0.9)
    far = float(np.mean(angles[np.isfinite(angles)] > 60))
    return f"{error:.2f} | {angle:.1f} | {np.median(angles[turned]):.1f} | {100 * far:.1f}"


def resolution_rows(case: Measured) -> tuple[list[str], Figure]:
    """Lateral and axial resolution of volumes from halves of the exposures."""
    rows = []
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, prior in zip(axes, ("none", "layers"), strict=True):
        halves = [
            reconstruct(
                half, case.grid, prior=prior, layers_nm=() if prior == "none" else case.layers_nm
            ).m_czyx
            for half in case.halves
        ]
        cells = []
        for direction, colour in (("lateral", "#0072B2"), ("axial", "#D55E00")):
            found = shell_correlation(*halves, case.grid.voxel_nm, direction=direction)
            axis.plot(
                1000 * found.frequency_per_nm, found.correlation, color=colour, label=direction
            )
            axis.plot(1000 * found.frequency_per_nm, found.half_bit, "--", color=colour, lw=0.8)
            cells.append(
                f"{found.resolution_nm():.0f} ({found.resolution_nm(ROSENTHAL_HENDERSON):.0f})"
            )
        rows.append(f"| {case.name} | {prior} | {' | '.join(cells)} |")
        axis.set_title(f"prior {prior}")
        axis.set_xlabel("frequency (1/um)")
        axis.set_ylim(-0.1, 1.05)
    axes[0].set_ylabel("correlation of the halves")
    axes[0].legend(title="dashed: half bit")
    return rows, figure


def uncertainty_row(case: Measured, prior: str) -> str:
    """How often the truth lies within one and two standard deviations."""
    result = solved(case, "direct", prior)
    assert result.std is not None
    magnetic = np.linalg.norm(case.truth_czyx, axis=0) > 0.5
    error = np.abs(result.m_czyx - case.truth_czyx)[:, magnetic]
    std = result.std[magnetic]
    return (
        f"| {case.name} | {prior} | {np.sqrt(np.mean(std**2)):.2f} | {np.sqrt(np.mean(error**2)):.2f} | "
        f"{100 * np.mean(error < std):.0f} % | {100 * np.mean(error < 2 * std):.0f} % |"
    )


def bootstrap_line(case: Measured) -> str:
    """The noise's part alone, by the bootstrap over views."""
    solve = partial(
        reconstruct,
        grid=case.grid,
        prior="layers",
        layers_nm=case.layers_nm,
        delta_per_nm=case.delta_per_nm,
    )
    rng = np.random.default_rng(0)
    std = bootstrap_std(views_drawn(case.series, BOOTSTRAPS, rng), solve)
    magnetic = np.linalg.norm(case.truth_czyx, axis=0) > 0.5
    return f"{case.name}: bootstrap over views, layers: {np.sqrt(np.mean(std[:, magnetic] ** 2)):.3f} rms"


def residual_figure(case: Measured) -> tuple[str, Figure]:
    """The misfit with the right layers, and with one of them forgotten."""
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots(1, 2)
    half_um = case.grid.shape_zyx[2] * case.grid.voxel_nm / 2000
    words, shown = [], None
    for axis, layers, title in (
        (axes[0], case.layers_nm, "both layers"),
        (axes[1], case.layers_nm[-1:], "one layer forgotten"),
    ):
        result = reconstruct(
            case.series, case.grid, prior="layers", layers_nm=layers, delta_per_nm=case.delta_per_nm
        )
        maps = residual_maps(case.series, result, layers_nm=layers)
        words.append(f"{title} {np.nanmedian(maps.misfit_zyx):.2f}")
        k = int(np.argmin(np.abs(case.grid.z_nm - 80.0)))
        shown = axis.imshow(
            maps.misfit_zyx[k], origin="lower", extent=(-half_um, half_um, -half_um, half_um),
            vmin=0, vmax=12, cmap="magma",
        )  # fmt: skip
        axis.set_title(title)
        axis.set_xlabel("x (um)")
    figure.colorbar(shown, ax=axes, label="mean square residual (noise = 1)", extend="max")
    return "median misfit: " + ", ".join(words), figure


def few_photons_figure(name: str = "vortex", photons: float = 3.0) -> Figure:
    """Logarithms and likelihood of the same few counts, doses right and wrong."""
    case = likelihood.case_of(name)
    fields = {"truth": case.truth_czyx}
    for measured, doses in (
        (likelihood.count(case, photons), "right"),
        (likelihood.count(case, photons, **likelihood.WRONG), "wrong"),
    ):
        _, best = likelihood.best_by_logarithms(case, measured)
        fields[f"logarithms, doses {doses}"] = best
        fields[f"likelihood, doses {doses}"] = likelihood.by_likelihood(case, measured)
    return texture_figure(case, fields)


def main() -> None:
    """Measure, reconstruct, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--every", type=int, default=3, help="take each so many'th tilt, so many times longer"
    )
    parser.add_argument("--textures", nargs="*", default=list(TEXTURES))
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of the pictures")
    options = parser.parse_args()
    resolution, uncertainty = [], []
    with mpl.rc_context(dict(STYLE)):
        for name in options.textures:
            case = measure(name, every=options.every)
            print(
                f"\n{name}: noise {case.noise_std:.4f}, signal {case.signal_std:.4f} rms\n",
                flush=True,
            )
            fields = {"truth": case.truth_czyx}
            for rung in RUNGS:
                m = rung.solve(case)
                print(f"| {rung.name} | {errors_row(case, m)} |", flush=True)
                if rung.drawn:
                    fields[rung.drawn] = m
            texture_figure(case, fields).savefig(
                options.images / f"reconstruction-{name}.png", dpi=90
            )
            rows, figure = resolution_rows(case)
            resolution += rows
            uncertainty += [uncertainty_row(case, prior) for prior in ("none", "layers")]
            if name == "stripes":
                figure.savefig(options.images / "reconstruction-resolution.png", dpi=90)
                text, figure = residual_figure(case)
                figure.savefig(options.images / "reconstruction-misfit.png", dpi=90)
                print(text, bootstrap_line(case), sep="\n", flush=True)
        few_photons_figure().savefig(options.images / "reconstruction-few-photons.png", dpi=90)
    print("", *resolution, "", *uncertainty, sep="\n")


if __name__ == "__main__":
    main()

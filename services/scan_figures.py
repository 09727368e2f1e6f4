"""The figures of the scans: matplotlib figures from results, drawn as those of the report are."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mistral_txm.services.drawing import LINE_COLOURS, STYLE
from mistral_txm.services.mosaic import mosaic_figure, stitch
from mistral_txm.services.rotation_axis import RegionAxis, evaluate_rotation_axis
from mistral_txm.services.scan_results import (
    EnergyScan,
    FocusSeries,
    PolarizationScan,
    evaluate_energy_scan,
    evaluate_focus_series,
    evaluate_polarization_scan,
)
from mistral_txm.services.scans import Scan

BLUE, RED, GREEN = LINE_COLOURS[:3]
HELICITY_COLOUR = {1: RED, -1: BLUE}
DOMAIN_NAME = {1: "m along the beam", -1: "m against the beam", 0: "whole image"}


def write_figure(scan: Scan, path: Path) -> None:
    """Evaluate a scan of any kind and draw it into a PNG file.

    Raises
    ------
    ValueError
        If the scan cannot be evaluated.
    FrameError
        If a frame cannot be read or is damaged.
    """
    with mpl.rc_context(dict(STYLE)):
        match scan.start["scan"]["motor"]:
            case "energy":
                figure = energy_figure(evaluate_energy_scan(scan))
            case "zone_plate_z":
                figure = focus_figure([evaluate_focus_series(scan)])
            case "theta":
                figure = rotation_axis_figure([evaluate_rotation_axis(scan)])
            case "stage":
                figure = mosaic_figure(stitch(scan))
            case _:
                figure = polarization_figure(evaluate_polarization_scan(scan))
        figure.savefig(path)


def energy_figure(spectra: Mapping[int, EnergyScan]) -> Figure:
    """Absorbance of both helicities in one kind of domain, and the XMCD of each kind."""
    figure = Figure(figsize=(5.2, 5.0), layout="constrained")
    absorbance, difference = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    first = max(spectra)
    shown = spectra[first]
    for helicity, curve, marker in ((1, shown.positive, "o"), (-1, shown.negative, "s")):
        absorbance.errorbar(
            curve.energy_ev_e,
            curve.value_e,
            curve.std_e,
            color=HELICITY_COLOUR[helicity],
            label=f"helicity {helicity:+d}",
            **_points(marker),
        )
    if shown.edge is not None:
        absorbance.axvline(shown.edge.energy_ev, color="0.6", linewidth=0.8, zorder=0)
        absorbance.set_title(
            f"edge at {_with_std(shown.edge.energy_ev, shown.edge.std_ev)} eV, {DOMAIN_NAME[first]}"
        )
    else:
        absorbance.set_title(DOMAIN_NAME[first])
    absorbance.set_ylabel("absorbance $A = -\\ln T$")
    absorbance.legend()
    for kind, one in spectra.items():
        difference.errorbar(
            one.xmcd.energy_ev_e,
            one.xmcd.value_e,
            one.xmcd.std_e,
            color="black" if kind >= 0 else "0.55",
            label=DOMAIN_NAME[kind],
            **_points("o" if kind >= 0 else "s"),
        )
    difference.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    difference.set_ylabel("XMCD $A_+ - A_-$")
    difference.set_xlabel("photon energy (eV)")
    difference.legend()
    _open([absorbance, difference])
    return figure


def focus_figure(series: Sequence[FocusSeries]) -> Figure:
    """Sharpness against the zone plate's position, with the fit and the best focus of each helicity."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for one in series:
        colour, focus = HELICITY_COLOUR[one.helicity], one.focus
        fine_um = np.linspace(one.z_um[0], one.z_um[-1], 300)
        axes.plot(fine_um, focus.curve(fine_um), color=colour, linewidth=1.0)
        axes.plot(
            one.z_um,
            one.sharpness_z,
            "o" if one.helicity > 0 else "s",
            color=colour,
            markersize=3.5,
            label=f"helicity {one.helicity:+d}: best at "
            f"{_with_std(focus.best_um, focus.std_um)} µm",
        )
    axes.set_xlabel("zone plate z (µm)")
    axes.set_ylabel("sharpness $F$")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.18 * (high - low))
    for one in series:
        best_um, peak = one.focus.best_um, one.focus.background + one.focus.height
        axes.vlines(
            best_um,
            low,
            peak,
            colors=HELICITY_COLOUR[one.helicity],
            linestyles="dotted",
            linewidth=0.8,
        )
    axes.legend(loc="upper left")
    _open([axes])
    return figure


def polarization_figure(scan: PolarizationScan) -> Figure:
    """Intensity and circular degree against the vertical angle."""
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    intensity, degree = figure.subplots(2, 1, sharex=True)
    for axes, values, std, colour in (
        (intensity, scan.intensity_h, scan.std_intensity_h, GREEN),
        (degree, scan.degree_h, scan.std_degree_h, "black"),
    ):
        axes.errorbar(
            scan.angle_mrad_h,
            values,
            std,
            np.full(len(values), scan.half_opening_mrad),
            color=colour,
            **(_points("o") | {"linewidth": 0.0, "elinewidth": 1.0}),
        )
        axes.axvline(0.0, color="0.6", linewidth=0.8, zorder=0)
    intensity.set_ylim(bottom=0.0)
    intensity.set_ylabel("intensity / nominal jaws")
    degree.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    degree.set_ylabel("circular degree / that of +1")
    degree.set_xlabel("vertical angle above the orbit plane (mrad)")
    _open([intensity, degree])
    return figure


def rotation_axis_figure(series: Sequence[RegionAxis]) -> Figure:
    """Where the region falls in the views of each series, with its fit, and what the fits leave."""
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    path, left = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for number, (one, colour) in enumerate(zip(series, (RED, BLUE, GREEN, "black"), strict=False)):
        theta_deg, u_nm, fit = one.path.theta_deg_t, one.path.u_nm_t, one.fit
        fine_deg = np.linspace(theta_deg.min(), theta_deg.max(), 300)
        path.plot(fine_deg, fit.u_nm(fine_deg) / 1000, color=colour, linewidth=1.0)
        label = (
            f"series {number + 1}: $x'$ = {_with_std(fit.x_nm, fit.std_x_nm)} nm, "
            f"$z'$ = {_with_std(fit.z_nm, fit.std_z_nm)} nm"
        )
        path.plot(theta_deg, u_nm / 1000, "o", color=colour, markersize=3.5, label=label)
        left.errorbar(
            theta_deg, u_nm - fit.u_nm(theta_deg), one.path.std_nm_t, color=colour, **_points("o")
        )
    left.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    path.set_ylabel("region in the view, $u$ (µm)")
    path.legend(loc="upper center", bbox_to_anchor=(0.5, 1.25))
    left.set_ylabel("what the fit leaves (nm)")
    left.set_xlabel("tilt (deg)")
    _open([path, left])
    return figure


def _with_std(value: float, std: float) -> str:
    """Write a value as exactly as its standard deviation allows.

    >>> _with_std(-1.4384, 0.0376), _with_std(707.4053, 0.0042)
    ('(−1.44 ± 0.04)', '(707.405 ± 0.004)')
    """
    digits = max(0, -math.floor(math.log10(std))) if 0 < std < math.inf else 2
    return f"({value:.{digits}f} ± {std:.{digits}f})".replace("-", "−")


def _points(marker: str) -> dict[str, Any]:
    return {"marker": marker, "markersize": 3.5, "linewidth": 0.8, "capsize": 0}


def _open(axes: Sequence[Any]) -> None:
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)

"""Absorption spectra of both helicities, their difference (XMCD), and where the edge is.

Over a region of the image in which the magnetization points one way,

    T = sum of r / sum of r_flat,   A = -ln T,   XMCD = A(+) - A(-),

r and r_flat the rates with the sample and without it (`signal.mean_rate`). The ratio of sums is
the transmittance weighted with the light; unlike a mean over pixels of -ln T it is not biased by
noise. XMCD is twice the dichroic signal S of `signal`: for magnetization along the beam it is
positive at L3 and negative at L2 of Fe and Co (C. T. Chen et al., Phys. Rev. Lett. 75, 152 (1995)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.optimize import curve_fit

from mistral_txm.reconstruction.frames import Bool, Float64, Rate
from mistral_txm.reconstruction.geometry import InputError

EDGE_WINDOW_EV = 6.0
"""The line at an edge is fitted this far from its maximum: less than the distance of L3 and L2."""
FEWEST_EDGE_POINTS = 6
"""The model of an edge has five parameters."""
DOMAIN_SMOOTHING_PIXELS = 3.0
DOMAIN_SIGNIFICANCE = 5.0
"""Standard deviations that the smoothed dichroic signal of a domain is above its noise."""


@dataclass(frozen=True)
class Spectrum:
    """A quantity without unit against the photon energy, ascending, and its standard deviation."""

    energy_ev_e: Float64
    value_e: Float64
    std_e: Float64


@dataclass(frozen=True)
class Edge:
    """The line at an edge: position, half width at half maximum, height; standard deviation of the position."""

    energy_ev: float
    std_ev: float
    half_width_ev: float
    height: float


def region_absorbance(sample: Rate, flat: Rate, region_vu: Bool) -> tuple[float, float]:
    """Return ``A = -ln(sum r / sum r_flat)`` over a region, and its variance.

    ``var A = sum(var r) / (sum r)^2 + sum(var r_flat) / (sum r_flat)^2``. Pixels that are unknown in
    either rate count in neither sum.

    Args:
        sample, flat: rates with the sample and of the open beam, in one helicity.
        region_vu: which pixels count.

    Raises:
        InputError: if the region holds no known pixel, or there is no light in it.
    """
    counts = region_vu & np.isfinite(sample.var_vu) & np.isfinite(flat.var_vu)
    if not counts.any():
        raise InputError(
            "region: no pixel of it is known in both the sample's frames and the flats"
        )
    through, open_beam = float(sample.rate_vu[counts].sum()), float(flat.rate_vu[counts].sum())
    if through <= 0 or open_beam <= 0:
        raise InputError(
            f"region: {through:.3g} counts per mA s with the sample and {open_beam:.3g} without it, "
            "expected light; is the shutter open?"
        )
    variance = float(sample.var_vu[counts].sum()) / through**2
    variance += float(flat.var_vu[counts].sum()) / open_beam**2
    return float(-np.log(through / open_beam)), variance


def spectrum(
    energy_ev_e: npt.ArrayLike, absorbance_e: npt.ArrayLike, var_e: npt.ArrayLike
) -> Spectrum:
    """Put absorbances and their variances together, the energies ascending.

    Raises:
        InputError: if the lengths differ, or an energy comes twice.
    """
    energies, values, variances = (
        np.asarray(each, dtype=np.float64) for each in (energy_ev_e, absorbance_e, var_e)
    )
    if not energies.ndim == 1 or not energies.shape == values.shape == variances.shape:
        raise InputError(
            f"spectrum: {energies.shape} energies, {values.shape} values, {variances.shape} "
            "variances; expected one each"
        )
    if len(np.unique(energies)) < len(energies):
        raise InputError("spectrum: an energy comes twice; average its frames first")
    order = np.argsort(energies)
    return Spectrum(energies[order], values[order], np.sqrt(variances[order]))


def transmittance(absorbance: Spectrum) -> Spectrum:
    """Return ``T = exp(-A)``, with ``std T = T std A``."""
    value = np.exp(-absorbance.value_e)
    return Spectrum(absorbance.energy_ev_e, value, value * absorbance.std_e)


def xmcd(positive: Spectrum, negative: Spectrum) -> Spectrum:
    """Return ``A(+) - A(-)`` of two helicities at the same energies.

    >>> one = spectrum([707.0, 708.0], [1.25, 1.0], [0.0009, 0.0009])
    >>> other = spectrum([707.0, 708.0], [1.0, 1.0], [0.0016, 0.0016])
    >>> difference = xmcd(one, other)
    >>> difference.value_e.tolist(), difference.std_e.round(3).tolist()
    ([0.25, 0.0], [0.05, 0.05])
    """
    energies = _common_energies(positive, negative)
    return Spectrum(
        energies, positive.value_e - negative.value_e, np.hypot(positive.std_e, negative.std_e)
    )


def isotropic(positive: Spectrum, negative: Spectrum) -> Spectrum:
    """Return ``(A(+) + A(-)) / 2``, in which the dichroism of both helicities cancels."""
    energies = _common_energies(positive, negative)
    return Spectrum(
        energies,
        (positive.value_e + negative.value_e) / 2,
        np.hypot(positive.std_e, negative.std_e) / 2,
    )


def find_edge(absorbance: Spectrum) -> Edge:
    """Fit the strongest line of a spectrum with the step below it, and say where it is.

    ``A(E) = b + s (1/2 + atan(x) / pi) + h / (1 + x^2)``, ``x = (E - E0) / w``: a Lorentzian on an
    arctangent step at the same place (J. Stöhr, NEXAFS Spectroscopy, Springer 1992, chapter 7),
    fitted within `EDGE_WINDOW_EV` of the maximum. Where the scatter about the fit is larger than the
    standard deviations say, that of the position grows in proportion.

    Args:
        absorbance: best that of both helicities together (`isotropic`).

    Raises:
        InputError: if the maximum is at an end of the range, too few energies are near it, or
            there is no line.
    """
    energies, values = absorbance.energy_ev_e, absorbance.value_e
    top = int(np.argmax(values))
    if top in (0, len(energies) - 1):
        raise InputError(
            f"edge: the absorption is largest at {energies[top]:g} eV, the end of the range; measure "
            "beyond it"
        )
    near = np.abs(energies - energies[top]) <= EDGE_WINDOW_EV
    if near.sum() < FEWEST_EDGE_POINTS:
        raise InputError(
            f"edge: {near.sum()} energies within {EDGE_WINDOW_EV:g} eV of the maximum at "
            f"{energies[top]:g} eV, at least {FEWEST_EDGE_POINTS} are needed"
        )
    x_e, y_e, std_e = energies[near], values[near], absorbance.std_e[near]
    start = (float(y_e.min()), 0.0, float(np.ptp(y_e)), float(energies[top]), 1.0)
    try:
        found, covariance = curve_fit(
            _edge_model, x_e, y_e, start, sigma=std_e, absolute_sigma=True, maxfev=5000
        )
    except RuntimeError as failure:
        raise InputError(f"edge: no line fits near {energies[top]:g} eV ({failure})") from failure
    _, _, height, centre, half_width = (float(each) for each in found)
    if not (x_e[0] < centre < x_e[-1] and height > 0):
        raise InputError(f"edge: there is no line near {energies[top]:g} eV")
    residual = (y_e - _edge_model(x_e, *found)) / std_e
    freedom = len(x_e) - len(found)
    scale = np.sqrt(max(1.0, float(residual @ residual) / freedom))
    return Edge(centre, float(np.sqrt(covariance[3, 3]) * scale), abs(half_width), height)


def domains(dichroic_vu: npt.ArrayLike, std_vu: npt.ArrayLike) -> dict[int, Bool]:
    """Find where the magnetization points along the beam (+1) and against it (-1).

    That is where the dichroic signal, smoothed over `DOMAIN_SMOOTHING_PIXELS`, is more than half of
    what 95 % of the pixels stay below, and significant; a kind of domain that is nowhere is left out.
    The smoothed noise is small against that bound, so spectra of these regions are not biased by it.

    Args:
        dichroic_vu, std_vu: dichroic signal and its standard deviation, taken at an L3 edge.
    """
    signal, std = np.asarray(dichroic_vu, np.float64), np.asarray(std_vu, np.float64)
    weight = np.where(np.isfinite(signal) & np.isfinite(std), 1.0, 0.0)
    covered = gaussian_filter(weight, DOMAIN_SMOOTHING_PIXELS)
    with np.errstate(divide="ignore", invalid="ignore"):
        smooth = (
            gaussian_filter(np.where(weight > 0, signal, 0.0), DOMAIN_SMOOTHING_PIXELS) / covered
        )
    # White noise, averaged with a Gaussian of that width.
    noise = float(np.median(std[weight > 0])) / (2 * np.sqrt(np.pi) * DOMAIN_SMOOTHING_PIXELS)
    bound = max(float(np.nanpercentile(np.abs(smooth), 95)) / 2, DOMAIN_SIGNIFICANCE * noise)
    found = {1: smooth > bound, -1: smooth < -bound}
    # Noise alone exceeds so high a bound nowhere, or in very few pixels.
    return {sign: region for sign, region in found.items() if region.mean() > 1e-3}


def degree_ratio(
    contrast: tuple[float, float], positive: tuple[float, float], negative: tuple[float, float]
) -> tuple[float, float]:
    """Return the circular degree of some light over that of helicity +1, and the variance of that.

    The absorbance of a domain is ``A = mu l + P delta (m . k) l``, so with that of helicity +1 and -1,
    whose degrees are P0 and -P0,

        P / P0 = (2 A - A(+) - A(-)) / (A(+) - A(-)).

    The difference of A between domains of both kinds can stand for A: what they absorb alike cancels.

    Args:
        contrast, positive, negative: absorbance, or such a difference, and its variance.

    Raises:
        InputError: if the helicities differ by less than three standard deviations.

    >>> degree_ratio((1.0, 0.0), (1.2, 0.0), (0.8, 0.0))
    (0.0, 0.0)
    """
    (a, var_a), (plus, var_plus), (minus, var_minus) = contrast, positive, negative
    difference = plus - minus
    if not abs(difference) > 3 * np.sqrt(var_plus + var_minus):
        raise InputError(
            f"dichroic contrast of {difference:.2g} +- {np.sqrt(var_plus + var_minus):.2g} between the "
            "helicities: too weak to compare with; choose the L3 edge and a magnetized region"
        )
    ratio = (2 * a - plus - minus) / difference
    variance = 4 * var_a + (1 + ratio) ** 2 * var_plus + (1 - ratio) ** 2 * var_minus
    return float(ratio), float(variance / difference**2)


def _edge_model(
    energy_ev_e: Float64, background: float, step: float, height: float, centre: float, width: float
) -> Float64:
    x = (energy_ev_e - centre) / abs(width)
    result: Float64 = background + step * (0.5 + np.arctan(x) / np.pi) + height / (1 + x**2)
    return result


def _common_energies(positive: Spectrum, negative: Spectrum) -> Float64:
    if not np.array_equal(positive.energy_ev_e, negative.energy_ev_e):
        raise InputError(
            f"spectra: {len(positive.energy_ev_e)} and {len(negative.energy_ev_e)} energies of the two "
            "helicities; expected the same"
        )
    return positive.energy_ev_e

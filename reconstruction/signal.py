"""From the rates of sample and open beam to the dichroic signal of one tilt, each step with its variance.

- transmittance ``T = r / r_flat`` (module `frames` has the rates); absorbance ``A = -ln T``, with
  ``var A = var r / r^2 + var r_flat / r_flat^2``;
- absorption signal ``(A(+) + A(-)) / 2`` and dichroic signal ``S = (A(+) - A(-)) / 2``, both with the
  variance ``(var A(+) + var A(-)) / 4``.

The logarithm of a noisy number is too low on average, ``E[ln r] = ln(mean r) - var r / (2 r^2)`` to second order: 1.7 %
of an absorption length for 30 photons. It is added back; what is left is ``1 / (12 N^2)`` of a length for N photons,
1e-4 for 30 (the third order of the expansion and that of the estimated variance nearly cancel).

The variance of the flats is in that of every view, but all views between two groups of flats share them: their noise
is one pattern on the detector that does not average out over the views of a series, as that of the exposures does. Of
the variance of a signal the part ``(var F(+) / F(+)^2 + var F(-) / F(-)^2) / 4`` is common to all these views.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mistral_txm.reconstruction.frames import Float32, Float64, Rate


@dataclass(frozen=True)
class Signals:
    """Signals of one tilt, float32 ``[v, u]``: absorption and dichroic, and the standard deviation of either."""

    absorption_vu: Float32
    dichroic_vu: Float32
    std_vu: Float32


def absorbance(sample: Rate, flat: Rate) -> tuple[Float64, Float64]:
    """Return ``A = -ln(r / r_flat)`` and its variance, ``[v, u]``; NaN and infinity where a rate is not positive.

    Free of bias to second order: ``- var r / (2 r^2) + var r_flat / (2 r_flat^2)`` is added.

    >>> sample, flat = (Rate(np.array([[r]]), np.array([[r]])) for r in (50.0, 100.0))
    >>> a_vu, var_vu = absorbance(sample, flat)
    >>> round(a_vu.item(), 4), round(var_vu.item(), 3)
    (0.6881, 0.03)
    """
    known = (sample.rate_vu > 0) & (flat.rate_vu > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        own_vu = sample.var_vu / sample.rate_vu**2
        of_flat_vu = flat.var_vu / flat.rate_vu**2
        a_vu = -np.log(sample.rate_vu / flat.rate_vu) - (own_vu - of_flat_vu) / 2
    return np.where(known, a_vu, np.nan), np.where(known, own_vu + of_flat_vu, np.inf)


def helicity_signals(
    positive: tuple[Float64, Float64], negative: tuple[Float64, Float64]
) -> Signals:
    """Combine the absorbances of the two helicities: ``(A(+) + A(-)) / 2`` and ``S = (A(+) - A(-)) / 2``.

    Args:
        positive, negative: absorbance and variance of helicity +1 and -1, as `absorbance` returns them.

    >>> one = (np.array([[1.25]]), np.array([[0.02]]))
    >>> other = (np.array([[0.75]]), np.array([[0.02]]))
    >>> signals = helicity_signals(one, other)
    >>> float(signals.absorption_vu[0, 0]), float(signals.dichroic_vu[0, 0]), round(float(signals.std_vu[0, 0]), 3)
    (1.0, 0.25, 0.1)
    """
    (plus, var_plus), (minus, var_minus) = positive, negative
    return Signals(
        ((plus + minus) / 2).astype(np.float32),
        ((plus - minus) / 2).astype(np.float32),
        (np.sqrt(var_plus + var_minus) / 2).astype(np.float32),
    )

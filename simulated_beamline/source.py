"""The bending magnet: intensity and circular polarization against the vertical angle, ring current.

Source: K.-J. Kim, X-Ray Data Booklet (LBNL), section 2.1, and Nucl. Instrum. Methods A 246, 67
(1986): at photon energy E and vertical angle psi the flux per angle is

    d2F / (d theta d psi)  ~  y^2 (1 + X^2)^2 [K_2/3(xi)^2 + X^2 / (1 + X^2) K_1/3(xi)^2],

    y = E / E_c,   X = gamma psi,   xi = y (1 + X^2)^(3/2) / 2,

where the first term is the light polarized in the orbit plane and the second the light polarized
across it, a quarter of a wave apart. The circular degree is therefore 2 a b / (a^2 + b^2) of the
two amplitudes, positive above the orbit plane, negative below, zero in it.
"""

import hashlib
import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import kv

ELECTRON_ENERGY_GEV = 2.979
"""ALBA storage ring [published machine parameters]."""
DIPOLE_FIELD_T = 1.42
"""ALBA dipole, the source of MISTRAL [published machine parameters]."""
ELECTRON_REST_ENERGY_GEV = 0.000510999
CRITICAL_ENERGY_EV = 665.0 * ELECTRON_ENERGY_GEV**2 * DIPOLE_FIELD_T
"""E_c = 0.665 E^2[GeV] B[T] keV [X-Ray Data Booklet, 2.1]: 8.4 keV."""
GAMMA = ELECTRON_ENERGY_GEV / ELECTRON_REST_ENERGY_GEV

JAW_DISTANCE_M = 10.0
"""Distance of the polarization slit from the source: an assumption, 1 mm is 0.1 mrad."""
ANGLE_STEPS = 64
"""Midpoints of the integration over the slit."""

CURRENT_MA = 250.0
"""Ring current right after an injection: an assumption of the right size."""
TOP_UP_PERIOD_S = 1200.0
"""Time between injections: an assumption."""
LIFETIME_S = 18 * 3600.0
"""Lifetime of the beam: an assumption; the current falls by 1.8 % between injections."""


def amplitudes(
    energy_ev: float, angle_mrad: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the amplitudes of the light in the orbit plane and across it, in arbitrary units.

    The second has the sign of the angle: with the first it makes the circular polarization.
    """
    y = energy_ev / CRITICAL_ENERGY_EV
    x = GAMMA * angle_mrad * 1e-3
    xi = y * (1 + x**2) ** 1.5 / 2
    scale = y * (1 + x**2)
    return scale * kv(2 / 3, xi), scale * x / np.sqrt(1 + x**2) * kv(1 / 3, xi)


@cache
def accepted(energy_ev: float, jaw_down_mm: float, jaw_up_mm: float) -> tuple[float, float]:
    """Return (intensity, circular degree) of the light between two jaws.

    The intensity is the integral of the flux over the accepted angle, in units of the flux per mrad
    in the orbit plane; the degree, in -1..1, is the mean over the accepted light. Jaws that are
    closed, or have passed each other, let nothing through: (0, 0).

    >>> accepted(707.4, 2.5, 1.5)
    (0.0, 0.0)
    """
    low_mrad, high_mrad = jaw_down_mm / JAW_DISTANCE_M, jaw_up_mm / JAW_DISTANCE_M
    if high_mrad <= low_mrad:
        return 0.0, 0.0
    edges = np.linspace(low_mrad, high_mrad, ANGLE_STEPS + 1)
    in_plane, across = amplitudes(energy_ev, (edges[1:] + edges[:-1]) / 2)
    flux = in_plane**2 + across**2
    on_axis = float(amplitudes(energy_ev, np.zeros(1))[0][0] ** 2)
    intensity = float(flux.mean()) * (high_mrad - low_mrad) / on_axis
    degree = float(np.sum(2 * in_plane * across) / np.sum(flux))
    return intensity, degree


def top_up_phase_s(seed: int, key: bytes) -> float:
    """Draw where in the cycle of injections a state of the beamline begins, 0..TOP_UP_PERIOD_S.

    It depends on the state and on nothing that happened before: the same exposure sees the same
    current however a measurement was interrupted or ordered, and never depends on wall time.
    """
    digest = hashlib.blake2b(b"top-up %d " % seed + key, digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64 * TOP_UP_PERIOD_S


def ring_current_ma(time_s: float) -> float:
    """Return the current at a time on the clock of the injections: decay, and injection to full.

    >>> ring_current_ma(0.0), ring_current_ma(TOP_UP_PERIOD_S)
    (250.0, 250.0)
    """
    return CURRENT_MA * math.exp(-(time_s % TOP_UP_PERIOD_S) / LIFETIME_S)

"""The bending magnet: intensity and circular polarization against the vertical angle, ring current.

Source: K.-J. Kim, X-Ray Data Booklet (LBNL), section 2.1, and Nucl. Instrum. Methods A 246, 67
(1986): at photon energy E and vertical angle psi the flux per angle is

    d2F / (d theta d psi)  ~  y^2 (1 + X^2)^2 [K_2/3(xi)^2 + X^2 / (1 + X^2) K_1/3(xi)^2],

    y = E / E_c,   X = gamma psi,   xi = y (1 + X^2)^(3/2) / 2,

where the first term is the light polarized in the orbit plane and the second the light polarized
across it, a quarter of a wave apart. The circular degree is therefore 2 a b / (a^2 + b^2) of the
two amplitudes, positive above the orbit plane, negative below, zero in it.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import kv

from mistral_txm.simulated_beamline import settings

ELECTRON_REST_ENERGY_GEV = 0.000510999
ANGLE_STEP_MRAD = 0.002
"""Largest step of the integration over the slit; the light fills about 0.5 mrad."""
DARK_ANGLE_MRAD = 20.0
"""Beyond this angle there is no light at any energy above 1 eV."""

Angles = NDArray[np.float64]


class Ring:
    """The current in the storage ring: it decays, and is topped up at once, at equal intervals.

    With t the time since the last injection, I(t) = I_0 exp(-t / lifetime).
    """

    def __init__(self, settings: settings.Ring) -> None:
        self._full_ma = settings.current_ma
        self._lifetime_s = 3600 * settings.lifetime_h
        self._period_s = settings.top_up_period_s

    def current_ma(self, time_s: float) -> float:
        """Return the current at a time; injections are at 0, one period, two periods, ..."""
        return self._full_ma * math.exp(-(time_s % self._period_s) / self._lifetime_s)

    def mean_current_ma(self, start_s: float, duration_s: float) -> float:
        """Return the mean current over an exposure, whatever number of injections falls into it.

        The integral over one decay from 0 to t is I_0 lifetime (1 - exp(-t / lifetime)).
        """
        if duration_s <= 0:
            return self.current_ma(start_s)
        phase_s = start_s % self._period_s
        integral_s = self._charge_s(phase_s + duration_s) - self._charge_s(phase_s)
        return self._full_ma * integral_s / duration_s

    def to_injection_s(self, time_s: float) -> float:
        """Return the time to the next injection, above 0 and at most one period."""
        return self._period_s - time_s % self._period_s

    def _charge_s(self, time_s: float) -> float:
        """Return the integral of I / I_0 from an injection on."""
        periods, rest_s = divmod(time_s, self._period_s)
        return self._decay_s(self._period_s) * periods + self._decay_s(rest_s)

    def _decay_s(self, time_s: float) -> float:
        return -self._lifetime_s * math.expm1(-time_s / self._lifetime_s)


def critical_energy_ev(ring: settings.Ring) -> float:
    """Return the critical energy, E_c = 0.665 E^2[GeV] B[T] keV [X-Ray Data Booklet, 2.1]."""
    return 665.0 * ring.electron_energy_gev**2 * ring.dipole_field_t


def amplitudes(ring: settings.Ring, energy_ev: float, angle_mrad: Angles) -> tuple[Angles, Angles]:
    """Return the amplitudes of the light in the orbit plane and across it, in arbitrary units.

    The second has the sign of the angle: with the first it makes the circular polarization. Their
    unit is the same for all energies and angles.
    """
    y = energy_ev / critical_energy_ev(ring)
    x = ring.electron_energy_gev / ELECTRON_REST_ENERGY_GEV * angle_mrad * 1e-3
    xi = y * (1 + x**2) ** 1.5 / 2
    scale = y * (1 + x**2)
    return scale * kv(2 / 3, xi), scale * x / np.sqrt(1 + x**2) * kv(1 / 3, xi)


class BendingMagnet:
    """The light of a bending magnet that passes the two jaws of the polarization slit."""

    def __init__(self, ring: settings.Ring, beam: settings.Beam) -> None:
        self._ring = ring
        self._distance_m = beam.jaw_distance_m
        self._cached = lru_cache(maxsize=1024)(self._accepted)

    def angle_mrad(self, jaw_down_mm: float, jaw_up_mm: float) -> float:
        """Return the vertical angle of the middle of the slit, positive above the orbit plane."""
        return (jaw_down_mm + jaw_up_mm) / 2 / self._distance_m

    def accepted(
        self, energy_ev: float, jaw_down_mm: float, jaw_up_mm: float
    ) -> tuple[float, float]:
        """Return (intensity, circular degree) of the light between two jaws.

        The intensity is the integral of the flux over the accepted vertical angle, in units of the
        flux per mrad in the orbit plane at that energy; the degree, in -1..1, is the mean over the
        accepted light. Jaws that are closed, or have passed each other, let nothing through: (0, 0).

        >>> from mistral_txm.simulated_beamline.settings import load_settings
        >>> ideal = load_settings("ideal")
        >>> intensity, degree = BendingMagnet(ideal.ring, ideal.beam).accepted(707.4, -2.5, -1.5)
        >>> round(intensity, 2), round(degree, 2)
        (0.11, -0.8)
        """
        return self._cached(energy_ev, jaw_down_mm, jaw_up_mm)

    def _accepted(
        self, energy_ev: float, jaw_down_mm: float, jaw_up_mm: float
    ) -> tuple[float, float]:
        low_mrad, high_mrad = (
            min(max(jaw_mm / self._distance_m, -DARK_ANGLE_MRAD), DARK_ANGLE_MRAD)
            for jaw_mm in (jaw_down_mm, jaw_up_mm)
        )
        if high_mrad <= low_mrad:
            return 0.0, 0.0
        steps = 64 + math.ceil((high_mrad - low_mrad) / ANGLE_STEP_MRAD)
        edges_mrad = np.linspace(low_mrad, high_mrad, steps + 1)
        in_plane, across = amplitudes(self._ring, energy_ev, (edges_mrad[1:] + edges_mrad[:-1]) / 2)
        flux = in_plane**2 + across**2
        on_axis = float(amplitudes(self._ring, energy_ev, np.zeros(1))[0][0] ** 2)
        intensity = float(flux.mean()) * (high_mrad - low_mrad) / on_axis
        if intensity == 0.0:
            return 0.0, 0.0
        return intensity, float(np.sum(2 * in_plane * across) / np.sum(flux))

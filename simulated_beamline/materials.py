"""Absorption and dichroism of the materials around the Fe L edges.

All numbers here are assumptions of the simulation, chosen so that the film transmits 20 to 60 % as
in the experiment: the non-resonant coefficients have the size that tables of atomic scattering
factors give at 700 eV (Henke, Gullikson, Davis, At. Data Nucl. Data Tables 54, 181 (1993)), the
resonances the shape and size of measured Fe L2,3 spectra (Chen et al., Phys. Rev. Lett. 75, 152
(1995)).
"""

import math

from scipy.special import voigt_profile

DICHROIC = "Ni80Fe20"
"""The material with Fe in it: the only one that is magnetic to light at the Fe L edges."""

REFERENCE_EV = 707.4
FE_L3_EV = 707.4
"""Where the published measurement sits, taken as the top of the line."""
FE_L2_EV = 720.5
LORENTZ_HALF_WIDTH_EV = {"L3": 0.7, "L2": 1.0}
RESOLVING_POWER = 2000.0
"""Of the monochromator [Hierro-Rodriguez et al. 2020]; its line is a Gaussian of that width."""

SMOOTH_PER_NM = {DICHROIC: 0.0014, "NdCo5": 0.0020, "Si3N4": 0.0013, "Au": 0.0110}
"""Non-resonant absorption coefficients at `REFERENCE_EV`, in 1/nm; they fall with the cube of E."""
L3_PEAK_PER_NM = 0.0034
L2_PEAK_PER_NM = 0.0011
L3_STEP_PER_NM = 0.0004
L2_STEP_PER_NM = 0.0002
L3_DICHROISM_PER_NM = 0.0022
"""Half the difference of the coefficients for m along k and against, fully circular light."""
L2_DICHROISM_PER_NM = -0.0010

_GAUSS_PER_FULL_WIDTH = 1 / (2 * math.sqrt(2 * math.log(2)))


def _line(energy_ev: float, centre_ev: float, half_width_ev: float) -> float:
    """Return a Voigt line of height 1 at its centre."""
    sigma_ev = energy_ev / RESOLVING_POWER * _GAUSS_PER_FULL_WIDTH
    peak = voigt_profile(0.0, sigma_ev, half_width_ev)
    return float(voigt_profile(energy_ev - centre_ev, sigma_ev, half_width_ev) / peak)


def _step(energy_ev: float, centre_ev: float, half_width_ev: float) -> float:
    return 0.5 + math.atan((energy_ev - centre_ev) / half_width_ev) / math.pi


def absorption_per_nm(material: str, energy_ev: float) -> float:
    """Return the absorption coefficient mu of a material, averaged over both helicities, in 1/nm.

    Intensity falls as exp(-mu l). Raises KeyError for a material that is not in the table.

    >>> round(absorption_per_nm("Ni80Fe20", 707.4), 4)
    0.005
    """
    smooth = SMOOTH_PER_NM[material] * (REFERENCE_EV / energy_ev) ** 3
    if material != DICHROIC:
        return smooth
    l3, l2 = LORENTZ_HALF_WIDTH_EV["L3"], LORENTZ_HALF_WIDTH_EV["L2"]
    return (
        smooth
        + L3_PEAK_PER_NM * _line(energy_ev, FE_L3_EV, l3)
        + L2_PEAK_PER_NM * _line(energy_ev, FE_L2_EV, l2)
        + L3_STEP_PER_NM * _step(energy_ev, FE_L3_EV, l3)
        + L2_STEP_PER_NM * _step(energy_ev, FE_L2_EV, l2)
    )


def dichroism_per_nm(energy_ev: float) -> float:
    """Return delta for fully circular light in 1/nm: mu(+/-) = mu +/- delta (m . k).

    Positive at L3, negative at L2, for light of helicity +1 and magnetization along the beam.
    """
    return L3_DICHROISM_PER_NM * _line(
        energy_ev, FE_L3_EV, LORENTZ_HALF_WIDTH_EV["L3"]
    ) + L2_DICHROISM_PER_NM * _line(energy_ev, FE_L2_EV, LORENTZ_HALF_WIDTH_EV["L2"])

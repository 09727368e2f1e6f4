"""Absorption and dichroism of the materials around the L edges of Fe and Co.

Each magnetic element has two Voigt lines (a Lorentzian of the core hole's lifetime under the
Gaussian of the monochromator) and two steps, each material so much of them. The edges of Co are
those of the X-Ray Data Booklet (LBNL, 2009), table 1-1: L3 778.1 eV, L2 793.2 eV. Those of Fe lie
0.6 eV above the table's 706.8 and 719.9 eV, where the published measurement found its line (707.4
eV). The relative height of lines and steps, and the signs of the dichroism in them, follow the
spectra of C. T. Chen et al., Phys. Rev. Lett. 75, 152 (1995), roughly: they are assumptions, as are
the coefficients in 1/nm. The dichroism is strong: beside these lines the sum rules would give Fe a
spin moment three times too large. It has the size of the public test case of vector tomography
(0.0022 / nm), and lines that fit it would let no light through a film of this thickness. The
non-resonant coefficients have the size that tables of atomic scattering factors give at 700 eV
(Henke, Gullikson, Davis, At. Data Nucl. Data Tables 54, 181 (1993)); the lines are so high that a
film transmits 20 to 60 % as in the experiment.

The edges of Ni (852.7 eV), Nd and Gd (above 970 eV) are not in it: valid from 600 to 840 eV.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scipy.special import voigt_profile

REFERENCE_EV = 707.4
"""Where the non-resonant coefficients hold, and the published measurement was taken."""
NEGLIGIBLE = 0.01
"""Part of its dichroism at L3 below which a material counts as not magnetic at an energy."""

_GAUSS_PER_FULL_WIDTH = 1 / (2 * math.sqrt(2 * math.log(2)))


@dataclass(frozen=True)
class Edges:
    """The L edges of an element; heights in units of the L3 line."""

    l3_ev: float
    l2_ev: float
    l2_line: float
    l3_step: float
    l2_step: float
    l3_dichroism: float
    """Half the difference of the coefficients for m along k and against, fully circular light."""
    l2_dichroism: float
    l3_half_width_ev: float = 0.7
    l2_half_width_ev: float = 1.0


FE = Edges(707.4, 720.5, 0.32, 0.12, 0.06, 0.65, -0.29)
CO = Edges(778.1, 793.2, 0.36, 0.13, 0.065, 0.45, -0.20)


@dataclass(frozen=True)
class Material:
    """Coefficients in 1/nm.

    `smooth_per_nm` is the non-resonant one at `REFERENCE_EV`, it falls with the cube of the energy;
    `l3_per_nm` the height of the L3 line of each magnetic element.
    """

    smooth_per_nm: float
    l3_per_nm: Mapping[Edges, float] = field(default_factory=dict)


MATERIALS: Mapping[str, Material] = {
    "Si3N4": Material(0.0013),
    "Au": Material(0.0110),
    "Ni80Fe20": Material(0.0014, {FE: 0.0034}),
    # Three times as many Co as there are Fe in permalloy.
    "NdCo5": Material(0.0020, {CO: 0.0090}),
    # A multilayer of 40 % Fe: the mean of both metals.
    "Fe/Gd": Material(0.0030, {FE: 0.0070}),
    # A multilayer of mostly Pt, with 13 % Co40Fe40B20: the mean of all.
    "Pt/CoFeB/MgO": Material(0.0065, {FE: 0.0013, CO: 0.0011}),
    # A fictitious sponge, 5 % permalloy by volume, through five micrometres of which soft X-rays pass.
    "dilute Ni80Fe20": Material(0.00007, {FE: 0.00017}),
}
MAGNETIC = frozenset(name for name, material in MATERIALS.items() if material.l3_per_nm)
"""The materials with moments: a texture's field is that of the layers made of them."""


def absorption_per_nm(material: str, energy_ev: float, resolving_power: float) -> float:
    """Return the absorption coefficient mu of a material, averaged over both helicities, in 1/nm.

    Intensity falls as exp(-mu l). The monochromator's line is a Gaussian of full width at half
    maximum energy_ev / resolving_power. Raises KeyError for a material that is not in the table.

    >>> round(absorption_per_nm("Ni80Fe20", 707.4, 2000), 4)
    0.005
    """
    table = MATERIALS[material]
    mu = table.smooth_per_nm * (REFERENCE_EV / energy_ev) ** 3
    for edges, height in table.l3_per_nm.items():
        mu += height * (
            _line(energy_ev, edges.l3_ev, edges.l3_half_width_ev, resolving_power)
            + edges.l2_line * _line(energy_ev, edges.l2_ev, edges.l2_half_width_ev, resolving_power)
            + edges.l3_step * _step(energy_ev, edges.l3_ev, edges.l3_half_width_ev)
            + edges.l2_step * _step(energy_ev, edges.l2_ev, edges.l2_half_width_ev)
        )
    return mu


def dichroism_per_nm(material: str, energy_ev: float, resolving_power: float) -> float:
    """Return delta for fully circular light in 1/nm: mu(+/-) = mu +/- delta (m . k).

    Positive at L3, negative at L2, for light of helicity +1 and magnetization along the beam; 0 for
    a material without moments. Raises KeyError for a material that is not in the table.

    >>> round(dichroism_per_nm("Ni80Fe20", 707.4, 2000), 4), dichroism_per_nm("Au", 707.4, 2000)
    (0.0022, 0.0)
    """
    delta = 0.0
    for edges, height in MATERIALS[material].l3_per_nm.items():
        delta += height * (
            edges.l3_dichroism
            * _line(energy_ev, edges.l3_ev, edges.l3_half_width_ev, resolving_power)
            + edges.l2_dichroism
            * _line(energy_ev, edges.l2_ev, edges.l2_half_width_ev, resolving_power)
        )
    return delta


def magnetic_at(energy_ev: float, resolving_power: float) -> frozenset[str]:
    """Return the materials whose dichroism counts at an energy: more than `NEGLIGIBLE` of L3's.

    >>> "Ni80Fe20" in magnetic_at(707.4, 2000), "NdCo5" in magnetic_at(707.4, 2000)
    (True, False)
    """

    def counts(material: str) -> bool:
        largest = max(
            height * edges.l3_dichroism for edges, height in MATERIALS[material].l3_per_nm.items()
        )
        return abs(dichroism_per_nm(material, energy_ev, resolving_power)) > NEGLIGIBLE * largest

    return frozenset(name for name in MAGNETIC if counts(name))


def _line(
    energy_ev: float, centre_ev: float, half_width_ev: float, resolving_power: float
) -> float:
    """Return a Voigt line of height 1 at its centre."""
    sigma_ev = energy_ev / resolving_power * _GAUSS_PER_FULL_WIDTH
    peak = voigt_profile(0.0, sigma_ev, half_width_ev)
    return float(voigt_profile(energy_ev - centre_ev, sigma_ev, half_width_ev) / peak)


def _step(energy_ev: float, centre_ev: float, half_width_ev: float) -> float:
    return 0.5 + math.atan((energy_ev - centre_ev) / half_width_ev) / math.pi

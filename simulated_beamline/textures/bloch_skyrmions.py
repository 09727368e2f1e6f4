"""A square lattice of Bloch skyrmions in a multilayer of Fe and Gd.

Down between the skyrmions, up in their middle, and the direction circles counter-clockwise in
between: Q = +1 each, the same at all heights. The film and its size follow the dipole skyrmions of
S. A. Montoya et al., Phys. Rev. B 95, 024415 (2017), whose lattice is hexagonal and whose surfaces
close the flux; the field here is a simpler model (`_lattice`).
"""

from typing import Any

import numpy as np
from numba import njit

from mistral_txm.simulated_beamline.textures import Layer, Texture
from mistral_txm.simulated_beamline.textures._lattice import (
    from_square_centre,
    profile,
    skyrmions,
)

SPACING_NM = 240.0
REACH_NM = 118.0
CORE_NM = 85.0
"""The direction lies in the plane at a radius of about 54 nm."""

_SPACING, _REACH, _CORE = (np.float32(value) for value in (SPACING_NM, REACH_NM, CORE_NM))
_ONE = np.float32(1)


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def field(x: Any, y: Any, z: Any) -> tuple[Any, Any, Any, Any]:
    """Return (mx, my, mz, density) at a point in nm."""
    dx, dy = from_square_centre(x, y, _SPACING)
    m_z, across = profile(dx, dy, _CORE, _REACH)
    return -across * dy, across * dx, -m_z, _ONE


TEXTURE = Texture(
    name="bloch_skyrmions",
    layers=(Layer(-90.0, -40.0, "Si3N4"), Layer(-40.0, 40.0, "Fe/Gd")),
    field=field,
    singularities=skyrmions(SPACING_NM, REACH_NM, hexagonal=False),
)

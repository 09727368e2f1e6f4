"""A hexagonal lattice of Neel skyrmions in a multilayer of Pt, CoFeB and MgO.

Up between the skyrmions, down in their middle, and the direction turns outwards in between: Q = -1
each, the same at all heights. Such lattices are seen in films of that kind, with periods of some
hundred nanometres: S. Woo et al., Nat. Mater. 15, 501 (2016); the field is a model (`_lattice`).
"""

from typing import Any

import numpy as np
from numba import njit

from mistral_txm.simulated_beamline.textures import Layer, Texture
from mistral_txm.simulated_beamline.textures._lattice import (
    from_hexagonal_centre,
    profile,
    skyrmions,
)

SPACING_NM = 420.0
REACH_NM = 180.0
"""The square about a skyrmion that is as large holds no part of its neighbours."""
CORE_NM = 140.0
"""The direction lies in the plane at a radius of about 85 nm."""

_SPACING, _REACH, _CORE = (np.float32(value) for value in (SPACING_NM, REACH_NM, CORE_NM))
_ONE = np.float32(1)


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def field(x: Any, y: Any, z: Any) -> tuple[Any, Any, Any, Any]:
    """Return (mx, my, mz, density) at a point in nm."""
    dx, dy = from_hexagonal_centre(x, y, _SPACING)
    m_z, across = profile(dx, dy, _CORE, _REACH)
    return across * dx, across * dy, m_z, _ONE


TEXTURE = Texture(
    name="neel_skyrmions",
    layers=(Layer(-90.0, -40.0, "Si3N4"), Layer(-40.0, 40.0, "Pt/CoFeB/MgO")),
    field=field,
    singularities=skyrmions(SPACING_NM, REACH_NM, hexagonal=True),
)

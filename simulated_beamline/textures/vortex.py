"""A vortex in a permalloy disc: the magnetization circles counter-clockwise, the core points up.

    m = (-y, x, CORE_NM) / sqrt(x^2 + y^2 + CORE_NM^2)

No point singularity; in the plane the core covers the upper half of the sphere: a meron.
"""

from typing import Any

import numpy as np
from numba import njit

from mistral_txm.simulated_beamline.textures import Layer, Singularity, Texture

RADIUS_NM = 900.0
CORE_NM = 40.0
EDGE_NM = 10.0

_CORE = np.float32(CORE_NM)


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def field(x: Any, y: Any, z: Any) -> tuple[Any, Any, Any, Any]:
    """Return (mx, my, mz, density) at a point in nm."""
    square = x * x + y * y + np.float32(0) * z
    norm = np.float32(1) / np.sqrt(square + _CORE * _CORE)
    inside = (np.float32(RADIUS_NM) - np.sqrt(square)) * np.float32(1 / EDGE_NM) + np.float32(0.5)
    density = min(max(inside, np.float32(0)), np.float32(1))
    return -y * norm, x * norm, _CORE * norm, density


TEXTURE = Texture(
    name="vortex",
    layers=(Layer(-90.0, -40.0, "Si3N4"), Layer(-40.0, 40.0, "Ni80Fe20")),
    field=field,
    singularities=(Singularity(0.0, 0.0, 0.0, "meron", radius_nm=600.0),),
    continuous=False,
)

"""A permalloy film magnetized along +z everywhere: the case whose signs are known by heart."""

from typing import Any

import numpy as np
from numba import njit

from mistral_txm.simulated_beamline.textures import Layer, Texture


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def field(x: Any, y: Any, z: Any) -> tuple[Any, Any, Any, Any]:
    """Return (mx, my, mz, density) at a point in nm."""
    nothing = np.float32(0) * (x + y + z)
    return nothing, nothing, np.float32(1) + nothing, np.float32(1) + nothing


TEXTURE = Texture(
    name="uniform",
    layers=(Layer(-90.0, -40.0, "Si3N4"), Layer(-40.0, 40.0, "Ni80Fe20")),
    field=field,
    singularities=(),
)

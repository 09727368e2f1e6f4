"""A hopfion in a film: any two directions are taken on closed loops that are linked once: Hopf index 1.

The Hopf map of a ball that covers the three-sphere once. With p = (x, y, z s), z stretched so that
the flat hopfion becomes round, and r = |p|,

    tan(angle / 2) = b / r,   b = core (1 - r^2 / reach^2)^2,
    (Z_1, Z_0) = ((p_x + i p_y) sin(angle) / r,   cos(angle) + i p_z sin(angle) / r),
    m_x + i m_y = 2 Z_1 Z_0,   m_z = |Z_0|^2 - |Z_1|^2.

Up outside and in the very middle, down on a ring in the plane z = 0, about which the rest winds.
The map is that of P. Sutcliffe, Phys. Rev. Lett. 118, 247203 (2017), with another profile. The film
is permalloy, so that it is magnetic at the Fe edge and not too thick for it: it would not hold a
hopfion, for which one needs a chiral magnet or a multilayer (N. Kent et al., Nat. Commun. 12, 1562
(2021)).
"""

from typing import Any

import numpy as np
from numba import njit

from mistral_txm.simulated_beamline.textures import Layer, Singularity, Texture

REACH_NM = 600.0
HALF_HEIGHT_NM = 105.0
CORE_NM = 400.0
"""The ring on which m points down has a radius of about 245 nm."""

_STRETCH = np.float32(REACH_NM / HALF_HEIGHT_NM)
_PER_REACH2 = np.float32(1 / REACH_NM**2)
_CORE = np.float32(CORE_NM)
_ONE, _TWO = np.float32(1), np.float32(2)
_SMALL = np.float32(1e-30)


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def field(x: Any, y: Any, z: Any) -> tuple[Any, Any, Any, Any]:
    """Return (mx, my, mz, density) at a point in nm."""
    p_z = z * _STRETCH
    square = x * x + y * y + p_z * p_z
    inside = max(_ONE - square * _PER_REACH2, np.float32(0))
    b = _CORE * inside * inside
    scale = _ONE / (square + b * b + _SMALL)
    sine = _TWO * b * scale
    real_1, imaginary_1 = x * sine, y * sine
    real_0, imaginary_0 = (square - b * b) * scale, p_z * sine
    m_x = _TWO * (real_1 * real_0 - imaginary_1 * imaginary_0)
    m_y = _TWO * (imaginary_1 * real_0 + real_1 * imaginary_0)
    m_z = real_0 * real_0 + imaginary_0 * imaginary_0 - real_1 * real_1 - imaginary_1 * imaginary_1
    return m_x, m_y, m_z, _ONE


TEXTURE = Texture(
    name="hopfion",
    layers=(Layer(-160.0, -110.0, "Si3N4"), Layer(-110.0, 110.0, "Ni80Fe20")),
    field=field,
    singularities=(Singularity(0.0, 0.0, 0.0, "hopfion", radius_nm=REACH_NM),),
)

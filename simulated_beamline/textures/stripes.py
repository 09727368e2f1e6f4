"""Stripe domains in a permalloy / NdCo5 / permalloy trilayer, with two bifurcations.

The stripes of a weak-stripe film: NdCo5 pulls the magnetization up and down, permalloy closes the
flux to the sides, opposite ways above and below. With the complex stripe pattern

    psi = exp(2 pi i t) g1 conj(g2),   g = ((x - xc) + i (y - yc)) / sqrt(r^2 + CORE_NM^2),

where t counts periods along x (the stripes meander a little), each g is a dislocation: a stripe
begins there. The direction is that of

    V = (a_x(z) Im psi, V_y, a_z(z) Re psi),

where V_y is small in the stripes. In permalloy a_x and a_z do not vanish, so V can vanish only on
the two lines psi = 0. On the second, V_y > 0 everywhere: a meron. On the first, V_y changes sign
once, in the middle of the upper permalloy layer: a Bloch point, the only zero of V there.

In NdCo5, |z| < 40 nm, a_x = z / 80 nm goes through zero, so that the flux closure above and below
belongs to one domain. In the stripes of permalloy, V_y = 0.1 + 0.25 (Re^2 psi - Im^2 psi) vanishes
here and there; here, with s = (z / 40 nm)^2, it is 0.1 + 0.25 [1 - s (1 - Re^2 psi + Im^2 psi)],
which is a Bloch wall in the middle, V_y = 0.35. So V_y > 0 at z = 0, and elsewhere V vanishes only
on the lines psi = 0, on which V_y > 0: there is no singularity.

The dimensions follow Hierro-Rodriguez et al., Nat. Commun. 11, 6382 (2020); the field itself is a
model.
"""

from typing import Any

import numpy as np
from numba import njit

from mistral_txm.simulated_beamline.textures import (
    Layer,
    Singularity,
    Texture,
    cos_turns,
    sin_turns,
)

PERIOD_NM = 390.0
MEANDER_NM = 25.0
MEANDER_PERIOD_NM = 2300.0
CORE_NM = 100.0
"""Radius over which the stripes give way to a bifurcation."""
REACH_NM = 120.0
"""Radius over which V_y changes from its value in the stripes to its value in a core."""
BLOCH_POINT_NM = (-390.0, 260.0, 80.0)
MERON_NM = (487.5, -330.0)
AXIAL_NM = 60.0
"""Length along z over which V_y changes sign at the Bloch point."""

_X1, _Y1, _Z1 = (np.float32(value) for value in BLOCH_POINT_NM)
_X2, _Y2 = (np.float32(value) for value in MERON_NM)
_ONE = np.float32(1)
_CORE2 = np.float32(CORE_NM**2)
_REACH2 = np.float32(REACH_NM**2)
_AXIAL2 = np.float32(AXIAL_NM**2)
_PER_PERIOD = np.float32(1 / PERIOD_NM)
_MEANDER = np.float32(MEANDER_NM / PERIOD_NM)
_PER_MEANDER = np.float32(1 / MEANDER_PERIOD_NM)


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def field(x: Any, y: Any, z: Any) -> tuple[Any, Any, Any, Any]:
    """Return (mx, my, mz, density) at a point in nm."""
    turns = x * _PER_PERIOD + _MEANDER * sin_turns(y * _PER_MEANDER)
    real, imaginary = cos_turns(turns), sin_turns(turns)

    dx, dy = x - _X1, y - _Y1
    square = dx * dx + dy * dy
    scale = _ONE / np.sqrt(square + _CORE2)
    real, imaginary = (
        (real * dx - imaginary * dy) * scale,
        (real * dy + imaginary * dx) * scale,
    )
    inside = _REACH2 / (square + _REACH2)
    weight1 = inside * inside

    dx, dy = x - _X2, y - _Y2
    square = dx * dx + dy * dy
    scale = _ONE / np.sqrt(square + _CORE2)
    real, imaginary = (
        (real * dx + imaginary * dy) * scale,
        (imaginary * dx - real * dy) * scale,
    )
    inside = _REACH2 / (square + _REACH2)
    weight2 = inside * inside

    # -1 in NdCo5, from its interface with permalloy (-1) to the free surface (+1) of the latter.
    outwards = (abs(z) - np.float32(80)) * np.float32(1 / 40)
    height = max(outwards, -_ONE)
    part = max(min(z * np.float32(1 / 40), _ONE), -_ONE)
    along_z = np.float32(0.75) - np.float32(0.25) * height
    along_x = part * (np.float32(0.75) + np.float32(0.25) * height)

    walls = _ONE - (real * real - imaginary * imaginary)
    stripes = np.float32(0.35) - np.float32(0.25) * part * part * walls
    dz = z - _Z1
    core1 = -dz / np.sqrt(dz * dz + _AXIAL2)
    v_x = along_x * imaginary
    v_y = stripes * (_ONE - weight1 - weight2) + weight1 * core1 + weight2
    v_z = along_z * real
    norm = _ONE / np.sqrt(v_x * v_x + v_y * v_y + v_z * v_z)
    return v_x * norm, v_y * norm, v_z * norm, _ONE


TEXTURE = Texture(
    name="stripes",
    layers=(
        Layer(-170.0, -120.0, "Si3N4"),
        Layer(-120.0, -40.0, "Ni80Fe20"),
        Layer(-40.0, 40.0, "NdCo5"),
        Layer(40.0, 120.0, "Ni80Fe20"),
    ),
    field=field,
    singularities=(
        Singularity(*BLOCH_POINT_NM, "Bloch point", radius_nm=30.0),
        Singularity(*MERON_NM, 80.0, "meron", radius_nm=250.0),
        Singularity(*MERON_NM, -80.0, "meron", radius_nm=250.0),
        Singularity(*BLOCH_POINT_NM[:2], -80.0, "meron", radius_nm=250.0),
    ),
)

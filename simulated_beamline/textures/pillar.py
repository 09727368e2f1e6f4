"""A pillar five micrometres thick, with vortices, an antivortex and three Bloch points.

After C. Donnelly et al., Nature 547, 328 (2017): a cylinder with its axis along the tilt axis (y),
in which cores of vortices and antivortices run along the axis and turn over in Bloch points. Theirs
is GdCo2 seen with photons of 7.2 keV; soft ones do not pass through that. This one is a fictitious
sponge, 5 % permalloy by volume, that lets a third of the light through at the Fe L3 line, and its
field is a model: with zeta = x + i z,

    V_x + i V_z = i g_1 conj(g_2) g_3,   g_k = (zeta - zeta_k(y)) / sqrt(|zeta - zeta_k(y)|^2 + CORE_NM^2),

a vortex, an antivortex and a vortex again on three lines zeta_k(y) that swing about their places;
around all of them it circulates about the axis. V vanishes only on a line where V_y does, which is

    V_y = w_k c_k(y),   w_k = (1 - |zeta - zeta_k|^2 / REACH_NM^2)^2,   c_k = +-(y - y_k) / (|y - y_k| + AXIAL_NM)

near line k, and a third of cos(2 pi y / DOMAIN_NM) far from all: once on each line, at y_k. A vortex whose
c_k rises has Q = +1; one whose c_k falls, or an antivortex whose c_k rises, -1.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mistral_txm.simulated_beamline.textures import Layer, Singularity, Texture, cos_turns

RADIUS_NM = 2500.0
EDGE_NM = 60.0
"""Over which the surface fades."""
CORE_NM = 200.0
REACH_NM = 450.0
"""Radius over which a core goes over into its surroundings; the lines are farther apart."""
AXIAL_NM = 250.0
DOMAIN_NM = 3600.0
SWING_NM = 120.0
SWING_PERIOD_NM = 5000.0
LINES_NM = ((-1000.0, -350.0), (0.0, 250.0), (1000.0, -150.0))
"""Mean (x, z) of the lines: vortex, antivortex, vortex."""
BLOCH_POINTS_Y_NM = (600.0, -500.0, -200.0)
STEP_NM = 32.0
"""Fine enough for cores of 200 nm and an edge of 60 nm, and six times as fast as for a film."""

_X1, _X2, _X3 = (np.float32(x) for x, _ in LINES_NM)
_Z1, _Z2, _Z3 = (np.float32(z) for _, z in LINES_NM)
_Y1, _Y2, _Y3 = (np.float32(y) for y in BLOCH_POINTS_Y_NM)
_ONE, _ZERO, _HALF = np.float32(1), np.float32(0), np.float32(0.5)
_CORE2 = np.float32(CORE_NM**2)
_PER_REACH2 = np.float32(1 / REACH_NM**2)
_AXIAL = np.float32(AXIAL_NM)
_SWING = np.float32(SWING_NM)
_PER_SWING = np.float32(1 / SWING_PERIOD_NM)
_PER_DOMAIN = np.float32(1 / DOMAIN_NM)
_RADIUS = np.float32(RADIUS_NM)
_PER_EDGE = np.float32(1 / EDGE_NM)


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def _line(dx: Any, dz: Any) -> tuple[Any, Any, Any]:
    """Return g and the weight of a line at a vector from it."""
    square = dx * dx + dz * dz
    scale = _ONE / np.sqrt(square + _CORE2)
    inside = max(_ONE - square * _PER_REACH2, _ZERO)
    return dx * scale, dz * scale, inside * inside


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def _flip(dy: Any) -> Any:
    return dy / (abs(dy) + _AXIAL)


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def field(x: Any, y: Any, z: Any) -> tuple[Any, Any, Any, Any]:
    """Return (mx, my, mz, density) at a point in nm."""
    swing = _SWING * cos_turns(y * _PER_SWING)
    re_1, im_1, weight_1 = _line(x - _X1 - swing, z - _Z1)
    re_2, im_2, weight_2 = _line(x - _X2, z - _Z2 - swing)
    re_3, im_3, weight_3 = _line(x - _X3 + swing, z - _Z3)
    re, im = re_1 * re_2 + im_1 * im_2, im_1 * re_2 - re_1 * im_2
    re, im = re * re_3 - im * im_3, re * im_3 + im * re_3
    far = np.float32(1 / 3) * cos_turns(y * _PER_DOMAIN)
    v_x, v_z = -im, re
    v_y = (
        far * (_ONE - weight_1 - weight_2 - weight_3)
        + weight_1 * _flip(y - _Y1)
        - weight_2 * _flip(y - _Y2)
        - weight_3 * _flip(y - _Y3)
    )
    norm = _ONE / np.sqrt(v_x * v_x + v_y * v_y + v_z * v_z)
    depth = (_RADIUS - np.sqrt(x * x + z * z)) * _PER_EDGE + _HALF
    density = min(max(depth, _ZERO), _ONE)
    return v_x * norm, v_y * norm, v_z * norm, density


def _bloch_points() -> tuple[Singularity, ...]:
    swings_nm = [SWING_NM * np.cos(2 * np.pi * y / SWING_PERIOD_NM) for y in BLOCH_POINTS_Y_NM]
    directions = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0))
    return tuple(
        Singularity(float(x + along_x * swing), y, float(z + along_z * swing), "Bloch point", 150.0)
        for (x, z), y, swing, (along_x, along_z) in zip(
            LINES_NM, BLOCH_POINTS_Y_NM, swings_nm, directions, strict=True
        )
    )


def surfaces(places_nm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the heights of the lower and the upper half of the surface, NaN beside the pillar."""
    square = RADIUS_NM**2 - places_nm[:, 0] ** 2
    height_nm = np.where(square > 0, np.sqrt(np.maximum(square, 0)), np.nan)
    return -height_nm, height_nm


TEXTURE = Texture(
    name="pillar",
    layers=(Layer(-RADIUS_NM, RADIUS_NM, "dilute Ni80Fe20"),),
    field=field,
    singularities=_bloch_points(),
    continuous=False,
    step_nm=STEP_NM,
    surfaces=surfaces,
)

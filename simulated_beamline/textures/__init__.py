"""Magnetic textures: analytic samples with known truth, one small module each.

A module names its layers, a compiled function `field(x, y, z) -> (mx, my, mz, density)` in nm of
the sample frame, and its singularities. `field` is evaluated inside magnetic layers alone; (mx,
my, mz) is a unit vector and `density` the part of the film's material that is there (1 in a
continuous film). It is inlined into loops over whole rows: without branches and library calls it
runs several times faster, hence `cos_turns` and `sin_turns`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numba import njit

Field = Callable[[Any, Any, Any], tuple[Any, Any, Any, Any]]
"""float32 scalars inside a compiled loop."""


@dataclass(frozen=True)
class Layer:
    """A slab from `low_nm` to `high_nm` along the film normal, of a material in `materials`."""

    low_nm: float
    high_nm: float
    material: str

    @property
    def thickness_nm(self) -> float:
        """Thickness of the slab in nm."""
        return self.high_nm - self.low_nm


@dataclass(frozen=True)
class Singularity:
    """A place where something topological sits.

    `kind` "Bloch point" is a point at which the direction is undefined; "meron" is a place in the
    plane z = `z_nm` about which the direction covers about half of the sphere. `radius_nm` says how
    far it reaches: the charge is that of a cube, or of a square in the plane, of twice that side.
    """

    x_nm: float
    y_nm: float
    z_nm: float
    kind: Literal["Bloch point", "meron"]
    radius_nm: float


@dataclass(frozen=True)
class Texture:
    """A magnetic sample: layers from bottom to top, field, and where its singularities are."""

    name: str
    layers: tuple[Layer, ...]
    field: Field
    singularities: tuple[Singularity, ...]

    @property
    def top_nm(self) -> float:
        """Height of the upper surface in nm."""
        return max(layer.high_nm for layer in self.layers)


def names() -> list[str]:
    """Return the names of all textures: every module of this package."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def load(name: str) -> Texture:
    """Return the texture `name`.

    Raises ValueError, with the names that exist, for an unknown one.
    """
    if name not in names():
        raise ValueError(f"texture {name!r} is unknown: expected one of {', '.join(names())}")
    texture: Any = import_module(f"{__name__}.{name}").TEXTURE
    assert isinstance(texture, Texture)
    return texture


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def cos_turns(turns: float) -> float:
    """Return cos(2 pi turns) to 4e-6, by a polynomial that the compiler can vectorize."""
    folded = np.float32(0.25) - abs(turns - np.floor(turns + np.float32(0.5)))
    angle = np.float32(2 * np.pi) * folded
    square = angle * angle
    series = np.float32(1 / 362880)
    series = series * square - np.float32(1 / 5040)
    series = series * square + np.float32(1 / 120)
    series = series * square - np.float32(1 / 6)
    return angle * (series * square + np.float32(1))  # type: ignore[no-any-return]  # numpy scalars


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def sin_turns(turns: float) -> float:
    """Return sin(2 pi turns) to 4e-6."""
    return cos_turns(turns - np.float32(0.25))  # type: ignore[no-any-return]  # numba is untyped

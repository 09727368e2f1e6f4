"""Magnetic textures: analytic samples with known truth, one small module each.

A module names its layers, a compiled function `field(x, y, z) -> (mx, my, mz, density)` in nm of
the sample frame, and its singularities. `field` is evaluated inside magnetic layers alone, those of
a material in `materials.MAGNETIC`; (mx, my, mz) is a unit vector and `density` the part of the
layer's material that is there (1 in a continuous film). It is inlined into loops over whole rows:
without branches and library calls it runs several times faster, hence `cos_turns` and `sin_turns`.

A texture can also be read from a file of the user's (`_from_file`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

Field = Callable[..., tuple[Any, Any, Any, Any]]
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

    - "Bloch point": a point at which the direction is undefined;
    - "meron": a place in the plane z = `z_nm` about which the direction covers about half of the
      sphere;
    - "skyrmion": one about which it covers all of it;
    - "hopfion": a place about which any two directions are taken on linked loops.

    `radius_nm` says how far it reaches: the charge is that of a cube (Bloch point) or of a square
    in the plane (meron, skyrmion) of twice that side, or the Hopf index of a box (hopfion) of twice
    that side in the plane.
    """

    x_nm: float
    y_nm: float
    z_nm: float
    kind: Literal["Bloch point", "meron", "skyrmion", "hopfion"]
    radius_nm: float


@dataclass(frozen=True, eq=False)
class Grid:
    """A field on voxels: `values` [z, y, x, 4] are mx, my, mz and density; centred at the origin."""

    values: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((1, 1, 1, 4), dtype=np.float32)
    )
    voxel_nm: float = 1.0


Surfaces = Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""From places (n, 2) to the heights of the lower and the upper surface, NaN beside the sample."""


@dataclass(frozen=True, eq=False)
class Texture:
    """A magnetic sample: layers from bottom to top, field, and where its singularities are.

    `continuous` says that the density is 1 throughout, `step_nm` how closely the field is sampled
    along the normal. `surfaces` is needed where the sample is no film.
    """

    name: str
    layers: tuple[Layer, ...]
    field: Field
    singularities: tuple[Singularity, ...]
    continuous: bool = True
    step_nm: float = 5.0
    surfaces: Surfaces | None = None
    grid: Grid | None = None

    def surfaces_nm(
        self, places_nm: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the heights of the lower and the upper surface at (n, 2) places, in nm."""
        if self.surfaces is not None:
            return self.surfaces(places_nm)
        low_nm = min(layer.low_nm for layer in self.layers)
        high_nm = max(layer.high_nm for layer in self.layers)
        return np.full(len(places_nm), low_nm), np.full(len(places_nm), high_nm)


def names() -> list[str]:
    """Return the names of all textures: every module of this package."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def load(name_or_path: str | Path) -> Texture:
    """Return a texture: a packaged one by its name, or that of an .h5 file by its path.

    Raises ValueError, in one line, for an unknown name or a file that holds no field.
    """
    name = str(name_or_path)
    if name in names():
        texture: Any = import_module(f"{__name__}.{name}").TEXTURE
        assert isinstance(texture, Texture)
        return texture
    if name.endswith(".h5"):
        from_file = import_module(f"{__name__}._from_file")
        return from_file.read_texture(Path(name))  # type: ignore[no-any-return]  # by name alone
    raise ValueError(
        f"texture {name!r} is unknown: expected one of {', '.join(names())}, or the path of an .h5 "
        "file with mx, my, mz"
    )


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

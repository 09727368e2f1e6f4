"""Loops over a texture's field, compiled for each texture once: the result is kept on disk beside the source.

Compiling takes seconds, in every process that serves or writes a texture. Numba keeps the compiled code of a function
as long as its file does not change; here it also depends on the texture that is inlined into it, so the content of
this package is part of the name under which it is kept.
"""

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import FunctionType
from typing import Any

from numba import njit

from mistral_txm.simulated_beamline.textures import Field, Texture


def field_of_texture(
    x: Any, y: Any, z: Any, values: Any, voxel_nm: Any
) -> tuple[Any, Any, Any, Any]:
    """Stand for the field of a texture in a function that is given to `compiled`."""
    raise NotImplementedError("only a function that was compiled for a texture has a field")


def compiled(
    function: Callable[..., None], texture: Texture, **options: Any
) -> Callable[..., None]:
    """Return a function of a module, compiled with the field of a texture in place of `field_of_texture`.

    `options` are those of ``numba.njit``.
    """
    assert isinstance(function, FunctionType)
    return _compiled(
        function, texture.field, texture.grid is not None, tuple(sorted(options.items()))
    )


@cache
def _compiled(
    function: FunctionType, field: Any, gridded: bool, options: tuple[tuple[str, Any], ...]
) -> Callable[..., None]:
    own = FunctionType(
        function.__code__,
        {**function.__globals__, field_of_texture.__name__: _on_grid(field, gridded)},
    )
    module = field.py_func.__module__ or ""
    own.__qualname__ = f"{function.__name__}_{module.rpartition('.')[2]}_{_content()}"
    kept = module.startswith(__package__)  # of others the content is not known here
    result: Callable[..., None] = njit(own, cache=kept, **dict(options))
    return result


@cache
def _on_grid(field: Field, gridded: bool) -> Field:
    """Return a field as a compiled function of (x, y, z, values, voxel_nm), whatever it needs."""
    if gridded:
        return field

    @njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
    def evaluate(x: Any, y: Any, z: Any, _values: Any, _voxel_nm: Any) -> tuple[Any, Any, Any, Any]:
        return field(x, y, z)

    function: Field = evaluate
    return function


@cache
def _content() -> str:
    """Return what stands for the content of this package."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]

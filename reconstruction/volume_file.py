"""The volume file: three components with voxel, method and provenance, as HDF5.

    /mx /my /mz      float32 [z, y, x], the components of m in the sample frame
    /data_fraction   float32 [z, y, x], how much of each voxel comes from the data (0 to 1)
    /std             float32 [z, y, x], standard deviation of a component, in its units (optional)
    attributes       voxel_nm, method, prior, delta_per_nm (nan: not known, m is in 1/nm),
                     layers_nm (n, 2)
    /provenance      input_files, input_sha256; phi_deg, theta_deg, residual_rms: one entry a view;
                     attributes options and versions, as JSON

The same contents give the same bytes: no times are recorded.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mistral_txm.reconstruction.files import (
    FileError,
    open_hdf5,
    read_array,
    replaced_when_complete,
    sha256_of,
)
from mistral_txm.reconstruction.ovf import is_ovf, read_ovf
from mistral_txm.reconstruction.reconstruct import Reconstruction

__all__ = [
    "InputFile",
    "SeriesResidual",
    "Volume",
    "input_file",
    "read_volume",
    "software_versions",
    "volume_of",
    "write_volume",
]

Float32 = NDArray[np.float32]


class SeriesResidual(NamedTuple):
    """What the volume leaves of the signal of each view of one tilt series (no unit)."""

    phi_deg: float
    theta_deg: NDArray[np.float64]
    residual_rms: NDArray[np.float64]


class InputFile(NamedTuple):
    """A file that went into a result."""

    name: str
    sha256: str


def input_file(path: Path) -> InputFile:
    """Return the name and checksum of a file."""
    return InputFile(Path(path).name, sha256_of(path))


def software_versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    names = ("mistral-txm", "numpy", "scipy", "numba", "h5py")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


@dataclass(frozen=True)
class Volume:
    """A magnetization field on a grid centred on the sample, and how it was made.

    Components are [z, y, x]. With `delta_per_nm` they are without unit, without it in units of the
    signal, 1/nm (files of other programs: as those mean it). `residuals` has one entry a tilt
    series.
    """

    mx: Float32
    my: Float32
    mz: Float32
    voxel_nm: float
    method: str = "unknown"
    prior: str = "unknown"
    delta_per_nm: float | None = None
    data_fraction: Float32 | None = None
    layers_nm: tuple[tuple[float, float], ...] = ()
    residuals: tuple[SeriesResidual, ...] = ()
    inputs: tuple[InputFile, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    std: Float32 | None = None

    @property
    def m_czyx(self) -> Float32:
        """The field [component, z, y, x]."""
        return np.stack([self.mx, self.my, self.mz])

    @property
    def magnetic_czyx(self) -> Float32:
        """The field [component, z, y, x], 0 outside the magnetic layers where these are known.

        What a reconstruction without a prior shows between the layers is an echo, with
        singularities of its own: search this field for them.
        """
        m_czyx = self.m_czyx
        if self.layers_nm:
            n = m_czyx.shape[1]
            z_nm = (np.arange(n) - (n - 1) / 2) * self.voxel_nm
            inside = [(z_nm >= low) & (z_nm <= high) for low, high in self.layers_nm]
            m_czyx[:, ~np.any(inside, axis=0)] = 0
        return m_czyx

    @property
    def unit(self) -> str:
        """Unit of the components: "1" or "1/nm"."""
        return "1/nm" if self.delta_per_nm is None and self.method != "unknown" else "1"

    @property
    def provenance(self) -> tuple[tuple[str, str], ...]:
        """How it was made, as pairs of a name and a text for a person to read."""
        return (
            ("method", self.method),
            ("prior", self.prior),
            *((f"input {name}", f"sha256 {digest}") for name, digest in self.inputs),
            *((name, _text(value)) for name, value in sorted(self.options.items())),
            *((f"version of {name}", text) for name, text in sorted(self.versions.items())),
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class Tilts(Protocol):
    """The tilts of one azimuth, as a `TiltSeries` has them."""

    @property
    def phi_deg(self) -> float:
        """Azimuth, deg."""

    @property
    def theta_deg_t(self) -> ArrayLike:
        """Tilts, deg."""


def volume_of(
    result: Reconstruction,
    series: Sequence[Tilts],
    *,
    layers_nm: Sequence[tuple[float, float]] = (),
    inputs: Sequence[InputFile] = (),
    options: Mapping[str, Any] | None = None,
) -> Volume:
    """Put a reconstruction, and what it was made of, into the form that files hold.

    `series` (their angles alone count), `layers_nm` and `options` are what `reconstruct` was called with.
    """
    residuals, first = [], 0
    for one in series:
        theta_deg = np.asarray(one.theta_deg_t, dtype=np.float64)
        last = first + theta_deg.size
        rms = result.residual_rms_per_view[first:last]
        residuals.append(SeriesResidual(float(one.phi_deg), theta_deg, rms))
        first = last
    return Volume(
        result.mx,
        result.my,
        result.mz,
        result.grid.voxel_nm,
        method=result.method,
        prior=result.prior,
        delta_per_nm=result.delta_per_nm,
        data_fraction=result.data_fraction,
        layers_nm=tuple((float(low), float(high)) for low, high in layers_nm),
        residuals=tuple(residuals),
        inputs=tuple(inputs),
        options=dict(options or {}),
        versions=software_versions(),
        std=result.std,
    )


def write_volume(path: Path, volume: Volume) -> None:
    """Write a volume as HDF5, whole or not at all.

    Raises `FileError` if it cannot be written or its parts do not fit together.
    """
    shape = np.shape(volume.mx)
    for name in ("mx", "my", "mz", "data_fraction", "std"):
        part = getattr(volume, name)
        if part is not None and (np.shape(part) != shape or len(shape) != 3):
            raise FileError(
                f"{path}: {name} has shape {np.shape(part)}; expected {shape} [z, y, x]"
            )
    if not (np.isfinite(volume.voxel_nm) and volume.voxel_nm > 0):
        raise FileError(f"{path}: voxel of {volume.voxel_nm} nm; expected a positive length")
    try:
        options = json.dumps(dict(volume.options), sort_keys=True)
    except TypeError as error:
        raise FileError(f"{path}: the options cannot be written as JSON: {error}") from error
    size = 4 * 3 * prod(shape)
    with replaced_when_complete(path, size) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["title"] = "magnetization in the sample frame, axes z, y, x, centred"
        file.attrs["voxel_nm"] = float(volume.voxel_nm)
        file.attrs["method"] = volume.method
        file.attrs["prior"] = volume.prior
        file.attrs["delta_per_nm"] = np.nan if volume.delta_per_nm is None else volume.delta_per_nm
        if volume.layers_nm:
            file.attrs["layers_nm"] = np.array(volume.layers_nm, dtype=np.float64)
        for name in ("mx", "my", "mz"):
            component = file.create_dataset(name, data=getattr(volume, name), dtype=np.float32)
            component.attrs["units"] = volume.unit
            component.attrs["axes"] = "z y x"
        for name, unit in (("data_fraction", "1"), ("std", volume.unit)):
            if getattr(volume, name) is not None:
                part = file.create_dataset(name, data=getattr(volume, name), dtype=np.float32)
                part.attrs["units"] = unit
                part.attrs["axes"] = "z y x"
        group = file.create_group("provenance")
        group.attrs["options"] = options
        group.attrs["versions"] = json.dumps(dict(volume.versions), sort_keys=True)
        text = h5py.string_dtype()
        group.create_dataset("input_files", data=[i.name for i in volume.inputs], dtype=text)
        group.create_dataset("input_sha256", data=[i.sha256 for i in volume.inputs], dtype=text)
        views = volume.residuals
        for name, parts in (
            ("phi_deg", [np.full(len(v.theta_deg), v.phi_deg) for v in views]),
            ("theta_deg", [np.asarray(v.theta_deg) for v in views]),
            ("residual_rms", [np.asarray(v.residual_rms) for v in views]),
        ):
            group.create_dataset(name, data=np.concatenate([np.empty(0), *parts]))


def read_volume(path: Path, *, default_voxel_nm: float | None = None) -> Volume:
    """Read a volume: our HDF5 file, any HDF5 file with `mx`, `my`, `mz` [z, y, x], or OVF 2.0.

    `default_voxel_nm` is taken for an HDF5 file without the attribute `voxel_nm` (such as MARTApp's
    result); without it such a file is refused. Values may be NaN where m is not known.

    Raises `FileError` with one line for anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    if is_ovf(path):
        return _from_ovf(path)
    with open_hdf5(path) as file:
        mx = read_array(path, file, "mx", shape=(None, None, None), finite=False)
        my, mz = (read_array(path, file, n, shape=mx.shape, finite=False) for n in ("my", "mz"))
        if "voxel_nm" in file.attrs:
            voxel_nm = float(file.attrs["voxel_nm"])
        elif default_voxel_nm is not None:
            voxel_nm = default_voxel_nm
        else:
            raise FileError(f"{path}: has no attribute voxel_nm, so its lengths are not known")
        if not (np.isfinite(voxel_nm) and voxel_nm > 0):
            raise FileError(f"{path}: voxel_nm is {voxel_nm}; expected a positive length in nm")
        delta = float(file.attrs.get("delta_per_nm", np.nan))
        layers = np.asarray(file.attrs.get("layers_nm", np.empty((0, 2)))).reshape(-1, 2)
        fraction, std = (
            read_array(path, file, name, shape=mx.shape) if name in file else None
            for name in ("data_fraction", "std")
        )
        group = file.get("provenance")
        return Volume(
            mx,
            my,
            mz,
            voxel_nm,
            method=str(file.attrs.get("method", "unknown")),
            prior=str(file.attrs.get("prior", "unknown")),
            delta_per_nm=delta if np.isfinite(delta) and delta != 0 else None,
            data_fraction=fraction,
            layers_nm=tuple((float(low), float(high)) for low, high in layers),
            std=std,
            **(_provenance(path, group) if isinstance(group, h5py.Group) else {}),
        )


def _provenance(path: Path, group: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("options", "versions"):
        try:
            found[name] = json.loads(group.attrs.get(name, "{}"))
        except (TypeError, json.JSONDecodeError) as error:
            raise FileError(f"{path}: provenance/{name} is no JSON") from error
    if "input_files" in group and "input_sha256" in group:
        names, digests = (group[n].asstr()[()] for n in ("input_files", "input_sha256"))
        found["inputs"] = tuple(InputFile(*pair) for pair in zip(names, digests, strict=True))
    if "residual_rms" in group:
        rms = read_array(path, group, "residual_rms", dtype=np.float64, finite=False)
        phi, theta = (
            read_array(path, group, n, dtype=np.float64, finite=False)
            for n in ("phi_deg", "theta_deg")
        )
        if not phi.shape == theta.shape == rms.shape:
            raise FileError(f"{path}: provenance has {phi.size} azimuths for {rms.size} residuals")
        found["residuals"] = tuple(
            SeriesResidual(float(one), theta[phi == one], rms[phi == one])
            for one in dict.fromkeys(phi.tolist())
        )
    return found


def _from_ovf(path: Path) -> Volume:
    ovf = read_ovf(path)
    x_nm, y_nm, z_nm = ovf.voxel_nm_xyz
    if not np.allclose([y_nm, z_nm], x_nm, rtol=1e-4):
        raise FileError(
            f"{path}: voxels of {x_nm:g} x {y_nm:g} x {z_nm:g} nm; expected cubes, resample it"
        )
    mx, my, mz = ovf.m_czyx.astype(np.float32)
    return Volume(mx, my, mz, x_nm)

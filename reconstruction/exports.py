"""Volumes and aligned stacks for the other programs of the field, each with its units and axes
inside.

ovf (Muview, OOMMF, mumax3)
    A volume: one OVF 2.0 file, binary 4.
vti (ParaView)
    A volume: one VTK ImageData file, vectors `m` and scalars `data_fraction`, `std`.
tiff (ImageJ)
    A volume: one hyperstack with the components as channels. An aligned series: one hyperstack with
    the channels dichroic and absorption.
mrc (IMOD)
    A volume: NAME_mx.mrc, NAME_my.mrc, NAME_mz.mrc. An aligned series: NAME_dichroic.mrc,
    NAME_absorption.mrc, and the tilts in NAME.rawtlt.
martapp (MARTApp)
    A volume: `mx`, `my`, `mz` {Z, X, Y}, its result, where the middle axis is the image row. An
    aligned series: its file before the reconstruction.
nxtomo (tomography programs)
    An aligned series: one file with the entries `dichroic` and `absorption`.

Lengths are in nm (OVF: m; MRC: Angstrom, as the formats demand), positions from the volume's
centre.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

import h5py
import mrcfile
import numpy as np
import tifffile
from numpy.typing import NDArray

from mistral_txm.reconstruction.files import FileError, replaced_when_complete
from mistral_txm.reconstruction.martapp import AlignedSeries, write_aligned
from mistral_txm.reconstruction.nxtomo import PROJECTION, TomoEntry, write_nxtomo
from mistral_txm.reconstruction.ovf import write_ovf
from mistral_txm.reconstruction.volume_file import Volume

__all__ = ["SERIES_FORMATS", "VOLUME_FORMATS", "export_series", "export_volume"]


def export_volume(volume: Volume, format: str, path: Path) -> tuple[Path, ...]:
    """Write a volume for another program and return the files written, each whole or not at all.

    `format` is one of `VOLUME_FORMATS`. Raises `FileError` for any other, and if a file cannot be
    written.
    """
    if format not in VOLUME_FORMATS:
        hint = "; nxtomo holds projections: export an aligned series" if format == "nxtomo" else ""
        raise FileError(
            f"{path}: a volume cannot be written as {format!r}{hint}; known are "
            f"{', '.join(VOLUME_FORMATS)}"
        )
    return VOLUME_FORMATS[format](volume, Path(path))


def export_series(
    series: AlignedSeries, format: str, path: Path, *, pixel_nm: float
) -> tuple[Path, ...]:
    """Write an aligned tilt series for another program and return the files written.

    `format` is one of `SERIES_FORMATS`. Raises `FileError` for any other, and if a file cannot be
    written.
    """
    if format not in SERIES_FORMATS:
        raise FileError(
            f"{path}: an aligned series cannot be written as {format!r}; known are "
            f"{', '.join(SERIES_FORMATS)}"
        )
    return SERIES_FORMATS[format](series, Path(path), pixel_nm)


def _description(volume: Volume) -> str:
    known = "" if volume.delta_per_nm is None else f", delta {volume.delta_per_nm:g} 1/nm"
    return f"mistral-txm magnetization, method {volume.method}, prior {volume.prior}{known}"


def _volume_as_ovf(volume: Volume, path: Path) -> tuple[Path, ...]:
    write_ovf(
        path,
        volume.m_czyx,
        volume.voxel_nm,
        unit=volume.unit,
        description=[_description(volume)],
    )
    return (path,)


def _volume_as_vti(volume: Volume, path: Path) -> tuple[Path, ...]:
    """Write VTK's XML ImageData with the arrays appended raw, little-endian, 64-bit lengths."""
    nz, ny, nx = volume.mx.shape
    arrays = [("m", 3, np.moveaxis(volume.m_czyx, 0, 3))]
    for name, part in (("data_fraction", volume.data_fraction), ("std", volume.std)):
        if part is not None:
            arrays.append((name, 1, part))
    step = f"{volume.voxel_nm!r}"
    origin = " ".join(repr(-(n - 1) / 2 * volume.voxel_nm) for n in (nx, ny, nz))
    extent = f"0 {nx - 1} 0 {ny - 1} 0 {nz - 1}"
    entries, offset = [], 0
    for name, components, values in arrays:
        entries.append(
            f'        <DataArray type="Float32" Name="{name}" NumberOfComponents="{components}" '
            f'format="appended" offset="{offset}"/>'
        )
        offset += 8 + 4 * values.size
    scalars = f' Scalars="{arrays[1][0]}"' if len(arrays) > 1 else ""
    note = escape(_description(volume)).replace("--", "- -")
    lines = [
        '<?xml version="1.0"?>',
        f"<!-- {note}; lengths in nm, m in {volume.unit} -->",
        '<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" header_type="UInt64">',
        f'  <ImageData WholeExtent="{extent}" Origin="{origin}" Spacing="{step} {step} {step}">',
        f'    <Piece Extent="{extent}">',
        f'      <PointData Vectors="m"{scalars}>',
        *entries,
        "      </PointData>",
        "      <CellData/>",
        "    </Piece>",
        "  </ImageData>",
        '  <AppendedData encoding="raw">',
    ]
    with replaced_when_complete(path) as temporary, temporary.open("wb") as file:
        file.write(("\n".join(lines) + "\n   _").encode())
        for _, _, values in arrays:
            file.write(np.array([4 * values.size], "<u8").tobytes())
            file.write(np.ascontiguousarray(values, "<f4").tobytes())
        file.write(b"\n  </AppendedData>\n</VTKFile>\n")
    return (path,)


def _write_tiff(
    path: Path,
    data_tcyx: NDArray[np.float32],
    *,
    axes: str,
    voxel_nm: float,
    labels: tuple[str, ...],
    info: str,
) -> None:
    with replaced_when_complete(path) as temporary:
        tifffile.imwrite(
            temporary,
            data_tcyx,
            imagej=True,
            resolution=(1 / voxel_nm, 1 / voxel_nm),
            metadata={
                "axes": axes,
                "unit": "nm",
                "spacing": voxel_nm,
                "mode": "grayscale",
                "Labels": list(labels) * data_tcyx.shape[0],
                "Info": info,
            },
        )


def _volume_as_tiff(volume: Volume, path: Path) -> tuple[Path, ...]:
    _write_tiff(
        path,
        np.stack([volume.mx, volume.my, volume.mz], axis=1).astype(np.float32),
        axes="ZCYX",
        voxel_nm=volume.voxel_nm,
        labels=("mx", "my", "mz"),
        info=f"{_description(volume)}; m in {volume.unit}",
    )
    return (path,)


def _write_mrc(
    path: Path, data_zyx: NDArray[np.float32], voxel_nm: float, *, stack: bool, label: str
) -> None:
    with (
        replaced_when_complete(path) as temporary,
        mrcfile.new(temporary, overwrite=True) as file,
    ):
        file.set_data(np.ascontiguousarray(data_zyx, np.float32))
        if stack:
            file.set_image_stack()
        else:
            file.set_volume()
            nz, ny, nx = data_zyx.shape
            for axis, n in zip("xyz", (nx, ny, nz), strict=True):
                file.header.origin[axis] = -(n - 1) / 2 * voxel_nm * 10
        file.voxel_size = voxel_nm * 10
        file.header.label[0] = label[:80]
        file.header.nlabl = 1


def _volume_as_mrc(volume: Volume, path: Path) -> tuple[Path, ...]:
    written = []
    for name in ("mx", "my", "mz"):
        part = path.with_name(f"{path.stem}_{name}.mrc")
        label = f"{name} in {volume.unit}: {_description(volume)}"
        _write_mrc(part, getattr(volume, name), volume.voxel_nm, stack=False, label=label)
        written.append(part)
    return tuple(written)


def _volume_as_martapp(volume: Volume, path: Path) -> tuple[Path, ...]:
    with replaced_when_complete(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["voxel_nm"] = float(volume.voxel_nm)
        file.attrs["description"] = _description(volume)
        for name in ("mx", "my", "mz"):
            dataset = file.create_dataset(name, data=getattr(volume, name), dtype=np.float32)
            dataset.attrs["units"] = volume.unit
            dataset.attrs["axes"] = "z, image row (y), image column (x)"
    return (path,)


def _series_as_martapp(series: AlignedSeries, path: Path, pixel_nm: float) -> tuple[Path, ...]:
    write_aligned(path, series)
    return (path,)


def _series_as_mrc(series: AlignedSeries, path: Path, pixel_nm: float) -> tuple[Path, ...]:
    written = []
    for name, stack in (("dichroic", series.dichroic_tvu), ("absorption", series.absorption_tvu)):
        part = path.with_name(f"{path.stem}_{name}.mrc")
        _write_mrc(part, stack, pixel_nm, stack=True, label=f"{name} signal, tilt axis vertical")
        written.append(part)
    tilts = path.with_name(f"{path.stem}.rawtlt")
    with replaced_when_complete(tilts) as temporary:
        temporary.write_text("".join(f"{theta:.3f}\n" for theta in series.theta_deg))
    return (*written, tilts)


def _series_as_tiff(series: AlignedSeries, path: Path, pixel_nm: float) -> tuple[Path, ...]:
    angles = ", ".join(f"{theta:g}" for theta in series.theta_deg)
    _write_tiff(
        path,
        np.stack([series.dichroic_tvu, series.absorption_tvu], axis=1).astype(np.float32),
        axes="TCYX",
        voxel_nm=pixel_nm,
        labels=("dichroic", "absorption"),
        info=f"mistral-txm aligned tilt series; tilts in deg: {angles}",
    )
    return (path,)


def _series_as_nxtomo(series: AlignedSeries, path: Path, pixel_nm: float) -> tuple[Path, ...]:
    key = np.full(series.theta_deg.shape, PROJECTION, dtype=np.int64)
    stacks = {"dichroic": series.dichroic_tvu, "absorption": series.absorption_tvu}
    entries = {
        name: TomoEntry(stack, key, series.theta_deg, pixel_nm=pixel_nm, title=f"{name} signal")
        for name, stack in stacks.items()
    }
    write_nxtomo(path, entries)
    return (path,)


VOLUME_FORMATS: Mapping[str, Callable[[Volume, Path], tuple[Path, ...]]] = {
    "ovf": _volume_as_ovf,
    "vti": _volume_as_vti,
    "tiff": _volume_as_tiff,
    "mrc": _volume_as_mrc,
    "martapp": _volume_as_martapp,
}
"""What `export_volume` can write."""

SERIES_FORMATS: Mapping[str, Callable[[AlignedSeries, Path, float], tuple[Path, ...]]] = {
    "martapp": _series_as_martapp,
    "mrc": _series_as_mrc,
    "tiff": _series_as_tiff,
    "nxtomo": _series_as_nxtomo,
}
"""What `export_series` can write."""

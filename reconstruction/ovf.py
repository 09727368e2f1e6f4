"""Vector fields in OVF 2.0, the format of OOMMF, mumax3 and Muview: text, binary 4 and binary 8.

https://math.nist.gov/oommf/doc/userguide20a3/userguide/OVF_2.0_format.html. Values run over x
fastest, then y, then z; binary data are little-endian and begin with a check value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.files import FileError, replaced_when_complete

__all__ = ["OvfField", "read_ovf", "write_ovf"]

_NM_PER_UNIT = {"m": 1e9, "mm": 1e6, "um": 1e3, "µm": 1e3, "nm": 1.0}
_CHECK: dict[str, tuple[np.dtype[np.floating[Any]], float]] = {
    "binary 4": (np.dtype("<f4"), 1234567.0),
    "binary 8": (np.dtype("<f8"), 123456789012345.0),
}
_FIRST_LINE = b"# OOMMF OVF 2.0"


@dataclass(frozen=True)
class OvfField:
    """A vector field [component, z, y, x], its voxel (x, y, z) in nm and the unit of its values."""

    m_czyx: NDArray[np.float32] | NDArray[np.float64]
    voxel_nm_xyz: tuple[float, float, float]
    unit: str
    title: str


def is_ovf(path: Path) -> bool:
    """Return whether a file begins as an OVF file of any version does."""
    try:
        with Path(path).open("rb") as file:
            return file.read(64).lstrip().upper().startswith((b"# OOMMF", b"#OOMMF"))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error


def read_ovf(path: Path) -> OvfField:
    """Read the first segment of an OVF 2.0 file: three values a node, on a rectangular mesh.

    Raises `FileError` with one line for anything else.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error
    if not content.startswith(_FIRST_LINE):
        first = content[:40].split(b"\n", 1)[0].decode("ascii", "replace").strip()
        raise FileError(f"{path}: begins with {first!r}; expected an OVF 2.0 file")
    header: dict[str, str] = {}
    at = 0
    while True:
        end = content.find(b"\n", at)
        if end < 0:
            raise FileError(f"{path}: the OVF header has no data after it")
        line = content[at:end].decode("utf-8", "replace").strip()
        at = end + 1
        key, _, value = line.lstrip("#").strip().partition(":")
        key, value = key.strip().lower(), value.split("##")[0].strip()
        if key == "begin" and value.lower().startswith("data"):
            form = " ".join(value.lower().split()[1:])
            break
        header.setdefault(key, value)

    def entry(name: str) -> str:
        if name not in header:
            raise FileError(f"{path}: the OVF header has no {name}")
        return header[name]

    def numbers(prefix: str) -> tuple[float, float, float]:
        try:
            x, y, z = (float(entry(f"{axis}{prefix}")) for axis in "xyz")
        except ValueError as error:
            if isinstance(error, FileError):
                raise
            raise FileError(f"{path}: the OVF header's {prefix} are no numbers") from error
        return x, y, z

    if entry("meshtype").lower() != "rectangular":
        raise FileError(f"{path}: mesh type {header['meshtype']!r}; only rectangular is read")
    if entry("valuedim") != "3":
        raise FileError(f"{path}: {header['valuedim']} values a node; expected a field of 3")
    unit = entry("meshunit")
    if unit not in _NM_PER_UNIT:
        raise FileError(f"{path}: lengths in {unit!r}; known are {', '.join(_NM_PER_UNIT)}")
    nx, ny, nz = (round(n) for n in numbers("nodes"))
    step = numbers("stepsize")
    count = 3 * nx * ny * nz
    if min(nx, ny, nz) < 1 or min(step) <= 0:
        raise FileError(f"{path}: mesh of {nx} x {ny} x {nz} nodes with steps {step}")
    if form == "text":
        stop = content.find(b"#", at)
        try:
            values = np.array(content[at : stop if stop >= 0 else None].split(), dtype=np.float64)
        except ValueError as error:
            raise FileError(f"{path}: the OVF data are no numbers: {error}") from error
    elif form in _CHECK:
        dtype, check = _CHECK[form]
        whole = min(count + 1, (len(content) - at) // dtype.itemsize)
        data = np.frombuffer(content, dtype, count=whole, offset=at)
        if data.size == 0 or data[0] != dtype.type(check):
            raise FileError(f"{path}: wrong check value; the file is damaged or not little-endian")
        values = data[1:]
    else:
        raise FileError(f"{path}: data as {form!r}; known are text, binary 4 and binary 8")
    if values.size != count:
        raise FileError(f"{path}: holds {values.size} values; the header says {count}")
    m_czyx = np.ascontiguousarray(np.moveaxis(values.reshape(nz, ny, nx, 3), 3, 0))
    nm = _NM_PER_UNIT[unit]
    return OvfField(
        m_czyx.astype(m_czyx.dtype.newbyteorder("=")),
        # to the digits that a single-precision header has
        (float(f"{step[0] * nm:.9g}"), float(f"{step[1] * nm:.9g}"), float(f"{step[2] * nm:.9g}")),
        header.get("valueunits", "").split(" ")[0],
        header.get("title", ""),
    )


def write_ovf(
    path: Path,
    m_czyx: NDArray[np.float32] | NDArray[np.float64],
    voxel_nm: float,
    *,
    form: Literal["text", "binary 4", "binary 8"] = "binary 4",
    unit: str = "1",
    title: str = "m",
    description: Sequence[str] = (),
) -> None:
    """Write a field as OVF 2.0 in metres, centred on the origin, whole or not at all.

    `unit` is that of the values ("1" or "1/nm").
    """
    nz, ny, nx = m_czyx.shape[1:]
    step_m = voxel_nm * 1e-9
    lines = [
        _FIRST_LINE.decode(),
        "# Segment count: 1",
        "# Begin: Segment",
        "# Begin: Header",
        f"# Title: {title}",
        *(f"# Desc: {line}" for line in description),
        "# meshtype: rectangular",
        "# meshunit: m",
    ]
    for axis, n in zip("xyz", (nx, ny, nz), strict=True):
        lines += [
            f"# {axis}base: {-(n - 1) / 2 * step_m:.12g}",
            f"# {axis}stepsize: {step_m:.12g}",
            f"# {axis}nodes: {n}",
            f"# {axis}min: {-n / 2 * step_m:.12g}",
            f"# {axis}max: {n / 2 * step_m:.12g}",
        ]
    lines += [
        "# valuedim: 3",
        "# valuelabels: m_x m_y m_z",
        f"# valueunits: {unit} {unit} {unit}",
        "# End: Header",
        f"# Begin: Data {form.title()}",
    ]
    values = np.moveaxis(m_czyx, 0, 3).reshape(-1, 3)
    with replaced_when_complete(path) as temporary, temporary.open("wb") as file:
        file.write(("\n".join(lines) + "\n").encode())
        if form == "text":
            np.savetxt(file, values, fmt="%.17g" if values.dtype.itemsize == 8 else "%.9g")
        else:
            dtype, check = _CHECK[form]
            file.write(np.array([check], dtype).tobytes())
            file.write(np.ascontiguousarray(values, dtype).tobytes())
            file.write(b"\n")
        file.write(f"# End: Data {form.title()}\n# End: Segment\n".encode())

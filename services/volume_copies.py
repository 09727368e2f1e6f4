"""The volumes of the live reconstruction that are kept under names of their own, for the catalog to refer to.

The live reconstruction replaces its ``volume.h5`` after every angle. Here each that is to be read later gets a name in
``DIR/volumes/<series>/``: a second name of the same file, which costs nothing, or a copy where the disk knows no such
thing.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mistral_txm.services.live_files import LIVE, STATUS, VOLUME, read_status

VOLUMES = "volumes"
FINAL = "volume"
"""Name of the volume of a complete series."""
COMPONENTS = ("mx", "my", "mz", "data_fraction", "std")
"""Datasets of a volume that are published, as far as they are there."""
_TIMES = "phi_deg", "theta_deg", "residual_rms"


@dataclass(frozen=True)
class NewestVolume:
    """The newest volume of a series."""

    series: str
    path: Path
    modified_ns: int
    runs: tuple[str, ...]
    """Uids of the runs that it was made of."""
    final: bool
    """All angles of the series are in it."""

    @classmethod
    def of(cls, folder: Path) -> "NewestVolume | None":
        """Look into a folder of the live reconstruction; None if no volume is there, or nobody says of what."""
        try:
            modified_ns = (folder / VOLUME).stat().st_mtime_ns
            status = read_status(folder / STATUS)
            runs, told_at_s = tuple(status["runs"]), float(status.get("updated_at", 0))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        final = status.get("state") == "complete" and told_at_s >= modified_ns / 1e9
        return cls(folder.name, folder / VOLUME, modified_ns, runs, final)


def newest_volumes(data: Path) -> list[NewestVolume]:
    """Return the newest volume of each series of a data folder."""
    found = [NewestVolume.of(folder) for folder in sorted((data / LIVE).glob("*"))]
    return [one for one in found if one is not None]


def describe(path: Path) -> dict[str, Any]:
    """Return how a volume was made, its unit and its axes, without its values, as JSON knows them.

    Raises
    ------
    ValueError
        If it is not a volume that the live reconstruction has written.
    """
    try:
        with h5py.File(path) as file:
            made, attributes = file["provenance"], file.attrs
            views = {name: np.asarray(made[name], dtype=np.float64) for name in _TIMES}
            delta_per_nm = float(attributes["delta_per_nm"])
            rms = views["residual_rms"]
            return {
                "shape": list(file["mx"].shape),
                "arrays": [name for name in COMPONENTS if name in file],
                "units": str(file["mx"].attrs["units"]),
                "axes": str(file["mx"].attrs["axes"]).split(),
                "voxel_nm": float(attributes["voxel_nm"]),
                "origin": "middle of the film, centre of the field of view",
                "layers_nm": np.asarray(attributes.get("layers_nm", [])).tolist(),
                "method": str(attributes["method"]),
                "prior": str(attributes["prior"]),
                "delta_per_nm": delta_per_nm if np.isfinite(delta_per_nm) else None,
                "angles": int(rms.size),
                "azimuths_deg": np.unique(views["phi_deg"]).tolist(),
                "residual_rms": float(np.sqrt(np.mean(rms**2))) if rms.size else None,
                "options": json.loads(made.attrs["options"]),
                "versions": json.loads(made.attrs["versions"]),
            }
    except (OSError, KeyError, ValueError, TypeError) as cause:
        raise ValueError(f"{path}: not a volume of the live reconstruction: {cause}") from cause


def keep(volume: NewestVolume, data: Path, name: str) -> Path | None:
    """Give the volume a name that stays with it when the next one replaces it.

    Returns the path; None if the next one has replaced it already.

    Raises
    ------
    OSError
        If the disk does not take it.
    """
    kept = data / VOLUMES / volume.series / f"{name}.h5"
    if not kept.exists() or kept.stat().st_mtime_ns != volume.modified_ns:
        kept.parent.mkdir(parents=True, exist_ok=True)
        new = kept.with_name(f".{kept.name}")
        new.unlink(missing_ok=True)
        try:
            os.link(volume.path, new)
        except OSError:
            shutil.copy2(volume.path, new)
        if new.stat().st_mtime_ns != volume.modified_ns:
            new.unlink()
            return None
        new.replace(kept)
    return kept


def forget(data: Path, series: str, names: Collection[str]) -> None:
    """Remove what is kept of a series but for some names."""
    for path in (data / VOLUMES / series).glob("*.h5"):
        if path.stem not in names:
            with contextlib.suppress(OSError):
                path.unlink()

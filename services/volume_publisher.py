"""Publishes the volumes of the live reconstruction in the catalog, beside the runs that they were made of.

Each run of a series gets its newest volume as ``run["volume_after_045_angles"]``, and ``run["volume"]`` when the series
is complete: arrays ``mx``, ``my``, ``mz``, .., ``[z, y, x]``, whose metadata say how they were made. The catalog refers
to the file (`volume_copies`); nothing is copied over the network. Of the volumes on the way the newest `KEPT` stay:
one that is being read does not vanish with the next. None stays beside the final one.

In the catalog a volume looks like a stream of its run, with a descriptor and no Events: so every flavour of
databroker's clients reads it, and the run's other streams as before. ``documents()`` does not know it.
"""

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import httpx
from tiled.structures.core import Spec, StructureFamily
from tiled.structures.data_source import Asset, DataSource, Management

from mistral_txm.reconstruction.files import sha256_of
from mistral_txm.services.catalog_writer import REFUSALS, Unreachable
from mistral_txm.services.volume_copies import (
    FINAL,
    NewestVolume,
    describe,
    forget,
    keep,
    newest_volumes,
)

KEPT = 2
"""So many volumes of a series that is not complete are in the catalog, the newest ones."""
SPECS = [Spec("MagnetizationVolume", "1.0"), Spec("composite")]
_PREFIX = f"{FINAL}_after_"

logger = logging.getLogger(__name__)


class RunWriter(Protocol):
    """What is needed of what writes the runs (`catalog_writer.CatalogWriter`)."""

    def client(self) -> Any:
        """Return the connection to the server."""

    def begun(self) -> dict[str, int | None]:
        """Return for each run how often it has been begun to be written; None for one that was given up."""


@dataclass
class _Published:
    """The newest volume of a series, and how far it is published."""

    volume: NewestVolume
    beside: dict[str, int] = field(default_factory=dict)
    """The runs it stands beside, and how often each of them had begun to be written by then."""
    refusals: int = 0
    done: bool = False


class VolumePublisher:
    """Brings the catalog up to the newest volumes, call by call.

    Parameters
    ----------
    data
        The data folder.
    writer
        What writes the runs; its connection is used.
    """

    def __init__(self, data: Path, writer: RunWriter) -> None:
        self._data = data
        self._writer = writer
        self._series: dict[str, _Published] = {}

    def step(self) -> None:
        """Publish what is new; a run that is not in the catalog yet gets its volume at a later call.

        Raises
        ------
        Unreachable
            If the server fails; the next call tries again.
        """
        begun = self._writer.begun()
        for volume in newest_volumes(self._data):
            one = self._series.get(volume.series)
            if one is None or one.volume != volume:
                one = self._series[volume.series] = _Published(volume)
            lacking = {
                uid: count
                for uid, count in begun.items()
                if uid in volume.runs and count is not None and one.beside.get(uid) != count
            }
            if lacking and one.refusals < REFUSALS:
                try:
                    self._publish(one, lacking)
                except Unreachable:
                    raise
                except (
                    Exception
                ) as error:  # whatever the server, the file or the disk makes it raise
                    self._refused(one, error)
            one.done = lacking.keys() <= one.beside.keys() or one.refusals >= REFUSALS

    def progress(self) -> dict[str, Any]:
        """Return what is published: ``{series: {"modified_ns": of the volume, "final": bool}}``."""
        return {
            uid: {"modified_ns": one.volume.modified_ns, "final": one.volume.final}
            for uid, one in self._series.items()
            if one.done
        }

    def _publish(self, one: _Published, runs: Mapping[str, int]) -> None:
        volume, client = one.volume, self._writer.client()
        beside = {uid: client[uid].base for uid in runs if uid in client}
        name = FINAL if volume.final else f"{_PREFIX}{describe(volume.path)['angles']:03d}_angles"
        for uid, run in list(beside.items()):
            if name in run and _made(run[name])["modified_ns"] == str(volume.modified_ns):
                one.beside[uid] = runs[uid]
                del beside[uid]
            elif name in run:  # before the file gets its name
                run.delete_contents(name, recursive=True)
        path = keep(volume, self._data, name)
        if path is None:
            return
        made = describe(path) | {
            "series": volume.series,
            "runs": list(volume.runs),
            "final": volume.final,
            "modified_ns": str(volume.modified_ns),
            "sha256": sha256_of(path) if volume.final else None,
        }
        for uid, run in beside.items():
            source = _source(path, made["arrays"])
            metadata = _descriptor(made, volume.modified_ns / 1e9)
            run.new("container", [source], key=name, metadata=metadata, specs=SPECS)
            one.beside[uid] = runs[uid]
        if one.beside.keys() >= runs.keys():
            stay = {name}
            for uid in volume.runs:
                stay |= _without_old(client[uid].base, volume.final) if uid in client else set()
            forget(self._data, volume.series, stay)

    def _refused(self, one: _Published, error: Exception) -> None:
        """Say what did not go; a volume that is refused again and again is left out."""
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        where = f"volume of series {one.volume.series}"
        if isinstance(error, httpx.HTTPError) and (
            not isinstance(error, httpx.HTTPStatusError) or error.response.status_code >= 500
        ):
            raise Unreachable(f"{where}: {reason}") from error
        one.refusals += 1
        logger.warning("%s refused: %s", where, reason)
        if one.refusals >= REFUSALS:
            logger.error("%s: given up, the catalog lacks it", where)


def _without_old(run: Any, final: bool) -> set[str]:
    """Remove the volumes on the way that are not needed any more; return the names of those that stay."""
    names = [key for key in run if key.startswith(_PREFIX)]
    names.sort(key=lambda name: float(run[name].metadata["time"]))
    old = names if final else names[:-KEPT]
    if old:
        run.delete_contents(old, recursive=True)
    return {key for key in run if key == FINAL or key.startswith(_PREFIX)}


def _source(path: Path, arrays: list[str]) -> DataSource[Any]:
    """Return what the server reads of a volume, and where."""
    uri = f"file://localhost{quote(str(path.absolute()))}"
    return DataSource(
        structure_family=StructureFamily.container,
        structure=None,
        mimetype="application/x-hdf5",
        parameters={"dataset": "/"},
        properties={"arrays": arrays},
        management=Management.external,
        assets=[Asset(data_uri=uri, is_directory=False, parameter="data_uris", num=0)],
    )


def _descriptor(made: dict[str, Any], time: float) -> dict[str, Any]:
    """Return the metadata as a stream has them: what the arrays are, and in the configuration how they were made."""
    arrays = {
        name: {
            "source": "live reconstruction",
            "dtype": "array",
            "dtype_numpy": "<f4",
            "shape": made["shape"],
            "dims": made["axes"],
            "units": "1" if name == "data_fraction" else made["units"],
            "external": "FILE:",
        }
        for name in made["arrays"]
    }
    kinds = {list: "array", str: "string", int: "integer", bool: "boolean"}
    told = {
        name: {
            "source": "live reconstruction",
            "dtype": kinds.get(type(value), "number"),
            "shape": [len(value)] if isinstance(value, list) else [],
        }
        for name, value in made.items()
        if not isinstance(value, dict)
    }
    return {
        "uid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{made['series']} {made['modified_ns']}")),
        "time": time,
        "data_keys": arrays,
        "hints": {},
        "configuration": {
            "reconstruction": {
                "data": made,
                "timestamps": dict.fromkeys(made, time),
                "data_keys": told,
            }
        },
    }


def _made(volume: Any) -> Mapping[str, Any]:
    """Return how a volume in the catalog was made."""
    found: Mapping[str, Any] = volume.metadata["configuration"]["reconstruction"]["data"]
    return found

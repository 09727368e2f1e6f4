"""The exposures of the runs in a catalog: rows of their tables, and the frames beside them, read when needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

import dask.array as da
import httpx
import numpy as np
from numpy.typing import NDArray

from mistral_txm.devices.key import Key
from mistral_txm.services.frame_files import FrameError, frame_crc32
from mistral_txm.services.standing import describe_key

CHUNK_BYTES = 16_000_000
"""Frames are read in pieces of at most about this size, bytes."""
_OF_KEY = ("phi_deg", "theta_deg", "helicity", "repeat")
_COLUMNS = (
    *(f"key_{name}" for name in _OF_KEY),
    "seq_num",
    "time",
    "theta",
    "polarization",
    "ring_current",
    "ccd_exposure_s",
    "ccd_frame_crc32",
)


class SeriesError(ValueError):
    """The catalog has no such series, or one that makes no arrays; one line."""


@dataclass(frozen=True)
class Row:
    """One exposure: a row of a stream's table, and the frame beside it."""

    run_uid: str
    stream: str
    row: int
    key: Key
    polarization: int
    theta_deg: float
    exposure_s: float
    ring_current_ma: float
    crc32: int
    time: float


class CatalogFrames:
    """Knows where the frame of each row is, and reads it when it is computed."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str], Any] = {}
        self._kind: tuple[tuple[int, int], np.dtype[Any]] | None = None

    def rows_of(self, uid: str, streams: Mapping[str, Any]) -> list[Row]:
        """Return the exposures of a run, stream by stream; of darks and flats taken again after a pause the last."""
        rows = []
        for stream in ("dark", "flat", "primary"):
            parts = dict(streams[stream].items()) if stream in streams else {}
            if "internal" not in parts:
                continue
            table = _table(parts["internal"], _COLUMNS)
            client = self._clients[uid, stream] = parts["ccd"]
            kind = (tuple(client.shape[-2:]), client.dtype)
            self._kind = self._kind or kind
            if kind != self._kind:
                raise SeriesError(
                    f"run {uid}: frames of {kind[0]} pixels, expected {self._kind[0]} as in the runs before; "
                    "was the region of interest changed?"
                )
            made = [
                Row(
                    run_uid=uid,
                    stream=stream,
                    row=row,
                    key=key,
                    polarization=int(table["polarization"][row]),
                    theta_deg=float(table["theta"][row]),
                    exposure_s=float(table["ccd_exposure_s"][row]),
                    ring_current_ma=float(table["ring_current"][row]),
                    crc32=int(table["ccd_frame_crc32"][row]),
                    time=float(table["time"][row]),
                )
                for row, key in enumerate(_keys(table, "key"))
            ]
            if stream != "primary":
                made = list(dict(zip(table["seq_num"].tolist(), made, strict=True)).values())
            rows += made
        return rows

    def lazy(self, rows: Sequence[Row], number: NDArray[np.int64]) -> Any:
        """Return an array ``[.., y, x]`` of the frames of rows by their number; zero where that is negative."""
        shape, dtype = self._kind or ((0, 0), np.dtype(np.uint16))
        if not number.size:
            return da.zeros((*number.shape, *shape), dtype=dtype)
        frame_bytes = shape[0] * shape[1] * dtype.itemsize
        numbers = cast("Any", da).from_array(number, chunks=_chunks(number.shape, frame_bytes))

        def read(of_block: NDArray[np.int64]) -> NDArray[Any]:
            block = np.zeros((*of_block.shape, *shape), dtype)
            wanted = {
                place: rows[int(of_block[place])]
                for place in np.ndindex(of_block.shape)
                if of_block[place] >= 0
            }
            places = sorted(wanted, key=lambda place: _order(wanted[place]))
            frames = self._read([wanted[place] for place in places])
            for place, frame in zip(places, frames, strict=True):
                block[place] = frame
            return block

        return cast("Any", da).map_blocks(
            read,
            numbers,
            dtype=dtype,
            chunks=(*numbers.chunks, (shape[0],), (shape[1],)),
            new_axis=(number.ndim, number.ndim + 1),
            meta=np.empty((0,) * (number.ndim + 2), dtype),
            name=f"frames-{uuid4()}",
        )

    def _read(self, rows: Sequence[Row]) -> list[NDArray[Any]]:
        """Read frames; those that lie behind each other in one request."""
        frames: list[NDArray[Any]] = []
        while len(frames) < len(rows):
            first = rows[len(frames)]
            last = len(frames) + 1
            while last < len(rows) and _follows(rows[last - 1], rows[last]):
                last += 1
            together = rows[len(frames) : last]
            client = self._clients[first.run_uid, first.stream]
            try:
                found = np.asarray(client[first.row : first.row + len(together)])
            except httpx.HTTPError as refusal:
                raise FrameError(
                    f"{_describe(first)}, or one of {len(together)} from there on: the catalog cannot read it "
                    f"({str(refusal).splitlines()[0][:200]})"
                ) from refusal
            for row, frame in zip(together, found[:, 0], strict=True):
                crc32 = frame_crc32(frame)
                if crc32 != row.crc32:
                    raise FrameError(
                        f"{_describe(row)}: the frame has checksum {crc32:08x}, its Event says {row.crc32:08x}: "
                        "the file is damaged; `mistral-txm verify` lists all that are"
                    )
                frames.append(frame)
        return frames


def _chunks(shape: tuple[int, ...], frame_bytes: int) -> tuple[int, ...]:
    """Choose how many frames are read together: the repeats of an angle, and with both helicities if they are small.

    >>> _chunks((2, 87, 2, 3), 131072), _chunks((2, 87, 2, 20), 2097152)
    ((1, 1, 2, 3), (1, 1, 1, 7))
    """
    repeats = min(shape[-1], max(1, CHUNK_BYTES // frame_bytes))
    all_of_it = shape[-2] * shape[-1] * frame_bytes <= CHUNK_BYTES
    return (*(1,) * (len(shape) - 2), shape[-2] if all_of_it else 1, repeats)


def _order(row: Row) -> tuple[str, str, int]:
    return row.run_uid, row.stream, row.row


def _follows(one: Row, other: Row) -> bool:
    return _order(other) == (one.run_uid, one.stream, one.row + 1)


def _describe(row: Row) -> str:
    return f"run {row.run_uid}, {row.stream}, {describe_key(row.key)}"


def streams_of(run: Any) -> dict[str, Any]:
    """Return the streams of a run by name, whatever flavour its catalog is of."""
    return {name: stream.base for name, stream in run.base.items()}


def _table(internal: Any, columns: Sequence[str]) -> Mapping[str, Any]:
    table = internal.read(list(columns))
    return {name: np.asarray(table[name]) for name in columns}


def _keys(table: Mapping[str, Any], prefix: str) -> list[Key]:
    columns = (table[f"{prefix}_{name}"].tolist() for name in _OF_KEY)
    return [Key(*values) for values in zip(*columns, strict=True)]


def waived_keys(streams: Mapping[str, Any]) -> list[Key]:
    """Return the keys that a run says are not needed; each stands for itself and all higher repeats."""
    parts = dict(streams["waived"].items()) if "waived" in streams else {}
    if "internal" not in parts:
        return []
    return _keys(_table(parts["internal"], [f"waived_{name}" for name in _OF_KEY]), "waived")

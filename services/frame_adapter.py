"""How the catalog finds the frame of each Event: what Tiled's own HDF5 classes leave open.

The classes of bluesky-tiled-plugins and Tiled join the files of a stream end to end and count
frames. That serves wrong frames, or none, when a file has more frames than there are Events (a
pause inside an exposure, an exposure that is not yet an Event), and nothing while one of the files
has its temporary name. The two classes here keep, for every Event, the file and the number of the
frame in it, taken from the ``indices`` of the stream datum.

The map is stored in the ``properties`` of the data source as rows ``[file, first frame, number of
frames]``; the rest is what the original classes store, so that any Tiled server can still read the
catalog of a plain measurement.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from bluesky_tiled_plugins.writing.consolidators import HDF5Consolidator, Patch
from numpy.typing import NDArray
from tiled.adapters.array import ArrayAdapter
from tiled.adapters.hdf5 import HDF5Adapter
from tiled.adapters.utils import ShapeMismatchError
from tiled.ndslice import NDSlice
from tiled.structures.data_source import Asset, DataSource

from mistral_txm.services.frame_files import FrameError, path_of, read_frames
from mistral_txm.services.volume_adapter import VolumeAdapter

BLOCK_BYTES = 16_000_000
"""Frames are offered to clients in blocks of about this size, bytes."""


class FrameConsolidator(HDF5Consolidator):  # type: ignore[misc]  # the base class is not typed
    """Collects the frames of one data key from stream resources and stream datums, of one or
    several files."""

    def __new__(cls, *_: Any) -> "FrameConsolidator":
        """Make the object itself; the base class would pass files with a name template on to
        another class."""
        return object.__new__(cls)

    def __init__(self, stream_resource: dict[str, Any], descriptor: dict[str, Any]) -> None:
        super().__init__(stream_resource, descriptor)
        self._numbers = {self.uri: 0}
        self._resources = {stream_resource["uid"]: 0}
        self._rows: list[list[int]] = []
        self._registered = 0

    def update_from_stream_resource(self, stream_resource: dict[str, Any]) -> None:
        """Take note of a further resource, of a new file or of one that is known."""
        if stream_resource["parameters"]["dataset"] != self._sres_parameters["dataset"]:
            raise ValueError("all stream resources of a data key must name the same data set")
        uri = stream_resource["uri"]
        number = self._numbers.setdefault(uri, len(self._numbers))
        self._resources[stream_resource["uid"]] = number
        if number == len(self.assets):
            self.assets.append(
                Asset(
                    data_uri=uri, is_directory=False, parameter=self.default_asset_role, num=number
                )
            )

    def consume_stream_datum(self, doc: dict[str, Any]) -> Patch:
        """Append the frames that a stream datum refers to."""
        number = self._resources[doc["stream_resource"]]
        first, count = doc["indices"]["start"], doc["indices"]["stop"] - doc["indices"]["start"]
        if self._rows and self._rows[-1][0] == number and sum(self._rows[-1][1:]) == first:
            self._rows[-1][2] += count
        else:
            self._rows.append([number, first, count])
        return super().consume_stream_datum(doc)

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Blocks in which clients fetch the frames."""
        event_bytes = int(np.prod(self.datum_shape)) * self.data_type.to_numpy_dtype().itemsize
        step = max(1, BLOCK_BYTES // max(1, event_bytes))
        whole, rest = divmod(self._num_rows, step)
        events = (step,) * whole + ((rest,) if rest or not whole else ())
        return (events, *((size,) for size in self.datum_shape))

    def get_data_source(self) -> DataSource[Any]:
        """Return the state for the catalog; of the files only those that it has not been told
        of."""
        source = super().get_data_source()
        if len(self.datum_shape) == 3 and self.datum_shape[0] == 1:
            source.properties = {"frames": [list(row) for row in self._rows]}
        source.assets = self.assets[self._registered :]
        self._registered = len(self.assets)
        return source


class FrameAdapter(HDF5Adapter):  # type: ignore[misc]  # the base class is not typed
    """The server's reader of HDF5: frames by their map where there is one, volumes by their axes, anything else as
    Tiled does."""

    @classmethod
    def from_catalog(cls, data_source: DataSource[Any], node: Any, /, **parameters: Any) -> Any:
        """Make the reader of one data source."""
        if "arrays" in data_source.properties:
            return VolumeAdapter.from_catalog(data_source, node, **parameters)
        rows = data_source.properties.get("frames")
        if rows is None:
            return HDF5Adapter.from_catalog(data_source, node, **parameters)
        uris = {asset.num: asset.data_uri for asset in data_source.assets}
        return MappedFramesAdapter(
            [(uris[n], first + i) for n, first, count in rows for i in range(count)],
            parameters["dataset"],
            data_source.structure,
            metadata=node.metadata_,
            specs=node.specs,
        )


class MappedFramesAdapter(ArrayAdapter):  # type: ignore[misc]  # the base class is not typed
    """Serves the frames of Events, ``[event, 1, y, x]``; only those that are asked for are read.

    Parameters
    ----------
    frames
        For each Event the address of the file and the number of the frame in it.
    dataset
        Data set in each of the files.
    structure
        What the catalog offers to clients.
    """

    def __init__(
        self, frames: Sequence[tuple[str, int]], dataset: str, structure: Any, **common: Any
    ) -> None:
        super().__init__(None, structure, **common)
        self._frames = frames
        self._dataset = dataset

    def read(self, slice: NDSlice = NDSlice(...)) -> NDArray[Any]:  # noqa: B008 (Tiled's signature)
        """Read a part of the array."""
        return self._select(range(self._structure.shape[0]), slice)

    def read_block(self, block: Any, slice: NDSlice = NDSlice(...)) -> NDArray[Any]:  # noqa: B008
        """Read a part of a block of Events."""
        inside = block.slice_from_chunks(self._structure.chunks)[0]
        return self._select(range(self._structure.shape[0])[inside], slice)

    def _select(self, events: range, part: NDSlice) -> NDArray[Any]:
        shape = (len(events), *self._structure.shape[1:])
        first, *rest = (
            part.expand_for_shape(shape) if part else NDSlice(...).expand_for_shape(shape)
        )
        chosen = events[first]
        if isinstance(chosen, int):
            return np.asarray(self._read([chosen])[(0, *rest)])
        return np.asarray(self._read(chosen)[(np.s_[:], *rest)])

    def _read(self, events: Sequence[int]) -> NDArray[Any]:
        """Read whole Events; the server answers 422 and says why if a frame is missing or
        damaged."""
        dtype = self._structure.data_type.to_numpy_dtype()
        found = np.empty((len(events), *self._structure.shape[1:]), dtype)
        position = 0
        for uri, numbers in by_file([self._frames[event] for event in events]):
            try:
                frames = read_frames(path_of(uri), self._dataset, numbers)
            except FrameError as error:
                raise ShapeMismatchError(str(error)) from error
            if frames.shape[1:] != found.shape[2:] or frames.dtype != dtype:
                raise ShapeMismatchError(
                    f"{uri}: frames of {frames.shape[1:]} {frames.dtype}, the Events say "
                    f"{found.shape[2:]} {dtype}"
                )
            found[position : position + len(numbers), 0] = frames
            position += len(numbers)
        return found


def by_file(frames: Sequence[tuple[str, int]]) -> list[tuple[str, list[int]]]:
    """Join neighbouring frames of the same file.

    >>> by_file([("a", 3), ("a", 4), ("b", 0)])
    [('a', [3, 4]), ('b', [0])]
    """
    joined: list[tuple[str, list[int]]] = []
    for uri, number in frames:
        if not joined or joined[-1][0] != uri:
            joined.append((uri, []))
        joined[-1][1].append(number)
    return joined

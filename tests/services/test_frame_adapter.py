"""The map from Events to frames, and that Tiled's own classes can still read what it describes."""

from collections import namedtuple
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tiled.adapters.hdf5 import HDF5ArrayAdapter
from tiled.adapters.utils import ShapeMismatchError
from tiled.ndslice import NDBlock, NDSlice

from mistral_txm.services.frame_adapter import FrameAdapter, FrameConsolidator

DATASET = "/entry/data/data"
NODE = namedtuple("NODE", ["metadata_", "specs"])({}, [])
DESCRIPTOR = {
    "data_keys": {"ccd": {"shape": [1, 3, 4], "dtype_numpy": "<u2", "dims": ["repeat", "y", "x"]}}
}


def write(path: Path, first: int, count: int) -> np.ndarray:
    frames = np.arange(first * 12, (first + count) * 12, dtype=np.uint16).reshape(count, 3, 4)
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset(DATASET, data=frames, chunks=(1, 3, 4))
    return frames


def resource(uid: str, path: Path, **parameters: Any) -> dict[str, Any]:
    return {
        "uid": uid,
        "data_key": "ccd",
        "mimetype": "application/x-hdf5",
        "uri": f"file://localhost{path}",
        "parameters": {"dataset": DATASET, **parameters},
    }


def datum(uid: str, number: int, seq_num: int) -> dict[str, Any]:
    return {
        "stream_resource": uid,
        "indices": {"start": number, "stop": number + 1},
        "seq_nums": {"start": seq_num, "stop": seq_num + 1},
    }


def consolidate(frames: list[tuple[Path, int]]) -> FrameConsolidator:
    consolidator = None
    for seq_num, (path, number) in enumerate(frames, 1):
        doc = resource(f"r{seq_num}", path)
        if consolidator is None:
            consolidator = FrameConsolidator(doc, DESCRIPTOR)
        else:
            consolidator.update_from_stream_resource(doc)
        consolidator.consume_stream_datum(datum(doc["uid"], number, seq_num))
    assert consolidator is not None
    return consolidator


def test_each_event_gets_its_frame(tmp_path: Path) -> None:
    a, b = tmp_path / "a.h5", tmp_path / "b.h5"
    frames_a, frames_b = write(a, 0, 4), write(b, 4, 2)
    source = consolidate([(a, 0), (a, 1), (a, 3), (b, 1), (a, 2), (b, 0)]).get_data_source()
    assert source.properties == {"frames": [[0, 0, 2], [0, 3, 1], [1, 1, 1], [0, 2, 1], [1, 0, 1]]}
    assert [asset.data_uri for asset in source.assets] == [
        f"file://localhost{a}",
        f"file://localhost{b}",
    ]
    adapter = FrameAdapter.from_catalog(source, NODE, **source.parameters)
    expected = np.stack([*frames_a[[0, 1, 3]], frames_b[1], frames_a[2], frames_b[0]])[:, None]
    np.testing.assert_array_equal(adapter.read(), expected)
    np.testing.assert_array_equal(adapter.read(NDSlice.from_numpy_str("::-2,0")), expected[::-2, 0])
    np.testing.assert_array_equal(adapter.read(NDSlice(4, 0, slice(1, 3))), expected[4, 0, 1:3])
    np.testing.assert_array_equal(adapter.read_block(NDBlock(0, 0, 0, 0)), expected)


def test_files_are_told_once(tmp_path: Path) -> None:
    a, b = tmp_path / "a.h5", tmp_path / "b.h5"
    consolidator = consolidate([(a, 0), (a, 1)])
    assert len(consolidator.get_data_source().assets) == 1
    assert consolidator.get_data_source().assets == []
    consolidator.update_from_stream_resource(resource("later", b))
    assert [asset.num for asset in consolidator.get_data_source().assets] == [1]


def test_large_frames_are_offered_in_blocks(tmp_path: Path) -> None:
    descriptor = {"data_keys": {"ccd": {"shape": [1, 1024, 1024], "dtype_numpy": "<u2"}}}
    consolidator = FrameConsolidator(resource("r", tmp_path / "a.h5"), descriptor)
    assert consolidator.chunks == ((0,), (1,), (1024,), (1024,))
    for number in range(16):
        consolidator.consume_stream_datum(datum("r", number, number + 1))
    assert consolidator.chunks == ((7, 7, 2), (1,), (1024,), (1024,))


def test_tiled_reads_a_plain_measurement_without_the_map(tmp_path: Path) -> None:
    a, b = tmp_path / "a.h5", tmp_path / "b.h5"
    expected = np.concatenate([write(a, 0, 2), write(b, 2, 1)])[:, None]
    source = consolidate([(a, 0), (a, 1), (b, 0)]).get_data_source()
    adapter = HDF5ArrayAdapter.from_catalog(source, NODE, **source.parameters)
    np.testing.assert_array_equal(adapter.read(), expected)


def test_frames_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file[DATASET] = np.zeros((1, 3, 5), np.uint16)
    source = consolidate([(path, 0)]).get_data_source()
    adapter = FrameAdapter.from_catalog(source, NODE, **source.parameters)
    with pytest.raises(ShapeMismatchError, match=r"\(3, 5\) uint16, the Events say \(3, 4\)"):
        adapter.read()


def test_data_sets_of_different_names_are_refused(tmp_path: Path) -> None:
    consolidator = consolidate([(tmp_path / "a.h5", 0)])
    with pytest.raises(ValueError, match="same data set"):
        consolidator.update_from_stream_resource(resource("x", tmp_path / "b.h5", dataset="/other"))

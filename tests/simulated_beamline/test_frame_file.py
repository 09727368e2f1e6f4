"""The file of the simulated camera where its disk is full."""

import shutil
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from mistral_txm.simulated_beamline.frame_file import DATASET, FrameFile


def test_a_full_disk_takes_no_frame_and_damages_none(tmp_path, monkeypatch):
    path = tmp_path / "frames.h5"
    file = FrameFile(path, ".tmp", (4, 6))
    frame_vu = np.arange(24, dtype=np.uint16).reshape(4, 6)
    assert file.append(frame_vu, 1) == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="No space left on device"):
        file.append(frame_vu, 2)
    with pytest.raises(OSError, match="No space left on device"):
        FrameFile(tmp_path / "next.h5", ".tmp", (4, 6))
    file.complete()
    with h5py.File(path) as written:
        np.testing.assert_array_equal(written[DATASET], [frame_vu])

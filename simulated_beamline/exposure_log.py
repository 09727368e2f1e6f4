"""The truth behind each frame: `truth.jsonl`, one line for every frame that was written.

The first line holds what the simulation was made of: texture, seed, pixels and settings. Each other
line holds the file, the frame's index in it, the state of the beamline, and what no measurement
knows: the true pose and image shift, circular degree, defocus and ring current. From these,
`expected_counts` renders the frame without its noise.
"""

import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.simulated_beamline import textures
from mistral_txm.simulated_beamline.beamline import Beamline
from mistral_txm.simulated_beamline.region import Region
from mistral_txm.simulated_beamline.sample import Sample
from mistral_txm.simulated_beamline.settings import Settings
from mistral_txm.simulated_beamline.state import State

FILE_NAME = "truth.jsonl"


class FolderTakenError(ValueError):
    """Another simulated beamline uses the data folder."""


class ExposureLog:
    """Appends to the log in a data folder; a later simulation there goes on with a new header.

    Raises
    ------
    FolderTakenError
        If another simulation writes there now: its frames would get a wrong truth.
    OSError
        If the file cannot be written.
    """

    def __init__(self, data: Path, beamline: Beamline, texture: str, seed: int) -> None:
        self._beamline = beamline
        self._file = (data / FILE_NAME).open("a", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise FolderTakenError(
                f"{data}: another simulated beamline writes there; end it, or choose another folder"
            ) from None
        self._write(
            {
                "texture": texture,
                "seed": seed,
                "pixels": beamline.shape_vu[0],
                "settings": beamline.settings.model_dump(),
            }
        )

    def add(self, file: str, file_index: int, state: State, index: int) -> None:
        """Add the frame `file_index` of a file; `index` is the number its noise was drawn with."""
        beamline = self._beamline
        _intensity, degree = beamline.light(state)
        line: dict[str, Any] = {
            "file": file,
            "frame": file_index,
            "index": index,
            "state": asdict(state),
            "ring_current_ma": beamline.ring_current_ma(state, index),
            "circular_degree": degree,
        }
        if (posed := beamline.pose(state, index)) is not None:
            pose, shift = posed
            line |= {
                "pose": asdict(pose),
                "image_shift": asdict(shift),
                "defocus_um": beamline.defocus_um(state, pose),
            }
        self._write(line)

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        # One write per line: a reader, or a kill, sees whole lines only.
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()


def read_exposures(data: Path) -> Iterator[tuple[Beamline, dict[str, Any]]]:
    """Yield (beamline, line) for every frame of the log in a data folder.

    Raises
    ------
    OSError
        If there is no log.
    """
    beamline = None
    for text in (data / FILE_NAME).read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "settings" in line:
            settings = Settings.model_validate(line["settings"])
            sample = Sample(textures.load(line["texture"]), line["seed"], settings.fiducials)
            beamline = Beamline(sample, settings, (line["pixels"],) * 2, line["seed"])
        elif beamline is not None:
            yield beamline, line


def expected_counts(beamline: Beamline, line: dict[str, Any]) -> NDArray[np.float32]:
    """Return what a frame of the log would be without noise, in counts [v, u]."""
    state = dict(line["state"])
    state["region"] = Region(**state["region"])
    return beamline.expected_counts(State(**state), line["index"])

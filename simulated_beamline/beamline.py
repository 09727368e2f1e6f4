"""The physics behind the server: from a state and the number of a frame to the frame."""

import hashlib
import struct
from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from mistral_txm.simulated_beamline.state import State


class Beamline:
    """Renders the frames of one sample on one beamline, made from `seed`."""

    def __init__(self, shape_vu: tuple[int, int], seed: int) -> None:
        self.shape_vu = shape_vu
        self._seed = seed
        self._last_state: State | None = None
        self._exposures = 0

    def exposure_index(self, state: State) -> int:
        """Count the exposures of the same state that no file captured."""
        self._exposures = self._exposures + 1 if state == self._last_state else 0
        self._last_state = state
        return self._exposures

    def ring_current_ma(self, state: State | None = None, index: int = 0) -> float:
        """Return the ring current during an exposure, in mA."""
        return 250.0

    def frame(self, state: State, index: int) -> NDArray[np.uint16]:
        """Render frame `index` of a file that is taken in `state`."""
        key = struct.pack("<qq10d", self._seed, index, *map(float, astuple(state)[:-1]))
        random = np.random.default_rng(
            int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "little")
        )
        mean = 100.0 * state.exposure_s if state.shutter_open else 0.0
        return (300 + 120 * random.poisson(mean, self.shape_vu)).clip(0, 65535).astype(np.uint16)

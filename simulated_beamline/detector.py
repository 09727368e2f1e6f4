"""The CCD: from expected photons to counts.

Direct detection: an absorbed photon makes E / 3.65 eV electrons in silicon. Gain, full well, read
noise, offset and dark current of the camera are not published; the values are assumptions with a
name.
"""

import numpy as np
from numpy.typing import NDArray

ELECTRON_HOLE_PAIR_EV = 3.65
"""Energy per electron in silicon."""
GAIN_ELECTRONS_PER_COUNT = 1.6
FULL_WELL_ELECTRONS = 100_000.0
READ_NOISE_ELECTRONS = 8.0
OFFSET_COUNTS = 300.0
DARK_ELECTRONS_PER_S = 0.5
HOT_PIXELS_PER_MEGAPIXEL = 60
HOT_ELECTRONS_PER_S = (200.0, 4000.0)
MAXIMUM_COUNTS = 65535


class Ccd:
    """A chip of `shape_vu` pixels; `seed` says which pixels are hot."""

    def __init__(self, shape_vu: tuple[int, int], seed: int) -> None:
        """Draw the hot pixels."""
        random = np.random.default_rng([seed, 0xCCD])
        pixels = shape_vu[0] * shape_vu[1]
        hot = random.choice(pixels, round(HOT_PIXELS_PER_MEGAPIXEL * pixels / 2**20), replace=False)
        dark = np.full(pixels, DARK_ELECTRONS_PER_S, np.float32)
        dark[hot] = random.uniform(*HOT_ELECTRONS_PER_S, len(hot))
        self.dark_electrons_per_s_vu = dark.reshape(shape_vu)
        self.hot_vu = (dark > 10 * DARK_ELECTRONS_PER_S).reshape(shape_vu)

    def read(
        self,
        photons_vu: NDArray[np.float32] | None,
        energy_ev: float,
        exposure_s: float,
        random: np.random.Generator,
    ) -> NDArray[np.uint16]:
        """Return the counts of one exposure, [v, u].

        `photons_vu` is the expected number of photons per pixel, None in the dark. Photons are
        Poisson distributed; dark electrons and read noise together are Gaussian, of variance
        dark + read noise^2. A pixel holds at most `FULL_WELL_ELECTRONS`, a count is at most
        `MAXIMUM_COUNTS`. The spread of the electrons per photon (Fano) is 1 / 1600 of the variance
        of the photons, and left out.
        """
        dark_vu = self.dark_electrons_per_s_vu * np.float32(exposure_s)
        noise = random.standard_normal(dark_vu.shape, dtype=np.float32)
        noise *= np.sqrt(dark_vu + np.float32(READ_NOISE_ELECTRONS**2))
        electrons = dark_vu
        if photons_vu is not None:
            collected = random.poisson(photons_vu).astype(np.float32)
            collected *= np.float32(energy_ev / ELECTRON_HOLE_PAIR_EV)
            electrons += collected
        np.minimum(electrons, np.float32(FULL_WELL_ELECTRONS), out=electrons)
        electrons += noise
        electrons *= np.float32(1 / GAIN_ELECTRONS_PER_COUNT)
        electrons += np.float32(OFFSET_COUNTS + 0.5)
        np.clip(electrons, 0, MAXIMUM_COUNTS, out=electrons)
        return electrons.astype(np.uint16)

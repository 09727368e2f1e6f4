"""The CCD: from expected photons to counts.

Direct detection: an absorbed photon makes E / 3.65 eV electrons in silicon. Each pixel collects
photons, dark electrons and cosmic rays up to its full well; the wells are added to bins on the
chip; the amplifier adds its noise to each bin, and the converter the offset.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import gammaln

from mistral_txm.simulated_beamline import settings
from mistral_txm.simulated_beamline.region import Region

MAXIMUM_COUNTS = 65535
"""16 bits."""
BURST_PER_MEGAPIXEL = 1000
"""Zingers in a shower of cosmic rays."""
TRACKS = 0.5
"""Fraction of the zingers that leave a track; the others stay in one pixel."""
TRACK_PIXELS = (2, 12)
"""Shortest and longest track."""
FEW_PHOTONS = 10.0
TOO_MANY_PHOTONS = 1e7
"""More than a float32 counts."""
LOG_FACTORIAL = gammaln(np.arange(4096) + 1.0)
CHUNK_PIXELS = 1 << 14

Image = NDArray[np.float32]


class Ccd:
    """A chip of `shape_vu` pixels; `seed` says which pixels are hot.

    ``dark_electrons_per_s_vu`` is the dark current of each pixel at the nominal temperature,
    ``hot_vu`` tells which are hot.
    """

    def __init__(self, settings: settings.Camera, shape_vu: tuple[int, int], seed: int) -> None:
        """Draw the hot pixels."""
        self._settings = settings
        random = np.random.default_rng([seed, 0xCCD])
        pixels = shape_vu[0] * shape_vu[1]
        count = round(settings.hot_pixels_per_megapixel * pixels / 2**20)
        hot = random.choice(pixels, min(count, pixels), replace=False)
        dark = np.full(pixels, settings.dark_electrons_per_s, np.float32)
        dark[hot] += random.uniform(
            settings.hot_low_electrons_per_s, settings.hot_high_electrons_per_s, len(hot)
        )
        self.dark_electrons_per_s_vu = dark.reshape(shape_vu)
        self.hot_vu = np.zeros(shape_vu, bool)
        self.hot_vu.flat[hot] = True

    def read(
        self,
        photons_vu: Image | None,
        energy_ev: float,
        exposure_s: float,
        random: np.random.Generator,
        *,
        region: Region,
        offset_counts: float = 0.0,
        temperature_c: float | None = None,
        zinger_burst: bool = False,
    ) -> NDArray[np.uint16]:
        """Return the counts of one exposure, of shape ``region.shape_vu``.

        With p photons, d dark electrons and z of zingers in each pixel of a bin, n of the amplifier:

            counts = (sum over the bin of min(p E / 3.65 eV + d + z, full well) + n) / gain + offset,

        rounded, and from 0 to 65535.

        Parameters
        ----------
        photons_vu
            Expected number of photons in every pixel of the chip, None in the dark. Those detected
            are Poisson distributed. The spread of the electrons per photon (Fano) is 1 / 1600 of
            the variance of the photons, and left out.
        energy_ev
            Energy of a photon.
        exposure_s
            Duration, of which dark electrons and zingers are proportional.
        random
            Draws the noise: the same state of it gives the same counts.
        region
            The pixels that are read, and how they are binned.
        offset_counts
            Added to every pixel of the frame.
        temperature_c
            Of the chip, where it is not the nominal one. The dark current doubles every
            ``dark_doubling_c``. The noise of dark electrons is taken as Gaussian: of the few in a
            cold pixel it hides in that of the amplifier.
        zinger_burst
            Whether a shower of cosmic rays hits the chip.
        """
        its = self._settings
        window = _window(region)
        dark_vu = self.dark_electrons_per_s_vu[window]
        if photons_vu is None:
            electrons_vu = np.zeros(dark_vu.shape, np.float32)
        else:
            electrons_vu = poisson(photons_vu[window], random)
            electrons_vu *= np.float32(energy_ev / its.electron_hole_pair_ev)
        self._add_zingers(electrons_vu, exposure_s, random, zinger_burst)
        counts_vu = np.empty(region.shape_vu, np.uint16)
        _amplify(
            electrons_vu,
            dark_vu,
            self._dark_s(exposure_s, temperature_c),
            its.full_well_electrons,
            random.standard_normal(region.shape_vu, dtype=np.float32),
            its.read_noise_electrons,
            its.gain_electrons_per_count,
            its.offset_counts + offset_counts,
            counts_vu,
        )
        return counts_vu

    def expected_counts(
        self,
        photons_vu: Image | None,
        energy_ev: float,
        exposure_s: float,
        *,
        region: Region,
        offset_counts: float = 0.0,
        temperature_c: float | None = None,
    ) -> Image:
        """Return what `read` would without noise, cosmic rays and rounding, in counts, float32.

        The parameters are those of `read`. Where a well is nearly full, the mean of noisy counts is
        less.
        """
        its = self._settings
        window = _window(region)
        electrons_vu = self.dark_electrons_per_s_vu[window] * np.float32(
            self._dark_s(exposure_s, temperature_c)
        )
        if photons_vu is not None:
            electrons_vu += photons_vu[window] * np.float32(energy_ev / its.electron_hole_pair_ev)
        np.minimum(electrons_vu, np.float32(its.full_well_electrons), out=electrons_vu)
        rows, columns = region.shape_vu
        binned_vu = electrons_vu.reshape(rows, region.bin_y, columns, region.bin_x).sum(axis=(1, 3))
        counts_vu = binned_vu / np.float32(its.gain_electrons_per_count)
        counts_vu += np.float32(its.offset_counts + offset_counts)
        expected_vu: Image = np.clip(counts_vu, 0, MAXIMUM_COUNTS)
        return expected_vu

    def _dark_s(self, exposure_s: float, temperature_c: float | None) -> float:
        """Return the time in which the nominal dark current makes the dark electrons."""
        its = self._settings
        warmer_c = 0.0 if temperature_c is None else temperature_c - its.temperature_c
        return float(exposure_s * 2 ** (warmer_c / its.dark_doubling_c))

    def _add_zingers(
        self, electrons_vu: Image, exposure_s: float, random: np.random.Generator, burst: bool
    ) -> None:
        """Add the charge of cosmic rays: a point, or evenly along a straight track."""
        its = self._settings
        rows, columns = electrons_vu.shape
        megapixels = electrons_vu.size / 2**20
        hits = int(random.poisson(its.zingers_per_megapixel_s * megapixels * exposure_s))
        if burst:
            hits += math.ceil(BURST_PER_MEGAPIXEL * megapixels)
        for _ in range(hits):
            length = (
                random.integers(*TRACK_PIXELS, endpoint=True) if random.random() < TRACKS else 1
            )
            along = np.arange(length)
            direction = random.uniform(0, 2 * math.pi)
            row = (random.uniform(0, rows) + along * math.sin(direction)).astype(int)
            column = (random.uniform(0, columns) + along * math.cos(direction)).astype(int)
            charge = random.exponential(its.zinger_electrons) / length
            inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            np.add.at(electrons_vu, (row[inside], column[inside]), np.float32(charge))


def _window(region: Region) -> tuple[slice, slice]:
    """Return the pixels of the chip that fill the bins of a region."""
    rows, columns = region.shape_vu
    return (
        slice(region.min_y, region.min_y + rows * region.bin_y),
        slice(region.min_x, region.min_x + columns * region.bin_x),
    )


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]  # numba is untyped
def _amplify(
    electrons_vu: Image,
    dark_electrons_per_s_vu: Image,
    dark_s: float,
    full_well_electrons: float,
    noise_vu: Image,
    read_noise_electrons: float,
    gain_electrons_per_count: float,
    offset_counts: float,
    counts_vu: NDArray[np.uint16],
) -> None:
    """Fill `counts_vu` from the pixels of each bin; `noise_vu` is normal, of variance 1."""
    per_electron = 1 / gain_electrons_per_count
    rows, columns = counts_vu.shape
    bin_y, bin_x = electrons_vu.shape[0] // rows, electrons_vu.shape[1] // columns
    for row in range(rows):
        for column in range(columns):
            charge, variance = 0.0, read_noise_electrons**2
            for v in range(row * bin_y, (row + 1) * bin_y):
                for u in range(column * bin_x, (column + 1) * bin_x):
                    dark = dark_electrons_per_s_vu[v, u] * dark_s
                    if electrons_vu[v, u] + dark < full_well_electrons:
                        charge += electrons_vu[v, u] + dark
                        variance += dark
                    else:  # a full well has no noise of its own
                        charge += full_well_electrons
            charge += math.sqrt(variance) * noise_vu[row, column]
            counts = math.floor(charge * per_electron + offset_counts + 0.5)
            counts_vu[row, column] = min(max(counts, 0), MAXIMUM_COUNTS)


def poisson(mean_vu: Image, random: np.random.Generator) -> Image:
    """Draw a Poisson distributed number for each mean; below 0 is 0.

    Exact, by the transformed rejection of W. Hormann, Insurance: Mathematics and Economics 12, 39
    (1993), as in ``Generator.poisson``, in two thirds of the time; few photons by inversion.
    """
    means = np.ascontiguousarray(mean_vu).reshape(-1)
    numbers = np.empty(means.size, np.float32)
    for begin in range(0, means.size, CHUNK_PIXELS):
        chunk = slice(begin, begin + CHUNK_PIXELS)
        first, second = random.random((2, len(means[chunk])))
        _poisson(means[chunk], first, second, random, numbers[chunk])
    return numbers.reshape(mean_vu.shape)


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]  # numba is untyped
def _poisson(
    means: Image,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    random: np.random.Generator,
    numbers: Image,
) -> None:
    """Fill `numbers`; `first` and `second` are uniform in 0..1, more of them come from `random`."""
    # Most are accepted here, without a branch, so that the compiler takes several at a time.
    for index in range(means.size):
        mean = float(means[index])
        number, rest, limit, _alpha, _hat = _propose(mean, first[index])
        accepted = (mean >= FEW_PHOTONS) & (rest >= 0.07) & (second[index] <= limit)
        numbers[index] = number if accepted else -1
    for index in range(means.size):
        if numbers[index] >= 0:
            continue
        mean = float(means[index])
        u, v = first[index], second[index]
        if not FEW_PHOTONS <= mean < TOO_MANY_PHOTONS:
            numbers[index] = mean if mean >= FEW_PHOTONS else _invert(mean, u)
            continue
        log_mean = math.log(mean)
        while True:
            number, rest, limit, inverse_alpha, hat = _propose(mean, u)
            if rest >= 0.07 and v <= limit:
                break
            if number >= 0 and (rest >= 0.013 or v <= rest):
                whole = int(number)
                log_factorial = (
                    LOG_FACTORIAL[whole] if whole < LOG_FACTORIAL.size else math.lgamma(number + 1)
                )
                if math.log(v * inverse_alpha / hat) <= number * log_mean - mean - log_factorial:
                    break
            u, v = random.random(), random.random()
        numbers[index] = number


@njit(nogil=True, cache=True, error_model="numpy", inline="always")  # type: ignore[untyped-decorator]
def _propose(mean: float, u: float) -> tuple[float, float, float, float, float]:
    """Return the number proposed and what decides on it, in the names of Hormann's algorithm PTRS:
    k, u_s, v_r, 1 / alpha, a / u_s^2 + b.
    """
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    rest = 0.5 - abs(u - 0.5)
    number = np.floor((2 * a / rest + b) * (u - 0.5) + mean + 0.43)
    return number, rest, 0.9277 - 3.6224 / (b - 2), 1.1239 + 1.1328 / (b - 3.4), a / rest**2 + b


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _invert(mean: float, u: float) -> int:
    """Return the smallest number whose cumulative probability is above u."""
    number = 0
    probability = math.exp(-max(mean, 0.0))
    while u > probability and number < 100:
        u -= probability
        number += 1
        probability *= mean / number
    return number

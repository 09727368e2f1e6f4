"""What an exposure brought and cost, as plans and devices hand it on."""

from typing import NamedTuple


class Spent(NamedTuple):
    """What the plan counts.

    `photons_per_pixel` are detected, on average, in this exposure; `signal_to_noise` is that of a pixel
    of the average over all exposures so far in this series at this angle and helicity, by photon statistics alone;
    `dose_mA_s` the ring current times the exposure, summed over those of the sample in this run.
    """

    photons_per_pixel: float
    signal_to_noise: float
    dose_mA_s: float

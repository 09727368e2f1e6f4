"""Smooth random fields from white noise: the prior of the direct reconstruction as a change of variables.

A field with the covariance K of `smooth_prior.Prior` is ``x = R xi`` with independent numbers xi of variance one and
``K = R R^T``. With xi as the unknowns the prior costs ``|xi|^2 / 2``, and conjugate gradients need no other
preconditioner: what the data don't tell has the eigenvalue one. R is symmetric: at each lateral frequency inside the
zone plate's passband the square root of ``P(q) (1 + a|z - z'|) exp(-a|z - z'|)``, outside of it zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from mistral_txm.reconstruction.lateral_frequencies import Frequencies
from mistral_txm.reconstruction.smooth_prior import Prior

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SmoothRoot:
    """The symmetric root R of a prior's covariance, on layers of a periodic lateral domain.

    root_bzz: float32, one matrix per ring of equal lateral frequency; first_b: where the frequencies of each ring
    begin in the sorted list, one more than rings.
    """

    frequencies: Frequencies
    root_bzz: Float32
    first_b: npt.NDArray[np.intp]

    @classmethod
    def of(
        cls, prior: Prior, z_nm: Float64, shape_yx: tuple[int, int], voxel_nm: float
    ) -> SmoothRoot:
        """Roots for fields [component, z, y, x] on layers at z_nm."""
        frequencies = Frequencies.of(shape_yx, voxel_nm)
        power_b = prior.power(frequencies.bin_radius, frequencies.domain_radius)
        roots = []
        for radius, power in zip(frequencies.bin_radius, power_b, strict=True):
            values, modes = np.linalg.eigh(power * prior.along_z(float(radius), z_nm))
            roots.append((modes * np.sqrt(np.maximum(values, 0))) @ modes.T)
        first_b = np.searchsorted(frequencies.bins, np.arange(len(power_b) + 1))
        return cls(frequencies, np.stack(roots).astype(np.float32), first_b)

    def apply(self, field_czyx: Float32) -> Float32:
        """Return ``R x``; R is its own transpose."""
        index = (..., self.frequencies.index_y, self.frequencies.index_x)
        spectrum = scipy.fft.rfft2(field_czyx, workers=-1)
        inside = spectrum[index]
        for root, first, end in zip(
            self.root_bzz, self.first_b[:-1], self.first_b[1:], strict=True
        ):
            part = inside[..., first:end]
            inside[..., first:end] = root @ part.real + 1j * (root @ part.imag)
        spectrum[:] = 0
        spectrum[index] = inside
        smooth = scipy.fft.irfft2(spectrum, s=field_czyx.shape[-2:], workers=-1)
        return np.asarray(smooth, dtype=np.float32)

"""A film of grains and magnetized balls, and views of it whose projections are written out by hand."""

import numpy as np

from mistral_txm.reconstruction import TiltSeries

PIXEL_NM = 10.5
TILTS = np.arange(-54.0, 55.0, 6.0)
N = 128


def projection(theta_deg, phi_deg):
    """Rows v, u and k, written out."""
    t, p = np.deg2rad(theta_deg), np.deg2rad(phi_deg)
    return np.array(
        [
            [np.sin(p), np.cos(p), 0.0],
            [np.cos(p) * np.cos(t), -np.sin(p) * np.cos(t), -np.sin(t)],
            [np.cos(p) * np.sin(t), -np.sin(p) * np.sin(t), np.cos(t)],
        ]
    )


def grains(rng, count=60):
    """Soft balls in a film: centres and widths, nm, what each takes through its middle, and its magnetization."""
    half = 1.3 * N / 2 * PIXEL_NM
    centres = np.column_stack([rng.uniform(-half, half, (count, 2)), rng.uniform(-100, 100, count)])
    m = rng.normal(size=(count, 3))
    m /= np.linalg.norm(m, axis=1)[:, None]
    return centres, rng.uniform(30, 60, count), rng.uniform(0.05, 0.25, count), m


def measured(rng, film, phi_deg, shifts, *, magnetic=False, stated_deg=None, photons=6000.0):
    """Absorbances or dichroic signals of one series: Gaussian balls project to Gaussians."""
    at = (np.arange(N) - (N - 1) / 2) * PIXEL_NM
    images = []
    for theta, shift in zip(TILTS, shifts, strict=True):
        rows = projection(theta, phi_deg)
        a = np.full((N, N), 0.0 if magnetic else 0.9)
        for r, width, depth, m in zip(*film, strict=True):
            v, u = rows[:2] @ r + shift
            a += (
                (m @ rows[2] if magnetic else 1.0)
                * depth
                * np.outer(
                    np.exp(-((at - v) ** 2) / 2 / width**2), np.exp(-((at - u) ** 2) / 2 / width**2)
                )
            )
        noise = (
            np.exp(0.45) / np.sqrt(2 * photons) if magnetic else np.exp(a / 2) / np.sqrt(photons)
        )
        images.append(a + noise * rng.normal(size=a.shape))
    return TiltSeries(phi_deg if stated_deg is None else stated_deg, TILTS, np.stack(images))

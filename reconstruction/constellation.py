"""The same fiducials in two series: their constellation says how the sample was turned in between."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.poses import turn

Float64 = npt.NDArray[np.float64]
Intp = npt.NDArray[np.intp]

CONSTELLATION_NM = 120.0
"""Spheres of two series closer than this, after turning and moving, are the same: room for roll and tilt zero."""


def match_constellations(
    first_xyz_nm: npt.ArrayLike,
    second_xyz_nm: npt.ArrayLike,
    phi_deg: float,
    *,
    within_deg: float = 10.0,
) -> tuple[float, Float64, Intp]:
    """Find the azimuth by which the spheres of one series are turned into those of another.

    Every two spheres of the first and every two of the second at the same distance propose an azimuth and a move,
    ``second = Rz(phi) first + move``; the proposal on which most spheres agree is refined over these.

    Args:
        first_xyz_nm: spheres, shape (n, 3).
        second_xyz_nm: spheres in the other series' stage frame, shape (m, 3).
        phi_deg: azimuth as the person said. within_deg: how far the true one may be from it.

    Returns:
        Azimuth in deg; the move, shape (3,), nm; and pairs of numbers, shape (pairs, 2).

    Raises:
        InputError: if fewer than three spheres agree, or as many agree on another azimuth or move.

    >>> first = np.array([[0.0, 0.0, 0.0], [3000.0, 0.0, 50.0], [0.0, 1000.0, 0.0]])
    >>> second = np.array([[500.0, 3000.0, 50.0], [500.0, 0.0, 0.0], [-500.0, 0.0, 0.0]])
    >>> phi, move, pairs = match_constellations(first, second, 85.0)
    >>> round(phi, 6), move.round(6) + 0.0, pairs.tolist()
    (90.0, array([500.,   0.,   0.]), [[0, 1], [1, 0], [2, 2]])
    """
    first, second = np.asarray(first_xyz_nm, np.float64), np.asarray(second_xyz_nm, np.float64)
    i, j = np.triu_indices(len(first), 1)
    k, m = np.nonzero(~np.eye(len(second), dtype=bool))
    baseline, other = first[j] - first[i], second[m] - second[k]
    length, other_length = (np.hypot(d[:, 0], d[:, 1]) for d in (baseline, other))
    turned = np.rad2deg(
        np.arctan2(other[None, :, 1], other[None, :, 0])
        - np.arctan2(baseline[:, None, 1], baseline[:, None, 0])
    )
    off = (turned - phi_deg + 180) % 360 - 180
    proposals = np.argwhere(
        (np.abs(off) <= within_deg)
        & (np.abs(length[:, None] - other_length[None]) < CONSTELLATION_NM)
        & (np.minimum(length[:, None], other_length[None]) > 3 * CONSTELLATION_NM)
    )
    ranked: list[tuple[int, float, float, Float64, Intp]] = []
    for a, b in proposals:
        angle = phi_deg + off[a, b]
        move = (second[[k[b], m[b]]] - first[[i[a], j[a]]] @ turn(2, np.deg2rad(angle)).T).mean(
            axis=0
        )
        pairs = np.zeros((0, 2), np.intp)
        for _ in range(3):
            laid = first @ turn(2, np.deg2rad(angle)).T + move
            distance = np.linalg.norm(laid[:, None] - second[None], axis=2)
            nearest = distance.argmin(axis=1)
            number = np.arange(len(first))
            mutual = distance.argmin(axis=0)[nearest] == number
            pairs = np.argwhere(mutual & (distance[number, nearest] < CONSTELLATION_NM))
            pairs = np.column_stack([pairs[:, 0], nearest[pairs[:, 0]]])
            if len(pairs) < 2:
                break
            angle, move = _turned(first[pairs[:, 0]], second[pairs[:, 1]], phi_deg)
        if len(pairs) >= 3:
            laid = first[pairs[:, 0]] @ turn(2, np.deg2rad(angle)).T + move
            rms = float(np.sqrt(np.mean((laid - second[pairs[:, 1]]) ** 2)))
            ranked.append((len(pairs), -rms, angle, move, pairs))
    if not ranked:
        raise InputError(
            f"azimuth: the constellations of {len(first)} and {len(second)} fiducials have fewer than 3 in common "
            f"within {within_deg:g} deg of phi = {phi_deg:g} deg; check the azimuth that was given"
        )
    count, _, angle, move, pairs = max(ranked, key=lambda one: one[:2])
    for rival in ranked:
        same = {tuple(pair) for pair in rival[4]} & {tuple(pair) for pair in pairs}
        if rival[0] == count and len(same) < 2:
            raise InputError(
                f"azimuth: {count} fiducials agree on phi = {angle:.2f} deg and as many on {rival[2]:.2f} deg; take a "
                "field of view with more fiducials, or one of these as the azimuth"
            )
    return float(angle), move, pairs


def _turned(first: Float64, second: Float64, phi_deg: float) -> tuple[float, Float64]:
    """Azimuth and move of least squares between paired spheres."""
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    angle = np.rad2deg(
        np.arctan2(np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]), np.sum(a[:, :2] * b[:, :2]))
    )
    angle = phi_deg + (angle - phi_deg + 180) % 360 - 180
    return float(angle), second.mean(axis=0) - turn(2, np.deg2rad(angle)) @ first.mean(axis=0)

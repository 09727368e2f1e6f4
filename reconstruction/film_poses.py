"""How the views of a film stand while its own structure is being used to find that (module `reprojection`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.poses import projections, warps
from mistral_txm.reconstruction.tilt_series import TiltSeries

Float64 = npt.NDArray[np.float64]
Intp = npt.NDArray[np.intp]


@dataclass(frozen=True)
class FilmPoses:
    """Shifts, azimuths and the axis while they are being found; axis_deg None: the warps of the series stay."""

    shift_st: tuple[Float64, ...]
    phi_deg_s: tuple[float, ...]
    axis_deg: tuple[float, float] | None

    @property
    def series_v(self) -> Intp:
        """Number of the series of each view."""
        return np.repeat(np.arange(len(self.shift_st)), [len(one) for one in self.shift_st])

    def moved(self, step_vyx: Float64, to_vu: Float64) -> FilmPoses:
        """Look up each view elsewhere, by steps (y, x) in nm of the sheared frame."""
        change = np.einsum("vij,vj->vi", to_vu, step_vyx)
        ends = np.cumsum([len(one) for one in self.shift_st])[:-1]
        parts = np.split(change, ends)
        return replace(
            self, shift_st=tuple(a + b for a, b in zip(self.shift_st, parts, strict=True))
        )

    def moved_one(self, series: int, number: int, by_vu: Float64) -> FilmPoses:
        """Add to the shift of one view."""
        shifts = [one.copy() for one in self.shift_st]
        shifts[series][number] += by_vu
        return replace(self, shift_st=tuple(shifts))

    @property
    def angles(self) -> Float64:
        """Azimuths of the later series, then inclination and lean of the axis, deg."""
        return np.array([*self.phi_deg_s[1:], *(self.axis_deg or ())])

    def turned(self, by_deg: Float64) -> FilmPoses:
        """Add to the angles."""
        turned = (self.angles + by_deg).tolist()
        later = len(self.phi_deg_s) - 1
        axis = None if self.axis_deg is None else (turned[later], turned[later + 1])
        return replace(self, phi_deg_s=(self.phi_deg_s[0], *turned[:later]), axis_deg=axis)

    def laid(self, one: TiltSeries, number: int, centre_moved_nm: Float64) -> TiltSeries:
        """The images of one series with these poses."""
        shift = self.shift_st[number] - centre_moved_nm
        warp = one.warp_tvu if self.axis_deg is None else self.warp_t(one.theta_deg_t, number)
        return replace(one, phi_deg=self.phi_deg_s[number], shift_vu_nm_t=shift, warp_tvu=warp)

    def warp_t(self, theta_deg_t: npt.ArrayLike, number: int) -> Float64:
        """What the axis makes of the views of one series, as `TiltSeries` takes it."""
        theta_deg = np.asarray(theta_deg_t, dtype=np.float64)
        phi_deg, axis_deg = self.phi_deg_s[number], self.axis_deg or (0.0, 0.0)
        matrices = projections(theta_deg, phi_deg, 0.0, *axis_deg, np.ones(theta_deg.size))
        return warps(matrices, theta_deg, phi_deg)

    def to_vu(self, series: Sequence[TiltSeries]) -> Float64:
        """Matrices (views, 2, 2) that take a step (y, x) in the film's plane to (v, u) on the detector."""
        matrices = []
        for number, one in enumerate(series):
            posed = self.laid(one, number, np.zeros(2))
            basis = posed.mount.basis(posed.theta_deg_t)
            warp = np.eye(2) if one.warp_tvu is None else np.asarray(one.warp_tvu, np.float64)
            matrices.append(warp @ basis[:, 1::-1, 1::-1])
        return np.concatenate(matrices)

    def turns(self, series: Sequence[TiltSeries]) -> Float64:
        """How each of the angles, larger by 1 rad, moves points of the film, as `Coupling.normals` takes it."""
        turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
        of_view = self.series_v
        found = np.zeros((len(self.angles), len(of_view), 2, 2))
        later = len(self.phi_deg_s) - 1
        for number in range(later):
            found[number, of_view == number + 1] = turn
        if self.axis_deg is not None:
            to_vu = self.to_vu(series)
            from_vu = np.linalg.inv(to_vu)
            found[later] = from_vu @ turn @ to_vu
            theta = np.deg2rad(np.concatenate([np.asarray(one.theta_deg_t) for one in series]))
            lean = np.zeros((len(theta), 2, 2))
            lean[:, 0, 1] = -np.tan(theta)
            found[later + 1] = from_vu @ lean @ to_vu
        return found

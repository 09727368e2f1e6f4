"""The views of an azimuth with what an alignment says of them, and what it tells of all of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction import TiltSeries
from mistral_txm.reconstruction.fiducials import DIAMETER_NM, fiducial_mask
from mistral_txm.services.angle_signals import AngleSignals

OPEN_OFFSET_PIXELS = 0.3
"""Standard deviation of the helicities' offset up to which a sphere's rim shows less than noise."""
SLOW_PIXELS = 1.0
"""Error of shifts that grow with the tangent of the tilt where the film itself aligns: magnetization in the walls makes
up for them, and their standard deviation does not show it (docs/decisions/0007-alignment.md)."""
WORST_MISFIT = 4.0
"""Mean square of the dichroic signal on spheres, in units of its noise, from which on they are masked."""


@dataclass(frozen=True)
class AzimuthAlignment:
    """What came out for one azimuth: stated and refined, the tilt's zero, deg, and how many views there are of it.

    ``waiting``: none of them is used, because there are too few yet to be aligned.
    """

    stated_phi_deg: float
    phi_deg: float
    std_phi_deg: float
    tilt_zero_deg: float
    views: int
    views_left_out: int
    waiting: bool = False


@dataclass(frozen=True)
class SeriesAlignment:
    """How the views of a series were aligned, in words and numbers; goes into files as JSON.

    ``aligned``: whether they were; if not, ``reason`` says why and the numbers are empty. ``reason`` also says what is
    left out or not known. ``by``: "fiducials", or "structure", what the film itself shows. ``provisional_views``: how
    many were laid among the others, with which they are refined later. ``std_shift``: standard deviation of the shifts,
    rms over views and directions. Residuals are those of the spheres' centres, rms per coordinate. ``spheres_xyz_nm``
    are in the sample frame, whose origin lies laterally in the middle of the fields of view.
    ``helicity_offset_vu_nm``: mean over the views, of +1 against -1; None where there was none to undo.
    """

    aligned: bool
    reason: str = ""
    by: str = ""
    provisional_views: int = 0
    std_shift_nm: float | None = None
    std_shift_pixels: float | None = None
    fiducials: int = 0
    residual_nm: float | None = None
    residual_pixels: float | None = None
    inclination_deg: float | None = None
    std_inclination_deg: float | None = None
    lean_deg: float | None = None
    std_lean_deg: float | None = None
    azimuths: tuple[AzimuthAlignment, ...] = ()
    spheres_xyz_nm: tuple[tuple[float, float, float], ...] = ()
    helicity_offset_vu_nm: tuple[float, float] | None = None

    @property
    def message(self) -> str:
        """One line for a person.

        >>> SeriesAlignment(False, "no fiducials in the views").message
        'not aligned: no fiducials in the views'
        """
        if not self.aligned:
            return f"not aligned: {self.reason}"
        azimuths = ", ".join(
            f"phi {one.phi_deg:.2f} +- {one.std_phi_deg:.3f} deg (stated {one.stated_phi_deg:g})"
            for one in self.azimuths
            if one.std_phi_deg > 0
        )
        parts = [
            f"aligned by {self.fiducials} fiducials to {self.residual_pixels:.2f} pixels"
            if self.by == "fiducials"
            else (
                f"aligned by what the film shows, shifts from tilt to tilt to {self.std_shift_pixels:.2f} pixels "
                f"(what goes slowly with the tilt: to about {SLOW_PIXELS:g})"
            ),
            f"{self.provisional_views} views provisionally, until all are refined together again"
            if self.provisional_views
            else "",
            azimuths,
            self.reason,
        ]
        return "; ".join(part for part in parts if part)

    def to_json(self) -> dict[str, Any]:
        """Return all of it, and the message, for files."""
        return asdict(self) | {"message": self.message}


@dataclass(frozen=True)
class AlignedViews:
    """The views of one azimuth that can be used, and how the film is to be found in them.

    ``shift_vu_nm_t`` and ``warp_tvu`` as `TiltSeries` takes them, and where the spheres fall in each view, shape
    (views, spheres, 2); None if the views are not aligned.
    """

    stated_phi_deg: float
    phi_deg: float
    theta_deg_t: NDArray[np.float64]
    angles: tuple[AngleSignals, ...]
    shift_vu_nm_t: NDArray[np.float64] | None = None
    warp_tvu: NDArray[np.float64] | None = None
    sphere_vu_nm_t: NDArray[np.float64] | None = None

    @property
    def unplaced(self) -> int:
        """How many views have no place (NaN)."""
        if self.shift_vu_nm_t is None:
            return 0
        return int(np.isnan(self.shift_vu_nm_t).any(axis=1).sum())

    def only_placed(self) -> "AlignedViews":
        """Leave out the views without a place."""
        if not self.unplaced:
            return self
        placed = np.isfinite(np.asarray(self.shift_vu_nm_t)).all(axis=1)
        return self.of_views([int(i) for i in np.flatnonzero(placed)])

    def of_views(self, kept: Sequence[int]) -> "AlignedViews":
        """Return some of the views alone, by number."""

        def some(
            values_t: NDArray[np.float64] | None,
        ) -> NDArray[np.float64] | None:
            return None if values_t is None else values_t[kept]

        return replace(
            self,
            theta_deg_t=self.theta_deg_t[kept],
            angles=tuple(self.angles[i] for i in kept),
            shift_vu_nm_t=some(self.shift_vu_nm_t),
            warp_tvu=some(self.warp_tvu),
            sphere_vu_nm_t=some(self.sphere_vu_nm_t),
        )

    def spoiled(self, number: int, pixel_nm: float) -> NDArray[np.bool_]:
        """Return which pixels of a view, as it was exposed, spheres spoil.

        Where both helicities are known to lie on each other gold takes light, and so makes noise, but no signal. Where
        the magnetic contrast leaves the offset open, it shows in the dichroic signal of the spheres themselves.
        """
        angle = self.angles[number]
        signal_vu, std_vu = angle.signals.dichroic_vu, angle.signals.std_vu
        none = np.zeros(signal_vu.shape, np.bool_)
        if self.sphere_vu_nm_t is None:
            return none
        if angle.helicity_offset.std_vu_nm.max() <= OPEN_OFFSET_PIXELS * pixel_nm:
            return none
        found = angle.fiducials
        radius_nm = float(np.median(found.radius_nm)) if len(found) else DIAMETER_NM / 2
        height, width = signal_vu.shape
        mask = fiducial_mask((height, width), self.sphere_vu_nm_t[number], radius_nm, pixel_nm)
        inside = mask & np.isfinite(signal_vu) & np.isfinite(std_vu)
        if not inside.any():
            return mask
        level = float(np.nanmedian(signal_vu[~mask]))
        misfit = float(np.mean(((signal_vu[inside] - level) / std_vu[inside]) ** 2))
        return mask if misfit > WORST_MISFIT else none

    def tilt_series(self, pixel_nm: float) -> TiltSeries:
        """Return what the reconstruction takes, without a value where spheres spoil the signal."""
        dichroic_tvu = np.stack([one.signals.dichroic_vu for one in self.angles])
        if self.sphere_vu_nm_t is not None:
            for number, image_vu in enumerate(dichroic_tvu):
                image_vu[self.spoiled(number, pixel_nm)] = np.nan
        return TiltSeries(
            self.phi_deg,
            self.theta_deg_t,
            dichroic_tvu,
            np.stack([one.signals.std_vu for one in self.angles]),
            self.shift_vu_nm_t,
            self.warp_tvu,
        )

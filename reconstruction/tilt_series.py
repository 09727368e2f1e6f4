"""A tilt series as it was measured, and every check of it that names what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.geometry import InputError, Mount

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TiltSeries:
    """The dichroic signals of one azimuth.

    Args:
        phi_deg: azimuth of the mounted sample, deg.
        theta_deg_t: tilts, shape (views,), deg.
        dichroic_tvu: dichroic signal (A(+) - A(-)) / 2, shape (views, v, u); NaN where there is none.
        std_tvu: its standard deviation, same shape, or one per view, shape (views,); infinite where masked. None: it is
            estimated from the frequencies that the zone plate does not transmit, where there is nothing but noise.
        shift_vu_nm_t: where the sample's origin falls in each view, (v, u) from the image's centre, shape (views, 2),
            nm; None: in the centre.
        warp_tvu: shape (views, 2, 2): a point of the film's mid-plane that should fall on (v0, u0) falls on
            ``warp (v0, u0) + shift`` (`alignment.Alignment.warp_t`); None: unit matrices.
        roll_deg, lean_deg: of the mounting and of the tilt axis, where they are more than an alignment's small
            angles (`geometry.Mount`).
    """

    phi_deg: float
    theta_deg_t: npt.ArrayLike
    dichroic_tvu: npt.ArrayLike
    std_tvu: npt.ArrayLike | None = None
    shift_vu_nm_t: npt.ArrayLike | None = None
    warp_tvu: npt.ArrayLike | None = None
    roll_deg: float = 0.0
    lean_deg: float = 0.0

    @property
    def mount(self) -> Mount:
        """How the sample was mounted."""
        return Mount(self.phi_deg, self.roll_deg, self.lean_deg)

    def of_views(self, chosen: npt.NDArray[np.generic] | slice) -> TiltSeries:
        """Return the series of some views alone, by number, mask or slice.

        >>> series = TiltSeries(0.0, [-10.0, 0.0, 10.0], np.zeros((3, 4, 4)), std_tvu=[1.0, 2.0, 3.0])
        >>> series.of_views(slice(1, None)).std_tvu.tolist()
        [2.0, 3.0]
        """

        def part(values: npt.ArrayLike | None) -> npt.NDArray[np.generic] | None:
            return None if values is None else np.asarray(values)[chosen]

        return replace(
            self,
            theta_deg_t=np.asarray(self.theta_deg_t)[chosen],
            dichroic_tvu=np.asarray(self.dichroic_tvu)[chosen],
            std_tvu=part(self.std_tvu),
            shift_vu_nm_t=part(self.shift_vu_nm_t),
            warp_tvu=part(self.warp_tvu),
        )


@dataclass(frozen=True)
class CheckedSeries:
    """The arrays of a `TiltSeries`, after every check; std_t holds one entry per view, an image or a number."""

    name: str
    mount: Mount
    theta_deg_t: Float64
    signal_tvu: Float32
    std_t: Float32 | Float64 | None
    shift_vu_nm_t: Float64
    warp_tvu: Float64


def checked(series: Sequence[TiltSeries]) -> list[CheckedSeries]:
    """Check all series.

    Raises:
        InputError: for anything that cannot be used, in one line.
    """
    if not series:
        raise InputError("reconstruction: no tilt series; give at least one")
    return [_checked(one, number) for number, one in enumerate(series, start=1)]


def _floating(values: npt.ArrayLike) -> Float32 | Float64:
    """Numbers as they are if they have single precision: images are not copied."""
    array = np.asarray(values)
    return array if array.dtype == np.float32 else np.asarray(array, dtype=np.float64)


def _checked(series: TiltSeries, number: int) -> CheckedSeries:
    where = f"series {number} (phi = {series.phi_deg} deg)"
    theta = np.asarray(series.theta_deg_t, dtype=np.float64)
    signal = np.asarray(series.dichroic_tvu, dtype=np.float32)
    if not np.isfinite(series.phi_deg) or abs(series.phi_deg) > 360:
        raise InputError(
            f"{where}: the azimuth is not an angle between -360 and 360 deg; give the mounted one"
        )
    for what, angle_deg in (("roll", series.roll_deg), ("lean of the tilt axis", series.lean_deg)):
        if not abs(angle_deg) <= 90:
            raise InputError(f"{where}: a {what} of {angle_deg} deg, expected -90 to 90 deg")
    if theta.ndim != 1 or theta.size == 0:
        raise InputError(
            f"{where}: tilts of shape {theta.shape}, expected one per view; give a list of angles in deg"
        )
    if not np.all(np.abs(theta) <= 360):
        bad = int(np.flatnonzero(~(np.abs(theta) <= 360))[0])
        raise InputError(
            f"{where}: view {bad} has the tilt {theta[bad]} deg, expected -360 to 360; are these degrees?"
        )
    if signal.ndim != 3 or signal.shape[0] != theta.size:
        raise InputError(
            f"{where}: signal of shape {signal.shape}, expected ({theta.size}, v, u) for {theta.size} tilts; "
            "give one image per tilt"
        )
    if min(signal.shape[1:]) < 4:
        raise InputError(f"{where}: images of {signal.shape[1:]} pixels, expected at least 4 x 4")
    if np.isinf(signal).any():
        raise InputError(f"{where}: the signal holds infinite values; mask those pixels as NaN")
    std = None if series.std_tvu is None else _floating(series.std_tvu)
    if std is not None:
        if std.shape not in (signal.shape, theta.shape):
            raise InputError(
                f"{where}: standard deviation of shape {std.shape}, expected {signal.shape} or {theta.shape}; "
                "give one per pixel or one per view"
            )
        if np.isnan(std).any() or (std < 0).any():
            raise InputError(
                f"{where}: standard deviations that are negative or NaN; use inf for a masked pixel"
            )
    shift = (
        np.zeros((theta.size, 2))
        if series.shift_vu_nm_t is None
        else np.asarray(series.shift_vu_nm_t, np.float64)
    )
    if shift.shape != (theta.size, 2) or not np.isfinite(shift).all():
        raise InputError(
            f"{where}: shifts of shape {shift.shape}, expected finite ({theta.size}, 2): v, u in nm"
        )
    warp = (
        np.tile(np.eye(2), (theta.size, 1, 1))
        if series.warp_tvu is None
        else np.asarray(series.warp_tvu, np.float64)
    )
    if warp.shape != (theta.size, 2, 2) or not (
        np.isfinite(warp).all() and np.all(np.linalg.det(warp) > 0)
    ):
        raise InputError(
            f"{where}: warps of shape {warp.shape}, expected finite ({theta.size}, 2, 2) that mirror nothing; give "
            "those of an alignment"
        )
    return CheckedSeries(where, series.mount, theta, signal, std, shift, warp)

"""The volumes of the live reconstruction: from the signals of all angles so far to the magnetization.

While an angle is being exposed, what it will change is worked out (`reconstruction.anticipation`): a volume with it is
there at once when it has come, and that of the whole solution follows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from mistral_txm.reconstruction import (
    Grid,
    InputError,
    Reconstruction,
    Volume,
    reconstruct,
    volume_of,
)
from mistral_txm.reconstruction.anticipation import Anticipation, reconstruct_ahead
from mistral_txm.services.aligned_views import AlignedViews, SeriesAlignment
from mistral_txm.services.alignment import align
from mistral_txm.services.angle_signals import AngleSignals, ProcessingError
from mistral_txm.services.findings import summary
from mistral_txm.services.structure_memory import StructureMemory

METHOD = "direct"
LARGEST_FIELD = 400
"""Lateral voxels of a volume; of larger images the middle is reconstructed."""
DEPTH_WITHOUT_LAYERS = 80
"""Layers of the volume of a film of which nobody said where it is magnetic."""
SAME_DIRECTION_DEG = 0.3
"""A view that is not farther off than this is the one that was anticipated."""
SAME_PLACE_PIXELS = 1.0
"""Where the alignment moves views by more, rms, their volume is not the one that was made ready."""

NextView = tuple[float, float]
"""Azimuth as stated and tilt as planned, deg."""


@dataclass(frozen=True)
class MadeVolume:
    """A volume, how its views were laid, those of each azimuth, and whether a better one of the same views follows."""

    volume: Volume
    alignment: SeriesAlignment
    views: list[AlignedViews]
    provisional: bool


@dataclass(frozen=True)
class _Ready:
    """What is ready for one more view, which views it is made of, and the number of its azimuth."""

    anticipation: Anticipation
    views: list[AlignedViews]
    azimuth: int


class VolumeMaker:
    """Makes the volumes of a series, one after the other.

    Parameters
    ----------
    pixel_nm
        Pixel on the sample, nm.
    layers_nm
        The magnetic layers, the prior if they are known.
    surfaces_nm
        Lower and upper surface on which spheres lie, as `alignment.align` has them.
    """

    def __init__(
        self,
        pixel_nm: float,
        layers_nm: Sequence[tuple[float, float]],
        surfaces_nm: tuple[float, float] | None = None,
    ) -> None:
        self._pixel_nm = pixel_nm
        self._layers_nm = tuple(layers_nm)
        self._surfaces_nm = surfaces_nm
        self._structure = StructureMemory()
        self._ready: _Ready | None = None

    def make(
        self,
        signals: Sequence[AngleSignals],
        following: NextView | None = None,
        *,
        more: bool = False,
    ) -> Iterator[MadeVolume]:
        """Align all views and solve for the magnetization; a provisional volume comes first where one was made ready.

        Parameters
        ----------
        signals
            Of all angles so far, in any order.
        following
            The view that comes next, if its azimuth is there already.
        more
            Whether more views will come. As long as they do, views without fiducials are laid among those before.

        Raises
        ------
        ValueError
            If the signals do not fit together, or the result is not finite.
        """
        shifts = self._structure.shifts if more else self._structure.all_shifts
        views, alignment = align(
            signals, self._pixel_nm, self._surfaces_nm, self._layers_nm, by_structure=shifts
        )
        grid = volume_grid(signals[0].signals.dichroic_vu.shape, self._pixel_nm, self._layers_nm)
        options = {
            "depth_voxels": grid.shape_zyx[0],
            "layers_nm": list(self._layers_nm),
            "exposures": summary(signals),
        }

        def made(result: Reconstruction, *, provisional: bool) -> MadeVolume:
            if not all(np.isfinite(part).all() for part in (result.mx, result.my, result.mz)):
                raise ProcessingError("the reconstruction gave values that are not numbers")
            told = options | ({"provisional": True} if provisional else {})
            volume = volume_of(result, views, layers_nm=self._layers_nm, options=told)
            return MadeVolume(volume, alignment, views, provisional)

        ready, self._ready = self._ready, None
        followed = None if ready is None else _followed(ready, views, self._pixel_nm)
        if followed is not None:
            yield made(followed, provisional=True)
        del ready, followed
        result, self._ready = self._solved(views, grid, following)
        yield made(result, provisional=False)

    def forget(self) -> None:
        """Forget what is ready for the next view, and what was known of those before."""
        self._structure = StructureMemory()
        self._ready = None

    def _solved(
        self, views: list[AlignedViews], grid: Grid, following: NextView | None
    ) -> tuple[Reconstruction, _Ready | None]:
        series = [one.tilt_series(self._pixel_nm) for one in views]
        prior = "layers" if self._layers_nm else "none"
        stated = [one.stated_phi_deg for one in views]
        if following is not None and following[0] in stated:
            azimuth = stated.index(following[0])
            own = views[azimuth]
            off_deg = float(own.theta_deg_t[0]) - own.angles[0].theta_deg
            try:
                result, anticipation = reconstruct_ahead(
                    series, grid, own.phi_deg, following[1] + off_deg, prior=prior,
                    layers_nm=self._layers_nm,
                )  # fmt: skip
            except InputError:  # what the whole solution would say, too, or of the next view alone
                pass
            else:
                if anticipation is None:
                    return result, None
                return result, _Ready(anticipation, views, azimuth)
        result = reconstruct(series, grid, method=METHOD, prior=prior, layers_nm=self._layers_nm)
        return result, None


def _followed(
    ready: _Ready, views: Sequence[AlignedViews], pixel_nm: float
) -> Reconstruction | None:
    """Return the volume with the view that was anticipated, if that is all that is new."""
    if [one.stated_phi_deg for one in views] != [one.stated_phi_deg for one in ready.views]:
        return None
    known = {id(angle) for one in ready.views for angle in one.angles}
    fresh = [
        (azimuth, number)
        for azimuth, one in enumerate(views)
        for number, angle in enumerate(one.angles)
        if id(angle) not in known
    ]
    count = sum(len(one.angles) for one in views)
    if len(fresh) != 1 or count != len(known) + 1 or fresh[0][0] != ready.azimuth:
        return None
    azimuth, number = fresh[0]
    own, expected = views[azimuth], ready.anticipation
    off_deg = (
        own.phi_deg - expected.mount.phi_deg,
        float(own.theta_deg_t[number]) - expected.theta_deg,
    )
    if max(map(abs, off_deg)) > SAME_DIRECTION_DEG or not _lie_as_before(
        ready.views, views, fresh[0], pixel_nm
    ):
        return None
    place = sum(len(one.angles) for one in views[:azimuth]) + number
    return expected.with_view(own.of_views([number]).tilt_series(pixel_nm), place)


def _lie_as_before(
    before: Sequence[AlignedViews],
    now: Sequence[AlignedViews],
    fresh: tuple[int, int],
    pixel_nm: float,
) -> bool:
    moved = []
    for azimuth, (old, new) in enumerate(zip(before, now, strict=True)):
        if old.shift_vu_nm_t is None or new.shift_vu_nm_t is None:
            if old.shift_vu_nm_t is not new.shift_vu_nm_t:
                return False
            continue
        shift = new.shift_vu_nm_t
        if azimuth == fresh[0]:
            shift = np.delete(shift, fresh[1], axis=0)
        moved.append(shift - old.shift_vu_nm_t)
    if not moved:
        return True
    rms_nm = float(np.sqrt(np.mean(np.concatenate(moved) ** 2)))
    return rms_nm <= SAME_PLACE_PIXELS * pixel_nm


def volume_grid(
    shape_vu: tuple[int, int], pixel_nm: float, layers_nm: Sequence[tuple[float, float]]
) -> Grid:
    """Return the voxels for images of a shape: as wide as a pixel, from below the lowest layer to above the highest.

    >>> volume_grid((1024, 1024), 10.5, [(-120.0, -40.0), (40.0, 120.0)]).shape_zyx
    (24, 400, 400)
    """
    reach_nm = max((abs(edge) for layer in layers_nm for edge in layer), default=0.0)
    depth = 2 * ceil(reach_nm / pixel_nm) or DEPTH_WITHOUT_LAYERS
    height, width = (min(n, LARGEST_FIELD) for n in shape_vu)
    return Grid((depth, height, width), pixel_nm)

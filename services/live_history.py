"""How a series has come along: one entry for each volume, and which singularities were there before."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction import Volume
from mistral_txm.services.truth import FoundSingularity

COMPARED_VOXELS = 2
"""Of the voxels every so many'th in each direction is compared from volume to volume."""
VOLUMES = 5
"""So many volumes, the newest included, tell how sure a singularity is."""
FEWEST_VOLUMES = 3
"""From fewer volumes nothing is told."""
SAME_PLACE_VOXELS = 4.0
"""A singularity that is not farther off than this is the same one."""
SAME_CHARGE = 0.25
"""Charges that differ by no more are the same."""


class History:
    """Compares each volume with those before it.

    Parameters
    ----------
    published
        The status that was published before this process began; its history goes on.
    """

    def __init__(self, published: Mapping[str, Any]) -> None:
        past = published.get("history")
        self.entries: list[dict[str, Any]] = list(past) if isinstance(past, list) else []
        self._before: NDArray[np.float32] | None = None
        self._points: deque[list[FoundSingularity]] = deque(maxlen=VOLUMES)

    def add(self, entry: Mapping[str, Any], volume: Volume) -> None:
        """Add an entry for a new volume, with its ``change``: rms difference to the one before by its own rms.

        None for the first volume that this process made, and where the shape has changed.
        """
        every = np.s_[::COMPARED_VOXELS]
        now = np.stack([part[every, every, every] for part in (volume.mx, volume.my, volume.mz)])
        before, self._before = self._before, now
        change = None
        if before is not None and before.shape == now.shape:
            rms = float(np.sqrt(np.mean(now**2, dtype=np.float64)))
            difference = float(np.sqrt(np.mean((now - before) ** 2, dtype=np.float64)))
            change = round(difference / rms, 5) if rms > 0 else None
        self.entries.append({**entry, "change": change})

    def singularities(
        self, points: Sequence[FoundSingularity], voxel_nm: float
    ) -> list[dict[str, Any]]:
        """Return the singularities of the newest volume as JSON, each with its ``sureness``.

        That is in how many of the last `VOLUMES` volumes, this one included, one of the same kind and charge is at the
        same place; left out while there are fewer than `FEWEST_VOLUMES`.
        """
        self._points.append(list(points))
        if len(self._points) < FEWEST_VOLUMES:
            return [asdict(point) for point in points]
        found = []
        for point in points:
            times = sum(
                any(_is_same(point, other, SAME_PLACE_VOXELS * voxel_nm) for other in of_volume)
                for of_volume in self._points
            )
            found.append(asdict(point) | {"sureness": round(times / len(self._points), 2)})
        return found

    def forget(self) -> None:
        """Forget the volumes before: there is none any more, or its series has ended."""
        self._before = None
        self._points.clear()


def _is_same(one: FoundSingularity, other: FoundSingularity, within_nm: float) -> bool:
    apart_nm = np.linalg.norm([one.x_nm - other.x_nm, one.y_nm - other.y_nm, one.z_nm - other.z_nm])
    alike = one.kind == other.kind and abs(one.charge - other.charge) <= SAME_CHARGE
    return bool(alike and apart_nm <= within_nm)

"""The files that the live reconstruction publishes for each series, and how others read them.

In ``<data>/live/<series>/`` lie ``volume.h5`` (a volume like any other), ``pair.h5`` (the newest
finished angle), ``status.json``, and ``advice.json`` for plans (`devices.advice_file`). Each is
replaced as a whole, so a reader sees the old one or the new one, never half of one.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.files import replaced_when_complete

LIVE = "live"
STATUS, PAIR, VOLUME = "status.json", "pair.h5", "volume.h5"
SECONDS_UNTIL_STALE = 30.0


@dataclass(frozen=True)
class FrameExamples:
    """What one finished angle looks like: a raw frame and the images made from both helicities.

    Images are ``[v, u]``: counts, ``(A(+) + A(-)) / 2`` and ``(A(+) - A(-)) / 2``.
    """

    frame_vu: NDArray[Any]
    absorption_vu: NDArray[Any]
    dichroic_vu: NDArray[Any]
    phi_deg: float
    theta_deg: float
    helicity: int
    """Of the raw frame, +1 or -1."""


def read_pair(path: Path) -> FrameExamples:
    """Read a ``pair.h5``: datasets ``frame_vu``, ``absorption_vu``, ``dichroic_vu`` and where they
    are from.

    Raises:
        ValueError: the file is missing, damaged or not what it should be.
    """
    try:
        with h5py.File(path) as file:
            names = ("frame_vu", "absorption_vu", "dichroic_vu")
            images = [np.asarray(file[name]) for name in names]
            if any(image.ndim != 2 for image in images):
                shapes = [image.shape for image in images]
                raise ValueError(f"expected images, found shapes {shapes}")
            return FrameExamples(
                frame_vu=images[0],
                absorption_vu=images[1],
                dichroic_vu=images[2],
                phi_deg=float(file.attrs["phi_deg"]),
                theta_deg=float(file.attrs["theta_deg"]),
                helicity=int(file.attrs["helicity"]),
            )
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as cause:
        raise ValueError(f"{path}: not the images of an angle: {cause}") from cause


def write_pair(path: Path, pair: FrameExamples) -> None:
    """Write a ``pair.h5``, whole or not at all."""
    with replaced_when_complete(path) as temporary, h5py.File(temporary, "w") as file:
        for name in ("frame_vu", "absorption_vu", "dichroic_vu"):
            file[name] = getattr(pair, name)
        for name in ("phi_deg", "theta_deg", "helicity"):
            file.attrs[name] = getattr(pair, name)


def write_status(path: Path, status: Mapping[str, Any]) -> None:
    """Write a ``status.json``, whole or not at all."""
    with replaced_when_complete(path) as temporary:
        temporary.write_text(json.dumps(status, indent=2) + "\n")


def read_status(path: Path) -> dict[str, Any]:
    """Read a ``status.json``: what the live reconstruction says of itself.

    Raises:
        ValueError: the file is missing, damaged or not a JSON object.
    """
    try:
        status = json.loads(path.read_bytes())
    except (OSError, ValueError) as cause:
        raise ValueError(f"{path}: not the status of a live reconstruction: {cause}") from cause
    if not isinstance(status, dict):
        raise ValueError(f"{path}: not the status of a live reconstruction: no JSON object")
    return status


def stale_s(status: Mapping[str, Any], now_s: float) -> float | None:
    """Age of a status in seconds if it is too old for its state, else None.

    What is complete does not become stale, the rest after three updates or `SECONDS_UNTIL_STALE`, whatever is longer. A
    status without a time is infinitely old.

    >>> stale_s({"state": "following", "updated_at": 1000.0, "update_s": 2.0}, 1010.0)
    >>> stale_s({"state": "following", "updated_at": 1000.0, "update_s": 2.0}, 1060.0)
    60.0
    >>> stale_s({"state": "complete", "updated_at": 1000.0}, 9000.0)
    """
    if status.get("state", "complete") == "complete":
        return None
    updated_at, update_s = status.get("updated_at"), status.get("update_s")
    if not isinstance(updated_at, int | float):
        return math.inf
    patience_s = 3 * update_s if isinstance(update_s, int | float) else 0.0
    age_s = now_s - updated_at
    return age_s if age_s > max(SECONDS_UNTIL_STALE, patience_s) else None

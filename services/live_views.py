"""What the live reconstruction tells of each view: one entry an angle, in the order in which they were measured."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mistral_txm.reconstruction.design import Spectrum, view_spectrum
from mistral_txm.reconstruction.repeats import Findings
from mistral_txm.reconstruction.signal import Signals
from mistral_txm.reconstruction.view_quality import ViewQuality, view_quality
from mistral_txm.services.aligned_views import AlignedViews
from mistral_txm.services.angle_signals import AngleSignals
from mistral_txm.services.live_volumes import LARGEST_FIELD
from mistral_txm.services.series_exposures import Angle


@dataclass(frozen=True)
class SeenView:
    """A finished angle, the signals that the volume is made from, and how good they are."""

    angle: Angle
    signals: AngleSignals
    quality: ViewQuality
    spectrum: Spectrum

    @classmethod
    def of(cls, angle: Angle, signals: AngleSignals, pixel_nm: float) -> "SeenView":
        """Judge the middle of the signals of an angle, as wide as the volume."""
        whole, theta_deg = signals.signals, signals.theta_deg
        middle = tuple(
            slice(max(n - LARGEST_FIELD, 0) // 2, (n + min(n, LARGEST_FIELD)) // 2)
            for n in whole.dichroic_vu.shape
        )
        images = Signals(
            whole.absorption_vu[middle], whole.dichroic_vu[middle], whole.std_vu[middle]
        )
        spectrum = view_spectrum(images.dichroic_vu, theta_deg, pixel_nm)
        return cls(angle, signals, view_quality(images, theta_deg), spectrum)

    @property
    def time(self) -> float:
        """When its last exposure ended, s since 1970-01-01 UTC."""
        return max(one.time for repeats in self.angle.exposures.values() for one in repeats)


Drifts = Mapping[tuple[float, float], tuple[float, float]]
"""By azimuth as stated and tilt as read back: how far the alignment found the view off, (v, u) pixels."""


def drifts_of(views: Iterable[AlignedViews], pixel_nm: float) -> Drifts:
    """Return how far each aligned view lies from where it should."""
    found = {}
    for one in views:
        if one.shift_vu_nm_t is None:
            continue
        for angle, (v_nm, u_nm) in zip(one.angles, one.shift_vu_nm_t, strict=True):
            drift = float(v_nm) / pixel_nm, float(u_nm) / pixel_nm
            found[angle.phi_deg, angle.theta_deg] = drift
    return found


def entries(seen: Sequence[SeenView], drifts: Drifts) -> list[dict[str, Any]]:
    """Return what is published of the views, as JSON, the first measured first."""
    sharpness = np.array([one.quality.sharpness for one in seen])
    known = sharpness[np.isfinite(sharpness)]
    usual = float(np.median(known)) if known.size else 1.0
    return [_entry(one, drifts, usual) for one in sorted(seen, key=lambda one: one.time)]


def _entry(one: SeenView, drifts: Drifts, usual_sharpness: float) -> dict[str, Any]:
    found, quality = one.signals.findings, one.quality
    drift = drifts.get((one.signals.phi_deg, one.signals.theta_deg))
    sharpness = quality.sharpness / usual_sharpness
    return {
        "phi_deg": one.angle.phi_deg,
        "theta_deg": one.angle.theta_deg,
        "time": one.time,
        "drift_vu_pixels": None if drift is None else [round(part, 3) for part in drift],
        "sharpness": round(sharpness, 3) if np.isfinite(sharpness) else None,
        "contrast": round(quality.contrast, 3),
        "noise": round(quality.noise, 5),
        "repeats": {
            f"{helicity:+d}": len(repeats) - len(found.get(helicity, Findings()).bad)
            for helicity, repeats in one.angle.exposures.items()
        },
        "left_out": sum(len(its.bad) for its in found.values()),
        "repeat_shift_pixels": round(_rms([its.shift_rms for its in found.values()]), 3),
    }


def _rms(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values else 0.0

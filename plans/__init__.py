"""Plans: what is done in which order; decisions on frozen values, apart from the messages."""

from mistral_txm.devices.key import Key
from mistral_txm.plans.acquisition import PlanError
from mistral_txm.plans.measurement import (
    Measurement,
    Sample,
    estimate,
    medium,
    paper,
    remaining,
    small,
    steps,
)
from mistral_txm.plans.scans import energy_scan, focus_series, polarization_scan
from mistral_txm.plans.snapshot import snapshot
from mistral_txm.plans.tomography import (
    check_positions,
    darks,
    flats,
    tilt_series,
    vector_tomography,
)

__all__ = [
    "Key",
    "Measurement",
    "PlanError",
    "Sample",
    "check_positions",
    "darks",
    "energy_scan",
    "estimate",
    "flats",
    "focus_series",
    "medium",
    "paper",
    "polarization_scan",
    "remaining",
    "small",
    "snapshot",
    "steps",
    "tilt_series",
    "vector_tomography",
]

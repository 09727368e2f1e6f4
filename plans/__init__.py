"""Plans: what is done in which order; decisions on frozen values, apart from the messages."""

from mistral_txm.devices.key import Key
from mistral_txm.plans.checks import PlanError, check_positions
from mistral_txm.plans.estimate import estimate
from mistral_txm.plans.measurement import (
    Measurement,
    Sample,
    load_measurement,
    medium,
    paper,
    small,
)
from mistral_txm.plans.scans import energy_scan, focus_series, polarization_scan
from mistral_txm.plans.snapshot import snapshot
from mistral_txm.plans.steps import edge_series, steps
from mistral_txm.plans.tomography import (
    darks,
    dichroic_projection,
    flats,
    reject,
    retake,
    sample_queue,
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
    "dichroic_projection",
    "edge_series",
    "energy_scan",
    "estimate",
    "flats",
    "focus_series",
    "load_measurement",
    "medium",
    "paper",
    "polarization_scan",
    "reject",
    "retake",
    "sample_queue",
    "small",
    "snapshot",
    "steps",
    "tilt_series",
    "vector_tomography",
]

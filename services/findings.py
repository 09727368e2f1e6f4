"""What was left out of the signals of a series, in the small form that statuses, volumes and reports carry."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mistral_txm.services.angle_signals import AngleSignals


def summary(signals: "Iterable[AngleSignals]") -> dict[str, Any]:
    """Return what was found in the exposures of all angles, as JSON.

    ``repeats_left_out`` has one line for each bad repeat: which, and why; ``references_left_out`` one for each dark or
    flat that cannot be read. ``zinger_pixels`` and ``saturated_pixels``
    are sums over all exposures, ``hot_pixels`` is the largest number in one, ``shift_rms_pixels`` the largest of one
    state, ``aligned`` how many states had their repeats moved, ``flat_part`` the largest part of the variance that the
    flats have.
    """
    angles = sorted(signals, key=lambda one: (one.phi_deg, one.theta_deg))
    found = [(one, helicity, its) for one in angles for helicity, its in one.findings.items()]
    return {
        "repeats_left_out": [
            f"phi {one.phi_deg:g} deg, theta {one.theta_deg:g} deg, helicity {helicity:+d}, repeat {number + 1}: "
            f"{reason}"
            for one, helicity, its in found
            for number, reason in its.bad
        ],
        "references_left_out": sorted({line for one in angles for line in one.references_left_out}),
        "zinger_pixels": sum(sum(its.zinger_pixels) for _, _, its in found),
        "saturated_pixels": sum(sum(its.saturated_pixels) for _, _, its in found),
        "hot_pixels": max((its.hot_pixels for _, _, its in found), default=0),
        "shift_rms_pixels": round(max((its.shift_rms for _, _, its in found), default=0.0), 3),
        "aligned": sum(its.aligned for _, _, its in found),
        "flat_part": round(max((one.shared_part for one in angles), default=0.0), 3),
    }

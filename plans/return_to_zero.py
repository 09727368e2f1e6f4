"""The return to zero tilt: after the last tilt of an azimuth, one of its first views again.

It tells what happened to the sample during the hours in between. Its exposures are no part of the volume: they have a
stream of their own, and their repeats count on from those of the view itself, so that no key is there twice.
"""

from mistral_txm.devices.key import Key
from mistral_txm.plans.measurement import Measurement


def return_tilt_deg(measurement: Measurement) -> float | None:
    """Return the tilt that is gone back to, in deg: the one nearest zero; None if none is, or it is the last.

    Of two that are as near it is the lower one: that was seen earlier.

    >>> from mistral_txm.plans.measurement import small
    >>> return_tilt_deg(small())
    0.0
    """
    nearest_deg = min(measurement.angles_deg, key=abs)
    if measurement.return_to_zero is None or nearest_deg == measurement.angles_deg[-1]:
        return None
    return nearest_deg


def return_keys(measurement: Measurement) -> tuple[Key, ...]:
    """Return the keys of all returns at one energy, azimuth by azimuth.

    >>> from mistral_txm.plans.measurement import small
    >>> [key.repeat for key in return_keys(small()) if key[:3] == (0.0, 0.0, 1)]
    [3, 4, 5]
    """
    theta_deg, again = return_tilt_deg(measurement), measurement.return_to_zero
    if theta_deg is None or again is None:
        return ()
    first = measurement.exposures_at(theta_deg).repeats
    return tuple(
        Key(phi_deg, theta_deg, helicity, repeat)
        for phi_deg in measurement.azimuths_deg
        for helicity in (1, -1)
        for repeat in range(first, first + again.repeats)
    )

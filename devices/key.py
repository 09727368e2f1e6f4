"""The name of an exposure, which plans, documents and readers share."""

from typing import NamedTuple


class Key(NamedTuple):
    """What tells the exposures of a series apart.

    `phi_deg` and `theta_deg` are those of the plan, not readbacks; `helicity` is +1 or -1, or 0 for
    a dark frame; `repeat` counts from 0.
    """

    phi_deg: float
    theta_deg: float
    helicity: int
    repeat: int

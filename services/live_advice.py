"""What more would bring while a series is measured: the next view, more repeats, and whether it is enough.

The numbers are those of `reconstruction.design`: what views of these angles and this noise can tell of a film with the
structure that they show. A wanted resolution is reached when two volumes of the present azimuth in a row have it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np

from mistral_txm.reconstruction.design import (
    Design,
    Power,
    Slabs,
    Spectrum,
    ViewFacts,
    design,
    measured_power,
)
from mistral_txm.services.live_views import SeenView
from mistral_txm.services.live_volumes import DEPTH_WITHOUT_LAYERS

Place = tuple[float, float]

FEWEST_VIEWS = 3
"""From fewer views nothing is said."""
MANY_VIEWS = 60
"""From so many on, what they tell is worked out for every third volume alone."""
VIEWS_NAMED = 5
SPECTRA = 16
"""Views whose spectra tell the power of the field, about."""
WORTH_IT = 0.05
"""Part by which a resolution has to improve for an effort to be worth it."""


@dataclass(frozen=True)
class _Facts:
    """What the views so far are, and what they tell."""

    views: tuple[ViewFacts, ...]
    power: Power
    told: Design


class Advisor:
    """Says what more would bring for one series.

    Parameters
    ----------
    pixel_nm, layers_nm
        Of the series, as `live_flags.QualityWatch` takes them.
    wanted_nm
        The resolution at which the measurement wants to stop; None if it does not.
    """

    def __init__(
        self,
        pixel_nm: float,
        layers_nm: Sequence[tuple[float, float]],
        wanted_nm: float | None,
    ) -> None:
        half_nm = DEPTH_WITHOUT_LAYERS * pixel_nm / 2
        self._slabs = Slabs.of(layers_nm or [(-half_nm, half_nm)])
        self._finest_nm = 2 * pixel_nm
        self._wanted_nm = wanted_nm
        self._reached: tuple[float, int] = (0.0, 0)
        self._volumes = 0
        self.resolution_nm: float | None = None
        self.advice: dict[str, Any] = self._nothing()

    @property
    def is_reached(self) -> bool:
        """Whether the wanted resolution is there."""
        return self._reached[1] > 1

    def look(self, seen: Sequence[SeenView], missing: Collection[Place]) -> bool:
        """Work out what the views tell, and what the missing ones would; return whether that was done.

        With many views that is for every third volume, and when none is missing.
        """
        self._volumes += 1
        if len(seen) < FEWEST_VIEWS:
            self.resolution_nm, self.advice, self._reached = None, self._nothing(), (0.0, 0)
            return False
        if len(seen) > MANY_VIEWS and missing and self._volumes % 3:
            return False
        facts = self._facts(seen)
        resolution_nm = facts.told.resolution_nm
        self.resolution_nm = round(resolution_nm, 1) if isfinite(resolution_nm) else None
        newest = max(seen, key=lambda one: one.time)
        phi_deg, times = self._reached
        enough = self._wanted_nm is not None and resolution_nm <= self._wanted_nm
        same = times if phi_deg == newest.angle.phi_deg else 0
        self._reached = newest.angle.phi_deg, same + 1 if enough else 0
        self.advice = self._told(facts, missing)
        return True

    def _nothing(self) -> dict[str, Any]:
        return {
            "text": "",
            "next_views": [],
            "repeats_text": "",
            "wanted_nm": self._wanted_nm,
            "reached": False,
        }

    def _facts(self, seen: Sequence[SeenView]) -> _Facts:
        views = tuple(
            ViewFacts(one.signals.phi_deg, one.signals.theta_deg, one.quality.noise) for one in seen
        )
        every = max(1, len(seen) // SPECTRA)
        spectra: list[Spectrum] = [one.spectrum for one in seen[::every]]
        power = measured_power(views[::every], spectra, self._slabs)
        return _Facts(views, power, self._design(views, power))

    def _design(self, views: Sequence[ViewFacts], power: Power) -> Design:
        return design(views, self._slabs, power, self._finest_nm)

    def _told(self, facts: _Facts, missing: Collection[Place]) -> dict[str, Any]:
        """Return the advice as JSON."""
        candidates = [_like(phi, theta, facts.views) for phi, theta in missing] or list(facts.views)
        gains = facts.told.gains(candidates)
        order = np.argsort(-gains, kind="stable")[:VIEWS_NAMED]
        named = [
            {
                "phi_deg": candidates[int(i)].phi_deg,
                "theta_deg": round(candidates[int(i)].theta_deg, 3),
                "gain": round(float(gains[i]), 5),
            }
            for i in order
        ]
        best = candidates[int(order[0])]
        where = f"phi {best.phi_deg:g} deg, theta {best.theta_deg:.4g} deg"
        part = f"{100 * gains[order[0]]:.2g} % of what is not known yet"
        text = (
            f"of the angles that are missing, {where} would tell most: {part}"
            if missing
            else f"all angles are there; as many exposures again at {where} would tell most: {part}"
        )
        if self.is_reached:
            text = f"the wanted resolution of {self._wanted_nm:g} nm is reached; {text}"
        return {
            "text": text,
            "next_views": named,
            "repeats_text": self._of_repeats(facts, candidates if missing else []),
            "wanted_nm": self._wanted_nm,
            "reached": self.is_reached,
        }

    def _of_repeats(self, facts: _Facts, missing: Sequence[ViewFacts]) -> str:
        """Compare what twice the repeats would bring with what the missing angles would."""
        now_nm = facts.told.resolution_nm
        twice = [replace(one, std=one.std / 2**0.5) for one in facts.views]
        twice_nm = self._design(twice, facts.power).resolution_nm
        if not isfinite(now_nm):
            return "no period is known well enough yet to say what repeats would bring"
        gain = (
            f"twice the repeats would bring the resolution from {now_nm:.0f} to {twice_nm:.0f} nm"
        )
        if twice_nm > (1 - WORTH_IT) * now_nm:
            return f"more repeats hardly help: {gain}; the angles limit it, not the noise"
        if not missing:
            return f"more repeats still help: {gain}"
        all_nm = self._design([*facts.views, *missing], facts.power).resolution_nm
        better = "the missing angles help more" if all_nm < twice_nm else "more repeats help more"
        return f"{better}: {gain}, the missing angles to {all_nm:.0f} nm"


def _like(phi_deg: float, theta_deg: float, views: Sequence[ViewFacts]) -> ViewFacts:
    """Return what a missing view will be: as noisy as that of the nearest steepness."""
    nearest = min(views, key=lambda one: abs(abs(one.theta_deg) - abs(theta_deg)))
    return ViewFacts(phi_deg, theta_deg, nearest.std)

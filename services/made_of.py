"""What a published volume was made of, to know whether there is more of its series now."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mistral_txm.services.live_files import VOLUME
from mistral_txm.services.series_exposures import SeriesExposures, taken


@dataclass(frozen=True)
class MadeOf:
    """By run how many exposures of it were known, and whether its end was; and how many rejections."""

    runs: Mapping[str, list[int]]
    rejections: int

    @classmethod
    def all_of(cls, exposures: SeriesExposures) -> Self:
        """Return what is known of a series now."""
        return cls(taken(exposures.runs), exposures.rejections)

    @classmethod
    def complete(cls, status: Mapping[str, Any], folder: Path) -> Self | None:
        """Return what a complete series was made of by its status; None where it is not, or there is no volume."""
        try:
            if status["state"] != "complete" or not (folder / VOLUME).exists():
                return None
            return cls(dict(status["runs"]), int(status["rejections"]))
        except (ValueError, KeyError, TypeError):
            return None

    @property
    def has_ended(self) -> bool:
        """Whether the end of every run is known."""
        return all(ended for _, ended in self.runs.values())

    def covers(self, other: "MadeOf") -> bool:
        """Return whether nothing is in the other that is not in this."""
        return other.rejections <= self.rejections and all(
            uid in self.runs and counts <= self.runs[uid] for uid, counts in other.runs.items()
        )

"""What the report's sections are made of, and how they say numbers."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mistral_txm.reconstruction.planar_charges import PlanarCharge
from mistral_txm.reconstruction.volume_file import Volume
from mistral_txm.services.drawing import plain
from mistral_txm.services.fields import Field, Points
from mistral_txm.services.live_files import FrameExamples
from mistral_txm.services.measured_series import MeasuredSeries
from mistral_txm.services.truth import FoundSingularity, PointCharge, Truth

LISTED = 12
"""Rows of a list of singularities."""
_PIXELS_PER_CSS_PIXEL = 1.5


@dataclass(frozen=True)
class Drawn:
    """A figure as the page shows it."""

    file: str
    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class Table:
    """Rows of texts."""

    caption: str
    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()


@dataclass
class Section:
    """A part of the page under a title."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Drawn] = field(default_factory=list)
    beside: bool = False
    """Figures stand side by side where the page is wide enough."""


@dataclass(frozen=True)
class Subject:
    """Everything the sections are made from."""

    volume: Volume
    field: Field
    layers_nm: tuple[tuple[float, float], ...]
    slices_nm: list[tuple[str, float]]
    margin_nm: float
    """At the lateral borders not all views look so far in."""
    found: list[FoundSingularity]
    points: Points
    truth: Truth | None
    true_field: Field | None
    comparison: dict[str, Any] | None
    frames: FrameExamples | None
    summary: Mapping[str, Any]
    measured: MeasuredSeries | None
    output: Path

    def is_seen(self, point: PointCharge | PlanarCharge) -> bool:
        """Return whether a point lies where all views look."""
        _, n_y, n_x = self.volume.mx.shape
        half_x_nm, half_y_nm = (n * self.volume.voxel_nm / 2 - self.margin_nm for n in (n_x, n_y))
        return bool(abs(point.x_nm or 0.0) <= half_x_nm and abs(point.y_nm or 0.0) <= half_y_nm)

    @property
    def seen(self) -> list[FoundSingularity]:
        """The singularities found where all views look, the strongest and best confirmed first."""
        return [point for point in self.found if self.is_seen(point)]

    def draw(self, name: str, figure: Figure, caption: str) -> Drawn:
        """Write a figure as PNG and say how large the page shows it."""
        path = self.output / f"{name}.png"
        figure.savefig(path)
        width, height = struct.unpack(">II", path.read_bytes()[16:24])
        return Drawn(
            path.name,
            caption,
            round(width / _PIXELS_PER_CSS_PIXEL),
            round(height / _PIXELS_PER_CSS_PIXEL),
        )


def words(name: object) -> str:
    """Return a name as words for people."""
    return str(name).replace("_", " ")


def position_text(point: Mapping[str, float]) -> str:
    """Return x, y, z in nm as text."""
    return ", ".join(plain(round(point[name])) for name in ("x_nm", "y_nm", "z_nm"))


def charge_text(value: float) -> str:
    """Return a charge with its sign."""
    if abs(value) < 0.005:
        return "0"
    whole = abs(value - round(value)) < 1e-6
    return (f"{value:+.0f}" if whole else f"{value:+.2f}").replace("-", "−")


def number_text(value: float | None, digits: int) -> str:
    """Return a number with so many digits, a dash for none."""
    return "not defined" if value is None else f"{value:.{digits}f}".replace("-", "−")


def counted(n: int, one: str, many: str | None = None) -> str:
    """Return a number and its noun."""
    return f"{n if n else 'no'} {one if n == 1 else many or one + 's'}"

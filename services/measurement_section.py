"""The report's section on what was measured: runs, a view of the sample, numbers."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from mistral_txm.services import figures
from mistral_txm.services.drawing import plain
from mistral_txm.services.report_parts import Section, Subject, Table, words

_ELSEWHERE = ("errors", "singularities", "alignment", "truth_move_xy_nm", "runs", "series")
"""What a summary says that has a place of its own on the page."""
_MEASURED = ("sample", "simulation")
"""Groups of a summary that say what was measured; the others say how it went."""
_TITLES = {"live": "Live reconstruction", "exposures": "Pace", "seconds": "Time per stage"}


def measurement_section(subject: Subject) -> Section | None:
    """Tell what was measured, as far as it is known."""
    section = Section("What was measured")
    if subject.measured is not None:
        section.tables.append(_runs(subject))
    frames = subject.frames
    if frames is not None:
        view = f"azimuth {plain(frames.phi_deg)}°, tilt {plain(frames.theta_deg)}°"
        helicity = "+1" if frames.helicity > 0 else "−1"
        section.figures.append(
            subject.draw(
                "frames",
                figures.frames_figure(
                    frames.frame_vu,
                    frames.absorption_vu,
                    frames.dichroic_vu,
                    subject.volume.voxel_nm,
                    view,
                ),
                f"One view of the sample ({view}). Left: a single raw frame of helicity {helicity}, as "
                "the camera gave it. Middle and right: sum and difference of both helicities after "
                "dark, flat, ring current and exposure were corrected, repeats averaged, and the "
                "logarithm taken. Grey values and colours span 99 % of the pixels.",
            )
        )
    section.tables += _numbers(subject.summary, measured=True)
    return section if section.figures or section.tables else None


def numbers_section(subject: Subject) -> Section | None:
    """List the numbers of how the measurement went, at the end of the page."""
    tables = list(_numbers(subject.summary, measured=False))
    return Section("Numbers of the measurement", tables=tables) if tables else None


def _runs(subject: Subject) -> Table:
    assert subject.measured is not None
    rows = [
        (
            run.uid[:8],
            datetime.fromtimestamp(run.time).strftime("%Y-%m-%d %H:%M"),
            run.plan_name,
            "–" if run.phi_deg is None else plain(run.phi_deg),
            "–" if run.energy_ev is None else f"{run.energy_ev:g}",
            str(run.exposures),
            run.exit_status,
        )
        for run in subject.measured.runs
    ]
    head = ("run", "started", "plan", "azimuth (deg)", "energy (eV)", "exposures", "ended")
    return Table("Runs", rows, head)


def _numbers(summary: Mapping[str, Any], *, measured: bool) -> Iterator[Table]:
    """Tables of the numbers of a measurement, one for each group; what is deeper is left out."""
    known = {
        name: value
        for name, value in summary.items()
        if name not in _ELSEWHERE
        and measured == (name in _MEASURED or not isinstance(value, Mapping))
    }
    single = [
        (words(name), text)
        for name, value in known.items()
        if (text := _scalar(value)) is not None and not isinstance(value, Mapping)
    ]
    if single:
        yield Table("Measurement", single)
    for name, value in known.items():
        if isinstance(value, Mapping):
            rows = [(words(k), text) for k, item in value.items() if (text := _scalar(item))]
            title = _TITLES.get(name, words(name).capitalize())
            if rows:
                yield Table(title, rows, ("stage", "s") if name == "seconds" else ())


def _scalar(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and value:
        if all(isinstance(item, list | tuple) and len(item) == 2 for item in value):
            return ", ".join(f"{_scalar(low)} to {_scalar(high)}" for low, high in value)
        texts = [_scalar(item) for item in value]
        known = [text for text in texts if text is not None]
        return ", ".join(known) if len(known) == len(texts) else None
    return None

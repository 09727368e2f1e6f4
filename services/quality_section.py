"""The report's section on how good the measurement is: exposures, alignment, every view, what happened."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mistral_txm.services import series_figures
from mistral_txm.services.drawing import plain
from mistral_txm.services.exposures import LogEntry
from mistral_txm.services.report_parts import LISTED, Section, Subject, Table, counted

_EVENTS = ("pause", "wait", "flag", "repeat")
"""Kinds of entries of a run's log that tell of its quality."""


def quality_section(subject: Subject) -> Section | None:
    """Tell how good the measurement is, as far as it is known."""
    section = Section("How good the measurement is")
    measured = subject.measured
    status: Mapping[str, Any] = measured.status if measured is not None else {}
    found = status.get("exposures") or subject.volume.options.get("exposures") or {}
    if measured is not None:
        section.tables.append(_exposures(measured.exposures, found))
    elif found:
        section.tables.append(_exposures({}, found))
    alignment = status.get("alignment") or subject.summary.get("alignment")
    if isinstance(alignment, Mapping):
        section.tables.append(_alignment(alignment))
    if status:
        section.tables.append(_volume(status))
    if flags := status.get("flags"):
        section.tables.append(_flags(flags))
    elif "flags" in status:
        section.paragraphs.append(
            "No flag was raised: contrast, sign, place and focus of every view agree with the others."
        )
    if returns := status.get("returns"):
        section.tables.append(_returns(returns))
    if found.get("repeats_left_out"):
        section.tables.append(_left_out("Repeats left out", found["repeats_left_out"]))
    if found.get("references_left_out"):
        section.tables.append(_left_out("Flats and darks left out", found["references_left_out"]))
    if measured is not None:
        section.paragraphs.append(_what_happened(measured.log))
        if rows := _events(measured.log):
            section.tables.append(rows)
    views, history = status.get("views") or [], status.get("history") or []
    if views:
        section.figures.append(
            subject.draw(
                "views",
                series_figures.views_figure(views),
                "Each view: where the alignment found it against where it should lie; its sharpness "
                "(1: the median of the series); structure of the dichroic signal in units of its "
                "noise; noise of the dichroic signal. Colours and marks: azimuths.",
            )
        )
    if len(history) > 1:
        section.figures.append(
            subject.draw(
                "history",
                series_figures.history_figure(history),
                "How the volume came along: what it leaves of the views, how much it changed with "
                "the newest angles, and its resolution, where that was estimated.",
            )
        )
    return section if section.tables or section.figures else None


def _exposures(counts: Mapping[str, int], found: Mapping[str, Any]) -> Table:
    rows = [(name, f"{count:,}") for name, count in counts.items()]
    rows += [("repeats left out", str(len(found.get("repeats_left_out", ()))))]
    rows += [
        (words, f"{found[name]:,}")
        for name, words in (
            ("zinger_pixels", "zingers removed, in all exposures (pixels)"),
            ("saturated_pixels", "saturated, in all exposures (pixels)"),
            ("hot_pixels", "hot, in one exposure (pixels)"),
        )
        if name in found
    ]
    if "shift_rms_pixels" in found:
        rows.append(
            ("largest shift between repeats, rms (pixels)", f"{found['shift_rms_pixels']:.2f}")
        )
    return Table("Exposures", rows, ("", "number"))


def _alignment(alignment: Mapping[str, Any]) -> Table:
    rows: list[tuple[str, str]] = []
    if reason := alignment.get("reason"):
        rows.append(("not aligned", str(reason)))
    else:
        rows.append(("by", str(alignment.get("by", "–"))))
    for name, title, unit, digits in (
        ("fiducials", "fiducials", "", 0),
        ("residual_nm", "left over at the fiducials, rms", "nm", 2),
        ("std_shift_nm", "shift of a view known to", "nm", 2),
        ("inclination_deg", "inclination of the tilt axis", "deg", 3),
        ("lean_deg", "lean of the tilt axis", "deg", 3),
    ):
        value = alignment.get(name)
        if isinstance(value, int | float):
            error = alignment.get(f"std_{name}")
            with_error = f" ± {error:.{digits}f}" if isinstance(error, int | float) else ""
            text = f"{value:.{digits}f}{with_error} {unit}".strip().replace("-", "−")
            rows.append((title, text))
    for one in alignment.get("azimuths") or ():
        stated, fitted = one.get("stated_phi_deg"), one.get("phi_deg")
        if stated is None or fitted is None:
            continue
        error = one.get("std_phi_deg")
        sure = f" ± {error:.3f}" if isinstance(error, int | float) else ""
        left = one.get("views_left_out")
        apart = f"; {counted(left, 'view')} left out" if left else ""
        rows.append((f"azimuth stated as {plain(stated)}°", f"{fitted:.3f}{sure}°{apart}"))
    return Table("Alignment", rows)


def _volume(status: Mapping[str, Any]) -> Table:
    rows = [
        ("angles in the volume", f"{status.get('angles_done')} of {status.get('angles_planned')}")
    ]
    for name, title, form in (
        ("residual", "left over of the signal, rms (absorbance)", "{:.3g}"),
        ("resolution_nm", "resolution, estimated (nm)", "{:.0f}"),
        ("latency_s", "last exposure to volume (s)", "{:.1f}"),
    ):
        if isinstance(value := status.get(name), int | float):
            rows.append((title, form.format(value)))
    return Table("Volume", rows)


def _flags(flags: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            f"{flag.get('kind', '')}, azimuth {_angle(flag, 'phi_deg')}, tilt {_angle(flag, 'theta_deg')}",
            str(flag.get("text", "")),
        )
        for flag in flags
    ]
    return Table("Flags", rows)


def _returns(returns: Sequence[Mapping[str, Any]]) -> Table:
    rows = [(f"azimuth {_angle(one, 'phi_deg')}", str(one.get("text", ""))) for one in returns]
    return Table("Return to zero tilt", rows)


def _angle(flag: Mapping[str, Any], name: str) -> str:
    value = flag.get(name)
    return f"{plain(value)}°" if isinstance(value, int | float) else "–"


def _left_out(title: str, lines: Sequence[str]) -> Table:
    rows = [(str(number), line) for number, line in enumerate(lines[:LISTED], start=1)]
    if len(lines) > LISTED:
        rows.append(("", f"and {len(lines) - LISTED} more"))
    return Table(title, rows)


def _what_happened(log: Sequence[LogEntry]) -> str:
    """Return how often something happened, and how long the series was paused."""
    kinds = Counter(entry.kind for entry in log)
    paused_s, since_s = 0.0, None
    for entry in log:
        if entry.kind == "pause" and since_s is None:
            since_s = entry.time
        elif entry.kind == "go_on" and since_s is not None:
            paused_s, since_s = paused_s + entry.time - since_s, None
    times = f", {plain(paused_s / 60)} min in all" if paused_s else ""
    return (
        f"The logs of the runs tell of {counted(kinds['pause'], 'pause')}{times}, "
        f"{counted(kinds['wait'], 'wait')}, {counted(kinds['flag'], 'flag')} and "
        f"{counted(kinds['repeat'], 'exposure')} taken again at once."
    )


def _events(log: Sequence[LogEntry]) -> Table | None:
    notable = [entry for entry in log if entry.kind in _EVENTS]
    rows = [
        (
            datetime.fromtimestamp(entry.time).strftime("%m-%d %H:%M:%S"),
            f"{entry.kind}: {entry.text}",
        )
        for entry in notable[: 3 * LISTED]
    ]
    if len(notable) > len(rows):
        rows.append(("", f"and {len(notable) - len(rows)} more, in the journal"))
    return Table("What happened", rows) if rows else None

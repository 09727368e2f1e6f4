"""What the monitor's page says in words: HTML from a snapshot, every value escaped."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from mistral_txm.services.drawing import plain
from mistral_txm.services.exposures import Exposure, LogEntry
from mistral_txm.services.live_files import stale_s
from mistral_txm.services.live_view import Progress, Snapshot
from mistral_txm.services.live_volume import LiveVolume
from mistral_txm.services.monitor_curves import entries, number
from mistral_txm.services.monitor_health import Health

_SIGNS = {"good": "✓", "off": "–", "bad": "✗"}
MOST_LOG_LINES = 100
MOST_FLAGS = 3
"""So many flags stand at the top, the newest; below stand all."""


def head_html(snapshot: Snapshot, now_s: float) -> str:
    """State, progress, health, flags and advice in words, as HTML; every text from a file is escaped.

    Args:
        snapshot: what was seen.
        now_s: the time, s since 1970.
    """
    progress, status = snapshot.progress, snapshot.status
    badges = []
    if progress is not None:
        kinds = {"measuring": "busy", "success": "good"}
        badges.append(_badge(progress.state, kinds.get(progress.state, "bad")))
        if progress.held is not None:
            held = {"pause": "paused", "wait": "waits"}[progress.held.kind]
            badges.append(_badge(f"{held} for {duration(now_s - progress.held.time)}", "bad"))
    state = str(status.get("state", "nothing published yet"))
    badges.append(
        _badge(
            f"live: {state}",
            {"following": "busy", "complete": "good", "error": "bad"}.get(state, ""),
        )
    )
    age_s = stale_s(status, now_s)
    if age_s is not None:
        badges.append(_badge(f"stale: live reconstruction silent for {duration(age_s)}", "bad"))
    title = "waiting for a measurement"
    details, fraction = "", 0.0
    if progress is not None:
        title = progress.sample or f"series {progress.series[:8]}"
        fraction = progress.taken / progress.planned if progress.planned else 0.0
        details = _progress_words(progress, now_s)
    clock = time.strftime("%H:%M:%S", time.localtime(now_s))
    chips = "".join(_chip(one) for one in snapshot.health)
    return (
        f'<div class="head"><div class="line"><h1>{escape(title)}</h1>{"".join(badges)}'
        f'<span class="chips">{chips}</span><span class="quiet clock">{clock}</span></div>'
        f'<div class="bar"><div style="width:{100 * min(1.0, fraction):.1f}%"></div></div>'
        f'<div class="line">{escape(details)}</div>{"".join(_lines(snapshot))}</div>'
    )


def _lines(snapshot: Snapshot) -> Iterable[str]:
    """What to know and to do, the worst first."""
    status, progress = snapshot.status, snapshot.progress
    if progress is not None and progress.held is not None:
        yield f'<div class="flag">⏸ {escape(progress.held.text)}</div>'
    flags = [": ".join(one) for one in _flags(status)]
    for flag in flags[: -MOST_FLAGS - 1 : -1]:
        yield f'<div class="flag">⚑ {escape(flag)}</div>'
    if len(flags) > MOST_FLAGS:
        yield f'<div class="flag">⚑ and {len(flags) - MOST_FLAGS} more flags, listed below</div>'
    for problem in snapshot.problems:
        yield f'<div class="problem">{escape(problem)}</div>'
    advice = status.get("advice")
    if isinstance(advice, dict):
        texts = (advice.get("text"), advice.get("repeats_text"))
        told = " · ".join(str(text) for text in texts if text)
        if told:
            yield f'<div class="advice">→ {escape(told)}</div>'
    if status.get("message"):
        yield f'<div class="quiet">{escape(str(status["message"]))}</div>'


def _progress_words(progress: Progress, now_s: float) -> str:
    words = [f"{progress.taken} of {progress.planned} exposures"]
    if progress.planned:
        words.append(f"{progress.taken / progress.planned:.0%}")
    newest = progress.newest
    if newest is not None:
        helicity = newest.key.helicity
        side = f"helicity {helicity:+d}" if helicity else "no helicity"
        words.append(
            f"{newest.stream}: {angle_words(newest.key.phi_deg, newest.key.theta_deg)}, "
            f"{side}, repeat {newest.key.repeat + 1}"
        )
        if progress.state == "measuring":
            words.append(f"newest frame {duration(now_s - newest.time)} ago")
    left_s = progress.seconds_left
    if left_s is not None:
        ends = time.strftime("%a %H:%M", time.localtime(now_s + left_s))
        words.append(f"about {duration(left_s)} left, ends {ends}")
    return " · ".join(words)


def frame_words(newest: Exposure) -> str:
    """How bright a frame is, and how much of it is saturated."""
    bright = "" if newest.mean_counts is None else f" mean {newest.mean_counts:.0f},"
    warning = "⚠ " if newest.saturated_fraction > 0 else ""
    return f"frame:{bright} {warning}{100 * newest.saturated_fraction:.2g} % saturated"


def side_html(snapshot: Snapshot, now_s: float) -> str:
    """Numbers of the live reconstruction and its singularities as HTML tables, escaped."""
    status = snapshot.status
    updated_at = number(status.get("updated_at"))
    age = f"{duration(now_s - updated_at)} ago" if math.isfinite(updated_at) else "never"
    rows = [
        ("angles", _of(status, "angles_done", "angles_planned")),
        ("frames seen", _of(status, "frames_seen", "frames_planned")),
        ("frames behind", _unit(status.get("lag_frames"), "")),
        ("newest angle", angle_words(status.get("phi_deg"), status.get("theta_deg"))),
        ("updated", age),
        ("an update takes", _unit(status.get("update_s"), "s")),
        ("after the last frame", _unit(status.get("latency_s"), "s")),
        ("residual", _unit(status.get("residual"), "")),
        ("resolution", _unit(status.get("resolution_nm"), "nm")),
    ]
    points = complete_points(status)
    found = []
    for point in points[:8]:
        charge = signed(point["charge"])
        if "sureness" in point:
            charge += f" ({point['sureness']:.0%})"
        place = ", ".join(plain(point[name]) for name in ("x_nm", "y_nm", "z_nm"))
        found.append((place, charge))
    if len(points) > 8:
        found.append((f"and {len(points) - 8} more", ""))
    if not points:
        found.append(("none yet", ""))
    what = "charge (how sure)" if any("sureness" in point for point in points) else "charge"
    return (
        _table("Live reconstruction", rows)
        + _table(f"Singularities: x, y, z (nm), {what}", found)
        + f"<p>{escape(_what_the_data_say(snapshot.volume, status))}</p>"
    )


def _what_the_data_say(volume: LiveVolume | None, status: Mapping[str, Any]) -> str:
    """One honest line: what is measured, and what follows from an assumption."""
    if volume is None:
        return "No volume yet."
    share = (
        "" if volume.data_fraction is None else f"{volume.data_fraction:.0%} of a voxel, on average"
    )
    assumption = {
        "none": "nothing is assumed: what the views do not see is missing",
        "layers": "the rest follows from the prior that only the layers are magnetic",
        "norm": "the rest follows from the prior of unit length in the layers",
    }.get(volume.prior, f"the rest follows from the prior “{volume.prior}”")
    views = _of(status, "angles_done", "angles_planned")
    return (
        f"Method {volume.method}, prior {volume.prior}, {views} views. From the data: "
        f"{share or 'what the views see'}; {assumption}."
    )


def _flags(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is flagged, and where; what is wrong with it."""
    return [
        (
            f"{flag.get('kind', 'flag')} at {angle_words(flag.get('phi_deg'), flag.get('theta_deg'))}",
            str(flag.get("text", "")),
        )
        for flag in entries(status, "flags")
    ]


def log_html(log: Sequence[LogEntry], health: Iterable[Health], status: Mapping[str, Any]) -> str:
    """The health of each process, all flags, and the log of the series, newest first, as HTML tables, escaped."""
    processes = [(f"{_SIGNS[one.state]} {one.name}", one.text) for one in health]
    flags = _table("Flags", found) if (found := _flags(status)) else ""
    lines = [
        (time.strftime("%a %H:%M:%S", time.localtime(entry.time)), entry.kind, entry.text)
        for entry in reversed(log[-MOST_LOG_LINES:])
    ] or [("", "", "nothing yet")]
    body = "".join(
        f"<tr><th>{escape(when)}</th><td>{escape(kind)}</td><td>{escape(text)}</td></tr>"
        for when, kind, text in lines
    )
    return (
        f'<div class="logs"><div class="health">{_table("Processes", processes)}{flags}</div>'
        f'<div class="log"><table><caption>Log: pauses, waits, flags, repeats</caption>{body}</table></div></div>'
    )


def _table(caption: str, rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows
    )
    return f"<table><caption>{escape(caption)}</caption>{body}</table>"


def _badge(text: str, kind: str) -> str:
    return f'<span class="badge {kind}">{escape(text)}</span>'


def _chip(one: Health) -> str:
    text = one.text.rsplit(": ", 1)[-1] if one.name == "disk" else ""
    label = f"{one.name} {text}".strip()
    return (
        f'<span class="chip {one.state}" title="{escape(one.text)}">'
        f"{_SIGNS[one.state]} {escape(label)}</span>"
    )


def complete_points(status: Mapping[str, Any]) -> list[dict[str, float]]:
    """The singularities of a status that are complete and finite, with their sureness where it is known."""
    points = []
    for found in entries(status, "singularities"):
        point = {name: number(found.get(name)) for name in ("x_nm", "y_nm", "z_nm", "charge")}
        if all(math.isfinite(value) for value in point.values()):
            sureness = number(found.get("sureness"))
            points.append(point | ({"sureness": sureness} if math.isfinite(sureness) else {}))
    return points


def signed(charge: float) -> str:
    """A charge with its sign.

    >>> signed(1.0), signed(-0.5), signed(0.0)
    ('+1', '−0.5', '0')
    """
    return f"+{plain(charge)}" if charge > 0 else plain(charge)


def angle_words(phi_deg: object, theta_deg: object) -> str:
    """Azimuth and tilt, or a dash where they are not known."""
    phi, theta = number(phi_deg), number(theta_deg)
    return f"φ {plain(phi)}°, θ {plain(theta)}°" if math.isfinite(phi + theta) else "–"


def _of(status: Mapping[str, Any], done: str, planned: str) -> str:
    return f"{status.get(done, '–')} of {status.get(planned, '–')}"


def _unit(value: object, unit: str) -> str:
    return f"{number(value):.3g} {unit}".strip() if math.isfinite(number(value)) else "–"


def duration(seconds: float) -> str:
    """A time in the largest units that say enough.

    >>> duration(12.3), duration(200), duration(7600), duration(math.inf)
    ('12 s', '3 min', '2 h 6 min', 'an unknown time')
    """
    if not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"

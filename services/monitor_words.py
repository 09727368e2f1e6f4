"""What the monitor's page says in words: HTML from a snapshot, every value escaped."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from mistral_txm.services.drawing import plain
from mistral_txm.services.exposures import HOLDS, RETURN, Exposure, LogEntry
from mistral_txm.services.live_files import stale_s
from mistral_txm.services.live_view import Snapshot
from mistral_txm.services.live_volume import LiveVolume
from mistral_txm.services.monitor_curves import entries, number, pair
from mistral_txm.services.monitor_health import Health, frames_behind
from mistral_txm.services.monitor_progress import Place, Progress

_SAME_S = 0.01
"""Exposures of one helicity that end so close together are one, s."""
_STREAMS = {"primary": "", "flat": "open beam at ", "dark": "dark frame at ", RETURN: "back at "}
_OTHER_FRAMES = {"flat": "open beam", "dark": "dark frame", RETURN: "return to zero tilt"}
_SIGNS = {"good": "✓", "off": "–", "bad": "✗"}
MOST_LOG_LINES = 100
FEW_SATURATED = 0.001
"""So much of a frame are hot pixels and cosmic rays; where more is saturated, a plan takes it again."""
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
    if _is_broken_off(snapshot):
        badges.append(_badge("broken off", "bad"))
    elif progress is not None and snapshot.held is None:
        state = progress.state
        badges.append(_badge(state, {"measuring": "busy", "success": "good"}.get(state, "bad")))
    held = _held(snapshot)
    if held is not None:
        badges.append(_badge(f"{HOLDS[held.kind]} for {duration(now_s - held.time)}", "bad"))
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
        goes_on = snapshot.held is None and not _is_broken_off(snapshot)
        details = _progress_words(progress, now_s, goes_on=goes_on)
    clock = time.strftime("%H:%M:%S", time.localtime(now_s))
    chips = "".join(_chip(one) for one in snapshot.health)
    return (
        f'<div class="head"><div class="line"><h1>{escape(title)}</h1>{"".join(badges)}'
        f'<span class="chips">{chips}</span><span class="quiet clock">{clock}</span></div>'
        f'<div class="bar"><div style="width:{100 * min(1.0, fraction):.1f}%"></div></div>'
        f'<div class="line">{escape(details)}</div>{"".join(_lines(snapshot))}</div>'
    )


def _is_broken_off(snapshot: Snapshot) -> bool:
    """Whether the acquisition is gone, though its run has no end."""
    return any(one.name == "acquisition" and one.state == "bad" for one in snapshot.health)


def _held(snapshot: Snapshot) -> LogEntry | None:
    """What is waited for, in the series or beside it."""
    in_series = None if snapshot.progress is None else snapshot.progress.held
    return snapshot.held or in_series


def _lines(snapshot: Snapshot) -> Iterable[str]:
    """What to know and to do, the worst first."""
    status, held = snapshot.status, _held(snapshot)
    if held is not None:
        yield f'<div class="flag">‖ {HOLDS[held.kind]}: {escape(held.text)}</div>'
    for one in snapshot.health:
        if one.state == "bad":
            yield f'<div class="problem">✗ {escape(f"{one.name}: {one.text}")}</div>'
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


def _progress_words(progress: Progress, now_s: float, *, goes_on: bool) -> str:
    words = [f"{progress.taken} of {progress.planned} exposures"]
    if progress.planned:
        words.append(f"{progress.taken / progress.planned:.0%}")
    newest = progress.newest
    if newest is not None:
        words.append(_exposure_words(newest, progress.place))
        if progress.state == "measuring":
            words.append(f"newest frame {duration(now_s - newest.time)} ago")
    ends_at = progress.ends_at(now_s)
    if ends_at is not None and goes_on:
        # How long people take to go on, or to mount the sample anew, nobody knows.
        azimuths = 0 if progress.place is None else progress.place.azimuths - progress.place.azimuth
        sure = progress.held is None and azimuths == 0
        when = time.strftime("%a %H:%M", time.localtime(ends_at))
        words.append(
            f"about {duration(ends_at - now_s)} left, ends {'' if sure else 'not before '}{when}"
        )
    return " · ".join(words)


def _exposure_words(newest: Exposure, place: Place | None) -> str:
    """What is exposed, and where in the plan that is."""
    key = newest.key
    what = _STREAMS.get(newest.stream, newest.stream)
    side = f"helicity {key.helicity:+d}" if key.helicity else "no helicity"
    if newest.stream == RETURN:  # its repeats are numbered on from those of the view
        return f"{what}{angle_words(key.phi_deg, key.theta_deg)}, {side}"
    if place is None:
        return f"{what}{angle_words(key.phi_deg, key.theta_deg)}, {side}, repeat {key.repeat + 1}"
    return (
        f"{what}φ {plain(key.phi_deg)}° ({place.azimuth}/{place.azimuths}), θ {plain(key.theta_deg)}° "
        f"({place.tilt}/{place.tilts}), {side}, repeat {key.repeat + 1}/{place.repeats}"
    )


def frame_words(frame_of: Exposure, pixels: int, status: Mapping[str, Any]) -> str:
    """Say how bright a frame is, how much of it is saturated, and how far it drifted or what it shows, in two lines.

    Args:
        frame_of: what is known of it.
        pixels: how many it has.
        status: of the live reconstruction, which finds the drift.
    """
    bright = "" if frame_of.mean_counts is None else f"mean {frame_of.mean_counts:.0f}, "
    fraction = frame_of.saturated_fraction
    n = round(fraction * pixels)
    full = f"{n or 'no'} pixel{'' if n == 1 else 's'} saturated"
    if fraction > FEW_SATURATED:
        full = f"⚠ {100 * fraction:.2g} % saturated"
    return f"frame: {bright}{full}\n{_drift_words(frame_of, status)}"


def _drift_words(frame_of: Exposure, status: Mapping[str, Any]) -> str:
    if frame_of.stream != "primary":
        return _OTHER_FRAMES.get(frame_of.stream, frame_of.stream)
    for one in entries(status, "newest_exposures"):
        same_side = number(one.get("helicity")) == frame_of.key.helicity
        if same_side and abs(number(one.get("time")) - frame_of.time) < _SAME_S:
            v, u = pair(one.get("drift_vu_pixels"))
            if math.isfinite(v + u):
                return f"drift v {_signed(v)}, u {_signed(u)} pixels"
            return "no drift told" if frame_of.key.repeat else "the first of its angle: no drift"
    return "drift not known yet"


def _signed(pixels: float) -> str:
    return f"{pixels:+.2f}".replace("-", "−")


def side_html(snapshot: Snapshot, now_s: float) -> str:
    """Numbers of the live reconstruction and its singularities as HTML tables, escaped."""
    status, progress = snapshot.status, snapshot.progress
    taken = None if progress is None else progress.taken
    updated_at = number(status.get("updated_at"))
    age = f"{duration(now_s - updated_at)} ago" if math.isfinite(updated_at) else "never"
    rows = [
        ("angles", _of(status, "angles_done", "angles_planned")),
        ("frames seen", _of(status, "frames_seen", "frames_planned")),
        ("frames behind", _unit(frames_behind(status, taken), "")),
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
        + _origin_html(snapshot.volume, status)
    )


_PRIORS = {
    "none": "Nothing is assumed: what the views do not see is missing.",
    "layers": "Prior: only the layers are magnetic.",
    "norm": "Prior: unit length in the layers.",
}


def _origin_html(volume: LiveVolume | None, status: Mapping[str, Any]) -> str:
    """What is measured, and what follows from an assumption."""
    caption = "What the data say"
    if volume is None:
        return _table(caption, [("no volume yet", "")])
    share = volume.data_fraction
    rows = []
    if share is not None:
        other = "not seen" if volume.prior == "none" else "from the prior"
        rows = [("from the data", f"{share:.0%}"), (other, f"{1 - share:.0%}")]
    prior = _PRIORS.get(volume.prior, f"Prior: {volume.prior}.")
    blind = "One azimuth alone: one component in the plane is not seen. "
    text = (
        f"{blind if volume.azimuths == 1 else ''}{prior} Method {volume.method}, "
        f"{_of(status, 'angles_done', 'angles_planned')} views."
    )
    return _table(caption, rows) + f"<p>{escape(text)}</p>"


def _flags(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is flagged, and where; what is wrong with it."""
    return [
        (
            f"{flag.get('kind', 'flag')} at {angle_words(flag.get('phi_deg'), flag.get('theta_deg'))}",
            str(flag.get("text", "")),
        )
        for flag in entries(status, "flags")
    ]


def returns_html(snapshot: Snapshot) -> str:
    """What each return to zero tilt told, azimuth by azimuth, as an HTML table, escaped; empty where there are none."""
    progress = snapshot.progress
    planned = () if progress is None else progress.returns_at
    told = dict.fromkeys(planned, "not taken yet")
    if progress is not None:
        told |= dict.fromkeys(progress.returned, "taken, not compared yet")
    for one in entries(snapshot.status, "returns"):
        stated_deg = number(one.get("phi_deg"))  # about what was planned
        phi_deg = min(planned, key=lambda each: abs(each - stated_deg), default=stated_deg)
        told[phi_deg] = str(one.get("text"))
    rows = [
        (f"φ {plain(phi_deg)}°", text) for phi_deg, text in told.items() if math.isfinite(phi_deg)
    ]
    if not rows:
        return ""
    return f'<div class="health">{_table("Return to zero tilt", rows)}</div>'


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
    label = f"{one.name} {one.brief}".strip()
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

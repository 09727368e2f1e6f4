"""What the monitor's page says in words: HTML from a snapshot, every value escaped."""

import math
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.image import imsave

from mistral_txm.services.drawing import direction_rgb, plain
from mistral_txm.services.live_files import stale_s
from mistral_txm.services.live_view import Progress, Snapshot


def head_html(snapshot: Snapshot, now_s: float) -> str:
    """State, progress and problems in words, as HTML; every text from a file is escaped.

    Args:
        snapshot: what was seen.
        now_s: the time, s since 1970.
    """
    progress, status = snapshot.progress, snapshot.status
    badges = []
    if progress is not None:
        kinds = {"measuring": "busy", "success": "good"}
        badges.append(_badge(progress.state, kinds.get(progress.state, "bad")))
    state = str(status.get("state", "nothing published yet"))
    badges.append(
        _badge(
            f"live: {state}",
            {"following": "busy", "complete": "good", "error": "bad"}.get(state, ""),
        )
    )
    age_s = stale_s(status, now_s)
    if age_s is not None:
        badges.append(_badge(f"stale: live reconstruction silent for {_duration(age_s)}", "bad"))
    title = "waiting for a measurement"
    details, fraction = "", 0.0
    if progress is not None:
        title = progress.sample or f"series {progress.series[:8]}"
        fraction = progress.taken / progress.planned if progress.planned else 0.0
        details = _progress_words(progress, now_s)
    message = status.get("message")
    lines = [f'<div class="quiet">{escape(str(message))}</div>'] if message else []
    lines += [f'<div class="problem">{escape(problem)}</div>' for problem in snapshot.problems]
    clock = time.strftime("%H:%M:%S", time.localtime(now_s))
    return (
        f'<div class="head"><div class="line"><h1>{escape(title)}</h1>{"".join(badges)}'
        f'<span class="quiet">{clock}</span></div>'
        f'<div class="bar"><div style="width:{100 * min(1.0, fraction):.1f}%"></div></div>'
        f'<div class="line">{escape(details)}</div>{"".join(lines)}</div>'
    )


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
            words.append(f"newest frame {_duration(now_s - newest.time)} ago")
    left_s = progress.seconds_left
    if left_s is not None:
        ends = time.strftime("%a %H:%M", time.localtime(now_s + left_s))
        words.append(f"about {_duration(left_s)} left, ends {ends}")
    return " · ".join(words)


def side_html(snapshot: Snapshot, now_s: float) -> str:
    """Numbers of the live reconstruction and its singularities as two HTML tables, escaped."""
    status = snapshot.status
    updated_at = status.get("updated_at")
    age = _duration(now_s - updated_at) + " ago" if isinstance(updated_at, int | float) else "never"
    rows = [
        ("angles", _of(status, "angles_done", "angles_planned")),
        ("frames seen", _of(status, "frames_seen", "frames_planned")),
        ("frames behind", _unit(status.get("lag_frames"), "")),
        ("newest angle", angle_words(status.get("phi_deg"), status.get("theta_deg"))),
        ("updated", age),
        ("an update takes", _unit(status.get("update_s"), "s")),
        ("residual", _unit(status.get("residual"), "")),
    ]
    points = complete_points(status)
    found = [
        (
            f"{plain(point['x_nm'])}, {plain(point['y_nm'])}, {plain(point['z_nm'])}",
            plain(point["charge"]),
        )
        for point in points[:8]
    ]
    if len(points) > 8:
        found.append((f"and {len(points) - 8} more", ""))
    if not points:
        found.append(("none yet", ""))
    return (
        _table("Live reconstruction", rows)
        + _table("Singularities: x, y, z (nm), charge", found)
        + f'<p>in-plane direction<br><img alt="colour wheel" src="{_wheel_uri()}"></p>'
    )


@cache
def _wheel_uri() -> str:
    """The key to the colours of direction, as an image inside the page."""
    axis = np.linspace(-1, 1, 96)
    x, y = np.meshgrid(axis, -axis)
    ring = (np.hypot(x, y) <= 1) & (np.hypot(x, y) >= 0.4)
    picture = BytesIO()
    imsave(picture, np.dstack([direction_rgb(x, y, 0.0), ring]), format="png")
    return "data:image/png;base64," + b64encode(picture.getvalue()).decode("ascii")


def _table(caption: str, rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows
    )
    return f"<table><caption>{escape(caption)}</caption>{body}</table>"


def _badge(text: str, kind: str) -> str:
    return f'<span class="badge {kind}">{escape(text)}</span>'


def complete_points(status: Mapping[str, Any]) -> list[dict[str, float]]:
    """The singularities of a status that are complete and finite; what else stands there is left
    out."""
    names = ("x_nm", "y_nm", "z_nm", "charge")
    found = status.get("singularities")
    points = []
    for point in found if isinstance(found, list) else []:
        values = [point.get(name) for name in names] if isinstance(point, dict) else []
        known = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
        if len(known) == len(names):
            points.append(dict(zip(names, known, strict=True)))
    return points


def angle_words(phi_deg: object, theta_deg: object) -> str:
    """Azimuth and tilt, or a dash where they are not known."""
    if not isinstance(phi_deg, int | float) or not isinstance(theta_deg, int | float):
        return "–"
    return f"φ {plain(phi_deg)}°, θ {plain(theta_deg)}°"


def _of(status: Mapping[str, Any], done: str, planned: str) -> str:
    return f"{status.get(done, '–')} of {status.get(planned, '–')}"


def _unit(value: object, unit: str) -> str:
    return f"{value:.3g} {unit}".strip() if isinstance(value, int | float) else "–"


def _duration(seconds: float) -> str:
    """A time in the largest units that say enough.

    >>> _duration(12.3), _duration(200), _duration(7600), _duration(math.inf)
    ('12 s', '3 min', '2 h 6 min', 'an unknown time')
    """
    if not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"

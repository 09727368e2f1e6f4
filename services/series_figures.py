"""The figures of how a series went, view by view and volume by volume, from the status of its live reconstruction.

As those of `figures`: matplotlib figures from values, nothing read and nothing written. What a status does not say is
left out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mistral_txm.services.drawing import line_colours, new_figure, open_frame, plain

_MARKS = ("o", "s", "^", "D", "v")
Entry = Mapping[str, Any]


def views_figure(views: Sequence[Entry]) -> Figure:
    """How good each view is, against its tilt: four panels, a mark and a colour for each azimuth.

    Args:
        views: the entries ``views`` of a status.
    """
    figure = new_figure(9.0, 5.4, "constrained")
    panels: Sequence[tuple[str, str, Callable[[Entry], Any]]] = (
        ("away from where it should lie", "drift (pixels)", _drift_pixels),
        ("sharpness", "sharpness (1)", _value("sharpness")),
        (
            "structure of the dichroic signal",
            "signal to noise (1)",
            _value("contrast"),
        ),
        ("noise of the dichroic signal", "std (absorbance)", _value("noise")),
    )
    azimuths = sorted({_nearest(one["phi_deg"]) for one in views})
    for axes, (title, label, value_of) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        for phi_deg, colour, mark in zip(
            azimuths, line_colours(len(azimuths)), _MARKS * len(azimuths), strict=False
        ):
            theta_deg, values = _points(
                [one for one in views if _nearest(one["phi_deg"]) == phi_deg], "theta_deg", value_of
            )
            name = f"azimuth {plain(phi_deg)}°"
            axes.plot(
                theta_deg, values, mark, markersize=3.5, color=colour, label=name, linestyle="none"
            )
        _finish(axes, title, "tilt θ (deg)", label)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def history_figure(history: Sequence[Entry]) -> Figure:
    """Residual, change and resolution of the volumes against the number of angles in them.

    Args:
        history: the entries ``history`` of a status.
    """
    panels = [
        ("what the volume leaves of the views", "rms residual (absorbance)", "residual"),
        ("change with the newest angles", "rms change / rms m", "change"),
        ("resolution", "resolution (nm)", "resolution_nm"),
    ]
    known = [
        (title, label, *_points(history, "angles", _value(name))) for title, label, name in panels
    ]
    known = [panel for panel in known if len(panel[2])]
    figure = new_figure(3.3 * max(len(known), 1), 2.8, "constrained")
    for axes, (title, label, angles, values) in zip(
        figure.subplots(1, max(len(known), 1), squeeze=False).flat, known, strict=False
    ):
        axes.plot(angles, values, marker="o", markersize=3, linewidth=1.0, color=line_colours(1)[0])
        _finish(axes, title, "angles in the volume", label)
    return figure


def _points(
    entries: Sequence[Entry], name: str, value_of: Callable[[Entry], Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return those points whose value is known, in the order of their place."""
    pairs = [(one.get(name), value_of(one)) for one in entries]
    known = sorted((x, y) for x, y in pairs if x is not None and y is not None)
    return np.array([x for x, _ in known], float), np.array([y for _, y in known], float)


def _value(name: str) -> Callable[[Entry], Any]:
    return lambda one: one.get(name)


def _drift_pixels(view: Entry) -> float | None:
    drift = view.get("drift_vu_pixels")
    return None if drift is None or None in drift else float(np.hypot(*drift))


def _nearest(phi_deg: float) -> float:
    return round(float(phi_deg), 1)


def _finish(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), high)
    open_frame(axes)

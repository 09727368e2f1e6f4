"""The curves of the monitor's page: flux, drifts, sharpness, contrast, convergence, resolution."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from bokeh.models import ColumnDataSource, DatetimeTickFormatter
from bokeh.plotting import figure

from mistral_txm.services.drawing import LINE_COLOURS
from mistral_txm.services.monitor_curves import (
    FluxPoint,
    exposure_columns,
    history_columns,
    view_columns,
)
from mistral_txm.services.monitor_images import SMALL, TITLE_SIZE

_TITLES = {
    "flux plot": "flux (counts less dark, per mA s)",
    "exposures plot": "drift of each exposure (pixels)",
    "drift plot": "drift of each angle (pixels)",
    "sharpness plot": "sharpness (1: the median)",
    "contrast plot": "dichroic contrast (over its noise)",
    "convergence plot": "residual, and change of the volume",
    "resolution plot": "resolution of the volume (nm)",
}
_BLUE, _ORANGE, _GREEN = LINE_COLOURS[:3]


class Plots:
    """The plots, and the sources of their data."""

    def __init__(self) -> None:
        self.flux = ColumnDataSource(_flux_columns(()), name="flux")
        self.exposures = ColumnDataSource(_exposures({}), name="exposures")
        self.views = ColumnDataSource(_with_fill(view_columns({})), name="views")
        self.history = ColumnDataSource(history_columns({}), name="history")
        flux = _plot("flux plot", "time", time_axis=True)
        for name, colour, marker in (
            ("sample +", _BLUE, "circle"),
            ("sample −", _ORANGE, "square"),
            ("open +", _BLUE, "triangle"),
            ("open −", _ORANGE, "inverted_triangle"),
        ):
            column = _COLUMNS[name]
            flux.scatter(
                "time", column, source=self.flux, marker=marker, size=5, color=colour,
                fill_alpha=0 if name.startswith("open") else 1, legend_label=name,
            )  # fmt: skip
        exposures = _plot(
            "exposures plot", "time; to the one before of the same angle and helicity", True
        )
        for label, column, colour, marker in (
            ("v, +", "v_plus", _BLUE, "circle"),
            ("v, −", "v_minus", _BLUE, "circle"),
            ("u, +", "u_plus", _ORANGE, "square"),
            ("u, −", "u_minus", _ORANGE, "square"),
        ):
            exposures.scatter(
                "time", column, source=self.exposures, marker=marker, size=6, line_color=colour,
                fill_color="white" if column.endswith("minus") else colour, legend_label=label,
            )  # fmt: skip
        drift = self._of_views("drift plot", {
            "v": ("drift_v_pixels", _BLUE, "circle"), "u": ("drift_u_pixels", _ORANGE, "square"),
        })  # fmt: skip
        sharpness = self._of_views("sharpness plot", {"": ("sharpness", _GREEN, "circle")})
        contrast = self._of_views(
            "contrast plot",
            {"": ("contrast", _GREEN, "circle")},
        )
        convergence = _plot("convergence plot", "angles", y_axis_type="log")
        for name, column, colour, marker in (
            ("residual", "residual", _BLUE, "circle"), ("change", "change", _ORANGE, "square"),
        ):  # fmt: skip
            convergence.line("angles", column, source=self.history, color=colour, legend_label=name)
            convergence.scatter(
                "angles", column, source=self.history, color=colour, marker=marker, size=5,
                legend_label=name,
            )  # fmt: skip
        resolution = _plot("resolution plot", "angles")
        resolution.line("angles", "resolution_nm", source=self.history, color=_GREEN)
        resolution.scatter("angles", "resolution_nm", source=self.history, color=_GREEN, size=5)
        self.figures = [flux, exposures, drift, sharpness, contrast, convergence, resolution]
        for plot in (flux, exposures, drift, convergence):
            plot.legend.orientation = "horizontal"
            plot.legend.label_text_font_size = SMALL
            plot.legend.padding, plot.legend.margin, plot.legend.spacing = 1, 1, 6
            plot.legend.border_line_color = None
            plot.add_layout(plot.legend[0], "above")

        self._say_what_is_known()

    def show_flux(self, points: Sequence[FluxPoint]) -> None:
        """Show the flux against the time of day."""
        self.flux.data = _flux_columns(points)
        self._say_what_is_known()

    def show_status(self, status: Mapping[str, Any]) -> None:
        """Show what a status tells of its exposures, views and volumes."""
        for source, columns in (
            (self.exposures, _exposures(status)),
            (self.views, _with_fill(view_columns(status))),
            (self.history, history_columns(status)),
        ):
            # nan is not nan: as text, that an unchanged status is not sent again.
            if repr(dict(source.data)) != repr(columns):
                source.data = columns
        self._say_what_is_known()

    def _say_what_is_known(self) -> None:
        """Say so above a plot that has nothing to show."""
        for plot in self.figures:
            values = [
                value
                for line in plot.renderers
                for value in line.data_source.data[line.glyph.y]
                if not math.isnan(value)
            ]
            title = _TITLES[plot.name] + ("" if values else ": not known yet")
            if plot.title.text != title:
                plot.title.text = title

    def _of_views(self, name: str, curves: Mapping[str, tuple[str, str, str]]) -> Any:
        plot = _plot(name, "θ (deg); hollow: earlier azimuth")
        for label, (column, colour, marker) in curves.items():
            plot.scatter(
                "theta_deg", column, source=self.views, marker=marker, size=5,
                line_color=colour, fill_color=colour, fill_alpha="fill",
                **({"legend_label": label} if label else {}),
            )  # fmt: skip
        return plot


def _plot(
    name: str, x_label: str, time_axis: bool = False, y_axis_type: Literal["auto", "log"] = "auto"
) -> Any:
    plot = figure(
        name=name,
        title=_TITLES[name],
        height=190,
        sizing_mode="stretch_width",
        tools="pan,wheel_zoom,reset,hover",
        active_scroll=None,
        active_drag=None,
        x_axis_label=x_label,
        x_axis_type="datetime" if time_axis else "auto",
        y_axis_type=y_axis_type,
        min_border=2,
        min_border_left=40,
    )
    plot.toolbar.autohide = True
    plot.title.text_font_size = TITLE_SIZE
    plot.axis.axis_label_text_font_size = plot.axis.major_label_text_font_size = SMALL
    plot.axis.axis_label_standoff = 1
    plot.yaxis.ticker.desired_num_ticks = 4
    plot.y_range.range_padding = 0.2  # else the marks at the border are cut
    plot.hover.tooltips = [("x", "$x{0.0}"), ("y", "$y")]
    if time_axis:
        plot.hover.tooltips = [("y", "$y")]
        plot.xaxis.formatter = DatetimeTickFormatter(
            seconds="%H:%M:%S", minsec="%H:%M:%S", minutes="%H:%M", hourmin="%H:%M", hours="%H:%M"
        )
        plot.xaxis.ticker.desired_num_ticks = 3
    return plot


_COLUMNS = {
    "sample +": "primary_plus",
    "sample −": "primary_minus",
    "open +": "flat_plus",
    "open −": "flat_minus",
}


def _flux_columns(points: Sequence[FluxPoint]) -> dict[str, list[float]]:
    """The time of day, ms, and a column for each stream and helicity that is nan in the rows of the others."""
    columns: dict[str, list[float]] = {"time": [_day_ms(point.time) for point in points]}
    for column in _COLUMNS.values():
        stream, side = column.split("_")
        columns[column] = [
            point.flux
            if point.stream == stream and point.helicity == (1 if side == "plus" else -1)
            else math.nan
            for point in points
        ]
    return columns


def _exposures(status: Mapping[str, Any]) -> dict[str, list[float]]:
    columns = exposure_columns(status)
    return columns | {"time": [_day_ms(time_s) for time_s in columns["time"]]}


def _day_ms(time_s: float) -> float:
    """A time as Bokeh takes it, which shows the clock of Greenwich: so much more that it is the clock on the wall."""
    offset = datetime.fromtimestamp(time_s).astimezone().utcoffset()
    return 1000 * (time_s + (offset.total_seconds() if offset is not None else 0.0))


def _with_fill(columns: dict[str, list[float]]) -> dict[str, list[float]]:
    """Fill the marks of the azimuth that was measured last, and leave those of the others hollow."""
    last = columns["phi_deg"][-1] if columns["phi_deg"] else math.nan
    return columns | {"fill": [1.0 if phi == last else 0.0 for phi in columns["phi_deg"]]}

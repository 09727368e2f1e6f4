"""The monitor: a read-only web page that shows a measurement while it runs.

``python -m mistral_txm.services.monitor --data DIR`` serves it on loopback and prints one line of
JSON with its address. The page is made with Bokeh; a browser needs nothing from outside. All
clients share one `LiveView`, which looks at the files; a client costs only the sending of what
changed.
"""

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.models import (
    ColorBar,
    ColumnDataSource,
    CustomJSTickFormatter,
    Div,
    LinearColorMapper,
    Range1d,
    Slider,
)
from bokeh.plotting import figure
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.util import bind_sockets
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop

from mistral_txm.services.drawing import SIGNED_MAP, direction_rgb
from mistral_txm.services.figures import COMPONENTS
from mistral_txm.services.lifeline import watch_parent
from mistral_txm.services.live_view import LiveView, Snapshot
from mistral_txm.services.monitor_words import angle_words, complete_points, head_html, side_html

REFRESH_MS = 500
LARGEST_IMAGE = 512
"""Images are averaged down to at most this many pixels a side before they are sent."""

_IMAGE_PIXELS = 218
_ASSUMED_PIXEL_NM = 10.5
"""Pixel of the images before a volume has told the true one."""

_HEAD_STYLE = """
:host { width: 100%; }
.bk-clearfix { width: 100%; }
.head { font: 14px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1c2024; }
.line { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline; }
h1 { font-size: 1.15rem; margin: 0; }
.badge { border-radius: 4px; padding: .05rem .5rem; font-weight: 600; color: #fff;
         background: #5c6670; }
.good { background: #00795a; } .busy { background: #0072b2; } .bad { background: #b3261e; }
.bar { height: .7rem; background: #e3e7eb; border-radius: .35rem; margin: .35rem 0 .1rem;
       overflow: hidden; }
.bar div { height: 100%; background: #0072b2; }
.quiet { color: #5c6670; }
.problem { color: #b3261e; overflow-wrap: anywhere; }
"""
_SIDE_STYLE = """
:host { width: 13rem; font: 13px/1.4 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
table { border-collapse: collapse; font: inherit; color: #1c2024; width: 100%;
        margin-bottom: .6rem; }
caption { text-align: left; font-weight: 600; padding: .2rem 0; }
th { text-align: left; font-weight: 400; color: #5c6670; padding: .12rem .5rem .12rem 0; }
td { text-align: right; font-variant-numeric: tabular-nums; padding: .12rem 0; }
p { color: #5c6670; margin: 0; }
tr { border-bottom: 1px solid #e3e7eb; }
"""


class _Panel:
    """One image with its axes, in um from the centre, and its colour bar."""

    def __init__(
        self, name: str, title: str, axes: tuple[str, str], palette: str | None, unit: str = ""
    ) -> None:
        self.source = ColumnDataSource(
            {"image": [], "x": [], "y": [], "dw": [], "dh": []}, name=f"{name} image"
        )
        self.figure = figure(
            name=name,
            title=title,
            frame_width=_IMAGE_PIXELS,
            frame_height=_IMAGE_PIXELS,
            x_range=Range1d(-1, 1),
            y_range=Range1d(-1, 1),
            tools="pan,wheel_zoom,reset",
            active_scroll=None,
            min_border_left=48,
            x_axis_label=f"{axes[0]} (µm)",
            y_axis_label=f"{axes[1]} (µm)",
        )
        self.figure.toolbar.autohide = True
        self.figure.title.text_font_size = "13px"
        self.figure.grid.visible = False
        self.figure.background_fill_color = "#f5f7f9"
        place = {
            "image": "image",
            "x": "x",
            "y": "y",
            "dw": "dw",
            "dh": "dh",
            "source": self.source,
        }
        self._mapper: LinearColorMapper | None = None
        if palette is None:
            self.figure.image_rgba(**place)
        else:
            colours = mpl.colormaps[palette](np.linspace(0, 1, 256))
            self._mapper = LinearColorMapper([to_hex(colour) for colour in colours], low=0, high=1)
            self.figure.image(color_mapper=self._mapper, **place)
            self._numbers = CustomJSTickFormatter(
                args={"factor": 1}, code="return String(Number((tick * factor).toPrecision(3)))"
            )
            self._bar = ColorBar(
                color_mapper=self._mapper,
                width=10,
                padding=4,
                title_text_font_size="11px",
                formatter=self._numbers,
            )
            self.figure.add_layout(self._bar, "right")
            self.label(unit)

    def label(self, unit: str, factor: float = 1) -> None:
        """Name the unit at the colour bar, in which numbers are so many times larger: there is room for four digits."""
        self._bar.title = unit
        self._numbers.args = {"factor": factor}

    def show(
        self, image: NDArray[Any], pixel_nm: float, limits: tuple[float, float] | None
    ) -> None:
        """Show an image, rows upwards; ``limits`` of the colours, if it has any."""
        height_um, width_um = (n * pixel_nm / 1000 for n in image.shape[:2])
        if limits is not None and self._mapper is not None:
            low, high = limits
            self._mapper.update(low=low, high=high if high > low else low + 1)
        ranges = (self.figure.x_range, width_um / 2), (self.figure.y_range, height_um / 2)
        for shown, half_um in ranges:
            if shown.reset_end != half_um:
                shown.update(start=-half_um, end=half_um, reset_start=-half_um, reset_end=half_um)
        self.source.data = {
            "image": [image],
            "x": [-width_um / 2],
            "y": [-height_um / 2],
            "dw": [width_um],
            "dh": [height_um],
        }


class _Page:
    """The page of one client: shows what differs between the newest snapshot and the last one
    shown."""

    def __init__(self, view: LiveView) -> None:
        self._view = view
        self._shown = Snapshot()
        self._pixel_nm = _ASSUMED_PIXEL_NM
        self._slice_chosen = False
        self.head = Div(name="head", stylesheets=[_HEAD_STYLE], margin=0)
        self.side = Div(name="side", stylesheets=[_SIDE_STYLE])
        self.frame = _Panel("frame", "newest frame", ("u", "v"), "gray")
        self.frame.label("1000 counts", 1e-3)
        self.dichroic = _Panel("dichroic", "dichroic signal", ("u", "v"), SIGNED_MAP, "absorbance")
        self.direction = _Panel("direction", "in-plane direction", ("x", "y"), None)
        self.components = [_Panel(name, name, ("x", "y"), SIGNED_MAP) for name in COMPONENTS]
        self.height = Slider(
            name="height",
            title="slice at z (nm)",
            start=-1,
            end=1,
            step=1,
            value=0,
            disabled=True,
            sizing_mode="stretch_width",
            max_width=4 * _IMAGE_PIXELS,
        )
        self.height.on_change("value_throttled", self._choose_slice)
        self.marks = ColumnDataSource({"x": [], "y": [], "charge": []}, name="singularities")
        for panel in (*self.components, self.direction):
            panel.figure.scatter(
                "x",
                "y",
                source=self.marks,
                size=12,
                fill_color=None,
                line_color="black",
                line_width=2,
            )

    def add_to(self, document: Document) -> None:
        """Put the page into a document and keep it up to date."""
        document.title = "MISTRAL measurement"
        panels = [self.frame, self.dichroic, self.direction, *self.components]
        for root in (self.head, self.height, self.side, *(panel.figure for panel in panels)):
            document.add_root(root)
        document.template = _TEMPLATE
        self.refresh()
        document.add_periodic_callback(self.refresh, REFRESH_MS)

    def refresh(self) -> None:
        """Show what changed; the texts also tell how old everything is."""
        snapshot, shown = self._view.snapshot, self._shown
        self._shown = snapshot
        now_s = time.time()
        self.head.text = head_html(snapshot, now_s)
        self.side.text = side_html(snapshot, now_s)
        if snapshot.volume is not shown.volume and snapshot.volume is not None:
            self._pixel_nm = snapshot.volume.voxel_nm
            self._fit_slider(snapshot)
            self._show_slice(snapshot)
        elif snapshot.status is not shown.status:
            self._show_marks(snapshot)
        if snapshot.frame_vu is not shown.frame_vu and snapshot.frame_vu is not None:
            image, pixel_nm = _smaller(snapshot.frame_vu, self._pixel_nm)
            low, high = np.percentile(image, (0.5, 99.5))
            self.frame.show(image, pixel_nm, (float(low), float(high)))
            if snapshot.progress is not None and snapshot.progress.newest is not None:
                key = snapshot.progress.newest.key
                self.frame.figure.title.text = (
                    f"newest frame: {angle_words(key.phi_deg, key.theta_deg)}"
                )
        if snapshot.pair is not shown.pair and snapshot.pair is not None:
            pair = snapshot.pair
            image, pixel_nm = _smaller(pair.dichroic_vu, self._pixel_nm)
            limit = _limit(image)
            self.dichroic.show(image, pixel_nm, (-limit, limit))
            self.dichroic.figure.title.text = (
                f"dichroic signal: {angle_words(pair.phi_deg, pair.theta_deg)}"
            )

    def _fit_slider(self, snapshot: Snapshot) -> None:
        volume = snapshot.volume
        if volume is None:
            return
        z_nm = volume.centres_nm("z")
        value = self.height.value
        if not self._slice_chosen:
            points = complete_points(snapshot.status)
            value = points[0]["z_nm"] if points else volume.strongest_height_nm
        self.height.update(
            start=float(z_nm[0]),
            end=float(z_nm[-1]) if z_nm.size > 1 else float(z_nm[0]) + volume.voxel_nm,
            step=volume.voxel_nm,
            value=float(np.clip(value, z_nm[0], z_nm[-1])),
            disabled=z_nm.size < 2,
        )

    def _choose_slice(self, attr: str, old: float, new: float) -> None:
        self._slice_chosen = True
        self._show_slice(self._shown)

    def _show_slice(self, snapshot: Snapshot) -> None:
        volume = snapshot.volume
        if volume is None:
            return
        m_cyx = volume.m_czyx[:, volume.index_of(self.height.value, "z")]
        smaller = [_smaller(component_yx, volume.voxel_nm) for component_yx in m_cyx]
        for panel, (image, pixel_nm) in zip(self.components, smaller, strict=True):
            panel.label(*(("1/µm", 1e3) if volume.unit == "1/nm" else ("", 1)))
            panel.show(image, pixel_nm, (-volume.limit, volume.limit))
        (mx_yx, pixel_nm), (my_yx, _), _ = smaller
        rgb = direction_rgb(mx_yx, my_yx, 0.1 * volume.limit)
        self.direction.show(_rgba(rgb), pixel_nm, None)
        self._show_marks(snapshot)

    def _show_marks(self, snapshot: Snapshot) -> None:
        near = [
            point
            for point in complete_points(snapshot.status)
            if abs(point["z_nm"] - self.height.value) <= 40
        ]
        self.marks.data = {
            "x": [point["x_nm"] / 1000 for point in near],
            "y": [point["y_nm"] / 1000 for point in near],
            "charge": [point["charge"] for point in near],
        }


def _smaller(image: NDArray[Any], pixel_nm: float) -> tuple[NDArray[np.float32], float]:
    """Average an image down to at most `LARGEST_IMAGE` pixels a side; a rest at the border is cut
    off."""
    step = -(-max(image.shape) // LARGEST_IMAGE)
    rows, columns = (n // step for n in image.shape)
    blocks = image[: rows * step, : columns * step].reshape(rows, step, columns, step)
    return blocks.mean(axis=(1, 3), dtype=np.float32), pixel_nm * step


def _limit(image: NDArray[Any]) -> float:
    return float(np.nanpercentile(np.abs(image), 99.5)) or 1.0


def _rgba(rgb: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Pack colours ``[y, x, RGB]`` of 0 to 1 as Bokeh takes them."""
    packed = np.full((*rgb.shape[:2], 4), 255, dtype=np.uint8)
    packed[..., :3] = np.rint(255 * rgb)
    return packed.view(np.uint32)[..., 0]


_TEMPLATE = """
{% block preamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
  .whole { padding: .4rem .8rem; }
  .page { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: flex-start; }
  .images { flex: 1 1 20rem; display: grid; gap: 0;
            grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); }
  .images > :last-child { grid-column: 1 / -1; overflow: hidden; padding: 0 1rem 0 3rem; }
</style>
{% endblock %}
{% block contents %}
<div class="whole">
{{ embed(roots.head) }}
<div class="page">
  <div class="images">
    {{ embed(roots.frame) }}{{ embed(roots.dichroic) }}{{ embed(roots.direction) }}
    {{ embed(roots.mx) }}{{ embed(roots.my) }}{{ embed(roots.mz) }}
    <div>{{ embed(roots.height) }}</div>
  </div>
  <div>{{ embed(roots.side) }}</div>
</div>
</div>
{% endblock %}
"""


async def serve(data: Path, port: int) -> None:
    """Serve the page on loopback until SIGTERM or SIGINT; print the ready line when it can be
    opened.

    Raises:
        OSError: the port is taken.
    """
    sockets, bound_port = bind_sockets("127.0.0.1", port)
    with LiveView(data) as view:
        application = Application(FunctionHandler(lambda document: _Page(view).add_to(document)))
        server = BaseServer(
            IOLoop.current(),
            tornado := BokehTornado(
                {"/": application},
                extra_websocket_origins=[
                    f"{host}:{bound_port}" for host in ("127.0.0.1", "localhost")
                ],
            ),
            http := HTTPServer(tornado),
        )
        http.add_sockets(sockets)
        server.start()
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        print(json.dumps({"ready": True, "uri": f"http://127.0.0.1:{bound_port}/"}), flush=True)
        await ended.wait()
        server.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the monitor as a process of its own."""
    parser = argparse.ArgumentParser(
        prog="python -m mistral_txm.services.monitor",
        description="Serve the web page of a measurement on loopback, until it is terminated.",
    )
    parser.add_argument("--data", type=Path, required=True, help="the beamline's data folder")
    parser.add_argument("--port", type=int, default=0, help="TCP port; without it a free one")
    parser.add_argument("--lifeline", action="store_true", help="stop when the standard input ends")
    options = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    if options.lifeline:
        watch_parent()
    try:
        asyncio.run(serve(options.data, options.port))
    except OSError as cause:
        print(f"monitor: port {options.port}: {cause.strerror}; take another one", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

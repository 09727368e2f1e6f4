"""The page of one client, made of Bokeh's models: shows what differs between two snapshots."""

import time
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.events import ConnectionLost, DocumentReady
from bokeh.models import ColumnDataSource, CustomJS, Div
from matplotlib.image import imsave
from numpy.typing import NDArray

from mistral_txm.services.drawing import SIGNED_MAP, direction_rgb
from mistral_txm.services.live_view import LiveView, Snapshot
from mistral_txm.services.monitor_images import ImagePanel, smaller, symmetric_limit
from mistral_txm.services.monitor_plots import Plots
from mistral_txm.services.monitor_scene import scene
from mistral_txm.services.monitor_slices import Slices
from mistral_txm.services.monitor_words import (
    angle_words,
    complete_points,
    frame_words,
    head_html,
    log_html,
    returns_html,
    side_html,
)

REFRESH_MS = 500
PLOTLY_ADDRESS = "/plotly/plotly.min.js"

_IMAGE_PIXELS = 216
_CUT_PIXELS = 46
_ASSUMED_PIXEL_NM = 10.5
"""Pixel of the images before a volume has told the true one."""

_FONT = 'system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif'
_HEAD_STYLE = f"""
:host {{ width: 100%; }}
.bk-clearfix {{ width: 100%; }}
.head {{ font: 13px/1.4 {_FONT}; color: #1c2024; overflow-wrap: anywhere; }}
.line {{ display: flex; flex-wrap: wrap; gap: .15rem .6rem; align-items: baseline; }}
h1 {{ font-size: 1.1rem; margin: 0; }}
.badge {{ border-radius: 4px; padding: .05rem .5rem; font-weight: 600; color: #fff; background: #5c6670; }}
.good {{ background: #00795a; }} .busy {{ background: #0072b2; }} .bad {{ background: #b3261e; }}
.chips {{ display: flex; flex-wrap: wrap; gap: .15rem .3rem; }}
.chip {{ border: 1px solid #c9d0d6; border-radius: 4px; padding: 0 .35rem; font-size: 12px; background: none; }}
.chip.good {{ color: #00614a; }} .chip.off {{ color: #5c6670; }}
.chip.bad {{ color: #fff; background: #b3261e; }}
.clock {{ margin-left: auto; font-variant-numeric: tabular-nums; }}
.bar {{ height: .6rem; background: #e3e7eb; border-radius: .3rem; margin: .25rem 0 .1rem; overflow: hidden; }}
.bar div {{ height: 100%; background: #0072b2; }}
.quiet {{ color: #5c6670; }}
.flag {{ background: #fff1d6; border-left: 4px solid #d55e00; padding: .05rem .4rem; font-weight: 600; }}
.problem {{ color: #b3261e; }}
"""
_TEXT_STYLE = f"""
:host {{ width: 100%; font: 12px/1.35 {_FONT}; }}
.bk-clearfix {{ width: 100%; }}
table {{ border-collapse: collapse; font: inherit; color: #1c2024; width: 100%; margin-bottom: .4rem; }}
caption {{ text-align: left; font-weight: 600; padding: .1rem 0; }}
th {{ text-align: left; font-weight: 400; color: #5c6670; padding: .08rem .5rem .08rem 0; white-space: nowrap;
      vertical-align: top; }}
td {{ text-align: right; font-variant-numeric: tabular-nums; padding: .08rem 0; }}
p {{ color: #1c2024; margin: 0 0 .4rem; }}
tr {{ border-bottom: 1px solid #e3e7eb; }}
.health td, .log td {{ text-align: left; overflow-wrap: anywhere; padding-right: .5rem; width: 100%; }}
.log td:nth-child(2) {{ width: auto; white-space: nowrap; }}
.logs {{ display: grid; gap: 0 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }}
.log {{ max-height: 20rem; overflow-y: auto; }}
"""


class Shared:
    """What all pages show alike: made once of what has changed, by the first page that asks."""

    def __init__(self, view: LiveView) -> None:
        self._view = view
        self._made: dict[str, tuple[tuple[object, ...], Any]] = {}

    @property
    def snapshot(self) -> Snapshot:
        """The newest one."""
        return self._view.snapshot

    def made(self, name: str, of: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """Return what was made of these objects before, else make it."""
        known = self._made.get(name)
        if known is None or any(a is not b for a, b in zip(known[0], of, strict=True)):
            known = self._made[name] = (of, make())
        return known[1]


class Page:
    """The page of one client: shows what differs between the newest snapshot and the last one shown."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._shown = Snapshot()
        self._pixel_nm = _ASSUMED_PIXEL_NM
        self.head = Div(name="head", stylesheets=[_HEAD_STYLE], margin=0)
        self.side = Div(name="side", stylesheets=[_TEXT_STYLE], margin=0)
        self.returns = Div(name="returns", stylesheets=[_TEXT_STYLE], margin=0)
        self.log = Div(name="log", stylesheets=[_TEXT_STYLE], margin=0)
        size = _IMAGE_PIXELS
        self.frame = ImagePanel(
            "frame", "newest frame\n ", ("u", "v"), "gray", height=size, width=size
        )
        self.frame.label("1000 counts", 1e-3)
        self.dichroic = ImagePanel(
            "dichroic",
            "dichroic signal\n ",
            ("u", "v"),
            SIGNED_MAP,
            "absorbance",
            height=size,
            width=size,
        )
        self.slices = Slices(_IMAGE_PIXELS, _CUT_PIXELS)
        self.plots = Plots()
        self.scene = ColumnDataSource({"figure": []}, name="scene")

    def add_to(self, document: Document) -> None:
        """Put the page into a document and keep it up to date."""
        document.title = "MISTRAL measurement"
        roots = [
            self.head,
            self.side,
            self.returns,
            self.log,
            self.frame.figure,
            self.dichroic.figure,
        ]
        roots += [panel.figure for panel in self.slices.panels.values()]
        roots += [self.slices.component, *self.slices.sliders.values(), *self.plots.figures]
        with document.models.freeze():  # else Bokeh counts all models again with each
            for root in roots:
                document.add_root(root)
        document.template = _template()
        document.template_variables.update(
            plotly_address=PLOTLY_ADDRESS, curves=[plot.name for plot in self.plots.figures]
        )
        self._call_the_browser(document)
        self.refresh()
        document.add_periodic_callback(self.refresh, REFRESH_MS)

    def _call_the_browser(self, document: Document) -> None:
        """Tell the page's own script what it has to know."""
        draw = CustomJS(
            args={"source": self.scene},
            code="if (source.data.figure.length) monitor.draw(source.data.figure[0])",
        )
        self.scene.js_on_change("data", draw)
        self.head.tags = [self.scene]  # else no part of the document, and its changes are not sent
        document.js_on_event(DocumentReady, draw)
        document.js_on_event(ConnectionLost, CustomJS(code="monitor.lost()"))
        self.head.js_on_change("text", CustomJS(code="monitor.heard()"))
        # The page loads itself anew when the server is back: a session of the old one does not go on.
        document.config.update(reconnect_session=False, notify_connection_status=False)

    def refresh(self) -> None:
        """Show what changed; the texts also tell how old everything is."""
        snapshot, shown = self._shared.snapshot, self._shown
        self._shown = snapshot
        made = self._shared.made
        self.head.text = made("head", (snapshot,), lambda: head_html(snapshot, time.time()))
        self.side.text = made("side", (snapshot,), lambda: _side(snapshot))
        self.returns.text = made("returns", (snapshot,), lambda: returns_html(snapshot))
        self.log.text = made(
            "log",
            (snapshot.log, snapshot.health, snapshot.status),
            lambda: log_html(snapshot.log, snapshot.health, snapshot.status),
        )
        if snapshot.volume is not shown.volume or snapshot.status is not shown.status:
            self._show_volume(snapshot, another=snapshot.volume is not shown.volume)
        if snapshot.frame_vu is not shown.frame_vu:
            self._show_frame(snapshot)
        if snapshot.frame_vu is not None and snapshot.frame_of is not None:
            told = frame_words(snapshot.frame_of, snapshot.frame_vu.size, snapshot.status)
            if self.frame.figure.title.text != told:
                self.frame.figure.title.text = told
        if snapshot.pair is not shown.pair:
            self._show_pair(snapshot)
        if snapshot.flux is not shown.flux:
            self.plots.show_flux(snapshot.flux)
        if snapshot.status is not shown.status:
            self.plots.show_status(snapshot.status)

    def _show_volume(self, snapshot: Snapshot, *, another: bool) -> None:
        volume, points = snapshot.volume, complete_points(snapshot.status)
        if volume is None:
            return
        self._pixel_nm = volume.field.voxel_nm
        if another:
            self.slices.show(volume, points)
        else:
            self.slices.mark(points)
        figure = self._shared.made(
            "scene", (volume, snapshot.status), lambda: scene(volume, points)
        )
        if self.scene.data["figure"] != [figure]:
            self.scene.data = {"figure": [figure]}

    def _show_frame(self, snapshot: Snapshot) -> None:
        frame_vu = snapshot.frame_vu
        if frame_vu is None:
            return
        image, pixel_nm, limits = self._shared.made(
            "frame", (frame_vu,), lambda: _frame(frame_vu, self._pixel_nm)
        )
        self.frame.show(image, pixel_nm, limits)

    def _show_pair(self, snapshot: Snapshot) -> None:
        pair = snapshot.pair
        if pair is None:
            return
        image, pixel_nm = self._shared.made(
            "pair", (pair,), lambda: smaller(pair.dichroic_vu, self._pixel_nm)
        )
        limit = symmetric_limit(image)
        self.dichroic.show(image, pixel_nm, (-limit, limit))
        where = angle_words(pair.phi_deg, pair.theta_deg)
        self.dichroic.figure.title.text = f"dichroic signal, {where}\nof the last complete pair"


def _frame(
    frame_vu: NDArray[np.uint16], pixel_nm: float
) -> tuple[NDArray[np.float32], float, tuple[float, float]]:
    image, pixel_nm = smaller(frame_vu, pixel_nm)
    low, high = np.percentile(image, (0.5, 99.5))
    return image, pixel_nm, (float(low), float(high))


def _side(snapshot: Snapshot) -> str:
    wheel = f'<p>colours of direction<br><img alt="colour wheel" src="{_wheel_uri()}"></p>'
    return side_html(snapshot, time.time()) + wheel


@cache
def _wheel_uri() -> str:
    """The key to the colours of direction, as an image inside the page."""
    axis = np.linspace(-1, 1, 72)
    x, y = np.meshgrid(axis, -axis)
    ring = (np.hypot(x, y) <= 1) & (np.hypot(x, y) >= 0.4)
    picture = BytesIO()
    imsave(picture, np.dstack([direction_rgb(x, y, 0.0), ring]), format="png")
    return "data:image/png;base64," + b64encode(picture.getvalue()).decode("ascii")


@cache
def _template() -> str:
    return files("mistral_txm.services").joinpath("monitor.html").read_text()

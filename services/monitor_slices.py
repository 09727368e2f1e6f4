"""Cuts through the volume in three planes: the direction in colours, and one component with its sign."""

from typing import Any, Literal

import numpy as np
from bokeh.models import ColumnDataSource, RadioButtonGroup, Slider, Span
from numpy.typing import NDArray

from mistral_txm.services.drawing import SIGNED_MAP, direction_rgb
from mistral_txm.services.fields import Field
from mistral_txm.services.figures import COMPONENTS
from mistral_txm.services.live_volume import LiveVolume
from mistral_txm.services.monitor_images import ImagePanel, rgba, smaller

Axis = Literal["x", "y", "z"]
AXES: tuple[Axis, ...] = ("z", "y", "x")
PLANES: dict[str, tuple[Axis, Axis, Axis]] = {
    "xy": ("x", "y", "z"),
    "xz": ("x", "z", "y"),
    "yz": ("y", "z", "x"),
}
"""By name: the axis to the right, the one upwards, the one that is cut."""

_BAR_PIXELS = 85
"""Room for the bar of colours, also where there is none: so the two images of a plane stand one above the other."""

NEAR_NM = 40.0
"""Singularities so close to a plane are marked in it, nm."""


class Slices:
    """Three planes, each where its slider says, of the volume that was given last."""

    def __init__(self, size: int, thin: int) -> None:
        self._volume: LiveVolume | None = None
        self._points: list[dict[str, float]] = []
        self._chosen = False
        self.sliders: dict[Axis, Slider] = {axis: self._slider(axis) for axis in AXES}
        self.component = RadioButtonGroup(
            name="component", labels=list(COMPONENTS), active=2, max_width=180
        )
        self.component.on_change("active", self._choose_component)
        self._lines: dict[tuple[str, str], list[Span]] = {}
        self.panels: dict[tuple[str, str], ImagePanel] = {}
        self.marks: dict[str, ColumnDataSource] = {}
        for plane, (right, up, _) in PLANES.items():
            self.marks[plane] = ColumnDataSource(
                {"x": [], "y": [], "fill": [], "charge": []}, name=f"{plane} singularities"
            )
            for kind, palette in (("direction", None), ("component", SIGNED_MAP)):
                name = f"{plane} {kind}"
                height, width = (size, size) if plane == "xy" else (thin, None)
                panel = ImagePanel(name, name, (right, up), palette, height=height, width=width)
                if plane != "xy":
                    panel.figure.title.visible = False
                    panel.figure.min_border_right = _BAR_PIXELS
                    panel.figure.xaxis.visible = kind == "component"
                self._mark(panel, plane)
                self.panels[plane, kind] = panel

    def show(self, volume: LiveVolume, points: list[dict[str, float]]) -> None:
        """Show another volume, where the sliders are; these go to the first singularity until somebody moves one."""
        self._volume, self._points = volume, points
        field = volume.field
        first = points[0] if points else {"z_nm": field.strongest_height_nm}
        for axis, slider in self.sliders.items():
            centres_nm = field.centres_nm(axis)
            value = slider.value if self._chosen else first.get(f"{axis}_nm", 0.0)
            low, high = float(centres_nm[0]), float(centres_nm[-1])
            slider.update(
                start=low,
                end=high if high > low else low + field.voxel_nm,
                step=field.voxel_nm,
                value=float(np.clip(value, low, high)),
                disabled=centres_nm.size < 2,
            )
        self._show()

    def mark(self, points: list[dict[str, float]]) -> None:
        """Mark other singularities in the same volume; a first one moves the sliders as with another volume."""
        if self._volume is not None and not self._chosen and points[:1] != self._points[:1]:
            self.show(self._volume, points)
            return
        self._points = points
        for plane, (right, up, cut) in PLANES.items():
            at_nm = self.sliders[cut].value
            near = [point for point in points if abs(point[f"{cut}_nm"] - at_nm) <= NEAR_NM]
            self.marks[plane].data = {
                "x": [point[f"{right}_nm"] / 1000 for point in near],
                "y": [point[f"{up}_nm"] / 1000 for point in near],
                "fill": ["white" if point["charge"] > 0 else "black" for point in near],
                "charge": [point["charge"] for point in near],
            }

    def _slider(self, axis: str) -> Slider:
        slider = Slider(
            name=f"{axis} slider",
            title=f"cut at {axis} (nm)",
            start=-1,
            end=1,
            step=1,
            value=0,
            disabled=True,
            format="0.0",
            sizing_mode="stretch_width",
            margin=(0, 8, 0, 8),
        )
        slider.on_change("value_throttled", self._choose)
        return slider

    def _mark(self, panel: ImagePanel, plane: str) -> None:
        right, up, _ = PLANES[plane]
        for axis, dimension in ((right, "height"), (up, "width")):
            span = Span(
                location=0,
                dimension=dimension,
                line_color="black",
                line_dash=[2, 4],
                line_alpha=0.6,
            )
            panel.figure.add_layout(span)
            self._lines.setdefault((plane, axis), []).append(span)
        for width, colour in ((4, "white"), (1.5, "black")):  # to be seen on dark and on light
            panel.figure.scatter(
                "x",
                "y",
                source=self.marks[plane],
                size=9,
                fill_color="fill",
                line_color=colour,
                line_width=width,
            )

    def _choose(self, attr: str, old: float, new: float) -> None:
        self._chosen = True
        self._show()

    def _choose_component(self, attr: str, old: int, new: int) -> None:
        self._show()

    def _show(self) -> None:
        if self._volume is None:
            return
        field = self._volume.field
        unit, factor = ("1/µm", 1e3) if field.unit == "1/nm" else ("", 1)
        component = int(self.component.active)
        for plane, (right, up, cut) in PLANES.items():
            at_nm = self.sliders[cut].value
            parts = [smaller(one, field.voxel_nm) for one in cut_through(field, cut, at_nm)]
            pixel_nm = parts[0][1]
            rgb = direction_rgb(parts[0][0], parts[1][0], 0.1 * field.limit)
            self.panels[plane, "direction"].show(rgba(rgb), pixel_nm, None)
            signed = self.panels[plane, "component"]
            signed.label(unit, factor)
            signed.show(parts[component][0], pixel_nm, (-field.limit, field.limit))
            for axis in (right, up):
                for span in self._lines[plane, axis]:
                    span.location = self.sliders[axis].value / 1000
        height = self.sliders["z"].value
        self.panels[
            "xy", "direction"
        ].figure.title.text = f"direction in the plane, z = {height:.0f} nm"
        self.panels[
            "xy", "component"
        ].figure.title.text = f"{COMPONENTS[component]}, z = {height:.0f} nm"
        self.mark(self._points)


def cut_through(field: Field, axis: Axis, at_nm: float) -> NDArray[np.float32]:
    """The three components in the plane that cuts an axis at a position, ``[component, up, right]``."""
    place: list[Any] = [slice(None)] * 4
    place["czyx".index(axis)] = field.index_of(at_nm, axis)
    cut: NDArray[np.float32] = field.m_czyx[tuple(place)]
    return cut

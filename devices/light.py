"""Whether light can come, and whether it was there during an exposure."""

import threading
from typing import Any

from ophyd import Component, Device
from ophyd.status import DeviceStatus

from mistral_txm.devices.configuration import LightSettings
from mistral_txm.devices.control_systems import CcdDevice
from mistral_txm.devices.motion import DerivedSignal

OPEN = 1
"""What the front end's status is while light may come."""


class Light(Device):  # type: ignore[misc]  # ophyd is untyped
    """Watches front end, ring current and top-up through an exposure.

    Set to ``watch``, it begins to watch. What monitors tell meanwhile counts, too: a beam that was lost
    and came back within the exposure is seen. `trouble` says why no light can come now, `verdict` what
    was wrong since it was set; both are empty where nothing is.

    While the camera holds a frame that nobody has collected, what was seen stays: a plan that is
    repeated from a checkpoint after a pause sets it again, but gets the frame from before the pause.
    """

    injection = Component(DerivedSignal, "was_injected", kind="normal")
    trouble = Component(DerivedSignal, "trouble_now", kind="omitted")
    verdict = Component(DerivedSignal, "trouble_since", kind="omitted")

    def __init__(
        self,
        *,
        name: str,
        settings: LightSettings,
        front_end: Any,
        ring_current: Any,
        top_up: Any,
        camera: CcdDevice,
    ) -> None:
        super().__init__(name=name)
        self.settings = settings
        self._camera = camera
        self._front_end, self._ring_current, self._top_up = front_end, ring_current, top_up
        self._lock = threading.Lock()
        self._why_lost = ""
        self._is_injected = False
        self._is_kept = False
        self._to_injection_s = 0.0
        front_end.subscribe(self._told)
        ring_current.subscribe(self._told)
        top_up.subscribe(self._told_of_top_up)

    def set(self, new_position: str, **_: Any) -> DeviceStatus:
        """Forget what was, and begin to watch.

        Raises
        ------
        ValueError
            If it is not ``watch``.
        """
        if new_position != "watch":
            raise ValueError(f"{self.name}: {new_position!r}: expected 'watch'")
        if not self._camera.has_frame:
            to_injection_s = float(self._top_up.get(use_monitor=True))
            with self._lock:
                self._why_lost, self._is_injected = "", False
                self._to_injection_s = to_injection_s
            self._look(use_monitor=True)
        self._is_kept = self._camera.has_frame
        status = DeviceStatus(self)
        status.set_finished()
        return status

    @property
    def trouble_now(self) -> str:
        """Why no light can come, in one line; empty where it can."""
        return self._trouble(use_monitor=True)

    @property
    def trouble_since(self) -> str:
        """What was wrong since it was set, in one line; empty where nothing was.

        The control system is asked once more: what happened in the last moment has no monitor yet.
        """
        if not self._is_kept:
            self._look(use_monitor=False)
            self._look_at_top_up(float(self._top_up.get(use_monitor=False)))
        with self._lock:
            if self._why_lost:
                return self._why_lost
        return "top_up: an injection fell into the exposure" if self.was_injected else ""

    @property
    def was_injected(self) -> int:
        """1 if an injection fell into the exposure: the time to the next one has grown.

        (0 and less mean that nobody knows: there is no top-up.)
        """
        return int(self._is_injected)

    def _trouble(self, *, use_monitor: bool) -> str:
        if (status := int(self._front_end.get(use_monitor=use_monitor))) != OPEN:
            return f"front_end: closed ({_where(self._front_end)} = {status}), expected open"
        lowest_ma = self.settings.lowest_current_mA
        if not (current_ma := float(self._ring_current.get(use_monitor=use_monitor))) >= lowest_ma:
            return (
                f"ring_current: {_where(self._ring_current)} = {current_ma:.1f} mA, expected at "
                f"least {lowest_ma:g} mA"
            )
        return ""

    def _told(self, **_: Any) -> None:
        if not self._camera.has_frame:
            self._look(use_monitor=True)

    def _told_of_top_up(self, value: float, **_: Any) -> None:
        if not self._camera.has_frame:
            self._look_at_top_up(value)

    def _look(self, *, use_monitor: bool) -> None:
        trouble = self._trouble(use_monitor=use_monitor)
        with self._lock:
            self._why_lost = self._why_lost or trouble

    def _look_at_top_up(self, to_injection_s: float) -> None:
        with self._lock:
            self._is_injected = self._is_injected or to_injection_s > self._to_injection_s > 0
            self._to_injection_s = to_injection_s


def _where(signal: Any) -> str:
    return str(getattr(signal, "pvname", signal.name))

"""The shutter before the sample."""

from typing import Any

from ophyd import Component, Device, EpicsSignal, EpicsSignalRO

from mistral_txm.devices.ccd import Ccd
from mistral_txm.devices.configuration import ShutterSettings
from mistral_txm.devices.motion import Motion, last_seen


class Shutter(Device):  # type: ignore[misc]  # ophyd is untyped
    """Set to ``open`` or ``closed``; a command counts when the status agrees.

    To stop it is to close it: a RunEngine stops what it has moved when it pauses and at the end of
    every plan, however it ends. An exposure that would be cut short is given up first, so that no
    frame exists that saw less light than its exposure time says.
    """

    command = Component(EpicsSignal, "Cmd", kind="omitted")
    status = Component(EpicsSignalRO, "Status", string=True, auto_monitor=True, kind="hinted")

    def __init__(self, prefix: str, *, name: str, settings: ShutterSettings, camera: Ccd) -> None:
        super().__init__(prefix, name=name)
        self.status.name = name
        self.settings = settings
        self.camera = camera
        self._motion: Motion | None = None

    @property
    def is_open(self) -> bool:
        """Whether the status says open."""
        return str(self.status.get()).lower() == "open"

    def set(self, new_position: str, **_: Any) -> Motion:
        """Open or close; the status fails if the shutter's own status does not follow.

        Raises
        ------
        ValueError
            If it is neither ``open`` nor ``closed``.
        """
        if new_position not in ("open", "closed"):
            raise ValueError(f"{self.name}: {new_position!r}: expected 'open' or 'closed'")
        wanted_open = new_position == "open"

        def steps(motion: Motion) -> None:
            is_commanded_open = self.command.get(use_monitor=False) == 1
            if wanted_open and is_commanded_open and self.is_open:
                return
            subscription = self.status.subscribe(motion.notify)
            try:
                if wanted_open and not is_commanded_open:
                    # What the status said before it was closed must not be taken for the opening.
                    self._wait_for(motion, wanted_open=False)
                with motion.uninterrupted():
                    self.command.put(int(wanted_open))
                self._wait_for(motion, wanted_open=wanted_open)
            finally:
                self.status.unsubscribe(subscription)

        self._motion = Motion(self, steps, after=self._motion)
        return self._motion.start()

    def _wait_for(self, motion: Motion, *, wanted_open: bool) -> None:
        if motion.wait_until(lambda: self.is_open == wanted_open, self.settings.timeout_s):
            return
        seen = last_seen(self.status)
        self.command.put(0)  # it must not open later, when nobody expects it
        raise TimeoutError(
            f"{self.name}: not {'open' if wanted_open else 'closed'} within "
            f"{self.settings.timeout_s:g} s; {seen}; check the shutter {self.prefix}"
        )

    def stop(self, *, success: bool = False) -> None:
        """Close, at once; whether it has closed is told by the status."""
        self.camera.give_up_exposure()
        if self._motion is not None:
            self._motion.interrupt(success=success)
        self.command.put(0)

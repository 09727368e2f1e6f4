"""What a measurement notes on its way: lines that the operator reads and every reader finds."""

import logging
from typing import Any

from ophyd import Component, Device, Signal
from ophyd.status import DeviceStatus

KINDS = {
    "note": logging.INFO,
    "flag": logging.WARNING,
    "repeat": logging.WARNING,
    "wait": logging.WARNING,
    "pause": logging.ERROR,
    "ask": logging.INFO,
    "go_on": logging.INFO,
}
"""What a line can be, and how loud: something to know, a doubt about the data, an exposure that is
taken again, a plan that waits by itself, one that waits for a person, one that asks a person at the prompt, one that
goes on."""

logger = logging.getLogger("mistral_txm.measurement")


class Log(Device):  # type: ignore[misc]  # ophyd is untyped
    """Set to (kind, text) by a plan, which makes an Event of it; the operator reads the text at once."""

    line_kind = Component(Signal, value="note", kind="normal")
    line_text = Component(Signal, value="", kind="normal")

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name)
        self.line_kind.name, self.line_text.name = f"{name}_kind", f"{name}_text"

    def set(self, line: tuple[str, str], **_: Any) -> DeviceStatus:
        """Take a line of one of the `KINDS`.

        Raises
        ------
        KeyError
            If there is no such kind.
        """
        kind, text = line
        level = KINDS[kind]
        self.line_kind.put(kind)
        self.line_text.put(text)
        logger.log(level, "%s", text)
        status = DeviceStatus(self)
        status.set_finished()
        return status

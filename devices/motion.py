"""Steps that a device performs beside the RunEngine's thread, and that a pause can interrupt."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from ophyd.signal import AttributeSignal, Signal
from ophyd.status import DeviceStatus, Status

if TYPE_CHECKING:  # the control systems are made of what stands here
    from mistral_txm.devices.control_systems import AxisDevice


class Interrupted(Exception):
    """Somebody stopped the device."""


class Motion(DeviceStatus):  # type: ignore[misc]  # ophyd is untyped
    """The status of a device that works through steps in a thread of its own.

    The steps take the motion, and use its waits, which end them when somebody interrupts: a
    RunEngine that pauses stops all devices and expects their statuses to finish quietly. Whatever
    the steps raise fails the status. The steps begin after `start`, when those of the motion before
    have ended: so the device knows its motion before anything moves, and can stop it.
    """

    def __init__(
        self, device: Any, steps: "Callable[[Motion], None]", after: "Motion | None" = None
    ) -> None:
        super().__init__(device)
        self._change = threading.Condition()
        self._is_interrupted = False
        self._failed_by_interrupt = True
        self._thread = threading.Thread(
            target=self._run, args=(steps, after), name=f"{device.name} motion", daemon=True
        )

    def start(self) -> Self:
        """Begin; returns itself."""
        self._thread.start()
        return self

    def interrupt(self, *, success: bool) -> None:
        """End the steps at their next wait; `success`: the status then counts as one."""
        with self._change:
            self._failed_by_interrupt = not success
            self._is_interrupted = True
            self._change.notify_all()

    @property
    def was_stopped_quietly(self) -> bool:
        """Whether somebody ended the steps, and it counted as a success."""
        return self._is_interrupted and not self._failed_by_interrupt

    def notify(self, **_: Any) -> None:
        """Let `wait_until` look again; takes what a signal tells its subscribers."""
        with self._change:
            self._change.notify_all()

    def check(self) -> None:
        """Raise `Interrupted` if somebody interrupted."""
        if self._is_interrupted:
            raise Interrupted(f"{self.device.name}: stopped before it was done")

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Begin something that a stop has to end: an interruption comes before it or after it.

        Raises
        ------
        Interrupted
            If it came before.
        """
        with self._change:
            self.check()
            yield

    def wait_until(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something is true that `notify` announces; False if it is not in time.

        Raises
        ------
        Interrupted
            If the motion was interrupted before.
        """
        with self._change:
            in_time = self._change.wait_for(
                lambda: self._is_interrupted or reached(), timeout=timeout_s
            )
        self.check()
        return bool(in_time)

    def rest(self, duration_s: float) -> None:
        """Do nothing for a while, unless interrupted."""
        self.wait_until(lambda: False, duration_s)

    def join(self) -> None:
        """Wait until the steps have ended; each of them ends by itself after some time."""
        self._thread.join()

    def _run(self, steps: "Callable[[Motion], None]", after: "Motion | None") -> None:
        if after is not None:
            after.join()
        try:
            steps(self)
        except Interrupted as interruption:
            if self._failed_by_interrupt:
                self.set_exception(interruption)
            else:
                self.set_finished()
        except Exception as failure:  # whatever it is, it belongs to the plan that waits
            self.set_exception(failure)
        else:
            self.set_finished()


def move_together(motion: Motion, targets: "Sequence[tuple[AxisDevice, float]]") -> bool:
    """Move those axes that are not at their targets, all at once, as a step of another device.

    Returns
    -------
    bool
        Whether anything had to move.

    Raises
    ------
    RuntimeError, TimeoutError
        If axes did not arrive, after all of them have ended: what they say.
    """
    with motion.uninterrupted():
        started = [axis.set(target) for axis, target in targets if not axis.is_at(target)]
    failures = []
    for status in started:
        try:
            status.wait()  # an axis ends by itself, after its own time at the latest
        except Exception as failure:  # told below, when no axis moves any more
            failures.append(failure)
    if any(isinstance(status, Motion) and status.was_stopped_quietly for status in started):
        motion.interrupt(success=True)  # a pause stops axes and devices in any order
    motion.check()
    if len(failures) > 1:
        raise RuntimeError("; ".join(str(failure) for failure in failures)) from failures[0]
    if failures:
        raise failures[0]
    return bool(started)


def stop_together(motion: Motion | None, axes: "Sequence[AxisDevice]", *, success: bool) -> None:
    """Stop the axes that a motion of another device moves where they are; nothing if it has ended."""
    if motion is not None and not motion.done:
        motion.interrupt(success=success)
        for axis in axes:
            axis.stop(success=success)


class Setting(Signal):  # type: ignore[misc]  # ophyd is untyped
    """What a plan or a person sets, at once.

    (A plain Signal takes its value in a thread, and refuses the next while that goes on: a plan that is
    repeated from a checkpoint sets again at any time.)
    """

    def set(self, value: Any, **_: Any) -> Status:
        """Take a value; the status is done."""
        self.put(value)
        status = Status(self)
        status.set_finished()
        return status


class Quantity(Setting):
    """A number in a unit."""

    def __init__(self, *, unit: str, **options: Any) -> None:
        super().__init__(**options)
        self.unit = unit

    def describe(self) -> dict[str, Any]:
        """Describe it, with its unit."""
        description: dict[str, Any] = super().describe()
        description[self.name]["units"] = self.unit
        return description


class DerivedSignal(AttributeSignal):  # type: ignore[misc]  # ophyd is untyped
    """What a device derives from other signals, as of the moment when it is asked."""

    def __init__(self, attr: str, **options: Any) -> None:
        super().__init__(attr, write_access=False, **options)

    def get(self, **options: Any) -> Any:
        """Derive the value, and take its time."""
        self._metadata["timestamp"] = time.time()
        return super().get(**options)


def last_seen(signal: Any, unit: str = "") -> str:
    """Say what a signal last was and how old that is, without asking the control system.

    Returns
    -------
    str
        Such as ``SIM:GON:THETA.RBV = 3.2 deg, 5.1 s old``.
    """
    age_s = time.time() - signal.timestamp
    return f"{signal.pvname} = {signal._readback} {unit}".rstrip() + f", {age_s:.1f} s old"

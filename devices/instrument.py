"""All devices of one beamline, made from its configuration."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mistral_txm.devices.address import Address
from mistral_txm.devices.advice import Advice
from mistral_txm.devices.axis import Axis
from mistral_txm.devices.budget import Budget
from mistral_txm.devices.ccd import Ccd
from mistral_txm.devices.configuration import Axis as AxisSettings
from mistral_txm.devices.configuration import Configuration
from mistral_txm.devices.control_systems import CONTROL_SYSTEMS, control_system
from mistral_txm.devices.light import Light
from mistral_txm.devices.log import Log
from mistral_txm.devices.polarization import Polarization
from mistral_txm.devices.sample import Azimuth, ExposureKey, SamplePosition
from mistral_txm.devices.shutter import Shutter


@dataclass(frozen=True)
class Instrument:
    """The devices that plans move and read; nothing of it is global.

    Columns of every Event are `ccd`, `ring_current`, `theta`, `polarization`, `key`, `light` and
    `budget`.
    """

    configuration: Configuration
    theta: Axis
    sample_x: Axis
    sample_y: Axis
    sample_z: Axis
    zone_plate_z: Axis
    jaw_up: Axis
    jaw_down: Axis
    energy: Axis
    polarization: Polarization
    sample_position: SamplePosition
    azimuth: Azimuth
    shutter: Shutter
    front_end: Any
    ring_current: Any
    top_up: Any
    light: Light
    ccd: Ccd
    key: ExposureKey
    waived: ExposureKey
    budget: Budget
    log: Log
    advice: Advice

    @property
    def devices(self) -> dict[str, Any]:
        """The devices by name, as an operator types them."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "configuration"
        }

    @property
    def baseline(self) -> tuple[Any, ...]:
        """What is read before and after every run."""
        return (
            self.theta,
            self.sample_x,
            self.sample_y,
            self.sample_z,
            self.zone_plate_z,
            self.jaw_up,
            self.jaw_down,
            self.energy,
            self.polarization,
            self.sample_position,
            self.azimuth,
            self.shutter,
            self.front_end,
            self.ring_current,
            self.top_up,
        )

    def connect(self, timeout_s: float) -> None:
        """Wait until every device answers.

        Raises
        ------
        TimeoutError
            If some do not: one line with the names that did not answer.
        """
        deadline = time.monotonic() + timeout_s
        signals = list(self._signals())
        for signal in signals:
            # The rest of the time for each; who answered already costs nothing.
            try:
                signal.wait_for_connection(timeout=max(deadline - time.monotonic(), 0.001))
            except TimeoutError:
                break
        silent = sorted(
            {getattr(each, "pvname", each.name) for each in signals if not each.connected}
        )
        if silent:
            shown = ", ".join(silent[:5]) + (f" and {len(silent) - 5} more" if silent[5:] else "")
            raise TimeoutError(
                f"{self.configuration.name}: {len(silent)} of {len(signals)} names did not answer "
                f"within {timeout_s:g} s: {shown}; check that the control servers run"
            )
        for device in self.devices.values():
            if hasattr(device, "walk_signals") and device is not self.ccd:
                device.wait_for_connection(timeout=max(deadline - time.monotonic(), 1.0))

    def _signals(self) -> Iterator[Any]:
        for device in self.devices.values():
            if device is self.ccd:
                yield from device.used_signals
            elif hasattr(device, "walk_signals"):
                yield from (walk.item for walk in device.walk_signals(include_lazy=False))
            elif hasattr(device, "wait_for_connection"):
                yield device


def make_instrument(configuration: Configuration, frames_directory: Path) -> Instrument:
    """Make the devices of a beamline; `Instrument.connect` waits for them.

    Parameters
    ----------
    configuration
        Addresses, limits and positions.
    frames_directory
        Folder below which frame files go; the detector's server writes there, this process reads. The folder of
        the live reconstruction lies beside it.

    Raises
    ------
    ConfigurationError
        If an address names a control system for which there are no devices.
    """

    for scheme, section in configuration.control_systems.items():
        if scheme in CONTROL_SYSTEMS:
            CONTROL_SYSTEMS[scheme].set_up(section)

    def axis(name: str) -> Any:
        settings: AxisSettings = getattr(configuration.axes, name)
        return _made("axis", settings.address, name=name, settings=settings)

    theta, energy = axis("theta"), axis("energy")
    sample_x, sample_y, sample_z = axis("sample_x"), axis("sample_y"), axis("sample_z")
    zone_plate_z, jaw_up, jaw_down = axis("zone_plate_z"), axis("jaw_up"), axis("jaw_down")
    ccd = _made(
        "ccd",
        configuration.ccd.address,
        name="ccd",
        settings=configuration.ccd,
        frames_directory=frames_directory.absolute(),
        control_timeout_s=configuration.control_systems[
            configuration.ccd.address.scheme
        ].control_timeout_s,
    )
    readings = {
        name: _made("reading", getattr(configuration, name).address, name=name)
        for name in ("front_end", "ring_current", "top_up")
    }
    return Instrument(
        configuration=configuration,
        theta=theta,
        sample_x=sample_x,
        sample_y=sample_y,
        sample_z=sample_z,
        zone_plate_z=zone_plate_z,
        jaw_up=jaw_up,
        jaw_down=jaw_down,
        energy=energy,
        polarization=Polarization(
            name="polarization",
            positions=configuration.polarization,
            jaw_down=jaw_down,
            jaw_up=jaw_up,
            zone_plate_z=zone_plate_z,
        ),
        sample_position=SamplePosition(
            name="sample_position",
            places=configuration.sample_position,
            x=sample_x,
            y=sample_y,
            z=sample_z,
        ),
        azimuth=Azimuth(name="azimuth"),
        shutter=_made(
            "shutter",
            configuration.shutter.address,
            name="shutter",
            settings=configuration.shutter,
            camera=ccd,
        ),
        **readings,
        light=Light(name="light", settings=configuration.light, camera=ccd, **readings),
        ccd=ccd,
        key=ExposureKey(name="key"),
        waived=ExposureKey(name="waived"),
        budget=Budget(name="budget"),
        log=Log(name="log"),
        advice=Advice(name="advice", live_directory=frames_directory.absolute().parent / "live"),
    )


def _made(kind: str, address: Address, **options: Any) -> Any:
    return getattr(control_system(address), kind)(address.name, **options)

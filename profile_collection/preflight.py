"""What a planned measurement takes, and what stands in its way, before anything moves."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky import Msg
from bluesky.utils import MsgGenerator

from mistral_txm.devices.configuration import Configuration
from mistral_txm.plans import (
    Measurement,
    PlanError,
    check_positions,
    estimate,
    load_measurement,
    snapshot,
)
from mistral_txm.plans.checks import check_metadata
from mistral_txm.plans.dry_run import DryRun, dry_run
from mistral_txm.plans.estimate import Estimate
from mistral_txm.plans.quantities import told_size, told_time
from mistral_txm.profile_collection.commands.arguments import print_table
from mistral_txm.profile_collection.engine import why_no_plan
from mistral_txm.profile_collection.typed import typed

FRAME_SHAPES_VU = {"small": (256, 256), "medium": (256, 256), "paper": (1024, 1024)}
TRIAL_EXPOSURES_S = (0.5, 1.0)
"""Two exposures tell counts per second and the level of the dark, s."""
NEAR_DEG = 5.0
"""Tilts so near to each other are as bright."""
NOTHING_STANDS_IN_THE_WAY = "nothing stands in the way"


def summarize(
    configuration: Configuration, measurement: Measurement, frame_shape_vu: tuple[int, int]
) -> dict[str, str | float]:
    """Return time, frames, data and dose of a measurement, each under a name that carries its unit."""
    what = estimate(measurement, configuration, frame_shape_vu)
    end = datetime.now() + timedelta(seconds=what.duration_s)
    return {
        "beamline": configuration.name,
        "sample": measurement.sample.name,
        "photon_energies_eV": ", ".join(f"{each:g}" for each in measurement.energies_ev),
        "azimuths": len(measurement.azimuths_deg),
        "tilts_per_azimuth": len(measurement.angles_deg),
        "exposures": len(measurement.planned_keys()) * len(measurement.energies_ev),
        "frames_with_flats_and_darks": what.frames,
        "frame_pixels": " x ".join(map(str, frame_shape_vu)),
        "helicity_changes": what.helicity_changes,
        **_hours(what),
        "ends_if_started_now": end.isoformat(sep=" ", timespec="minutes"),
        "data_GB": _rounded(what.bytes / 1e9),
        "sample_in_light_h": _rounded(what.sample_exposure_s / 3600),
        "dose_relative_to_the_paper": _rounded(what.relative_dose),
    }


def _hours(what: Estimate) -> dict[str, float]:
    seconds = {
        "exposure_h": what.exposure_s,
        "readout_h": what.readout_s,
        "slit_h": what.slit_s,
        "other_moves_h": what.moves_s,
        "azimuth_by_hand_h": what.azimuth_s,
        "duration_h": what.duration_s,
    }
    return {name: _rounded(value / 3600) for name, value in seconds.items()}


def _rounded(value: float) -> float:
    """Keep four digits, of small numbers, too."""
    return float(f"{value:.4g}")


def problems(
    configuration: Configuration,
    measurement: Measurement,
    frame_shape_vu: tuple[int, int],
    data: Path,
) -> list[str]:
    """Return what stands in the way of a measurement, a line each; an empty list if nothing does.

    Positions against limits and clearance of the configuration, the data folder, its journal, and the space
    on its disk: what can be told without devices.
    """
    found = []
    try:
        check_positions(configuration, measurement)
    except PlanError as problem:
        found.append(str(problem))
    place = next(folder for folder in (data, *data.parents) if folder.exists())
    if not place.is_dir():
        found.append(f"{data}: {place} is not a folder; choose another data folder")
        return found
    needed = estimate(measurement, configuration, frame_shape_vu).bytes
    free = shutil.disk_usage(place).free
    if needed > free:
        found.append(
            f"{data}: the frames need {told_size(needed)}, {told_size(free)} are free; make room or choose "
            "another data folder"
        )
    for folder in (data, *(each for each in (data / "journal", data / "frames") if each.exists())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f".writable-{os.getpid()}").open("wb"):
                pass
            (folder / f".writable-{os.getpid()}").unlink()
        except OSError as error:
            found.append(
                f"{folder}: cannot be written ({error.strerror}); choose another data folder"
            )
    return found


class Preflight:
    """What an operator asks before a measurement: `summary`, `check` and `simulate`, for one session.

    Parameters
    ----------
    instrument
        The devices.
    data
        The data folder.
    metadata
        What every run of the session gets.
    services
        The processes of the session, each with `running`.
    """

    def __init__(
        self,
        instrument: Any,
        data: Path,
        metadata: Mapping[str, Any],
        services: Mapping[str, Any],
    ) -> None:
        self._instrument = instrument
        self._data = data
        self._metadata = metadata
        self._services = services

    @property
    def names(self) -> dict[str, Any]:
        """The functions by name, as an operator types them."""
        return {each.__name__: typed(each) for each in (self.summary, self.check, self.simulate)}

    def summary(self, measurement: Measurement | str | Path) -> None:
        """Print hours, frames, data and dose of a measurement, and when it would end.

        Parameters
        ----------
        measurement
            A measurement, a TOML file, or the name of one that is packaged.
        """
        print_summary(
            summarize(self._instrument.configuration, _measurement(measurement), self._shape_vu())
        )

    def check(
        self, measurement: Measurement | str | Path, expose: bool = False
    ) -> MsgGenerator[list[str]] | None:
        """Print what stands in the way of a measurement, a line each. Nothing moves.

        Parameters
        ----------
        measurement
            As for `summary`.
        expose
            Return a plan that also takes two short exposures, where sample and slit stand, and prints what
            the planned ones would have: ``RE(check(measurement, expose=True))``.
        """
        its = _measurement(measurement)
        if expose:
            return self._exposing(its)
        _print_problems(self.problems(its))
        return None

    def simulate(self, plan: MsgGenerator[Any]) -> None:
        """Print what a plan would do, and what would fail: ``simulate(vector_tomography(instrument, m))``.

        Nothing moves. It says what would be exposed, and of each device how often it would be set, and between
        which values.
        """
        if why := why_no_plan(plan):
            raise PlanError(why.replace("RE", "simulate", 1))
        exposures: Counter[str] = Counter()

        def count(message: Msg) -> Msg:
            if message.command == "create":
                exposures[message.kwargs["name"]] += 1
            return message

        found = dry_run(self._instrument, bpp.msg_mutator(plan, count))
        print_dry_run(found, exposures, [each.name for each in self._instrument.baseline])
        _print_problems(found.problems)

    def problems(self, measurement: Measurement) -> list[str]:
        """Return what stands in the way, a line each: configuration, disk, devices, light, camera, services."""
        found = problems(self._instrument.configuration, measurement, self._shape_vu(), self._data)
        try:
            check_metadata(self._metadata)
        except PlanError as problem:
            found.append(str(problem))
        found += _device_problems(self._instrument)
        for name, service in self._services.items():
            if not service.running:
                found.append(f"{name}: does not run; see {self._data / 'logs' / name}.log")
        return found

    def _exposing(self, measurement: Measurement) -> MsgGenerator[list[str]]:
        found = self.problems(measurement)
        its, seen = self._instrument, []
        if not found:
            for exposure_s in TRIAL_EXPOSURES_S:
                yield from snapshot(its, exposure_s)
                mean = yield from bps.rd(its.ccd.mean_counts, default_value=0.0)
                bright = yield from bps.rd(its.ccd.bright_counts, default_value=0.0)
                seen.append((exposure_s, float(mean), float(bright)))
            theta_deg = yield from bps.rd(its.theta, default_value=0.0)
            lines, found = foretell(its.configuration, measurement, seen, theta_deg)
            print("\n".join(lines))
        _print_problems(found)
        return found

    def _shape_vu(self) -> tuple[int, int]:
        size = self._instrument.ccd.cam.max_size
        return int(size.max_size_y.get()), int(size.max_size_x.get())


def foretell(
    configuration: Configuration,
    measurement: Measurement,
    seen: list[tuple[float, float, float]],
    theta_deg: float,
) -> tuple[list[str], list[str]]:
    """Say from two exposures what the planned ones would have, and what is wrong with that.

    ``counts = level + rate * exposure``, of the mean and of the brightest pixels; the signal to noise is
    that of the photons of a pixel of mean transmission, over all repeats. A film that is tilted more lets less
    light pass, so for steeper tilts all this is the most, and a saturation there no problem yet.

    Parameters
    ----------
    seen
        Twice: exposure time in s, counts of the mean and of the brightest pixels.
    theta_deg
        The tilt at which that was seen.

    Returns
    -------
    tuple
        Lines that tell it, and problems.
    """
    ccd, energy_ev = configuration.ccd, measurement.energies_ev[0]
    (short_s, *short), (long_s, *long) = seen
    rates = [(b - a) / (long_s - short_s) for a, b in zip(short, long, strict=True)]
    levels = [a - rate * short_s for a, rate in zip(short, rates, strict=True)]
    if rates[0] <= 0 or ccd.photons(rates[0], energy_ev) * long_s < 1:
        return [], ["flux: no light reaches the camera; check front end, shutter, slit and sample"]
    limit_s = (ccd.saturation_counts - levels[1]) / rates[1]
    lines, found = [], []
    for each in measurement.tilts:
        bright = levels[1] + rates[1] * each.exposure_s
        photons = ccd.photons(rates[0] * each.exposure_s, energy_ev)
        least_deg = min(abs(angle_deg) for angle_deg in each.angles_deg)
        most = "at most " if least_deg >= abs(theta_deg) - NEAR_DEG else ""
        lines.append(
            f"theta {each.first_deg:g} to {each.last_deg:g} deg, {each.exposure_s:g} s: brightest pixels "
            f"{most}{min(bright, ccd.saturation_counts):.0f} of {ccd.saturation_counts} counts, {photons:.0f} photons "
            f"per pixel, signal to noise of {each.repeats} repeats {(photons * each.repeats) ** 0.5:.0f}, "
            f"measured at theta {theta_deg:g} deg"
        )
        if bright >= ccd.saturation_counts and least_deg <= abs(theta_deg) + NEAR_DEG:
            found.append(
                f"theta {each.first_deg:g} to {each.last_deg:g} deg: {each.exposure_s:g} s would saturate, as "
                f"the sample stands now (theta {theta_deg:g} deg); expose at most {limit_s:.1f} s"
            )
    return lines, found


def print_summary(summary: Mapping[str, str | float]) -> None:
    """Print what `summarize` returned as a table, each number in the unit that fits it."""
    print_table(("what", "value"), (_row(name, value) for name, value in summary.items()))


def _row(name: str, value: str | float) -> tuple[str, str]:
    """Say one number of a summary.

    >>> _row("other_moves_h", 0.05), _row("data_GB", 0.003842), _row("photon_energies_eV", "707.4, 778.1")
    (('time of other moves', '3 min'), ('data', '3.8 MB'), ('photon energies', '707.4, 778.1 eV'))
    """
    words, _, unit = name.replace("_", " ").rpartition(" ")
    if unit == "h":
        what = words if words in ("duration", "sample in light") else f"time of {words}"
        return what, told_time(3600 * float(value))
    if unit == "GB":
        return words, told_size(1e9 * float(value))
    if unit == "eV":
        return words, f"{value} eV"
    return name.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value)


def _print_problems(found: list[str]) -> None:
    print("\n".join(found) or NOTHING_STANDS_IN_THE_WAY)


def _measurement(what: Measurement | str | Path) -> Measurement:
    return what if isinstance(what, Measurement) else load_measurement(what)


def print_dry_run(found: DryRun, exposures: Mapping[str, int], devices: Sequence[str]) -> None:
    """Print what a plan would expose, ask and move, of the devices that an operator moves."""
    kinds = [("sample", "primary"), ("return to zero tilt", "zero"), ("open beam", "flat")]
    kinds.append(("dark", "dark"))
    counts = ", ".join(f"{exposures[name]} {kind}" for kind, name in kinds if exposures.get(name))
    print(f"exposures: {counts or 'none'}; runs: {found.commands['open_run']}")
    if questions := found.commands["input"]:
        print(f"asks how the sample is mounted: {told_times(questions)}")
    rows = []
    for name in filter(found.targets.__contains__, devices):
        targets = found.targets[name]
        order = sorted(set(targets), key=lambda each: (isinstance(each, str), each))
        rows.append((name, told_times(len(targets)), _short(order[0]), _short(order[-1])))
    if rows:
        print_table(("device", "set", "from", "to"), rows)
    if "shutter" in found.targets:
        print(f"the shutter is left {found.targets['shutter'][-1]}")


def told_times(count: int) -> str:
    """Say how often.

    >>> told_times(1), told_times(44)
    ('once', '44 times')
    """
    return "once" if count == 1 else f"{count} times"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _device_problems(instrument: Any) -> list[str]:
    """Return what is wrong with the devices as they stand: connections, alarms, permissions, light, camera."""
    found = [line for name, device in instrument.devices.items() for line in _alarms(name, device)]
    if found:
        return found
    for name in ("theta", "sample_x", "sample_y", "sample_z", "zone_plate_z", "energy"):
        permission = getattr(getattr(instrument, name), "move_permission", None)
        if permission is not None and (now := permission.get()) in ("Stop", "Pause"):
            found.append(f"{name}: would not move, {permission.pvname} = {now}; set it to Go")
    if trouble := instrument.light.trouble.get():
        found.append(str(trouble))
    if instrument.sample_position.where == "between":
        found.append("sample_position: the sample stands neither in nor out; move it in")
    found += instrument.ccd.problems()
    return found


def _alarms(name: str, device: Any) -> Iterator[str]:
    """Yield what does not answer, or is in a major or invalid alarm."""
    for signal in _signals(device):
        where = getattr(signal, "pvname", signal.name)
        if not signal.connected:
            yield f"{name}: {where} does not answer; check that its control server runs"
        elif (severity := getattr(signal, "alarm_severity", None)) is not None and severity >= 2:
            yield f"{name}: {where} is in alarm ({severity.name.lower()}); check the device"


def _signals(device: Any) -> list[Any]:
    if hasattr(device, "used_signals"):
        return list(device.used_signals)
    if hasattr(device, "walk_signals"):
        return [walk.item for walk in device.walk_signals(include_lazy=False)]
    return [device] if hasattr(device, "connected") else []

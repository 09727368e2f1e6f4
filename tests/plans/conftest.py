"""A player of messages: runs a plan without an engine and without devices, and keeps the score."""

import math
from collections import defaultdict
from collections.abc import Callable, Generator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bluesky import Msg

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.devices.instrument import Instrument
from mistral_txm.devices.key import Key
from mistral_txm.plans.measurement import Darks, Flats, Measurement, Sample, Tilts


class Stub:
    """A device that only has a name: nobody may call it, messages may name it."""

    parent = None

    def __init__(self, name: str, **attributes: Any) -> None:
        self.name = name
        self.hints = {"fields": [name]}
        self.__dict__.update(attributes)

    def __repr__(self) -> str:
        return self.name

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"{self.name} was called, not named in a message")

    read = describe = read_configuration = describe_configuration = _refuse
    set = stage = unstage = _refuse


class DetectorStub(Stub):
    """A stub that a plan may trigger."""

    trigger = Stub._refuse


CCD = (
    "frame_file",
    "exposure_number",
    "discard",
    "mean_counts",
    "bright_counts",
    "saturated_fraction",
    "frame_crc32",
)
FOCI = (
    "polarization_focus_positive_um",
    "polarization_focus_negative_um",
    "polarization_focus_energy_eV",
)
PLACE = ("sample_position_in_x_um", "sample_position_in_y_um", "sample_position_in_z_um")
AXES = ("theta", "sample_x", "sample_y", "sample_z", "zone_plate_z", "jaw_down", "jaw_up", "energy")


def light_and_dark(values: dict[str, Any]) -> float:
    """Counts of a frame: an offset, and 2000 counts for each second with the shutter open."""
    lit = values["shutter"] == "open"
    return 300.0 + 2000.0 * lit * float(values["ccd_cam_acquire_time"])


class Player:
    """Answers messages as a beamline would, and records what happened."""

    def __init__(self, instrument: Instrument, answers: list[str]) -> None:
        self.instrument = instrument
        self.counts: Callable[[dict[str, Any]], float] = light_and_dark
        self.answers = answers
        self.messages: list[Msg] = []
        self.values: dict[str, Any] = {"sample_position": "in", "shutter": "closed"}
        self.values |= {axis: 10.0 + index for index, axis in enumerate(AXES)}
        self.values |= dict(zip(FOCI, (0.0, 1.5, 707.4), strict=True))
        self.values |= dict(zip(PLACE, (11.0, 12.0, 13.0), strict=True))
        self.values |= {"ccd_mean_counts": 300.0, "ccd_bright_counts": 400, "ring_current": 250.0}
        self.values |= {"ccd_saturated_fraction": 0.0, "light_trouble": "", "light_verdict": ""}
        self.values |= {"light_injection": 0}
        self.values |= {"advice_flags": "", "advice_reached": 0, "advice_resolution_nm": 0.0}
        self.values |= {"advice_updated_at": math.nan, "advice_judged_until": math.nan}
        self.values |= {"azimuth": 0.0, "polarization": 0, "ccd_frame_file": None}
        self.events: list[tuple[str, Key]] = []
        self.log: list[tuple[str, str]] = []
        self.waived: list[Key] = []
        self.states: list[dict[str, Any]] = []
        self.prompts: list[str] = []
        self.starts: list[dict[str, Any]] = []
        self.stops: list[str] = []
        self.stream: str | None = None
        self.pending: dict[Any, list[tuple[str, Any]]] = defaultdict(list)
        self.open_file_at_trigger: list[str] = []
        self.rewindable = True
        self.staged: set[str] = set()

    def play(
        self, plan: Generator[Msg, Any, Any], fail_at: int = -1, failure: Exception | None = None
    ) -> Any:
        """Run to the end; throw `failure` in place of the answer to message `fail_at`."""
        answer: Any = None
        throw: Exception | None = None
        while True:
            try:
                message = plan.throw(throw) if throw is not None else plan.send(answer)
            except StopIteration as end:
                return end.value
            throw = failure if len(self.messages) == fail_at else None
            self.messages.append(message)
            if throw is None or message.command == "rewindable":
                answer = self.answer(message)
            elif message.command == "save":
                self.stream = None  # the RunEngine closes the bundle before anything can fail

    def answer(self, message: Msg) -> Any:
        name = getattr(message.obj, "name", None)
        match message.command:
            case "open_run":
                self.starts.append(dict(message.kwargs))
                return f"run {len(self.starts)}"
            case "close_run":
                self.stops.append(message.kwargs.get("exit_status") or "success")
            case "set":
                self.pending[message.kwargs["group"]].append((name, message.args[0]))
                if name in (*AXES, "polarization", "sample_position"):
                    assert self.values["shutter"] == "closed", f"{name} moved in open light"
            case "wait":
                for device, value in self.pending.pop(message.kwargs["group"], []):
                    self._arrive(device, value)
            case "trigger":
                assert self.values["ccd_frame_file"], "an exposure without a file"
                self.states.append(dict(self.values))
                self.values["ccd_mean_counts"] = self.counts(self.values)
                self.values["ccd_frame_crc32"] = len(self.states)
            case "create":
                self.stream = message.kwargs["name"]
            case "save":
                assert self.stream is not None
                if self.stream == "log":
                    self.log.append(self.values["log"])
                elif self.stream == "waived":
                    self.waived.append(self.values["waived"])
                elif self.stream != "baseline":
                    self.events.append((self.stream, self.values["key"]))
                self.stream = None
            case "drop":
                self.stream = None
            case "checkpoint":
                assert self.stream is None, "a checkpoint inside an Event"
            case "read":
                return {name: {"value": self.values.get(name), "timestamp": 0.0}}
            case "input":
                self.prompts.append(message.kwargs["prompt"])
                return self.answers.pop(0)
            case "rewindable":
                if message.args[0] is not None:
                    self.rewindable = message.args[0]
                return self.rewindable
            case "stage":
                self.staged.add(name)
                return [message.obj]
            case "unstage":
                self.staged.discard(name)
                return [message.obj]
        return None

    @property
    def measured(self) -> list[dict[str, Any]]:
        """Start documents, without those of the questions to the operator."""
        return [start for start in self.starts if start["plan_name"] != "turn_sample"]

    def _arrive(self, device: str, value: Any) -> None:
        self.values[device] = value
        if device == "polarization":
            places = self.instrument.configuration.polarization.of(value)
            self.values["jaw_down"], self.values["jaw_up"] = places.jaw_down_mm, places.jaw_up_mm
            self.values["zone_plate_z"] = self.values[FOCI[0 if value > 0 else 1]]
        if device == "sample_position":
            self.values["sample_x"] = {"in": self.values[PLACE[0]], "out": 211.0}[value]


@pytest.fixture
def stub_instrument() -> Instrument:
    ccd = DetectorStub(
        "ccd",
        cam=SimpleNamespace(acquire_time=Stub("ccd_cam_acquire_time")),
        **{name: Stub(f"ccd_{name}") for name in CCD},
        frames_directory=Path("/frames"),
        frame_bytes=131072,
    )
    names = [field.name for field in fields(Instrument) if field.name != "configuration"]
    foci = {name.removeprefix("polarization_"): Stub(name) for name in FOCI}
    devices: dict[str, Any] = {name: Stub(name) for name in names} | {"ccd": ccd}
    devices["polarization"] = Stub("polarization", **foci)
    place = {name.removeprefix("sample_position_"): Stub(name) for name in PLACE}
    devices["sample_position"] = Stub("sample_position", **place)
    light = {name: Stub(f"light_{name}") for name in ("trouble", "verdict", "injection")}
    devices["light"] = Stub("light", **light)
    advised = ("flags", "reached", "resolution_nm", "updated_at", "judged_until")
    advice = {name: Stub(f"advice_{name}") for name in advised}
    devices["advice"] = Stub("advice", **advice)
    return Instrument(configuration=load_configuration(), **devices)


@pytest.fixture
def player(stub_instrument: Instrument) -> Callable[..., Player]:
    def make(*answers: str) -> Player:
        return Player(stub_instrument, list(answers))

    return make


@pytest.fixture
def tiny() -> Measurement:
    """Three angles, two azimuths, different exposures at high tilt."""
    return Measurement(
        sample=Sample(name="film"),
        tilts=(
            Tilts(first_deg=-30.0, last_deg=-30.0, exposure_s=2.0, repeats=3),
            Tilts(first_deg=0.0, last_deg=2.0, step_deg=2.0, exposure_s=1.0, repeats=2),
        ),
        azimuths_deg=(0.0, 102.0),
        flats=Flats(exposure_s=0.5, repeats=2, at_end=True),
        darks=Darks(repeats=2),
        energies_ev=(707.4,),
    )

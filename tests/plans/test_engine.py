"""Whole plans through a RunEngine, over Channel Access: documents, frames, pauses, failures."""

import json
import subprocess
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import h5py
import pytest
from bluesky import Msg, RunEngine
from bluesky.utils import RunEngineInterrupted
from event_model import DocumentNames, schema_validators

from mistral_txm.plans import Measurement, tilt_series, vector_tomography
from mistral_txm.plans.measurement import Darks, Flats, Tilts
from mistral_txm.plans.operator import planned_azimuth_deg

Documents = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def engine() -> Iterator[tuple[RunEngine, Documents]]:
    documents: Documents = []

    def keep(name: str, document: dict[str, Any]) -> None:
        schema_validators[DocumentNames[name]].validate(document)
        documents.append((name, json.loads(json.dumps(document))))

    async def answer(message: Msg) -> str:
        return str(planned_azimuth_deg(message.kwargs["prompt"]))

    run_engine = RunEngine({}, context_managers=[])
    run_engine.subscribe(keep)
    run_engine.register_command("input", answer)
    return run_engine, documents


@pytest.fixture
def brief(tiny: Measurement) -> Measurement:
    """One azimuth, two angles, two exposures each."""
    return tiny.model_copy(
        update={
            "tilts": tiny.tilts[1:],
            "azimuths_deg": (0.0,),
            "flats": Flats(exposure_s=1.0, repeats=1),
            "darks": Darks(repeats=1),
        }
    )


def pause(run_engine: RunEngine) -> None:
    """Pause at once, from a hook: the public way would wait for itself there."""
    run_engine.loop.create_task(run_engine._request_pause_coro(False))


def closes(shutter: Any) -> bool:
    """Whether the shutter is closed, or will be within the time that is allowed."""
    deadline = time.monotonic() + 120
    while shutter.is_open and time.monotonic() < deadline:
        time.sleep(0.01)
    return not shutter.is_open


class Run:
    """What the documents of one run say."""

    def __init__(self, documents: Documents) -> None:
        self.names = [name for name, _ in documents]
        self.start = next(document for name, document in documents if name == "start")
        self.stop = next(document for name, document in documents if name == "stop")
        streams = {d["uid"]: d["name"] for name, d in documents if name == "descriptor"}
        self.descriptors = {d["name"]: d for name, d in documents if name == "descriptor"}
        self.paths = {
            document["uid"]: Path(unquote(urlsplit(document["uri"]).path))
            for name, document in documents
            if name == "stream_resource"
        }
        self.events: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for name, document in documents:
            if name == "event":
                self.events[streams[document["descriptor"]]].append(document)
            if name == "stream_datum":
                self.rows[streams[document["descriptor"]]].append(document)

    def taken(self, stream: str = "primary") -> list[tuple[float, float, int, int]]:
        columns = ("key_phi_deg", "key_theta_deg", "key_helicity", "key_repeat")
        return [tuple(event["data"][c] for c in columns) for event in self.events[stream]]

    def check(self) -> None:
        """Every Event has one frame, every frame one Event, in order, and the checksums agree."""
        for stream in ("dark", "flat", "primary"):
            events, rows = self.events[stream], self.rows[stream]
            numbers = list(range(1, len(events) + 1))
            assert [event["seq_num"] for event in events] == numbers
            assert [row["seq_nums"]["start"] for row in rows] == numbers
            by_file: dict[Path, list[tuple[int, int]]] = defaultdict(list)
            for event, row in zip(events, rows, strict=True):
                number = event["data"]["ccd_frame_number"]
                assert row["indices"] == {"start": number, "stop": number + 1}
                checksum = event["data"]["ccd_frame_crc32"]
                by_file[self.paths[row["stream_resource"]]].append((number, checksum))
            for path, frames in by_file.items():
                with h5py.File(path) as file:
                    stored = file["/entry/data/data"][...]
                found = [(n, zlib.crc32(frame.tobytes())) for n, frame in enumerate(stored)]
                assert found == frames


@pytest.mark.slow
def test_a_tiny_vector_tomography(
    instrument: Any, engine: tuple[RunEngine, Documents], tiny: Measurement
) -> None:
    run_engine, documents = engine
    instrument.azimuth.set(0.0)
    before = {axis: axis.position for axis in (instrument.theta, instrument.jaw_up)}
    run_engine(vector_tomography(instrument, tiny, series="tiny", md={"purpose": "test"}))
    starts = [index for index, (name, _) in enumerate(documents) if name == "start"]
    runs = [
        Run(documents[slice(*bounds)]) for bounds in zip(starts, [*starts[1:], None], strict=True)
    ]
    question = runs.pop(1)
    assert question.start["plan_name"] == "turn_sample"
    assert [one["data"]["log_kind"] for one in question.events["log"]] == ["ask", "go_on"]
    assert question.stop["exit_status"] == "success"
    assert [run.start["phi_deg"] for run in runs] == [0.0, 102.0]
    assert instrument.azimuth.phi_deg == 102.0
    for run in runs:
        run.check()
        assert run.stop["exit_status"] == "success"
        assert run.start["plan_name"] == "vector_tomography"
        assert len(run.taken()) == run.start["n_planned"]
        assert len(run.events["baseline"]) == 2
        assert all(
            path.is_relative_to(run.start["frames_directory"]) for path in run.paths.values()
        )
        external = run.descriptors["primary"]["data_keys"]["ccd"]
        assert (external["external"], external["dtype_numpy"]) == ("STREAM:", "<u2")
        assert external["shape"] == [1, 256, 256]
        for event in run.events["primary"]:
            data = event["data"]
            assert data["polarization"] == data["key_helicity"]
            assert data["theta"] == pytest.approx(data["key_theta_deg"], abs=0.02)
            assert data["ccd_exposure_s"] == tiny.exposures_at(data["key_theta_deg"]).exposure_s
            assert data["ring_current"] > 0
        dark = run.events["dark"][0]["data"]["ccd_mean_counts"]
        flat = run.events["flat"][0]["data"]["ccd_mean_counts"]
        assert dark < 500 < flat
    assert [key for run in runs for key in run.taken()] == list(tiny.planned_keys())
    assert closes(instrument.shutter)
    assert {axis: axis.position for axis in before} == before


@pytest.mark.slow
@pytest.mark.parametrize("interruption", ["pause", "suspend"])
def test_an_interruption_at_each_message_repeats_nothing_and_loses_nothing(
    instrument: Any,
    engine: tuple[RunEngine, Documents],
    brief: Measurement,
    interruption: str,
) -> None:
    run_engine, documents = engine
    instrument.azimuth.set(0.0)
    seen: set[int] = set()
    kept: list[Msg] = []
    pausable, suspending = False, ""

    def interrupt(message: Msg) -> None:
        nonlocal pausable, suspending
        if message.command == "checkpoint":
            pausable = True
        if message.command in ("close_run", "unstage"):
            pausable = False
        if suspending:  # until the suspender's own messages are through; its last is "rewindable"
            resumed = message.command == "_resume_from_suspender"
            suspending = "resumed" if resumed else suspending
            if suspending == "resumed" and message.command == "rewindable":
                suspending = ""
        elif pausable and id(message) not in seen:
            seen.add(id(message))
            kept.append(message)  # so that its id stays its own
            if interruption == "pause":
                pause(run_engine)
            else:
                suspending = "requested"
                run_engine.request_suspend(_nothing)

    async def _nothing() -> None:
        return None

    run_engine.msg_hook = interrupt
    pauses = 0
    plan: Callable[[], Any] = lambda: run_engine(  # noqa: E731  # replaced after the first pause
        tilt_series(instrument, brief, 0.0, series=f"interrupted by {interruption}")
    )
    while True:
        try:
            plan()
            break
        except RunEngineInterrupted:
            pauses += 1
            assert run_engine.state == "paused"
            plan = run_engine.resume
    assert len(kept) > 100
    run = Run(documents)
    run.check()
    assert run.stop["exit_status"] == "success"
    assert run.taken() == list(brief.planned_keys())
    assert closes(instrument.shutter)


@pytest.mark.slow
@pytest.mark.parametrize("way_out", ["abort", "stop", "halt"])
def test_every_way_out_closes_and_all_but_a_halt_put_back(
    instrument: Any, engine: tuple[RunEngine, Documents], brief: Measurement, way_out: str
) -> None:
    run_engine, documents = engine
    instrument.azimuth.set(0.0)
    alone = (Tilts(first_deg=2.0, last_deg=2.0, exposure_s=1.0, repeats=2),)
    short = brief.model_copy(update={"tilts": alone})
    instrument.theta.set(0.0).wait(120)
    start = {axis: axis.position for axis in (instrument.theta, instrument.jaw_up)}
    for leave_at in range(23, 160, 13):
        documents.clear()
        count = 0

        def interrupt(_: Msg, leave_at: int = leave_at) -> None:
            nonlocal count
            count += 1
            if count == leave_at:
                pause(run_engine)

        run_engine.msg_hook = interrupt
        try:
            run_engine(tilt_series(instrument, short, 0.0, series=f"{way_out} at {leave_at}"))
        except RunEngineInterrupted:
            run_engine.msg_hook = None
            assert closes(instrument.shutter)
            getattr(run_engine, way_out)()
            left = {"abort": "abort", "stop": "success", "halt": "abort"}[way_out]
            assert documents[-1][1]["exit_status"] == left
        assert run_engine.state == "idle"
        assert closes(instrument.shutter)
        assert not list(instrument.ccd.frames_directory.rglob("*.tmp"))
        if way_out != "halt":
            assert {axis: axis.position for axis in start} == start
    instrument.polarization.set(1).wait(120)
    instrument.sample_position.set("in").wait(120)


@pytest.mark.slow
def test_a_pause_in_the_middle_of_an_exposure_leaves_no_frame(tmp_path: Path) -> None:
    """In a process of its own, since the beamline of this one takes no time to expose."""
    script = Path(__file__).with_name("paused_exposures.py")
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr[-3000:]
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["pauses"] >= 3
    assert report["keys"] == report["planned"]
    assert report["frames"] == report["events"]
    assert report["open_while_paused"] == 0

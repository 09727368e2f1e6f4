"""Something goes wrong at message 1, 2, 3 ...: whatever the plan and whatever it is, the same must hold afterwards."""

import time
from collections.abc import Callable, Collection, Generator, Iterator
from typing import Any

import pytest
from bluesky import Msg, RunEngine
from bluesky.utils import PlanHalt, RequestAbort, RequestStop, RunEngineInterrupted

from mistral_txm.devices.instrument import Instrument
from mistral_txm.devices.key import Key
from mistral_txm.plans import (
    Measurement,
    darks,
    energy_scan,
    flats,
    tilt_series,
    vector_tomography,
)
from mistral_txm.plans.measurement import Darks, Flats, Sample, Tilts

MakePlayer = Callable[..., Any]
Plan = Generator[Msg, Any, Any]

ENERGY_EV = 707.4
AXES = ("theta", "sample_x", "sample_y", "sample_z", "zone_plate_z", "jaw_down", "jaw_up", "energy")
"""What has to stand afterwards where it stood before."""
MOVES = {
    "polarization": ("jaw_down", "jaw_up", "zone_plate_z"),
    "sample_position": ("sample_x", "sample_y", "sample_z"),
}
"""Devices that move several axes."""
COMMANDS = ("set", "trigger")
FAILING = (*COMMANDS, "wait", "read", "stage", "declare_stream", "open_run", "save", "input")
"""Messages that fail themselves where a device, the journal or the operator does."""


@pytest.fixture
def shortest(tiny: Measurement) -> Measurement:
    """Two azimuths, one angle, two exposures for each helicity."""
    return tiny.model_copy(
        update={
            "tilts": (Tilts(first_deg=2.0, last_deg=2.0, exposure_s=0.5, repeats=2),),
            "flats": Flats(exposure_s=0.5, repeats=1),
            "darks": Darks(repeats=1),
        }
    )


PLANS: dict[str, Callable[[Instrument, Measurement], Plan]] = {
    "flats": lambda instrument, measurement: flats(instrument, measurement, 0.0),
    "darks": lambda instrument, measurement: darks(instrument, measurement, 0.0),
    "tilt_series": lambda instrument, measurement: tilt_series(instrument, measurement, 0.0),
    "vector_tomography": lambda instrument, measurement: vector_tomography(instrument, measurement),
    "resume": lambda instrument, measurement: vector_tomography(
        instrument, measurement, series="s", skip={ENERGY_EV: measurement.planned_keys()[:3]}
    ),
    "energy_scan": lambda instrument, _: energy_scan(
        instrument,
        [707.0, 708.0],
        exposure_s=0.5,
        repeats=1,
        flat_exposure_s=0.5,
        flat_repeats=2,
        dark_repeats=2,
    ),
}
each_plan = pytest.mark.parametrize("name", PLANS)


def begin(player: MakePlayer, name: str) -> Any:
    scene = player("102")
    scene.values["energy"] = 707.4 if name == "energy_scan" else scene.values["energy"]
    return scene


def positions(scene: Any) -> dict[str, Any]:
    return {axis: scene.values[axis] for axis in AXES}


def drive(
    scene: Any,
    plan: Plan,
    at: int,
    anomaly: BaseException,
    *,
    is_carried_out: Callable[[Msg], bool] = lambda _: True,
    still_broken: str | None = None,
) -> Any:
    """Run a plan, and throw `anomaly` into it in answer to message `at`.

    An operator's wish, and the failure of a move that was begun before, come after a message was carried out; that
    of the message itself comes instead. The device `still_broken` refuses every command from then on; where the plan
    asks for help with it, the operator aborts.
    """
    answer: Any = None
    throw: BaseException | None = None
    for number in range(10_000):
        try:
            message = plan.throw(throw) if throw is not None else plan.send(answer)
        except StopIteration as end:
            return end.value
        scene.messages.append(message)
        throw = anomaly if number == at else None
        if number == at and not is_carried_out(message):
            if message.command == "save":
                scene.stream = None  # the RunEngine closes the bundle before anything can fail
        elif number > at and message.command in COMMANDS and message.obj.name == still_broken:
            throw = RuntimeError(f"{still_broken}: broken")
        elif message.command == "pause":
            throw = RequestAbort()
        else:
            answer = scene.answer(message)
    raise AssertionError("the plan does not end")


def drive_on(scene: Any, plan: Plan) -> Any:
    """Run a plan that nothing disturbs."""
    return drive(scene, plan, -1, AssertionError())


def count(player: MakePlayer, instrument: Instrument, measurement: Measurement, name: str) -> int:
    """Return how many messages the plan has that nothing disturbs."""
    scene = begin(player, name)
    drive_on(scene, PLANS[name](instrument, measurement))
    assert scene.events
    return len(scene.messages)


def concerned(message: Msg, scene: Any) -> set[str]:
    """Return the axes that a message moves, or waits for."""
    names = {device for device, _ in scene.pending.get(message.kwargs.get("group"), ())}
    names.add(getattr(message.obj, "name", ""))
    return names | {axis for name in names for axis in MOVES.get(name, ())}


def check_order(scene: Any, before: dict[str, Any], excused: Collection[str], where: str) -> None:
    """Shutter and file closed, axes put back, runs ended, and every frame but the last has its Event."""
    after = {**positions(scene), "shutter": scene.values["shutter"]}
    after["ccd_frame_file"] = scene.values["ccd_frame_file"]
    expected = {**before, "shutter": "closed", "ccd_frame_file": None}
    left = {name for name, value in expected.items() if after[name] != value}
    assert left <= set(excused), where
    assert scene.stream is None, where
    assert scene.staged == set(), where
    assert len(scene.stops) == len(scene.starts), where
    assert len(scene.states) - len(scene.events) in (0, 1), where
    assert len(set(scene.events)) == len(scene.events), where


def reasons(scene: Any) -> Iterator[str]:
    """Yield the reasons of runs that failed."""
    for message in scene.messages:
        if message.command == "close_run" and message.kwargs.get("exit_status") == "fail":
            yield message.kwargs["reason"]


@pytest.mark.slow
@each_plan
def test_a_device_fails_at_each_message(
    player: MakePlayer, stub_instrument: Instrument, shortest: Measurement, name: str
) -> None:
    undisturbed = begin(player, name)
    drive_on(undisturbed, PLANS[name](stub_instrument, shortest))
    replayed = begin(player, name)
    for at, message in enumerate(undisturbed.messages):
        excused = concerned(message, replayed) if is_putting_back(message) else set()
        replayed.answer(message)
        if name == "resume" and at % 3:  # its messages are those of vector_tomography, but fewer
            continue
        scene = begin(player, name)
        before = positions(scene)
        failure = failure_of(scene, PLANS[name](stub_instrument, shortest), at)
        where = f"message {at}, {message}"
        if failure is None:  # it was done again: nothing may be missing then
            assert set(undisturbed.events) <= set(scene.events), where
        else:
            assert "broken" in failure, where
            assert "\n" not in failure
            end_as_the_engine_does(scene, undisturbed, at, "fail")
            opened = message.command == "open_run"
            assert scene.stops[-1:] in ([], ["fail"]) or has_ended(undisturbed, at - opened), where
            assert all("broken" in reason and "\n" not in reason for reason in reasons(scene))
        check_order(scene, before, excused, where)


def failure_of(scene: Any, plan: Plan, at: int) -> str | None:
    """Return how a plan failed when a device did; None if it did not."""
    try:
        drive(
            scene,
            plan,
            at,
            RuntimeError("broken"),
            is_carried_out=lambda message: message.command not in FAILING,
        )
    except RuntimeError as failure:
        return str(failure)
    return None


def is_putting_back(message: Msg) -> bool:
    """Whether a message moves something back, or waits for that."""
    return str(message.kwargs.get("group", "")).startswith("restore")


def end_as_the_engine_does(scene: Any, undisturbed: Any, at: int, status: str) -> None:
    """Close a run that a plan leaves open where it ends in opening it, or about to close it."""
    commands = [message.command for message in undisturbed.messages[at : at + 2]]
    if commands[0] == "open_run" or commands[1:] == ["close_run"]:
        scene.stops += [status] * (len(scene.starts) - len(scene.stops))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("anomaly", "status"),
    [(RequestAbort, "abort"), (RequestStop, "success")],
    ids=["abort", "stop"],
)
@each_plan
def test_an_operator_ends_it_at_each_message(
    player: MakePlayer,
    stub_instrument: Instrument,
    shortest: Measurement,
    name: str,
    anomaly: type[Exception],
    status: str,
) -> None:
    undisturbed = begin(player, name)
    drive_on(undisturbed, PLANS[name](stub_instrument, shortest))
    # A stop differs in the status alone; what is resumed has the messages of the whole, but fewer.
    every = 1 if anomaly is RequestAbort and name != "resume" else 3
    for at in range(0, len(undisturbed.messages) - 1, every):
        where = f"message {at}, {undisturbed.messages[at]}"
        scene = begin(player, name)
        before = positions(scene)
        with pytest.raises((anomaly, RuntimeError)) as raised:
            drive(scene, PLANS[name](stub_instrument, shortest), at, anomaly())
        if raised.type is RuntimeError:  # while everything was put back: what was not is told
            assert is_restoring(undisturbed, at), where
            assert anomaly.__name__ in str(raised.value)
        end_as_the_engine_does(scene, undisturbed, at, status)
        opened = len(scene.starts)
        last = "fail" if raised.type is RuntimeError else status
        last = "success" if has_ended(undisturbed, at) else last
        assert scene.stops == ["success"] * (opened - 1) + [last] * min(opened, 1), where
        check_order(scene, before, (), where)


def has_ended(undisturbed: Any, at: int) -> bool:
    """Whether a run was closed, and none opened since."""
    commands = [message.command for message in undisturbed.messages[at::-1]]
    runs = (command for command in commands if command in ("open_run", "close_run"))
    return next(runs, "") == "close_run"


def is_restoring(undisturbed: Any, at: int) -> bool:
    """Whether a message comes between the end of the exposures of a run and the end of the run."""
    rest = (message.command for message in undisturbed.messages[at:])
    return next(command for command in rest if command in ("trigger", "close_run")) == "close_run"


@pytest.mark.slow
@each_plan
def test_a_halt_at_each_message_lets_go_at_once(
    player: MakePlayer, stub_instrument: Instrument, shortest: Measurement, name: str
) -> None:
    """Nothing is put back after a halt: the RunEngine stops what moves and closes what is open."""
    total = count(player, stub_instrument, shortest, name)
    for at in range(0, total, 7):
        scene = begin(player, name)
        with pytest.raises(PlanHalt):
            drive(scene, PLANS[name](stub_instrument, shortest), at, PlanHalt())
        assert len(scene.messages) == at + 1


BREAKABLE = ("theta", "polarization", "sample_position", "ccd", "ccd_frame_file")


@pytest.mark.slow
@pytest.mark.parametrize("device", BREAKABLE)
def test_a_device_that_stays_broken_does_not_keep_the_others_from_being_put_back(
    player: MakePlayer, stub_instrument: Instrument, shortest: Measurement, device: str
) -> None:
    name = "vector_tomography"
    total = count(player, stub_instrument, shortest, name)
    undisturbed = begin(player, name)
    drive_on(undisturbed, PLANS[name](stub_instrument, shortest))
    commands = [
        index
        for index, message in enumerate(undisturbed.messages)
        if message.command in ("set", "trigger") and message.obj.name == device
    ]
    assert commands
    for at in commands:
        scene = begin(player, name)
        before = positions(scene)
        with pytest.raises(RuntimeError, match=f"{device}: broken"):
            drive(
                scene,
                PLANS[name](stub_instrument, shortest),
                at,
                RuntimeError(f"{device}: broken"),
                is_carried_out=lambda message: message.command not in FAILING,
                still_broken=device,
            )
        assert scene.stops[-1:] in ([], ["fail"])
        check_order(scene, before, (device,), f"message {at}")
        assert len(scene.messages) < 2 * total


@pytest.mark.parametrize("done", [0, 1, 4, 7, 8])
def test_what_is_done_and_what_is_left_are_what_was_planned(
    player: MakePlayer, stub_instrument: Instrument, shortest: Measurement, done: int
) -> None:
    """An abort, and a resume that skips what has Events: each key comes exactly once."""
    total = count(player, stub_instrument, shortest, "vector_tomography")
    taken: list[Key] = []
    for at in (done * total // 9, 0):
        scene = player("102", "102")
        plan = vector_tomography(stub_instrument, shortest, series="s", skip={ENERGY_EV: taken})
        if at:
            with pytest.raises((RequestAbort, RuntimeError)):
                drive(scene, plan, at, RequestAbort())
        else:
            drive_on(scene, plan)
        taken += [key for stream, key in scene.events if stream == "primary"]
    assert sorted(taken) == sorted(shortest.planned_keys())


Taken = dict[tuple[str, Key], int]
"""Checksums of frames by stream and key."""


LAST = Msg("null")
"""Comes last, and nothing happens at it: an engine that is suspended there has nothing to go on with, and raises."""


def with_last(plan: Plan) -> Plan:
    """Add `LAST` to a plan."""
    result = yield from plan
    yield LAST
    return result


class Engine:
    """A RunEngine over Channel Access that is disturbed at some of its messages, and the frames that it recorded."""

    def __init__(self) -> None:
        self.taken: Taken = {}
        self.repeated: list[tuple[str, Key]] = []
        self.ends: list[str] = []
        self.messages = 0
        self._streams: dict[str, str] = {}
        self._acting = False
        self.run_engine = RunEngine({}, context_managers=[])
        self.run_engine.subscribe(self._keep)

    def _keep(self, name: str, document: dict[str, Any]) -> None:
        if name == "descriptor":
            self._streams[document["uid"]] = document["name"]
        if name == "stop":
            self.ends.append(document["exit_status"])
        if name == "event" and "key_repeat" in document["data"]:
            columns = ("key_phi_deg", "key_theta_deg", "key_helicity", "key_repeat")
            key = Key(*(document["data"][column] for column in columns))
            place = self._streams[document["descriptor"]], key
            if place in self.taken:
                self.repeated.append(place)
            self.taken[place] = document["data"]["ccd_frame_crc32"]

    @property
    def done(self) -> frozenset[Key]:
        return frozenset(key for stream, key in self.taken if stream == "primary")

    def run(
        self, plan: Plan, is_hit: Callable[[int], bool] = lambda _: False, how: str = ""
    ) -> int:
        """Run a plan to its end, also where it pauses; return how often it was disturbed."""
        self.messages = hits = 0
        seen: dict[int, Msg] = {}
        suspending = False

        def hook(message: Msg) -> None:
            nonlocal hits, suspending
            if suspending:  # until the suspender's own messages are through
                suspending = message.command != "_resume_from_suspender"
                return
            if id(message) in seen:  # a pause repeats messages: they are the same
                return
            seen[id(message)] = message
            self.messages += 1
            if is_hit(self.messages) and self.run_engine.resumable and message is not LAST:
                hits += 1
                suspending = how == "suspend"
                self._act(how)

        self.run_engine.msg_hook = hook
        whole = with_last(plan)
        act: Callable[[], Any] = lambda: self.run_engine(whole)  # noqa: E731  # replaced after a pause
        while True:
            try:
                act()
            except RunEngineInterrupted:
                if self.run_engine.state == "paused":
                    act = self.run_engine.resume
                    continue
            except RuntimeError as failure:
                if "not everything was put back" not in str(failure):
                    raise
            return hits

    def _act(self, how: str) -> None:
        """Disturb at once; the public ways would wait for themselves in a hook."""

        async def nothing() -> None:
            return None

        engine = self.run_engine
        match how:
            case "pause":
                engine.loop.create_task(engine._request_pause_coro(False))
            case "suspend":
                engine.request_suspend(nothing)
            case "abort":
                engine.loop.create_task(engine._abort_coro("test"))
            case "stop":
                engine.loop.create_task(engine._stop_coro())
            case "halt":
                engine.loop.create_task(engine._halt_coro())


def closes(shutter: Any) -> bool:
    """Whether the shutter is closed, or will be within the time that is allowed."""
    deadline = time.monotonic() + 120
    while shutter.is_open and time.monotonic() < deadline:
        time.sleep(0.01)
    return not shutter.is_open


@pytest.fixture(scope="module")
def undisturbed(instrument: Any) -> tuple[Measurement, Taken, int]:
    """A measurement of one angle, what it takes when nothing disturbs it, and its number of messages."""
    measurement = Measurement(
        sample=Sample(name="film"),
        tilts=(Tilts(first_deg=2.0, last_deg=2.0, exposure_s=1.0, repeats=2),),
        azimuths_deg=(0.0,),
        flats=Flats(exposure_s=1.0, repeats=1),
        darks=Darks(repeats=1),
        energies_ev=(ENERGY_EV,),
    )
    instrument.azimuth.set(0.0)
    engine = Engine()
    engine.run(vector_tomography(instrument, measurement, series="undisturbed"))
    assert engine.ends == ["success"]
    assert sorted(engine.done) == sorted(measurement.planned_keys())
    return measurement, engine.taken, engine.messages


@pytest.mark.slow
@pytest.mark.parametrize("how", ["pause", "suspend"])
def test_a_series_that_is_held_at_many_messages_equals_an_undisturbed_one(
    instrument: Any, undisturbed: tuple[Measurement, Taken, int], how: str
) -> None:
    measurement, taken, _ = undisturbed
    engine = Engine()
    hits = engine.run(
        vector_tomography(instrument, measurement, series=how), lambda n: n % 3 == 0, how
    )
    assert hits > 30
    assert engine.ends == ["success"]
    assert engine.repeated == []
    assert engine.taken == taken
    assert closes(instrument.shutter)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["abort", "stop", "halt"])
def test_a_series_that_is_ended_at_any_message_and_resumed_equals_an_undisturbed_one(
    instrument: Any, undisturbed: tuple[Measurement, Taken, int], how: str
) -> None:
    measurement, taken, total = undisturbed
    for at in range(5, total, 53):
        engine, series = Engine(), f"{how} at {at}"
        engine.run(
            vector_tomography(instrument, measurement, series=series), lambda n, at=at: n == at, how
        )
        assert engine.run_engine.state == "idle", at
        assert closes(instrument.shutter), at
        assert not list(instrument.ccd.frames_directory.rglob("*.tmp")), at
        left = set(measurement.planned_keys()) - engine.done
        assert len(engine.ends) <= 1, at
        if not left:
            continue
        end = "success" if how == "stop" else "abort"
        assert engine.ends in ([], [end], ["fail"]), at
        before = dict(engine.taken)
        engine.run(
            vector_tomography(instrument, measurement, series=series, skip={ENERGY_EV: engine.done})
        )
        assert not any(stream == "primary" for stream, _ in engine.repeated), at
        assert engine.ends[-1] == "success", at
        assert closes(instrument.shutter), at
        for place, crc32 in taken.items():
            # After a halt the axes stand elsewhere, and that is what draws the noise of a dark frame.
            assert engine.taken[place] == crc32 or (how, place[0]) == ("halt", "dark"), at
        assert all(
            engine.taken[place] == before[place] for place in before if place[0] == "primary"
        )
    instrument.polarization.set(1).wait(120)
    instrument.sample_position.set("in").wait(120)

"""What measures: `demo` and `resume`."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mistral_txm.profile_collection.commands import CommandFailed
from mistral_txm.profile_collection.commands.arguments import (
    SIZES,
    data_option,
    existing_data,
    json_option,
    print_json,
    simulation_options,
)
from mistral_txm.profile_collection.session import READY_TIMEOUT_S
from mistral_txm.profile_collection.simulation import usable_conditions, usable_texture

if TYPE_CHECKING:
    from mistral_txm.profile_collection.measured import Measured
    from mistral_txm.services.lifeline import ServiceProcess

LIVE_READY_TIMEOUT_S = 300.0
TIME_SCALE = 0.005
"""How long a simulated second lasts, s: an angle takes about as long as an update of the volume, to be watched."""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parsers of this group."""
    demo = commands.add_parser(
        "demo", help="a complete simulated measurement", description=_demo.__doc__
    )
    demo.add_argument(
        "--size",
        choices=SIZES,
        default="small",
        help="small: 256 x 256 frames, 23 tilts, 3 exposures; medium: all 87 tilts; paper: 1024 x 1024 frames, 87 "
        "tilts, 15 to 20 exposures",
    )
    simulation_options(demo)
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="data folder (default: demo)",
    )
    json_option(demo)
    demo.set_defaults(run=_demo)

    resume = commands.add_parser(
        "resume", help="take what is missing of a series", description=_resume.__doc__
    )
    resume.add_argument("--series", metavar="UID", help="default: the newest that lacks something")
    data_option(resume)
    json_option(resume)
    resume.set_defaults(run=_resume)


class _Stages:
    """Seconds per stage, each said when it ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begin_s = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begin_s, 2)
        _say(f"{name}: {self.seconds[name]:.1f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _demo(arguments: argparse.Namespace) -> None:
    """Measure a simulated film with both helicities around two azimuths, and reconstruct it while it runs."""
    import uuid

    data = arguments.output.resolve()
    simulation = {
        "size": arguments.size,
        "texture": usable_texture(arguments.texture, data),
        "seed": arguments.seed,
        "conditions": usable_conditions(arguments.conditions),
    }
    _measure(data, simulation, str(uuid.uuid4()), arguments.json, faults=arguments.fault)


def _resume(arguments: argparse.Namespace) -> None:
    """Take only what is missing of a series, as new runs with the same series uid; frames are verified first.

    Series of several photon energies that were measured together are resumed together.
    """
    from mistral_txm.devices.configuration import load_configuration
    from mistral_txm.profile_collection.looked import looked
    from mistral_txm.profile_collection.measured import begun, named, to_resume
    from mistral_txm.profile_collection.outcome import short
    from mistral_txm.services.lease import acquiring

    data = existing_data(arguments)
    if acquiring(data):
        raise CommandFailed(f"{data}: a measurement runs here; wait for its end, or end it first")
    found = begun(data)
    if arguments.series:
        found = [named(found, arguments.series)]
    if not found:
        _say(f"{data}: nothing is missing")
        return
    chosen, done = to_resume(found, data)
    start = chosen.start
    if not chosen.left(done) and ("simulation" not in start or _concluded(data, chosen)):
        _say(f"series {chosen.uid}: nothing is missing")
        return
    if "simulation" not in start:
        raise CommandFailed(
            f"series {chosen.uid} was measured at a beamline: resume it from a session there, with "
            f"RE(resume({short(chosen.uid)!r}))"
        )
    planned = chosen.planned
    _say(
        f"series {chosen.uid}: {planned - chosen.left(done)} of {planned} exposures need not be taken any more"
    )
    simulation = {
        name: value for name, value in start["simulation"].items() if name != "time_scale"
    }
    _measure(
        data,
        simulation,
        chosen.uid,
        arguments.json,
        measurement=chosen.measurement.to_dict(),
        done=done,
        before=looked(data, chosen, load_configuration().ccd, done),
    )


def _concluded(data: Path, chosen: "Measured") -> bool:
    """Return whether the summary in a data folder is that of a measurement; it is the last thing that is written."""
    try:
        found = json.loads((data / "summary.json").read_text())["series"]
    except (OSError, ValueError, KeyError):
        return False
    concluded = {found} if isinstance(found, str) else set(found)
    return concluded == {one.uid for one in chosen.series.values()}


def _await_live(live: "ServiceProcess") -> None:
    """Wait until the live reconstruction follows, so that one sees the volume grow; it is no condition."""
    from mistral_txm.services.lifeline import ServiceError

    _say("live reconstruction: starts, and where it never ran it compiles its loops for a minute")
    try:
        live.wait_ready(LIVE_READY_TIMEOUT_S)
    except ServiceError as problem:
        _say(f"{problem}; measuring without it for now")


def _measure(
    data: Path,
    simulation: Mapping[str, Any],
    series: str,
    as_json: bool,
    *,
    faults: Sequence[str] = (),
    measurement: dict[str, Any] | None = None,
    done: Mapping[float, frozenset[Any]] | None = None,
    before: Any = None,
) -> None:
    """Measure a series on a simulated beamline, or the rest of one, and conclude it.

    `done` are the keys that are not taken any more, and `before` what was seen when they were.
    """
    from mistral_txm.plans import vector_tomography
    from mistral_txm.plans.steps import edge_series
    from mistral_txm.profile_collection.acquire import (
        MeasurementFailed,
        MeasurementInterrupted,
        acquire,
    )
    from mistral_txm.profile_collection.conclusion import conclude, conclude_edges
    from mistral_txm.profile_collection.outcome import short
    from mistral_txm.profile_collection.session import start

    rest = f"do the rest with: mistral-txm resume --series {short(series)} --data {data}"
    stage = _Stages()
    try:
        with ExitStack() as exits:
            with stage("start"):
                session = exits.enter_context(
                    start(
                        simulated=True,
                        data=data,
                        time_scale=TIME_SCALE,
                        faults=faults,
                        **simulation,
                    )
                )
                monitor = session.services["monitor"].wait_ready(READY_TIMEOUT_S)
            _say(f"monitor while it runs: {monitor['uri']}")
            with stage("live reconstruction starts"):
                _await_live(session.services["live"])
            # libca has read its environment now.
            from mistral_txm.profile_collection.simulated_operator import restoring_light

            what = (
                session[simulation["size"]](_sample(simulation["texture"]))
                if measurement is None
                else session.Measurement.from_dict(measurement)
            )
            with stage("measurement"), restoring_light(session.faults):
                acquire(
                    session.RE,
                    vector_tomography(
                        session.instrument, what, series=series, skip=done or {}, looked=before
                    ),
                )
            several = len(what.energies_ev) > 1
            if several:
                each = [edge_series(series, what, energy_ev) for energy_ev in what.energies_ev]
                summary = conclude_edges(data, each, stage)
            else:
                summary = conclude(data, series, stage, stage.seconds)
    except MeasurementInterrupted:
        _say(f"interrupted; what was exposed is safe in {data}\n{rest}")
        raise
    except MeasurementFailed as failure:
        raise CommandFailed(f"{failure}; {rest}") from failure
    if as_json:
        print_json(summary)
    elif several:
        for uid, one in summary["series"].items():
            print(f"series {uid}: {one['taken']} of {one['asked']} frames, {one['volume']}")
    else:
        _tell(data, summary)


def _sample(texture: str) -> Any:
    """Describe the simulated film as its owner would: name, where it is magnetic at the edge used, and surfaces."""
    from mistral_txm.plans import Sample
    from mistral_txm.simulated_beamline.textures import load
    from mistral_txm.simulated_beamline.truth import dichroic_layers_nm

    loaded = load(texture)
    return Sample(
        name=loaded.name,
        layers_nm=dichroic_layers_nm(loaded).tolist(),
        surfaces_nm=(
            min(layer.low_nm for layer in loaded.layers),
            max(layer.high_nm for layer in loaded.layers),
        ),
    )


def _tell(data: Path, summary: Mapping[str, Any]) -> None:
    """Say what came out, and where it is."""
    frames, found = summary["frames"], summary["singularities"]
    correlations = ", ".join(
        f"{name} {component['correlation']:.3f}"
        for name, component in summary["errors"]["components"].items()
    )
    print(
        f"frames: {frames['asked']} asked, {frames['taken']} taken, {frames['in_catalog']} in the catalog"
    )
    print(summary["alignment"]["message"])
    print(f"correlation with the truth: {correlations}")
    print(
        f"singularities: {found['true']} true ones in the judged field, {len(found['matched'])} found, "
        f"{len(found['missed'])} missed, {len(found['false'])} false"
    )
    for kind in ("skyrmions", "hopfions"):
        compared = summary["errors"][kind]
        if compared["true"]:
            print(
                f"{kind}: {compared['true']} true ones, {compared['recovered']} with their charge"
            )
    for name in ("summary.json", "magnetization.h5", "truth.h5", "report/index.html"):
        print(data / name)
    print(f"mistral-txm runs list --data {data}")

"""What a data folder holds: `status`, `verify` and `runs`."""

import argparse
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from mistral_txm.profile_collection.commands import CommandFailed
from mistral_txm.profile_collection.commands.arguments import (
    data_option,
    existing_data,
    json_option,
    print_json,
    print_table,
)


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parsers of this group."""
    status = commands.add_parser(
        "status", help="what is done and what comes next", description=_status.__doc__
    )
    status.add_argument("--series", metavar="UID", help="one series (default: all)")
    data_option(status)
    json_option(status)
    status.set_defaults(run=_status)

    verify = commands.add_parser(
        "verify", help="read every frame and checksum", description=_verify.__doc__
    )
    verify.add_argument("--series", metavar="UID", help="one series (default: all)")
    data_option(verify)
    json_option(verify)
    verify.set_defaults(run=_verify)

    runs = commands.add_parser("runs", help="the catalog", description="The runs of a data folder.")
    actions = runs.add_subparsers(metavar="ACTION", dest="action")
    listing = actions.add_parser("list", help="all runs, the oldest first (the default)")
    show = actions.add_parser("show", help="one run, as the catalog has it")
    show.add_argument("uid", metavar="UID", help="of the run, or its first characters")
    export = actions.add_parser("export", help="one run into a file")
    export.add_argument("uid", metavar="UID", help="of the run, or its first characters")
    export.add_argument(
        "--format",
        choices=("nxtomo", "martapp", "csv", "jsonl"),
        required=True,
        help="nxtomo: frames, one entry per helicity; martapp: a folder of images; csv: a table of the exposures; "
        "jsonl: the documents",
    )
    export.add_argument("--output", type=Path, required=True, metavar="PATH")
    for parser in (runs, listing, show, export):
        data_option(parser)
        json_option(parser)
        parser.set_defaults(run=_runs)


def _status(arguments: argparse.Namespace) -> None:
    """Say what is done of each series and what comes next, from the journal alone."""
    from mistral_txm.services.verification import series_states, series_status

    data = existing_data(arguments)
    if arguments.json:
        print_json(series_status(data, arguments.series))
        return
    states = series_states(data, arguments.series)
    returns = _returns_told(data) if any(not one.missing for one in states) else {}
    for one in states:
        rejected = f" ({one.rejected} of them rejected)" if one.rejected else ""
        waived = f", {one.waived} more are not needed" if one.waived else ""
        print(
            f"series {one.uid}: {one.state}, {one.accepted} of {one.planned} exposures accepted, "
            f"{one.missing} missing{rejected}, {one.repeated} repeated, {one.damaged} damaged{waived}"
        )
        if one.next:
            print(f"  next: {one.next}")
        elif one.uid in returns:
            print(f"  {returns[one.uid]}")
    if not states:
        print("no series here yet")


def _returns_told(data: Path) -> dict[str, str]:
    """Say of each series whose return to zero tilt can still be taken what that lacks, and what to type for it."""
    from mistral_txm.profile_collection.measured import open_returns
    from mistral_txm.profile_collection.outcome import return_told, short

    return {
        uid: f"{return_told(left)}: RE(resume({short(uid)!r})), or mistral-txm resume --series {short(uid)}, takes "
        "what it lacks"
        for uid, left in open_returns(data).items()
        if left
    }


def _verify(arguments: argparse.Namespace) -> None:
    """Read every frame that the journal acknowledges and compare its checksum; exit 3 if one is damaged or missing."""
    from mistral_txm.services.verification import verify

    found = [series.summary() for series in verify(existing_data(arguments), arguments.series)]
    if arguments.json:
        print_json({"series": found})
    else:
        for series in found:
            print(
                "series {uid}: {frames_read} frames read, {accepted} of {planned} exposures good, "
                "{missing} missing, {damaged} damaged".format(**series)
            )
            for frame in series["damaged_frames"]:
                print(f"  damaged: {frame['reason']}")
    missing = sum(series["missing"] for series in found)
    if missing:
        raise CommandFailed(
            f"{missing} exposures are missing or damaged; resume the series to take them"
        )
    # Of the sample a good exposure stands for each damaged one; a return to zero tilt is no part of the volume.
    spoilt = [
        one
        for series in found
        for one in series["damaged_frames"]
        if one["stream"] in ("dark", "flat")
    ]
    if spoilt:
        raise CommandFailed(
            f"{len(spoilt)} darks or flats are damaged; others of the same helicity or exposure time take their place, "
            "angles for which there are none cannot be made again"
        )


def _runs(arguments: argparse.Namespace) -> None:
    """List the runs of a data folder, show one, or export one."""
    data = existing_data(arguments)
    if arguments.action == "show":
        _show(data, arguments.uid, arguments.json)
    elif arguments.action == "export":
        _export(data, arguments.uid, arguments.format, arguments.output)
    else:
        _list(data, arguments.json)


def _list(data: Path, as_json: bool) -> None:
    from mistral_txm.services.runs import list_runs

    runs = list_runs(data)
    if as_json:
        print_json({"runs": [run.as_dict() for run in runs]})
        return
    print_table(
        ("run", "series", "started", "plan", "phi", "energy", "sample", "exposures", "ended"),
        (
            (
                run.uid[:8],
                (run.series or "")[:8],
                datetime.fromtimestamp(run.time).strftime("%Y-%m-%d %H:%M"),
                run.plan_name,
                "" if run.phi_deg is None else f"{run.phi_deg:g} deg",
                "" if run.energy_ev is None else f"{run.energy_ev:g} eV",
                run.sample or "",
                f"{run.rejected} rejected" if run.rejected else run.exposures,
                f"{run.exit_status}: {_first_line(run.reason)}" if run.reason else run.exit_status,
            )
            for run in runs
        ),
    )


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")


def _show(data: Path, uid: str, as_json: bool) -> None:
    """Show a run as the catalog has it: this starts the catalog's server where none runs."""
    from mistral_txm.services.catalog import open_catalog, reading
    from mistral_txm.services.exposures import RunExposures
    from mistral_txm.services.journal import read_journal
    from mistral_txm.services.run_export import find_run

    journal = find_run(data, uid)
    uid = journal.stem
    log = RunExposures.of(read_journal(journal)).log
    run = open_catalog(data)[uid]
    with reading(data, uid):
        parts = {name: run[name] for name in run}
        volumes = {name: _made(part) for name, part in parts.items() if _is_volume(part)}
        streams = {name: _shapes(part) for name, part in parts.items() if name not in volumes}
    shown = {
        "start": dict(run.metadata["start"]),
        "stop": run.metadata.get("stop"),
        "streams": streams,
        "volumes": volumes,
        "log": [asdict(entry) for entry in log],
    }
    if as_json:
        print_json(shown)
        return
    start = shown["start"]
    head = [f"run {uid}: {start.get('plan_name', '')}"]
    if "planned_keys" in start:  # a run of a series, and no count or scan
        head += [f"sample {start['sample']['name']}", f"phi {start['phi_deg']:g} deg"]
        head += [f"series {start['series']}"]
    if "rejected_keys" in start:
        head += [f"series {start['series']}", f"{len(start['rejected_keys'])} exposures rejected"]
        head += [_first_line(start["reason"])]
    print(", ".join(head))
    stop = shown["stop"]
    print(f"  ended: {stop['exit_status'] if stop else 'no stop document'}")
    for name, columns in streams.items():
        print(f"  {name}: " + ", ".join(f"{key} {shape}" for key, shape in columns.items()))
    for name, made in volumes.items():
        print(
            f"  {name}: {', '.join(made['arrays'])} {made['shape']}, of {made['angles']} angles of "
            f"{len(made['runs'])} runs, method {made['method']}, prior {made['prior']}"
        )
    for entry in log:
        at = datetime.fromtimestamp(entry.time).strftime("%Y-%m-%d %H:%M:%S")
        print(f"  {at} {entry.kind}: {entry.text}")


def _is_volume(part: Any) -> bool:
    return any(spec.name == "MagnetizationVolume" for spec in part.specs)


def _made(volume: Any) -> dict[str, Any]:
    """Return how a volume that stands beside the run was made."""
    return dict(volume.metadata["configuration"]["reconstruction"]["data"])


def _shapes(stream: Any) -> dict[str, list[int]]:
    """Return the shape of each column of a stream; frames stay where they are, there may be many GB of them."""
    columns = stream.metadata["data_keys"]
    frames = [name for name, column in columns.items() if "external" in column]
    table = stream.read([name for name in columns if name not in frames])
    shapes = {name: list(stream[name].shape) for name in frames}
    # A stream without an Event has no table yet.
    shapes |= {name: list(table[name].shape) for name in columns if name in table}
    return {name: shapes.get(name, [0]) for name in columns}


def _export(data: Path, uid: str, format: str, output: Path) -> None:
    from mistral_txm.services.run_export import export_run

    export_run(data, uid, format, output)
    print(output)

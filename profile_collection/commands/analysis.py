"""From files to results: `process`, `topology`, `export` and `report`; `reconstruct` has a module of its own."""

import argparse
import sys
from pathlib import Path

from mistral_txm.profile_collection.commands import reconstruct
from mistral_txm.profile_collection.commands.arguments import (
    data_option,
    existing_data,
    json_option,
    layers_nm,
    number,
    number_above_zero,
    print_json,
    print_table,
    writable,
)
from mistral_txm.profile_collection.session import data_folder

FORMATS = ("ovf", "vti", "tiff", "mrc", "martapp", "nxtomo")


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parsers of this group."""
    process = commands.add_parser(
        "process", help="raw frames to aligned dichroic stacks", description=_process.__doc__
    )
    process.add_argument(
        "raw",
        nargs="+",
        metavar="RAW",
        help="files of one sample, or folders of them: .xrm, .txrm, MARTApp's images or TomoNormalized stacks (one per "
        "helicity), NXtomo, or an aligned file; or the uid of a run or series of the data folder",
    )
    process.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="ALIGNED.h5",
        help="one file per azimuth; with several, _phiNNN is put before the ending",
    )
    process.add_argument(
        "--phi",
        nargs="+",
        type=number,
        action="extend",
        default=[],
        metavar="DEG",
        help="azimuth of all files, or of each RAW in order, deg, where the files do not say",
    )
    process.add_argument(
        "--ring-current-ma",
        type=number_above_zero,
        metavar="MA",
        help="ring current of images whose files do not say, if it was constant, mA",
    )
    process.add_argument(
        "--surfaces",
        type=_surfaces_nm,
        metavar="Z0:Z1",
        help="lower and upper surface of the sample on which gold spheres lie, nm from the middle of the film; without "
        "it heights are counted from the tilt axis (for files: our runs say it)",
    )
    data_option(process)
    process.set_defaults(run=_process)

    reconstruct.add_command(commands)

    topology = commands.add_parser(
        "topology", help="singularities and charges of a volume", description=_topology.__doc__
    )
    topology.add_argument(
        "volume", type=Path, metavar="OUT.h5", help="HDF5 with mx, my, mz, or OVF"
    )
    json_option(topology)
    topology.set_defaults(run=_topology)

    export = commands.add_parser("export", help="for other programs", description=_export.__doc__)
    export.add_argument("volume", type=Path, metavar="OUT.h5", help="a volume, or aligned stacks")
    export.add_argument("--format", choices=FORMATS, required=True)
    export.add_argument("--output", type=Path, required=True, metavar="PATH")
    export.add_argument(
        "--voxel-nm",
        type=number_above_zero,
        default=10.5,
        metavar="NM",
        help="pixel of aligned stacks that do not carry it, as MARTApp's (default 10.5)",
    )
    export.set_defaults(run=_export)

    report = commands.add_parser(
        "report", help="the figures a person looks at", description=_report.__doc__
    )
    report.add_argument("volume", type=Path, metavar="OUT.h5")
    report.add_argument("--output", type=Path, required=True, metavar="DIR")
    report.add_argument(
        "--series",
        metavar="UID",
        help="series of the data folder from which the volume was made, or its first characters; the page then tells "
        "what was measured and how well",
    )
    data_option(report)
    report.set_defaults(run=_report)


def _process(arguments: argparse.Namespace) -> None:
    """Turn raw frames into aligned absorption and dichroic stacks, in MARTApp's format before reconstruction."""
    from mistral_txm.services.aligned_files import process
    from mistral_txm.services.raw_files import RawInput

    writable(arguments.output)
    given = RawInput(tuple(arguments.phi), arguments.ring_current_ma, arguments.surfaces)
    written = process(arguments.raw, arguments.output, data_folder(arguments.data), given)
    for note in written.notes:
        print(note, file=sys.stderr)
    if written.alignment is not None:
        print(written.alignment.message, file=sys.stderr)
    for path in written.paths:
        print(path)


def _topology(arguments: argparse.Namespace) -> None:
    """Search a volume for singularities and give their positions, from the centre, and charges."""
    from mistral_txm.reconstruction import read_volume, topology_summary

    volume = read_volume(arguments.volume)
    found = topology_summary(volume.magnetic_czyx, volume.voxel_nm)
    if arguments.json:
        print_json(found)
        return
    if not found["points"]:
        print("no singularity found")
    else:
        print_table(
            ("x nm", "y nm", "z nm", "charge", "radius nm"),
            (
                (
                    *(f"{point[axis]:.0f}" for axis in ("x_nm", "y_nm", "z_nm")),
                    f"{point['charge']:+g}",
                    f"{point['radius_nm']:.0f}",
                )
                for point in found["points"]
            ),
        )
    hopf_index = found["hopf_index"]
    print(f"Hopf index: {'not defined here' if hopf_index is None else f'{hopf_index:.2f}'}")


def _export(arguments: argparse.Namespace) -> None:
    """Write a volume, or aligned stacks, for another program."""
    from mistral_txm.reconstruction import (
        export_series,
        export_volume,
        is_aligned,
        read_aligned,
        read_volume,
    )

    writable(arguments.output)
    if is_aligned(arguments.volume):
        series = read_aligned(arguments.volume)
        pixel_nm = series.pixel_nm or arguments.voxel_nm
        written = export_series(series, arguments.format, arguments.output, pixel_nm=pixel_nm)
    else:
        written = export_volume(read_volume(arguments.volume), arguments.format, arguments.output)
    for path in written:
        print(path)


def _report(arguments: argparse.Namespace) -> None:
    """Write the figures of a volume and one page that shows them."""
    from mistral_txm.services.report import write_report

    measured = frames = None
    if arguments.series is not None:
        from mistral_txm.services.live_files import LIVE, PAIR, read_pair
        from mistral_txm.services.measured_series import measured_series

        data = existing_data(arguments)
        measured = measured_series(data, arguments.series)
        pair = data / LIVE / measured.uid / PAIR
        frames = read_pair(pair) if pair.exists() else None
    print(write_report(arguments.volume, arguments.output, frames=frames, measured=measured))


def _surfaces_nm(text: str) -> tuple[float, float]:
    """Parse the two surfaces of a sample, ``Z0:Z1`` in nm from the middle of the film."""
    surfaces = layers_nm(text)
    if len(surfaces) != 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected one pair Z0:Z1, such as -170:120")
    return surfaces[0]

"""From files to results: `process`, `reconstruct`, `topology`, `export` and `report`."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mistral_txm.profile_collection.commands.arguments import (
    data_option,
    json_option,
    layers_nm,
    number,
    number_above_zero,
    print_json,
    print_table,
    whole_number,
)
from mistral_txm.profile_collection.session import data_folder

if TYPE_CHECKING:
    from mistral_txm.reconstruction import AlignedSeries

METHODS = ("direct", "art", "sirt", "cgls")
PRIORS = ("none", "layers", "norm")
SAME_PIXEL = 1e-3
SAME_AZIMUTH_DEG = 5.0
"""A person may state an azimuth as well as that; the refined one is in the file."""
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

    reconstruct = commands.add_parser(
        "reconstruct", help="aligned stacks to a volume", description=_reconstruct.__doc__
    )
    reconstruct.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="one per tilt series"
    )
    reconstruct.add_argument(
        "--phi",
        nargs="+",
        type=number,
        action="extend",
        required=True,
        metavar="DEG",
        help="azimuth of each FILE, deg, in order",
    )
    reconstruct.add_argument("--output", type=Path, required=True, metavar="OUT.h5")
    reconstruct.add_argument(
        "--voxel-nm", type=number_above_zero, default=10.5, metavar="NM", help="default 10.5"
    )
    reconstruct.add_argument(
        "--depth-voxels", type=whole_number(1), default=80, metavar="N", help="layers (default 80)"
    )
    reconstruct.add_argument("--method", choices=METHODS, default="direct")
    reconstruct.add_argument(
        "--prior",
        choices=PRIORS,
        default="none",
        help="layers: where the magnetic layers are; norm: that, |m| = 1 there, and exchange smoothing",
    )
    reconstruct.add_argument(
        "--layers",
        type=layers_nm,
        default=(),
        metavar="Z0:Z1[,Z0:Z1]",
        help="magnetic layers in nm from the middle of the film; layers and norm need them",
    )
    reconstruct.add_argument(
        "--delta-per-nm",
        type=number_above_zero,
        metavar="D",
        help="dichroic half-difference of the absorption coefficient, 1/nm; without it none and layers give m in "
        "units of the signal, 1/nm, and norm estimates it",
    )
    reconstruct.add_argument(
        "--roll",
        nargs="+",
        type=number,
        action="extend",
        metavar="DEG",
        help="by how much each FILE's sample was mounted turned about the horizontal axis, deg, in order (default 0): "
        "the second axis of a dual-axis measurement",
    )
    reconstruct.add_argument(
        "--isolated",
        action="store_true",
        help="nothing is magnetic outside the volume (a disc, a pillar), instead of a film that goes on; views of "
        "every direction, full turns too, by the methods that iterate",
    )
    reconstruct.add_argument(
        "--workers",
        default="1",
        metavar="N|tcp://SCHEDULER",
        help="solve the method direct on so many processes, or on the workers of a Dask scheduler (default 1: here, "
        "on all cores); the result is the same",
    )
    json_option(reconstruct)
    reconstruct.set_defaults(run=_reconstruct)

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
    report.set_defaults(run=_report)


def _process(arguments: argparse.Namespace) -> None:
    """Turn raw frames into aligned absorption and dichroic stacks, in MARTApp's format before reconstruction."""
    from mistral_txm.services.aligned_files import process
    from mistral_txm.services.raw_files import RawInput

    _writable(arguments.output)
    given = RawInput(tuple(arguments.phi), arguments.ring_current_ma, arguments.surfaces)
    written = process(arguments.raw, arguments.output, data_folder(arguments.data), given)
    for note in written.notes:
        print(note, file=sys.stderr)
    if written.alignment is not None:
        print(written.alignment.message, file=sys.stderr)
    for path in written.paths:
        print(path)


def _reconstruct(arguments: argparse.Namespace) -> None:
    """Solve all tilt series jointly for the three components of the magnetization."""
    from mistral_txm.reconstruction import (
        Grid,
        TiltSeries,
        input_file,
        read_aligned,
        reconstruct,
        volume_of,
        write_volume,
    )
    from mistral_txm.reconstruction.plausible import checked_pixel_nm
    from mistral_txm.reconstruction.series_checks import checked_series
    from mistral_txm.reconstruction.workers import spread_over

    files, phis_deg = arguments.files, arguments.phi
    if len(files) != len(phis_deg):
        raise ValueError(
            f"{len(files)} files but {len(phis_deg)} azimuths: give one --phi per FILE, in order"
        )
    rolls_deg = arguments.roll or [0.0] * len(files)
    if len(rolls_deg) != len(files):
        raise ValueError(
            f"{len(files)} files but {len(rolls_deg)} rolls: give one --roll per FILE, in order, or none"
        )
    if len({path.resolve() for path in files}) < len(files):
        raise ValueError(f"{files[-1]}: a FILE is given twice; give one per tilt series")
    checked_pixel_nm("--voxel-nm", arguments.voxel_nm)
    _writable(arguments.output)
    aligned = [read_aligned(path) for path in files]
    height, width = aligned[0].dichroic_tvu.shape[1:]
    for path, series in zip(files, aligned, strict=True):
        if series.dichroic_tvu.shape[1:] != (height, width):
            raise ValueError(
                f"{path}: images of {series.dichroic_tvu.shape[1:]} pixels, those of {files[0]} have "
                f"{(height, width)}; align the series on one field of view first"
            )
    for path, series, phi_deg in zip(files, aligned, phis_deg, strict=True):
        _agrees(path, series, phi_deg, arguments.voxel_nm)
    grid = Grid((arguments.depth_voxels, height, width), arguments.voxel_nm)
    tilt_series, notes = checked_series(
        [
            TiltSeries(phi_deg, series.theta_deg, series.dichroic_tvu, roll_deg=roll_deg)
            for phi_deg, roll_deg, series in zip(phis_deg, rolls_deg, aligned, strict=True)
        ],
        [str(path) for path in files],
        grid,
        isolated=arguments.isolated,
    )
    with spread_over(arguments.workers) as spread:
        result = reconstruct(
            tilt_series,
            grid,
            method=arguments.method,
            prior=arguments.prior,
            layers_nm=arguments.layers,
            delta_per_nm=arguments.delta_per_nm,
            isolated=arguments.isolated,
            spread=spread,
        )
    options = {
        "phi_deg": phis_deg,
        "roll_deg": rolls_deg,
        "isolated": arguments.isolated,
        "depth_voxels": arguments.depth_voxels,
        "layers_nm": arguments.layers,
        "delta_per_nm": arguments.delta_per_nm,
    }
    volume = volume_of(
        result,
        tilt_series,
        layers_nm=arguments.layers,
        inputs=[input_file(path) for path in files],
        options=options,
    )
    write_volume(arguments.output, volume)
    for note in notes:
        print(note, file=sys.stderr)
    if arguments.json:
        print_json(
            {
                "output": str(arguments.output),
                "shape_zyx": list(volume.mx.shape),
                "method": volume.method,
                "prior": volume.prior,
                "delta_per_nm": volume.delta_per_nm,
                "unit": volume.unit,
            }
        )
    else:
        print(
            f"{arguments.output}: {volume.mx.shape} voxels [z, y, x], {volume.method}, prior {volume.prior}"
        )


def _agrees(path: Path, series: "AlignedSeries", phi_deg: float, voxel_nm: float) -> None:
    """Refuse options that contradict what our own processing wrote into a file.

    Raises
    ------
    ValueError
        With one line.
    """
    if series.pixel_nm is not None and abs(series.pixel_nm / voxel_nm - 1) > SAME_PIXEL:
        raise ValueError(
            f"{path}: pixels of {series.pixel_nm:g} nm, but --voxel-nm {voxel_nm:g}; give the pixel of the file"
        )
    if series.phi_deg is not None and abs(series.phi_deg - phi_deg) > SAME_AZIMUTH_DEG:
        raise ValueError(
            f"{path}: aligned at phi {series.phi_deg:.3f} deg, but --phi {phi_deg:g}; give the azimuth of the file"
        )


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

    _writable(arguments.output)
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

    print(write_report(arguments.volume, arguments.output))


def _surfaces_nm(text: str) -> tuple[float, float]:
    """Parse the two surfaces of a sample, ``Z0:Z1`` in nm from the middle of the film."""
    surfaces = layers_nm(text)
    if len(surfaces) != 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected one pair Z0:Z1, such as -170:120")
    return surfaces[0]


def _writable(path: Path) -> None:
    """Refuse an output whose folder is missing before hours are spent on it.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        With one line.
    """
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"{path}: the folder {path.absolute().parent} does not exist; make it first"
        )
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; name a file")
    if not os.access(path.absolute().parent, os.W_OK):
        raise PermissionError(
            f"{path}: the folder {path.absolute().parent} may not be written to; choose another"
        )

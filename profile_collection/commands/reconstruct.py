"""From aligned stacks to a volume: `reconstruct`."""

import argparse
import math
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mistral_txm.profile_collection.commands.arguments import (
    json_option,
    layers_nm,
    number,
    number_above_zero,
    print_json,
    whole_number,
    writable,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mistral_txm.reconstruction import AlignedSeries, Grid, Reconstruction, TiltSeries, Volume

METHODS = ("direct", "art", "sirt", "cgls")
PRIORS = ("none", "layers", "norm")
SAME_PIXEL = 1e-3
SAME_AZIMUTH_DEG = 5.0
"""A person may state an azimuth as well as that; the refined one is in the file."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of `reconstruct`."""
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
        help="spread the method direct, and what --bootstrap and --resolution solve, over so many processes, or over "
        "the workers of a Dask scheduler (default 1: here, on all cores); the result is the same",
    )
    reconstruct.add_argument(
        "--bootstrap",
        type=whole_number(2),
        metavar="N",
        help="write the standard deviation of every voxel that the noise makes, from N volumes more, of views weighted "
        "at random; good to 1 / sqrt(2 N); methods direct and cgls",
    )
    reconstruct.add_argument(
        "--resolution",
        action="store_true",
        help="say at which length in nm the volumes of the even and of the odd views agree to half a bit; solves two "
        "volumes more, of half of the views each",
    )
    reconstruct.add_argument(
        "--residual-maps",
        type=Path,
        metavar="MAPS.h5",
        help="also write what the volume leaves of each view, in units of the noise, and its mean square by voxel",
    )
    json_option(reconstruct)
    reconstruct.set_defaults(run=_reconstruct)


def _reconstruct(arguments: argparse.Namespace) -> None:
    """Solve all tilt series jointly for the three components of the magnetization."""
    from mistral_txm.reconstruction import input_file, reconstruct, volume_of, write_volume
    from mistral_txm.reconstruction.residual_maps import residual_maps, write_residual_maps
    from mistral_txm.reconstruction.resolution import half_set_resolution_nm
    from mistral_txm.reconstruction.uncertainty import with_bootstrap_std
    from mistral_txm.reconstruction.workers import spread_over

    tilt_series, grid, notes = _checked_input(arguments)
    layers_nm, bootstrap = arguments.layers, arguments.bootstrap
    solve = partial(
        reconstruct,
        grid=grid,
        method=arguments.method,
        prior=arguments.prior,
        layers_nm=layers_nm,
        delta_per_nm=arguments.delta_per_nm,
        isolated=arguments.isolated,
    )
    inputs = [input_file(path) for path in arguments.files]
    options = {
        "phi_deg": arguments.phi,
        "roll_deg": [one.roll_deg for one in tilt_series],
        "isolated": arguments.isolated,
        "depth_voxels": arguments.depth_voxels,
        "layers_nm": layers_nm,
        "delta_per_nm": arguments.delta_per_nm,
    }

    def written(result: "Reconstruction", **more: int) -> "Volume":
        volume = volume_of(
            result, tilt_series, layers_nm=layers_nm, inputs=inputs, options=options | more
        )
        write_volume(arguments.output, volume)
        return volume

    resolution_nm = None
    with spread_over(arguments.workers) as spread:
        result = solve(tilt_series, spread=spread)
        volume = written(result)  # before what takes longer: it stays if that is broken off
        if arguments.residual_maps:
            maps = residual_maps(tilt_series, result, layers_nm=layers_nm)
            write_residual_maps(arguments.residual_maps, maps)
        if arguments.resolution:
            resolution_nm = half_set_resolution_nm(tilt_series, solve, spread=spread)
        if bootstrap:
            result = with_bootstrap_std(result, tilt_series, solve, bootstrap, spread=spread)
            volume = written(result, bootstrap=bootstrap)
    for note in notes:
        print(note, file=sys.stderr)
    told = _told(arguments, result, volume, resolution_nm)
    if arguments.json:
        print_json(told)
    else:
        print(*_lines(arguments, told), sep="\n")


def _checked_input(arguments: argparse.Namespace) -> tuple[list["TiltSeries"], "Grid", list[str]]:
    """Read the files, and refuse what cannot be reconstructed, or not with these options, before any work.

    Raises
    ------
    ValueError, OSError
        With one line.
    """
    from mistral_txm.reconstruction import Grid, TiltSeries, read_aligned
    from mistral_txm.reconstruction.plausible import checked_pixel_nm
    from mistral_txm.reconstruction.resolution import half_sets
    from mistral_txm.reconstruction.series_checks import checked_series
    from mistral_txm.reconstruction.uncertainty import check_bootstrap

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
    writable(arguments.output)
    if arguments.bootstrap:
        check_bootstrap(arguments.method)
    if arguments.residual_maps:
        if arguments.isolated:
            raise ValueError("--residual-maps: made for a film, not with --isolated; leave it out")
        if arguments.residual_maps.resolve() == arguments.output.resolve():
            raise ValueError(f"{arguments.output}: --residual-maps and --output name one file")
        writable(arguments.residual_maps)
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
            TiltSeries(
                phi_deg, series.theta_deg, series.dichroic_tvu, series.std_t, roll_deg=roll_deg
            )
            for phi_deg, roll_deg, series in zip(phis_deg, rolls_deg, aligned, strict=True)
        ],
        [str(path) for path in files],
        grid,
        isolated=arguments.isolated,
    )
    if arguments.resolution:
        half_sets(tilt_series)
    return tilt_series, grid, notes


def _told(
    arguments: argparse.Namespace,
    result: "Reconstruction",
    volume: "Volume",
    resolution_nm: dict[str, float] | None,
) -> dict[str, Any]:
    """What is said of a volume, as ``--json`` prints it: resolutions that the halves do not tell as null."""
    rms, noise = result.residual_rms_per_view, result.noise_per_view
    views = [(one.phi_deg, float(theta)) for one in volume.residuals for theta in one.theta_deg]
    over_noise = rms / noise
    worst = int(over_noise.argmax())
    told: dict[str, Any] = {
        "output": str(arguments.output),
        "shape_zyx": list(volume.mx.shape),
        "voxel_nm": volume.voxel_nm,
        "method": volume.method,
        "prior": volume.prior,
        "delta_per_nm": volume.delta_per_nm,
        "unit": volume.unit,
        "residual": {
            "rms": _rms(rms),
            "over_noise": _rms(over_noise),
            "largest": {
                "phi_deg": views[worst][0],
                "theta_deg": views[worst][1],
                "over_noise": float(over_noise[worst]),
            },
        },
    }
    if resolution_nm is not None:
        told["resolution_nm"] = dict(resolution_nm)
        if not 2.1 * volume.voxel_nm < resolution_nm["lateral"] < math.inf:
            told["resolution_nm"]["lateral"] = None
        if not math.isfinite(resolution_nm["axial"]):
            told["resolution_nm"]["axial"] = None
    if arguments.bootstrap and volume.std is not None:
        inside = volume.std[volume.std > 0]
        told["bootstrap"] = {"volumes": arguments.bootstrap, "std_rms": _rms(inside)}
    if arguments.residual_maps:
        told["residual_maps"] = str(arguments.residual_maps)
    return told


def _rms(values: "NDArray[Any]") -> float:
    return float((values.astype("f8") ** 2).mean() ** 0.5) if values.size else 0.0


def _lines(arguments: argparse.Namespace, told: dict[str, Any]) -> list[str]:
    """The same for a person."""
    residual, largest = told["residual"], told["residual"]["largest"]
    lines = [
        f"{told['output']}: {tuple(told['shape_zyx'])} voxels [z, y, x], {told['method']}, prior {told['prior']}",
        f"left of the signal: {residual['rms']:.2g} rms, {residual['over_noise']:.2f} of the noise; most at phi "
        f"{largest['phi_deg']:g}, theta {largest['theta_deg']:g} deg: {largest['over_noise']:.2f} of the noise",
    ]
    if told["delta_per_nm"] is not None and arguments.delta_per_nm is None:
        lines.append(f"delta: {told['delta_per_nm']:.3g} 1/nm, estimated")
    if "bootstrap" in told:
        unit = "" if told["unit"] == "1" else f" {told['unit']}"
        volumes, std_rms = told["bootstrap"]["volumes"], told["bootstrap"]["std_rms"]
        lines.append(
            f"standard deviation of a component by the noise: {std_rms:.2g}{unit} rms, from {volumes} volumes"
        )
    if "resolution_nm" in told:
        lateral, axial = (told["resolution_nm"][name] for name in ("lateral", "axial"))
        lines.append(
            "resolution: not told: the halves of the views agree at no frequency, or, by noise that they share, at all"
            if lateral is None
            else f"resolution of half sets: {lateral:.0f} nm in the plane"
            + (f"; along the normal the noise leaves {axial:.0f} nm" if axial is not None else "")
        )
    if "residual_maps" in told:
        lines.append(f"{told['residual_maps']}: residuals of the views and misfit by voxel")
    return lines


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

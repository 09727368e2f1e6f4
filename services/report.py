"""The report of a measurement: one HTML page with figures beside it, to be put into a logbook.

`write_report` reads a volume (and the truth, where there is one), draws the figures of
`mistral_txm.services.figures` as PNG files, and writes ``index.html`` with relative links to them.
The page needs nothing from outside its folder.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np

from mistral_txm.reconstruction.volume_file import Volume, read_volume
from mistral_txm.services.data_section import (
    data_section,
    provenance_section,
    what_the_data_say,
)
from mistral_txm.services.drawing import STYLE, plain
from mistral_txm.services.fields import Field, Points, field_of
from mistral_txm.services.live_files import FrameExamples
from mistral_txm.services.magnetization_section import magnetization_section
from mistral_txm.services.measured_series import MeasuredSeries
from mistral_txm.services.measurement_section import measurement_section, numbers_section
from mistral_txm.services.planar_section import planar_section
from mistral_txm.services.quality_section import quality_section
from mistral_txm.services.report_parts import Section, Subject, counted, number_text
from mistral_txm.services.singularity_section import singularity_section
from mistral_txm.services.truth import (
    Truth,
    margin_seen_by_all_nm,
    moved,
    read_truth,
    resample,
    singularities_in_layers,
    unit_factor,
)
from mistral_txm.services.truth_comparison import compare_with_truth
from mistral_txm.services.truth_section import truth_section

PAGE = "index.html"


def write_report(
    volume_path: Path,
    output: Path,
    *,
    truth_path: Path | None = None,
    truth_move_xy_nm: tuple[float, float] = (0.0, 0.0),
    frames: FrameExamples | None = None,
    summary: Mapping[str, Any] | None = None,
    measured: MeasuredSeries | None = None,
) -> Path:
    """Write the figures of a volume as PNG files and one HTML page that shows them.

    Args:
        volume_path: a volume as ``mistral-txm reconstruct`` writes it.
        output: folder for the page and its figures; made if it is not there.
        truth_path: the ``truth.h5`` of the simulated beamline; with it every slice stands beside
            the true one, and the errors are given.
        truth_move_xy_nm: where the truth's origin lies in the volume (`truth.fiducials_move_xy_nm`).
        frames: a raw frame and the images of its angle.
        summary: numbers of the measurement, such as the ``summary.json`` of the demo. ``sample``
            and ``series`` name the page; ``seconds`` is a mapping of stages to seconds; every other
            number or text is listed under its name, one level of mappings deep. ``errors`` and
            ``singularities`` are left out: the page has sections of its own for these.
        measured: what journal and live reconstruction say of the series; with it the page tells how good
            the measurement is.

    Returns:
        The path of the page.

    Raises:
        ValueError: a file is not what it should be; the message names it.
        OSError: the folder cannot be written.
    """
    truth = None
    if truth_path is not None:
        truth = moved(read_truth(truth_path), truth_move_xy_nm)
    subject = _prepare(volume_path, output, truth, frames, summary or {}, measured)
    with mpl.rc_context(dict(STYLE)):
        sections = [section for section in _sections(subject) if section is not None]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(
        resources.files("mistral_txm.services").joinpath("report.html").read_text(encoding="utf-8")
    )
    sample = _sample_name(subject)
    page = output / PAGE
    page.write_text(
        template.render(
            title=f"Magnetization of {sample}" if sample else "Magnetization of a film",
            subtitle=_subtitle(subject, volume_path),
            tiles=_tiles(subject),
            honest=what_the_data_say(subject),
            sections=sections,
        ),
        encoding="utf-8",
    )
    return page


def _prepare(
    volume_path: Path,
    output: Path,
    truth: Truth | None,
    frames: FrameExamples | None,
    summary: Mapping[str, Any],
    measured: MeasuredSeries | None,
) -> Subject:
    volume = read_volume(volume_path)
    drawn = field_of(volume)
    layers_nm = volume.layers_nm or (truth.layers_nm if truth is not None else ())
    found = singularities_in_layers(volume, layers_nm)
    true_field = comparison = None
    if truth is not None:
        m_czyx = resample(truth.m_czyx, truth.voxel_nm, drawn.shape_zyx, volume.voxel_nm)
        true_field = replace(drawn, m_czyx=m_czyx / np.float32(unit_factor(volume, truth)))
        width_nm = min(truth.m_czyx.shape[2:]) * truth.voxel_nm
        comparison = compare_with_truth(
            volume, truth, found=found, margin_nm=_margin_nm(volume, truth.layers_nm, width_nm)
        )
    output.mkdir(parents=True, exist_ok=True)
    return Subject(
        volume=volume,
        field=drawn,
        layers_nm=layers_nm,
        slices_nm=_slices_nm(drawn, layers_nm),
        margin_nm=_margin_nm(volume, layers_nm, min(volume.mx.shape[1:]) * volume.voxel_nm),
        found=found,
        points=Points(found, truth.singularities if truth is not None else ()),
        truth=truth,
        true_field=true_field,
        comparison=comparison,
        frames=frames,
        summary=summary,
        measured=measured,
        output=output,
    )


def _margin_nm(volume: Volume, layers_nm: Sequence[tuple[float, float]], width_nm: float) -> float:
    """Margin of a field of a width within which not all views of a volume look."""
    half_depth_nm = max((abs(face) for layer in layers_nm for face in layer), default=0.0)
    views = volume.residuals
    return margin_seen_by_all_nm(
        width_nm,
        half_depth_nm,
        [phi_deg for phi_deg, _, _ in views] or [0.0],
        max((float(np.max(np.abs(theta_deg))) for _, theta_deg, _ in views), default=0.0),
    )


def _slices_nm(drawn: Field, layers_nm: Sequence[tuple[float, float]]) -> list[tuple[str, float]]:
    """Name and height of the slices that are shown: the middle of each layer, or the strongest
    slice."""
    if not layers_nm:
        return [("strongest slice", drawn.strongest_height_nm)]
    ordered = sorted(layers_nm)
    names = {
        1: ["magnetic layer"],
        2: ["lower layer", "upper layer"],
    }.get(len(ordered), [f"layer {number}" for number in range(1, len(ordered) + 1)])
    middles_nm = [(low + high) / 2 for low, high in ordered]
    return list(zip(names, middles_nm, strict=True))


def _sections(subject: Subject) -> Iterator[Section | None]:
    yield measurement_section(subject)
    yield quality_section(subject)
    yield magnetization_section(subject)
    yield singularity_section(subject)
    yield planar_section(subject)
    yield truth_section(subject)
    yield data_section(subject)
    yield provenance_section(subject)
    yield numbers_section(subject)


def _tiles(subject: Subject) -> list[tuple[str, str]]:
    volume = subject.volume
    n_z, n_y, n_x = volume.mx.shape
    tiles = [
        ("method", volume.method),
        ("prior", volume.prior),
        (
            "δ (1/nm)" if volume.unit == "1" else "δ (1/nm): the field is in units of the signal",
            f"{volume.delta_per_nm:.3g}" if volume.delta_per_nm else "not known",
        ),
        (f"voxels (x, y, z) of {plain(volume.voxel_nm)} nm", f"{n_x} × {n_y} × {n_z}"),
    ]
    n_views = sum(len(theta_deg) for _, theta_deg, _ in volume.residuals)
    if n_views:
        azimuths = ", ".join(f"{plain(phi)}°" for phi, _, _ in volume.residuals)
        tiles.append((f"views, azimuths {azimuths}", str(n_views)))
    if subject.comparison is not None:
        correlations = [
            values["correlation"] for values in subject.comparison["components"].values()
        ]
        tiles.append(
            (
                "correlation with the truth, x, y, z",
                " ".join(number_text(value, 2) for value in correlations),
            )
        )
        tiles += _recovered(subject.comparison)
    else:
        tiles.append(("singularities found where all views look", str(len(subject.seen))))
    return tiles


def _recovered(comparison: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Tiles that say how much of what is singular in the truth was found."""
    judged = comparison["singularities"]
    textures = [(name, comparison[name]) for name in ("skyrmions", "hopfions")]
    if judged["true"] or judged["false"] or not any(one["true"] for _, one in textures):
        of = counted(judged["true"], "true singularity", "true singularities")
        yield f"of {of} found; {len(judged['false'])} false", str(len(judged["matched"]))
    for name, one in textures:
        if one["true"]:
            of = counted(one["true"], f"true {name[:-1]}", f"true {name}")
            yield f"of {of} with the right charge", str(one["recovered"])


def _sample_name(subject: Subject) -> str:
    if subject.measured is not None:
        return subject.measured.sample
    sample = subject.summary.get("sample", "")
    return str(sample.get("name", "") if isinstance(sample, Mapping) else sample)


def _subtitle(subject: Subject, volume_path: Path) -> str:
    parts = [volume_path.name]
    measured = subject.measured
    if series := subject.summary.get("series") or (measured.uid if measured is not None else None):
        parts.append(f"series {series}")
    if subject.truth is not None:
        parts.append(f"simulated sample {subject.truth.texture!r}, compared with its truth")
    return ", ".join(parts)

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
from mistral_txm.services import figures, quality_figures
from mistral_txm.services.drawing import STYLE, plain
from mistral_txm.services.fields import Field, Points, field_of
from mistral_txm.services.live_files import FrameExamples
from mistral_txm.services.report_parts import (
    Section,
    Subject,
    Table,
    counted,
    number_text,
    words,
)
from mistral_txm.services.singularity_section import singularity_section
from mistral_txm.services.truth import (
    Truth,
    in_layers,
    margin_seen_by_all_nm,
    moved,
    read_truth,
    resample,
    singularities_in_layers,
    unit_factor,
)
from mistral_txm.services.truth_comparison import angles_deg, compare_with_truth, magnetic_pairs

PAGE = "index.html"


def write_report(
    volume_path: Path,
    output: Path,
    *,
    truth_path: Path | None = None,
    truth_move_xy_nm: tuple[float, float] = (0.0, 0.0),
    frames: FrameExamples | None = None,
    summary: Mapping[str, Any] | None = None,
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

    Returns:
        The path of the page.

    Raises:
        ValueError: a file is not what it should be; the message names it.
        OSError: the folder cannot be written.
    """
    truth = None
    if truth_path is not None:
        truth = moved(read_truth(truth_path), truth_move_xy_nm)
    subject = _prepare(volume_path, output, truth, frames, summary or {})
    with mpl.rc_context(dict(STYLE)):
        sections = [section for section in _sections(subject) if section is not None]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(
        resources.files("mistral_txm.services").joinpath("report.html").read_text(encoding="utf-8")
    )
    sample = _sample_name(subject.summary)
    page = output / PAGE
    page.write_text(
        template.render(
            title=f"Magnetization of {sample}" if sample else "Magnetization of a film",
            subtitle=_subtitle(subject, volume_path),
            tiles=_tiles(subject),
            honest=_what_the_data_say(subject),
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
) -> Subject:
    volume = read_volume(volume_path)
    drawn = field_of(volume)
    layers_nm = volume.layers_nm or (truth.layers_nm if truth is not None else ())
    found = singularities_in_layers(volume, layers_nm)
    true_field = comparison = None
    if truth is not None:
        m_czyx = resample(truth.m_czyx, truth.voxel_nm, drawn.shape_zyx, volume.voxel_nm)
        true_field = replace(drawn, m_czyx=m_czyx / np.float32(unit_factor(volume, truth)))
        comparison = compare_with_truth(
            volume, truth, found=found, margin_nm=_margin_nm(volume, truth)
        )
    output.mkdir(parents=True, exist_ok=True)
    return Subject(
        volume=volume,
        field=drawn,
        layers_nm=layers_nm,
        slices_nm=_slices_nm(drawn, layers_nm),
        found=found,
        points=Points(found, truth.singularities if truth is not None else ()),
        truth=truth,
        true_field=true_field,
        comparison=comparison,
        frames=frames,
        summary=summary,
        output=output,
    )


def _margin_nm(volume: Volume, truth: Truth) -> float:
    half_depth_nm = max((abs(face) for layer in truth.layers_nm for face in layer), default=0.0)
    width_nm = min(truth.m_czyx.shape[2:]) * truth.voxel_nm
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
    yield _measurement_section(subject)
    yield _magnetization_section(subject)
    yield singularity_section(subject)
    yield _truth_section(subject)
    yield _data_section(subject)
    yield _provenance_section(subject)


def _measurement_section(subject: Subject) -> Section | None:
    section = Section("What was measured")
    frames = subject.frames
    if frames is not None:
        view = f"azimuth {plain(frames.phi_deg)}°, tilt {plain(frames.theta_deg)}°"
        section.figures.append(
            subject.draw(
                "frames",
                figures.frames_figure(
                    frames.frame_vu,
                    frames.absorption_vu,
                    frames.dichroic_vu,
                    subject.volume.voxel_nm,
                    view,
                ),
                f"One view of the sample ({view}). Left: a single raw frame of helicity {frames.helicity:+d}, as "
                "the camera gave it. Middle and right: sum and difference of both helicities after "
                "dark, flat, ring current and exposure were corrected, repeats averaged, and the "
                "logarithm taken. Grey values and colours span 99 % of the pixels.",
            )
        )
    numbers, seconds = _numbers(subject.summary)
    if numbers:
        section.tables.append(Table("Measurement", numbers))
    if seconds:
        section.tables.append(Table("Time per stage", seconds, ("stage", "s")))
    return section if section.figures or section.tables else None


def _magnetization_section(subject: Subject) -> Section:
    section = Section("The magnetization")
    truth = subject.true_field
    beside = (
        " Beside it the true field of the simulated sample, and the difference."
        if truth is not None
        else ""
    )
    marks = "Rings: singularities found" + ("; crosses: true ones." if subject.points.true else ".")
    for number, (name, z_nm) in enumerate(subject.slices_nm, start=1):
        section.figures.append(
            subject.draw(
                f"components_{number}",
                figures.components_figure(subject.field, z_nm, name, truth, subject.points),
                f"The three components in the {name} (z = {plain(z_nm)} nm).{beside} {marks}",
            )
        )
    section.figures.append(
        subject.draw(
            "direction",
            figures.direction_figure(subject.field, subject.slices_nm, truth, subject.points),
            "Direction of the in-plane part: colour after the wheel and, so that nothing hangs on "
            "colour alone, arrows (scaled in each panel; their length is the in-plane part). Grey: "
            f"shorter than a tenth of the colour limit of the components. {marks}",
        )
    )
    y_nm, x_nm, through = _section_through(subject)
    section.figures.append(
        subject.draw(
            "section_xz",
            figures.section_figure(
                subject.field, y_nm, x_nm, through, subject.layers_nm, truth, subject.points
            ),
            f"Cross-section {through}, at y = {plain(y_nm)} nm; dashed: faces of the magnetic "
            f"layers; arrows: (m_x, m_z).{beside}",
        )
    )
    return section


def _section_through(subject: Subject) -> tuple[float, float, str]:
    """Where the cross-section is: y, the middle in x, and what it goes through."""
    if subject.found:
        strongest = subject.found[0]
        return strongest.y_nm, strongest.x_nm, "through the strongest singularity found"
    if subject.points.true:
        true = max(subject.points.true, key=lambda point: abs(point.charge))
        return true.y_nm, true.x_nm, "through the strongest true singularity"
    return 0.0, 0.0, "through the middle"


def _truth_section(subject: Subject) -> Section | None:
    comparison = subject.comparison
    if comparison is None or subject.truth is None:
        return None
    section = Section("Against the truth")
    covered = 1 - comparison["not_covered_fraction"]
    scaled = (
        " The volume is in units of the signal; it was divided by the true δ for these numbers."
        if comparison["scaled_by_true_delta"]
        else ""
    )
    section.paragraphs.append(
        f"Over {comparison['voxels']:,} magnetic voxels, {comparison['margin_nm']:.0f} nm off "
        "the border of the field, which every view sees; the volume covers "
        f"{covered:.0%} of them.{scaled}"
    )
    section.tables += [
        Table(
            "Components",
            [
                (
                    name,
                    number_text(values["correlation"], 3),
                    number_text(values["amplitude_ratio"], 2),
                    number_text(values["rms_error"], 2),
                )
                for name, values in comparison["components"].items()
            ],
            ("", "correlation", "amplitude that came back", "rms error"),
        ),
        Table(
            "Vectors",
            [
                ("relative vector error", number_text(comparison["relative_vector_error"], 3)),
                ("median angle error (deg)", number_text(comparison["median_angle_error_deg"], 1)),
                ("amplitude that came back", number_text(comparison["amplitude_ratio"], 2)),
            ],
            ("", "value"),
        ),
    ]
    r_cn, t_cn, _ = magnetic_pairs(subject.volume, subject.truth, comparison["margin_nm"])
    errors_deg = angles_deg(r_cn, t_cn)
    if errors_deg.size:
        section.figures.append(
            subject.draw(
                "agreement",
                quality_figures.agreement_figure(
                    r_cn,
                    t_cn,
                    [values["correlation"] for values in comparison["components"].values()],
                    errors_deg,
                ),
                "Reconstructed against true value of each component (darker: more voxels, "
                "logarithmic; dashed: equal), and the angle between both vectors.",
            )
        )
    return section


def _data_section(subject: Subject) -> Section | None:
    section = Section("What the data say", beside=True)
    volume = subject.volume
    if volume.data_fraction is not None:
        section.figures.append(
            subject.draw(
                "data_fraction",
                quality_figures.data_fraction_figure(
                    volume.data_fraction,
                    volume.voxel_nm,
                    subject.slices_nm,
                    _section_through(subject)[0],
                ),
                "How much of each voxel comes from the data: 1 where the views determine it, "
                "0 where it is what the prior, or the lack of one, says.",
            )
        )
    if volume.residuals:
        section.figures.append(
            subject.draw(
                "residual",
                quality_figures.residual_figure(
                    [
                        (f"azimuth {plain(phi_deg)}°", theta_deg, rms)
                        for phi_deg, theta_deg, rms in volume.residuals
                    ]
                ),
                "What the volume leaves of the dichroic signal of each view: noise, if the model "
                "is right; a view that stands out deserves a look.",
            )
        )
    return section if section.figures else None


def _provenance_section(subject: Subject) -> Section | None:
    rows = subject.volume.provenance
    return Section("How it was made", tables=[Table("Provenance", rows)]) if rows else None


def _what_the_data_say(subject: Subject) -> str:
    """One honest sentence on what comes from the data and what from a prior."""
    volume = subject.volume
    share = ""
    if volume.data_fraction is not None:
        fraction = volume.data_fraction[np.any(in_layers(volume, subject.layers_nm) != 0, axis=0)]
        if fraction.size:
            share = f" (on average {float(np.mean(fraction)):.0%} of a voxel of the layers)"
    layers = ", ".join(f"{plain(low)} to {plain(high)} nm" for low, high in subject.layers_nm)
    unseen = (
        "the views cannot see fields that are gradients inside the magnet, nor what the missing "
        "tilts would have shown"
    )
    if volume.prior == "none":
        return (
            f"No prior: everything shown comes from the data{share}; {unseen}, and that part is "
            "absent here, not zero in the sample, so amplitudes are too low and layers are smeared "
            "along z."
        )
    if volume.prior == "layers":
        return (
            f"From the data comes what the views determine{share}; {unseen}, and that part follows "
            f"from the one assumption that only the layers are magnetic ({layers or 'as given'})."
        )
    if volume.prior == "norm":
        return (
            f"From the data comes what the views determine{share}; {unseen}, and that part follows "
            f"from assumptions: only the layers are magnetic ({layers or 'as given'}), the "
            "magnetization has unit length there, and neighbours are nearly parallel."
        )
    return (
        f"Made with the prior “{volume.prior}”; {unseen}: that part of it is not measured{share}."
    )


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
        judged = subject.comparison["singularities"]
        tiles.append(
            (
                f"of {counted(judged['true'], 'true singularity', 'true singularities')} found; "
                f"{len(judged['false'])} false",
                str(len(judged["matched"])),
            )
        )
    else:
        tiles.append(("singularities found", str(len(subject.found))))
    return tiles


def _numbers(
    summary: Mapping[str, Any],
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Rows for the numbers of a measurement, and for its seconds per stage; what is deeper is left
    out."""
    numbers: list[tuple[str, str]] = []
    seconds: list[tuple[str, str]] = []
    for name, value in summary.items():
        if name in ("errors", "singularities"):
            continue
        if isinstance(value, Mapping):
            inner = [(words(key), _scalar(item)) for key, item in value.items()]
            known = [(key, text) for key, text in inner if text is not None]
            if name == "seconds":
                seconds += known
            else:
                numbers += [(f"{words(name)}: {key}", text) for key, text in known]
        else:
            text = _scalar(value)
            if text is not None:
                numbers.append((words(name), text))
    return numbers, seconds


def _scalar(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and value:
        texts = [_scalar(item) for item in value]
        known = [text for text in texts if text is not None]
        return ", ".join(known) if len(known) == len(texts) else None
    return None


def _sample_name(summary: Mapping[str, Any]) -> str:
    sample = summary.get("sample", "")
    return str(sample.get("name", "") if isinstance(sample, Mapping) else sample)


def _subtitle(subject: Subject, volume_path: Path) -> str:
    parts = [volume_path.name]
    if subject.summary.get("series"):
        parts.append(f"series {subject.summary['series']}")
    if subject.truth is not None:
        parts.append(f"simulated sample {subject.truth.texture!r}, compared with its truth")
    return ", ".join(parts)

"""The report's section on how far a volume is from the truth, where there is one."""

from mistral_txm.services import quality_figures
from mistral_txm.services.report_parts import Section, Subject, Table, number_text
from mistral_txm.services.truth_comparison import angles_deg, magnetic_pairs


def truth_section(subject: Subject) -> Section | None:
    """Compare the field with the truth; nothing where there is none."""
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

"""The report's section on the magnetization itself: slices of its components, directions, a cross-section."""

from mistral_txm.services import figures
from mistral_txm.services.drawing import plain
from mistral_txm.services.report_parts import Section, Subject


def magnetization_section(subject: Subject) -> Section:
    """Show the field, beside the truth where there is one."""
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
    y_nm, x_nm, through = section_through(subject)
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


def section_through(subject: Subject) -> tuple[float, float, str]:
    """Where the cross-section is: y, the middle in x, and what it goes through."""
    if subject.seen:
        strongest = subject.seen[0]
        return strongest.y_nm, strongest.x_nm, "through the strongest singularity found"
    if subject.points.true:
        true = max(subject.points.true, key=lambda point: abs(point.charge))
        return true.y_nm, true.x_nm, "through the strongest true singularity"
    return 0.0, 0.0, "through the middle"

"""The report's sections on what comes from the data and what from a prior, and on how the volume was made."""

import numpy as np

from mistral_txm.services import quality_figures
from mistral_txm.services.drawing import plain
from mistral_txm.services.magnetization_section import section_through
from mistral_txm.services.report_parts import Section, Subject, Table
from mistral_txm.services.truth import in_layers


def data_section(subject: Subject) -> Section | None:
    """Show how much of each voxel comes from the data, and what is left of them."""
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
                    section_through(subject)[0],
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


def provenance_section(subject: Subject) -> Section | None:
    """List how the volume was made."""
    rows = subject.volume.provenance
    return Section("How it was made", tables=[Table("Provenance", rows)]) if rows else None


def what_the_data_say(subject: Subject) -> str:
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

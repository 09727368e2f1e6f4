"""The report: what stands on the page is what is in the files, and nothing there can do harm."""

import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import h5py
import matplotlib as mpl
import numpy as np
import pytest

from mistral_txm.reconstruction.volume_file import (
    InputFile,
    SeriesResidual,
    Volume,
    read_volume,
    write_volume,
)
from mistral_txm.services import drawing, figures
from mistral_txm.services.fields import Field
from mistral_txm.services.live_files import FrameExamples
from mistral_txm.services.report import write_report
from mistral_txm.services.singularity_section import singularity_section
from mistral_txm.services.truth import FoundSingularity, read_truth
from mistral_txm.services.truth_comparison import compare_with_truth

VOXEL_NM = 10.5
HOSTILE = "<script>alert('x')</script>"
VORTEX = Path(__file__).parents[2] / "../shared/data/cases/vortex_truth.hdf5"


class Page(HTMLParser):
    """The texts, tags and links of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data.strip())


def hedgehog_in_a_layer(n: int = 40) -> np.ndarray:
    """m = -r / |r| around (21, -10.5, 0) nm in the 12 middle slices of 16."""
    axes = [(np.arange(size) - (size - 1) / 2) * VOXEL_NM for size in (16, n, n)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    r = np.stack([x - 21, y + 10.5, z])
    m_czyx = -r / np.linalg.norm(r, axis=0)
    m_czyx[:, np.abs(axes[0]) > 63] = 0
    return m_czyx.astype(np.float32)


@pytest.fixture
def truth_path(tmp_path):
    path = tmp_path / "truth.h5"
    with h5py.File(path, "w") as file:
        for name, component in zip(("mx", "my", "mz"), hedgehog_in_a_layer(), strict=True):
            file[name] = component
        file.attrs.update({"voxel_nm": VOXEL_NM, "delta_per_nm": 0.0022, "texture": "hedgehog"})
        file.attrs["layers_nm"] = np.array([[-63.0, 63.0]])
        points = file.create_group("singularities")
        for name, value in (("x_nm", 21.0), ("y_nm", -10.5), ("z_nm", 0.0), ("charge", -1.0)):
            points[name] = np.array([value])
        points["kind"] = ["Bloch point"]
    return path


def written_volume(path: Path, m_czyx: np.ndarray, **others) -> Path:
    options = {"method": "art", "prior": "none", "delta_per_nm": 0.0022} | others
    write_volume(path, Volume(*m_czyx, VOXEL_NM, **options))
    return path


@pytest.fixture
def volume_path(tmp_path):
    m_czyx = 0.5 * hedgehog_in_a_layer()
    tilts_deg = np.arange(-55.0, 56.0, 10.0)
    return written_volume(
        tmp_path / "volume.h5",
        m_czyx,
        data_fraction=np.full(m_czyx.shape[1:], 0.25, dtype=np.float32),
        residuals=tuple(
            SeriesResidual(phi_deg, tilts_deg, np.full(tilts_deg.size, 0.01))
            for phi_deg in (0.0, 102.0)
        ),
        inputs=(InputFile(f"series {HOSTILE}.hdf5", "ab" * 32),),
    )


@pytest.fixture
def frames():
    random = np.random.default_rng(1)
    image_vu = random.normal(size=(40, 40))
    return FrameExamples(
        random.poisson(1000, (40, 40)).astype(np.uint16), image_vu, image_vu, 102.0, -31.0, -1
    )


SUMMARY = {
    "sample": {"name": HOSTILE},
    "series": "0f3a",
    "frames": {"asked": 12345, "in_catalog": 12345},
    "seconds": {"acquisition": 61.25},
    "runs": [{"uid": "deeper than the page goes"}],
}


@pytest.mark.slow
def test_the_page_with_a_truth(tmp_path, volume_path, truth_path, frames):
    output = tmp_path / "deep" / "report"
    path = write_report(volume_path, output, truth_path=truth_path, frames=frames, summary=SUMMARY)
    assert path == output / "index.html"
    page = Page(path)
    assert "script" not in page.tags
    assert any(HOSTILE in text for text in page.texts)
    names = sorted(file.name for file in output.iterdir())
    assert sorted({*page.links, "index.html"}) == names
    assert {"frames.png", "components_1.png", "direction.png", "section_xz.png"} <= set(names)
    assert {"charge.png", "agreement.png", "data_fraction.png", "residual.png"} <= set(names)
    for name in page.links:
        header = (output / name).read_bytes()[:24]
        assert header.startswith(b"\x89PNG")
        assert min(struct.unpack(">II", header[16:24])) > 300
    compared = compare_with_truth(
        read_volume(volume_path), read_truth(truth_path), margin_nm=page_margin_nm(page)
    )
    assert f"{compared['median_angle_error_deg']:.1f}" in page.texts
    assert f"{compared['relative_vector_error']:.3f}" in page.texts
    assert {"12,345", "61.25", "21, −10, 0", "−1"} <= set(page.texts)
    assert not any("deeper than the page goes" in text for text in page.texts)


def page_margin_nm(page: Page) -> float:
    (margin,) = re.findall(r"voxels, (\d+) nm off the border", " ".join(page.texts))
    return float(margin)


@pytest.mark.slow
def test_the_page_without_a_truth(tmp_path, volume_path):
    page = Page(write_report(volume_path, tmp_path / "report"))
    assert not any("truth" in text.lower() for text in page.texts)
    assert "Singularities" in page.texts
    assert "frames.png" not in page.links
    assert "agreement.png" not in page.links


@pytest.mark.slow
def test_a_bare_volume_in_units_of_the_signal(tmp_path):
    """No truth, no layers, no provenance, NaN where m is not known: still a page."""
    m_czyx = 0.001 * hedgehog_in_a_layer()
    m_czyx[:, :, 0, 0] = np.nan
    path = written_volume(tmp_path / "volume.h5", m_czyx, delta_per_nm=None)
    page = Page(write_report(path, tmp_path / "report"))
    assert "not known" in page.texts
    assert "residual.png" not in page.links


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prior", "said"),
    [
        ("none", "No prior: everything shown comes from the data"),
        ("layers", "the one assumption that only the layers are magnetic (−63 to 63 nm)"),
        ("norm", "the magnetization has unit length there"),
    ],
)
def test_it_says_what_the_prior_did(tmp_path, prior, said):
    m_czyx = hedgehog_in_a_layer(16)
    path = written_volume(
        tmp_path / "volume.h5",
        m_czyx,
        prior=prior,
        layers_nm=((-63.0, 63.0),),
        data_fraction=np.full(m_czyx.shape[1:], 0.25, dtype=np.float32),
    )
    text = " ".join(Page(write_report(path, tmp_path / "report")).texts)
    assert said in text
    assert "on average 25% of a voxel" in text


def test_a_meron_beside_a_hole_in_the_field_has_no_profile():
    """The square about it holds a voxel whose direction is undefined: no charge, and no page that fails."""
    y, x = np.meshgrid(*[(np.arange(41) - 20) * VOXEL_NM] * 2, indexing="ij")
    angle = np.minimum(np.hypot(x, y) / 150, 1) * np.pi / 2
    turn = np.arctan2(y, x)
    slice_cyx = np.stack(
        [np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)]
    )
    slice_cyx[:, 20, 25] = 0
    m_czyx = np.repeat(slice_cyx[:, None], 3, axis=1).astype(np.float32)
    drawn = []
    subject = SimpleNamespace(
        volume=Volume(*m_czyx, VOXEL_NM),
        layers_nm=(),
        comparison=None,
        measured=SimpleNamespace(
            status={
                "singularities": [
                    {"kind": "meron", "x_nm": 0.0, "y_nm": 0.0, "z_nm": 0.0, "sureness": 0.8}
                ]
            }
        ),
        found=[FoundSingularity(0.0, 0.0, 0.0, 0.5, "meron", 84.0)],
        points=SimpleNamespace(true=()),
        margin_nm=0.0,
        draw=lambda name, *_: drawn.append(name),
    )
    subject.seen = subject.found
    section = singularity_section(subject)
    assert section.tables[0].rows == [("1. meron", "0, 0, 0", "+0.50", "84", "80%")]
    assert drawn == []


def test_files_that_are_not_what_they_should_be(tmp_path, volume_path):
    with pytest.raises(ValueError, match=r"missing\.h5"):
        write_report(tmp_path / "missing.h5", tmp_path / "report")
    with pytest.raises(ValueError, match=r"volume\.h5: not a truth file"):
        write_report(volume_path, tmp_path / "report", truth_path=volume_path)
    assert not (tmp_path / "report").exists()


def test_the_page_is_well_formed_and_needs_nothing_from_outside(tmp_path):
    """Checked on the template, so that no picture has to be drawn."""
    text = (Path(figures.__file__).parent / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import|<script", text)
    assert "|safe" not in text.replace(" ", "")


def test_directions_have_the_colours_of_the_wheel():
    """+x, +y, -x, -y are a quarter of the cyclic map apart; what has no direction is grey."""
    wheel = mpl.colormaps[drawing.CYCLIC_MAP]
    mx, my = np.array([[1.0, 0, -1, 0, 0.01]]), np.array([[0.0, 1, 0, -1, 0.01]])
    rgb = drawing.direction_rgb(mx, my, shortest=0.1)
    for quarter in range(4):
        assert rgb[0, quarter] == pytest.approx(wheel(quarter / 4)[:3])
    assert rgb[0, 4] == pytest.approx([0.6] * 3)
    assert np.array_equal(drawing.direction_rgb(mx + np.nan, my, 0.1), np.full((1, 5, 3), 0.6))


def test_the_cyclic_map_closes():
    wheel = mpl.colormaps[drawing.CYCLIC_MAP]
    assert np.abs(np.subtract(wheel(0.0), wheel(1.0))).max() < 0.02


def test_positions_and_voxels_of_a_field():
    """Voxel i of n sits at (i - (n - 1) / 2) * voxel."""
    field = Field(np.zeros((3, 4, 5, 6), dtype=np.float32), 10.0)
    assert field.centres_nm("z").tolist() == [-15, -5, 5, 15]
    assert field.index_of(-15.0, "z") == 0
    assert field.index_of(6.0, "z") == 2
    assert field.index_of(20.0, "y") == 4
    assert field.index_of(1e6, "x") == 5


def test_slices_show_the_second_axis_upwards():
    """A component that is 1 only at the largest x and y is drawn at the upper right."""
    m_czyx = np.zeros((3, 3, 8, 8), dtype=np.float32)
    m_czyx[2, 1, -1, -1] = 1
    figure = figures.components_figure(Field(m_czyx, 100.0), 0.0, "a slice")
    image = figure.axes[2].images[0]
    assert image.origin == "lower"
    assert image.get_array()[-1, -1] == 1
    assert image.get_extent() == [-0.4, 0.4, -0.4, 0.4]
    assert image.get_clim() == (-1, 1)


def test_colour_limits_are_symmetric_and_known():
    m_czyx = np.linspace(-0.003, 0.001, 3000, dtype=np.float32).reshape(3, 10, 10, 10)
    assert Field(m_czyx, 10.0).limit == 1
    assert Field(m_czyx, 10.0, "1/nm").limit == pytest.approx(0.003, rel=0.02)
    assert Field(0 * m_czyx, 10.0, "1/nm").limit == 1


@pytest.mark.slow
def test_the_public_vortex(tmp_path):
    """The vortex's core has m_z alone; its truth as a volume has no error against itself."""
    if not VORTEX.exists():
        pytest.skip(f"{VORTEX.name} is not here: the public test data lie outside the repository")
    with h5py.File(VORTEX) as file:
        m_czyx = file["m"][...].astype(np.float32)
    path = written_volume(tmp_path / "volume.h5", m_czyx)
    page = Page(write_report(path, tmp_path / "report"))
    assert "components_1.png" in page.links

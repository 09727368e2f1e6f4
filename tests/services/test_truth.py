"""Every expected number is made by hand: fields of two values, distances along an axis."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from mistral_txm.reconstruction.volume_file import Volume
from mistral_txm.services.truth import (
    TrueSingularity,
    Truth,
    fiducials_move_xy_nm,
    in_layers,
    margin_seen_by_all_nm,
    moved,
    read_truth,
    resample,
    singularities_in_layers,
)
from mistral_txm.services.truth_comparison import compare_with_truth, match_singularities

VOXEL_NM = 10.0


def volume_of(m_czyx: np.ndarray, **others) -> Volume:
    mx, my, mz = m_czyx.astype(np.float32)
    options = {"method": "art", "prior": "none", "delta_per_nm": 0.002} | others
    return Volume(mx, my, mz, VOXEL_NM, **options)


def truth_of(m_czyx: np.ndarray, singularities=()) -> Truth:
    return Truth(
        m_czyx.astype(np.float32),
        VOXEL_NM,
        0.002,
        ((-20.0, 20.0),),
        tuple(singularities),
        "by hand",
    )


def half_and_half() -> np.ndarray:
    """m = +z in the left half and -z in the right one, of 4 x 6 x 8 voxels."""
    m_czyx = np.zeros((3, 4, 6, 8))
    m_czyx[2, :, :, :4], m_czyx[2, :, :, 4:] = 1, -1
    return m_czyx


def test_a_perfect_volume_has_no_error():
    m_czyx = half_and_half()
    compared = compare_with_truth(volume_of(m_czyx), truth_of(m_czyx), found=())
    assert compared["voxels"] == m_czyx[0].size
    assert compared["relative_vector_error"] == 0
    assert compared["median_angle_error_deg"] == 0
    assert compared["components"]["mz"]["correlation"] == pytest.approx(1)
    assert compared["components"]["mz"]["amplitude_ratio"] == pytest.approx(1)


def test_what_is_not_defined_is_none_and_not_zero():
    """m_x is zero throughout: it correlates with nothing, and has no amplitude to come back."""
    m_czyx = half_and_half()
    compared = compare_with_truth(volume_of(m_czyx), truth_of(m_czyx), found=())
    assert compared["components"]["mx"]["correlation"] is None
    assert compared["components"]["mx"]["amplitude_ratio"] is None
    nothing = compare_with_truth(volume_of(np.zeros_like(m_czyx)), truth_of(m_czyx), found=())
    assert nothing["median_angle_error_deg"] is None
    assert nothing["undefined_angle_fraction"] == 1
    assert nothing["relative_vector_error"] == 1


def test_a_swap_of_the_helicities_shows_in_every_number():
    m_czyx = half_and_half()
    compared = compare_with_truth(volume_of(-m_czyx), truth_of(m_czyx), found=())
    assert compared["components"]["mz"]["correlation"] == pytest.approx(-1)
    assert compared["amplitude_ratio"] == pytest.approx(-1)
    assert compared["relative_vector_error"] == pytest.approx(2)
    assert compared["median_angle_error_deg"] == pytest.approx(180)


def test_half_the_amplitude_turned_by_a_known_angle():
    """r = (sin 60, 0, cos 60) / 2 of t: |r - t|^2 = 1 + 1/4 - 2 cos(60) / 2 = 3/4."""
    m_czyx = half_and_half()
    turned = 0.5 * np.stack(
        [np.sin(np.pi / 3) * m_czyx[2], m_czyx[1], np.cos(np.pi / 3) * m_czyx[2]]
    )
    compared = compare_with_truth(volume_of(turned), truth_of(m_czyx), found=())
    assert compared["median_angle_error_deg"] == pytest.approx(60, abs=1e-4)
    assert compared["relative_vector_error"] == pytest.approx(np.sqrt(0.75), rel=1e-6)
    assert compared["components"]["mz"]["amplitude_ratio"] == pytest.approx(0.25)
    assert compared["components"]["mx"]["rms_error"] == pytest.approx(np.sqrt(3) / 4)


def test_a_volume_in_units_of_the_signal_is_scaled_by_the_true_delta():
    m_czyx = half_and_half()
    compared = compare_with_truth(
        volume_of(0.002 * m_czyx, delta_per_nm=None), truth_of(m_czyx), found=()
    )
    assert compared["scaled_by_true_delta"] is True
    assert compared["relative_vector_error"] == pytest.approx(0, abs=1e-6)


def test_only_magnetic_voxels_inside_the_margin_count():
    """A margin of one voxel leaves 4 x 6 of 6 x 8 voxels; one of 4 slices is not magnetic."""
    m_czyx = half_and_half()
    m_czyx[:, 0] = 0
    wrong = m_czyx.copy()
    wrong[:, 0] = 7
    wrong[:, :, 0] = wrong[:, :, :, -1] = 7
    compared = compare_with_truth(volume_of(wrong), truth_of(m_czyx), found=(), margin_nm=VOXEL_NM)
    assert compared["voxels"] == 3 * 4 * 6
    assert compared["relative_vector_error"] == 0


def test_volumes_of_another_size_share_the_centre():
    m_czyx = half_and_half()
    deeper = np.zeros((3, 8, 10, 12))
    deeper[:, 2:-2, 2:-2, 2:-2] = m_czyx
    compared = compare_with_truth(volume_of(deeper), truth_of(m_czyx), found=())
    assert compared["relative_vector_error"] == 0
    shallow = compare_with_truth(volume_of(m_czyx[:, 1:-1]), truth_of(m_czyx), found=())
    assert shallow["not_covered_fraction"] == pytest.approx(0.5)


def test_a_margin_that_leaves_nothing_is_refused():
    m_czyx = half_and_half()
    with pytest.raises(ValueError, match="compare with a smaller margin"):
        compare_with_truth(volume_of(m_czyx), truth_of(m_czyx), margin_nm=1000)


def test_interpolation_is_exact_for_a_linear_field():
    """A field that is linear in x, y and z is the same at every finer voxel."""
    z, y, x = (np.arange(n) - (n - 1) / 2 for n in (5, 6, 7))
    fine_z, fine_y, fine_x = ((np.arange(n) - (n - 1) / 2) / 3 for n in (9, 10, 11))

    def field(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.stack(
            [a * z[:, None, None] + 2 * y[:, None] - x for a in (1, 2, 3)], dtype=np.float32
        )

    finer = resample(field(z, y, x), 9.0, (9, 10, 11), 3.0)
    assert finer == pytest.approx(field(fine_z, fine_y, fine_x), abs=1e-5)


def test_margin_of_the_square_that_every_view_sees():
    """At 45 deg the square must shrink by sqrt(2); a ray at 45 deg moves by the half depth."""
    assert margin_seen_by_all_nm(2000, 100, [0.0], 45) == pytest.approx(100)
    assert margin_seen_by_all_nm(2000, 0, [0.0, 45.0], 0) == pytest.approx(1000 * (1 - 1 / 2**0.5))
    assert margin_seen_by_all_nm(200, 500, [0.0], 55) == 50


def point(x_nm: float, y_nm: float, z_nm: float, charge: float = -1.0) -> TrueSingularity:
    return TrueSingularity(x_nm, y_nm, z_nm, charge, "Bloch point")


def test_as_many_as_possible_are_matched_and_each_only_once():
    """Greedily the first found one would take the nearer true one, and the second find none."""
    true = [point(0, 0, 0), point(60, 0, 0)]
    found = [point(25, 0, 0), point(-50, 0, 0, +1)]
    judged = match_singularities(found, true, within_nm=60)
    assert [pair["distance_nm"] for pair in judged["matched"]] == [35, 50]
    assert [pair["same_sign"] for pair in judged["matched"]] == [True, False]
    assert not judged["missed"]
    assert not judged["false"]


def test_missed_and_false_ones_are_told_apart():
    judged = match_singularities([point(300, 0, 40)], [point(0, 0, 0)], within_nm=100)
    assert (judged["true"], judged["found"]) == (1, 1)
    assert judged["missed"] == [
        {"x_nm": 0, "y_nm": 0, "z_nm": 0, "charge": -1, "kind": "Bloch point"}
    ]
    assert judged["false"][0]["x_nm"] == 300
    assert not judged["matched"]


def test_the_border_of_the_field_is_not_judged():
    true = [point(900, 0, 0), point(480, 0, 0)]
    found = [point(-900, 0, 0), point(540, 0, 0)]
    judged = match_singularities(found, true, half_xy_nm=(500, 500))
    assert len(judged["matched"]) == 1
    assert not judged["missed"]
    assert not judged["false"]


def test_a_meron_is_not_taken_for_a_bloch_point():
    judged = match_singularities([point(0, 0, 0, -0.5)], [point(0, 0, 0, -1)])
    assert not judged["matched"]
    assert len(judged["missed"]) == len(judged["false"]) == 1


def hedgehog(sign: float) -> np.ndarray:
    """m = sign * r / |r| in 12 x 20 x 20 voxels, around (20, -30, 0) nm."""
    axes = [(np.arange(n) - (n - 1) / 2) * VOXEL_NM for n in (12, 20, 20)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    r = np.stack([x - 20, y + 30, z + 0.1])
    return sign * r / np.linalg.norm(r, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
def test_a_hedgehog_is_found_where_it_is_with_its_charge(sign):
    """The charge of a hedgehog is +1, and turns its sign with m."""
    m_czyx = hedgehog(sign)
    compared = compare_with_truth(volume_of(m_czyx), truth_of(m_czyx, [point(20, -30, 0, sign)]))
    (pair,) = compared["singularities"]["matched"]
    assert pair["found"]["charge"] == sign
    assert pair["distance_nm"] < VOXEL_NM
    assert not compared["singularities"]["false"]


@pytest.mark.slow
def test_only_the_layers_are_searched():
    m_czyx = hedgehog(1)
    volume = volume_of(m_czyx)
    assert len(singularities_in_layers(volume, ())) == 1
    assert not singularities_in_layers(volume, ((30.0, 60.0),))
    kept_z = np.any(in_layers(volume, ((30.0, 60.0),)) != 0, axis=(0, 2, 3))
    assert kept_z.tolist() == [False] * 9 + [True] * 3


def on_voxels(n_zyx: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    return tuple(
        np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * VOXEL_NM for n in n_zyx], indexing="ij")
    )


def skyrmion(x_nm: float, y_nm: float) -> np.ndarray:
    """Down at (x, y), up from 100 nm on, outwards in between: charge -1, in 4 x 40 x 40 voxels."""
    _z, y, x = on_voxels((4, 40, 40))
    r = np.hypot(x - x_nm, y - y_nm)
    angle = np.pi * (1 - np.clip(r / 100, 0, 1))
    r = np.maximum(r, 1e-9)
    return np.stack([np.sin(angle) * (x - x_nm) / r, np.sin(angle) * (y - y_nm) / r, np.cos(angle)])


def true_one(kind: str, charge: float, radius_nm: float, x_nm=0.0, y_nm=0.0) -> TrueSingularity:
    return TrueSingularity(x_nm, y_nm, 0.0, charge, kind, radius_nm)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_planar_charge_of_a_skyrmion_is_that_over_its_square(sign):
    m_czyx = sign * skyrmion(30, -50)
    there, not_there = (
        true_one("skyrmion", -sign, 105.0, 30, -50),
        true_one("skyrmion", -sign, 40.0, -150, 150),
    )
    compared = compare_with_truth(volume_of(m_czyx), truth_of(m_czyx, [there, not_there]), found=())
    judged = compared["skyrmions"]
    assert (judged["true"], judged["recovered"]) == (2, 1)
    assert judged["compared"][0]["charge"] == pytest.approx(-sign, abs=1e-6)
    assert judged["compared"][1]["charge"] == pytest.approx(0, abs=1e-6)
    assert judged["mean_charge_error"] == pytest.approx(0.5, abs=1e-6)
    assert compared["singularities"]["missed"] == []


def test_a_skyrmion_at_the_border_is_not_judged():
    """The field reaches to 200 nm: with a margin of 60 nm a square up to 135 + 10 nm leaves it."""
    m_czyx = skyrmion(30, -50)
    true = [true_one("skyrmion", -1, 105.0, 30, -50)]
    judged = compare_with_truth(volume_of(m_czyx), truth_of(m_czyx, true), found=(), margin_nm=70)
    assert judged["skyrmions"] == {
        "true": 0,
        "recovered": 0,
        "mean_charge_error": None,
        "compared": [],
    }


def test_where_no_direction_is_defined_a_skyrmion_has_no_charge():
    m_czyx = skyrmion(0, 0)
    truth = truth_of(m_czyx, [true_one("skyrmion", -1, 105.0)])
    judged = compare_with_truth(volume_of(0 * m_czyx), truth, found=())["skyrmions"]
    assert judged["compared"][0]["charge"] is None
    assert judged["recovered"] == 0
    assert judged["mean_charge_error"] is None


def hopfion(sign: int) -> np.ndarray:
    """The Hopf map of a ball of 120 nm, in 30 x 30 x 30 voxels; a mirror image for -1."""
    z, y, x = on_voxels((30, 30, 30))
    r = np.maximum(np.sqrt(x**2 + y**2 + z**2), 1e-9)
    angle = np.pi * (1 - np.clip(r / 120, 0, 1)) ** 2 * (1 + 2 * np.clip(r / 120, 0, 1))
    first = np.sin(angle) * (x + 1j * y) / r
    second = np.cos(angle) + 1j * sign * np.sin(angle) * z / r
    across = 2 * first * second
    return np.stack([across.real, across.imag, np.abs(second) ** 2 - np.abs(first) ** 2])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_hopfion_is_compared_by_its_hopf_index(sign):
    m_czyx = hopfion(sign)
    truth = truth_of(m_czyx, [true_one("hopfion", 1.0, 140.0)])
    truth = replace(truth, layers_nm=((-140.0, 140.0),))
    judged = compare_with_truth(volume_of(m_czyx), truth, found=())["hopfions"]
    assert judged["compared"][0]["hopf_index"] == pytest.approx(sign, abs=0.05)
    assert judged["compared"][0]["reason"] is None
    assert judged["recovered"] == (1 if sign == 1 else 0)


def test_a_volume_in_which_the_hopf_index_means_nothing_says_why():
    m_czyx = hopfion(1)
    m_czyx[:, :, :, :10] *= -1
    truth = replace(
        truth_of(m_czyx, [true_one("hopfion", 1.0, 140.0)]), layers_nm=((-140.0, 140.0),)
    )
    (judged,) = compare_with_truth(volume_of(m_czyx), truth, found=())["hopfions"]["compared"]
    assert judged["hopf_index"] is None
    assert "not uniform on the faces" in judged["reason"]


def write_truth(path: Path, **left_out) -> None:
    m_czyx = half_and_half()
    with h5py.File(path, "w") as file:
        for name, component in zip(("mx", "my", "mz"), m_czyx, strict=True):
            file[name] = component.astype(np.float32)
        file.attrs.update(
            {"voxel_nm": VOXEL_NM, "delta_per_nm": 0.002, "layers_nm": np.array([[-20.0, 20.0]])}
        )
        file.attrs["texture"] = "halves"
        points = file.create_group("singularities")
        for name, value in (("x_nm", 1.0), ("y_nm", 2.0), ("z_nm", 3.0), ("charge", -1.0)):
            points[name] = np.array([value])
        points["kind"] = ["Bloch point"]
        points["radius_nm"] = np.array([30.0])
        for name in left_out:
            del file[name]


def test_the_file_of_the_simulated_beamline_is_read(tmp_path):
    write_truth(tmp_path / "truth.h5")
    truth = read_truth(tmp_path / "truth.h5")
    assert truth.m_czyx[2, 0, 0].tolist() == [1, 1, 1, 1, -1, -1, -1, -1]
    assert truth.singularities == (TrueSingularity(1.0, 2.0, 3.0, -1.0, "Bloch point", 30.0),)
    assert truth.layers_nm == ((-20.0, 20.0),)
    assert truth.texture == "halves"


def test_a_file_that_is_no_truth_is_refused_in_one_line(tmp_path):
    path = tmp_path / "truth.h5"
    with pytest.raises(ValueError, match=r"truth\.h5: not a truth file"):
        read_truth(path)
    path.write_text("no HDF5")
    with pytest.raises(ValueError, match=r"truth\.h5: not a truth file"):
        read_truth(path)
    write_truth(path, mz=True)
    with pytest.raises(ValueError, match="mz") as error:
        read_truth(path)
    assert "\n" not in str(error.value)


def with_fiducials(*places_nm):
    return replace(truth_of(half_and_half()), fiducials_xyz_nm=places_nm)


def test_the_move_on_which_most_fiducials_agree():
    truth = with_fiducials((0, 0, 5), (1000, 0, 5), (0, 700, -9), (3000, 3000, 5))
    found = [(31, -12, 0), (1029, -11, 0), (30, 689, 0), (500, 420, 0)]
    assert fiducials_move_xy_nm(truth, found) == pytest.approx((30, -34 / 3), abs=0.1)


@pytest.mark.parametrize("found", [[], [(30.0, 0.0, 0.0)], [(30.0, 0, 0), (470.0, 130.0, 0.0)]])
def test_fiducials_that_do_not_agree_move_nothing(found):
    truth = with_fiducials((0, 0, 0), (1000, 0, 0))
    assert fiducials_move_xy_nm(truth, found) == (0.0, 0.0)
    assert moved(truth, (0.0, 0.0)) is truth


def test_a_moved_truth_is_that_of_the_moved_texture():
    def texture(x_nm, y_nm):
        phase = 2 * np.pi * (x_nm / 200 + y_nm / 300)
        return np.stack([np.cos(phase), np.sin(phase), 0 * phase])

    y_nm, x_nm = np.meshgrid(*2 * [(np.arange(60) - 29.5) * VOXEL_NM], indexing="ij")
    m_czyx = np.zeros((3, 3, 60, 60))
    m_czyx[:, 1] = texture(x_nm, y_nm)
    m_czyx[:, 1, :, :20] = 0  # a film with an edge
    truth = truth_of(m_czyx, [TrueSingularity(10.0, 20.0, 0.0, 1.0, "Bloch point")])
    after = moved(truth, (34.0, -17.0))
    inner = np.s_[1, 10:-10, 30:-10]
    for part, expected in zip(after.m_czyx, texture(x_nm - 34.0, y_nm + 17.0), strict=True):
        np.testing.assert_allclose(part[inner], expected[10:-10, 30:-10], atol=5e-3)
    assert not after.m_czyx[:, [0, 2]].any()
    assert not after.m_czyx[:, 1, 10:-10, :23].any()
    assert after.m_czyx[:, 1, 10:-10, 24].any()
    (point,) = after.singularities
    assert (point.x_nm, point.y_nm, point.z_nm) == (44.0, 3.0, 0.0)

"""Region, binning, mirroring and data type of the simulated camera."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistral_txm.simulated_beamline.readout import clipped, converted
from mistral_txm.simulated_beamline.region import Region

numbers = st.integers(-(2**31), 2**31 - 1)


@given(st.tuples(*[numbers] * 6), st.tuples(st.integers(1, 2000), st.integers(1, 2000)))
def test_every_region_that_is_asked_for_becomes_one_of_the_chip(wanted, shape_vu):
    region = clipped(Region(*wanted), shape_vu)
    assert 0 <= region.min_x < region.min_x + region.size_x <= shape_vu[1]
    assert 0 <= region.min_y < region.min_y + region.size_y <= shape_vu[0]
    assert min(region.shape_vu) >= 1
    assert clipped(region, shape_vu) == region


def test_readbacks_and_sizes_follow_what_the_chip_has(with_camera):
    async def case(bench):
        await bench.put(C_MinX=6, C_SizeX=5, C_MinY=-1, C_BinY=4)
        readbacks = ("MinX", "MinY", "SizeX", "SizeY", "BinX", "BinY", "ArraySizeX", "ArraySizeY")
        assert [bench.get(f"C_{name}_RBV") for name in readbacks] == [6, 0, 2, 6, 1, 4, 2, 1]
        assert bench.get("C_SizeX") == 5
        assert bench.get("C_ArraySize_RBV") == 2 * 2 * 1
        await bench.put(C_MinX=0)
        assert bench.get("C_SizeX_RBV") == 5  # what was asked for comes back where it fits

    with_camera(case)


def test_mirrored_frames(with_camera, tmp_path):
    ramp_vu = np.arange(48, dtype=np.uint16).reshape(6, 8)

    async def case(bench):
        async def begin(*_):
            return lambda: ramp_vu

        bench.exposer.begin = begin
        got = []

        async def receive(array_vu, _unique_id):
            got.append(array_vu)

        bench.plugin.receive = receive
        await bench.put(C_Acquire=1)
        await bench.put(C_ReverseX=1, C_Acquire=1)
        await bench.put(C_ReverseY=1, C_Acquire=1)
        for array_vu, expected_vu in zip(
            got, (ramp_vu, np.fliplr(ramp_vu), np.rot90(ramp_vu, 2)), strict=True
        ):
            np.testing.assert_array_equal(array_vu, expected_vu)

    with_camera(case)


@pytest.mark.parametrize(
    ("data_type", "expected"),
    [
        ("Int8", [0, 127, 127]),
        ("UInt8", [0, 255, 255]),
        ("Int16", [0, 300, 32767]),
        ("UInt16", [0, 300, 65535]),
        ("Int32", [0, 300, 65535]),
        ("UInt32", [0, 300, 65535]),
        ("Int64", [0, 300, 65535]),
        ("UInt64", [0, 300, 65535]),
        ("Float32", [0, 300, 65535]),
        ("Float64", [0, 300, 65535]),
    ],
)
def test_counts_that_a_type_cannot_hold_are_its_largest_value(data_type, expected):
    for counts in (np.uint16, np.uint64):
        array = converted(np.array([[0, 300, 65535]], counts), data_type)
        assert array.dtype == np.dtype(data_type.lower())
        np.testing.assert_array_equal(array, [expected])
    assert converted(np.array([[200_000]], np.uint64), "UInt16")[0, 0] == 65535

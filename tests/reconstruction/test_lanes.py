import numba
import numpy as np

from mistral_txm.reconstruction.lanes import (
    LANES,
    ROWS,
    subtract_products,
    subtract_scaled,
    subtract_tile,
)


def test_sums_of_products_in_lanes():
    rng = np.random.default_rng(5)
    a = rng.normal(size=(ROWS, 9, LANES)).astype(np.float32)
    b = rng.normal(size=(9, LANES)).astype(np.float32)
    x = rng.normal(size=(ROWS, LANES)).astype(np.float32)
    scaled = rng.normal(size=(ROWS, 9)).astype(np.float32)

    @numba.njit
    def run(x, y, z, a, scaled, b):  # type: ignore[no-untyped-def]
        subtract_products(x, 0, a, 0, 9 * LANES, LANES, b, 0, 9)
        subtract_scaled(y, 0, scaled, 0, 9, 1, b, 0, 9)
        subtract_products(z, 0, a, 0, 9 * LANES, LANES, b, 0, 0)

    flat = [x.ravel().copy() for _ in range(3)]
    run(*flat, a.ravel(), scaled.ravel(), b.ravel())
    np.testing.assert_allclose(
        flat[0].reshape(x.shape), x - np.einsum("rks,ks->rs", a, b), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        flat[1].reshape(x.shape), x - np.einsum("rk,ks->rs", scaled, b), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(flat[2].reshape(x.shape), x)


def test_a_tile_of_sums_of_products():
    rng = np.random.default_rng(6)
    a = rng.normal(size=(ROWS, 9, LANES)).astype(np.float32)
    b = rng.normal(size=(ROWS, 11, LANES)).astype(np.float32)
    x = rng.normal(size=(ROWS, ROWS, LANES)).astype(np.float32)

    @numba.njit
    def run(x, y, a, b):  # type: ignore[no-untyped-def]
        subtract_tile(x, a, 0, 9 * LANES, b, 2 * LANES, 11 * LANES, 9)
        subtract_tile(y, a, 0, 9 * LANES, b, 0, 11 * LANES, 0)

    found, untouched = x.ravel().copy(), x.ravel().copy()
    run(found, untouched, a.ravel(), b.ravel())
    expected = x - np.einsum("rks,qks->rqs", a, b[:, 2:])
    np.testing.assert_allclose(found.reshape(x.shape), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(untouched.reshape(x.shape), x)

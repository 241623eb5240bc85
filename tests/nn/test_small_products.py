"""Large products are cut into small ones where BLAS likes that, and no bit depends on it."""

import itertools

import numpy as np
import pytest

from distnet.base import blas
from distnet.base.blas import one_blas_thread, terms_of_small_products
from distnet.nn import blocking

# m, k, n of a product (m, k) @ (k, n) and, of its first axis, how many there are.
SIZES = [
    (25, 256, 512, 3),
    (512, 25, 512, 1),
    (98, 112, 832, 1),
    (96, 392, 208, 1),
    (49, 448, 96, 2),
]


def operands(m, k, n, count, is_transposed, draw):
    left = draw((count, k, m)).swapaxes(1, 2) if is_transposed else draw((count, m, k))
    return left, draw((count, k, n)), np.empty((count, m, n), np.float32)


def drawn(rng, is_whole):
    if is_whole:  # sums are exact
        return lambda shape: rng.integers(-9, 10, shape).astype(np.float32)
    return lambda shape: rng.standard_normal(shape, np.float32)


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(blocking, "terms_of_small_products", lambda: 448)


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_pieces_make_the_product(always, sizes, is_transposed):
    left, right, out = operands(*sizes, is_transposed, drawn(np.random.default_rng(0), True))
    blocking.multiply(left, right, out)
    np.testing.assert_array_equal(out, left @ right)
    pieces = blocking.in_pieces(left, right, out)
    _, k, n, _ = sizes
    assert (pieces[0] is left) == (n % 48 != 0 and n % 32 != 0)
    assert all(np.shares_memory(*pair) for pair in zip(pieces, (left, right, out), strict=True))
    rows, columns = pieces[2].shape[-2:]
    assert pieces[0] is left or rows * k * columns <= blocking.SMALL_PRODUCT


@pytest.mark.parametrize("k", [449, 896, 1568])
def test_long_sums_are_made_of_runs(always, k):
    left, right, out = operands(64, k, 96, 2, True, drawn(np.random.default_rng(3), True))
    blocking.multiply(left, right, out)
    np.testing.assert_array_equal(out, left @ right)
    assert [run.stop - run.start for run in blas.runs(k, 448)] == {
        449: [224, 225],
        896: [448, 448],
        1568: [448, 448, 336, 336],
    }[k]


def test_operands_may_be_shared_by_several_products(always):
    draw = drawn(np.random.default_rng(1), True)
    left, right = draw((2, 3, 64, 200)), draw((3, 200, 128))
    out = np.empty((2, 3, 64, 128), np.float32)
    assert blocking.in_pieces(left, right, out)[0] is not left
    blocking.multiply(left, right, out)
    np.testing.assert_array_equal(out, left @ right)


def test_a_product_that_must_not_be_cut_stays_whole(always):
    def is_whole(left, right):
        out = np.empty((*left.shape[:-1], right.shape[-1]), right.dtype)
        return blocking.in_pieces(left, right, out)[0] is left

    def ones(*shape):
        return np.ones(shape, np.float32)

    assert not is_whole(ones(64, 400), ones(400, 64))
    assert is_whole(ones(64, 449), ones(449, 64))  # BLAS adds up in two runs
    assert is_whole(ones(64, 400).astype(float), ones(400, 64).astype(float))
    assert is_whole(ones(64, 400), ones(64, 400).T)  # its columns are no runs
    assert is_whole(ones(15, 400), ones(400, 640))  # few rows
    assert is_whole(ones(16, 4), ones(4, 65536))  # hardly anything for each call


@pytest.fixture
def anew():
    yield
    blas._terms_of_small_kernels.cache_clear()


def test_it_is_for_one_thread_and_kernels_that_have_it(anew, monkeypatch):
    for library, kernels, is_alike, answer in [
        ("openblas", "SkylakeX", True, 448),
        ("openblas", "SkylakeX", False, 0),
        ("openblas", "Haswell", True, 0),
        ("mkl", "SkylakeX", True, 0),
    ]:
        found = {"internal_api": library, "architecture": kernels}
        monkeypatch.setattr(blas, "blas_of_numpy", lambda found=found: found)
        monkeypatch.setattr(blas, "_are_alike", lambda *_, is_alike=is_alike: is_alike)
        blas._terms_of_small_kernels.cache_clear()
        assert terms_of_small_products() == 0
        with one_blas_thread():
            with one_blas_thread():
                assert terms_of_small_products() == answer
            assert terms_of_small_products() == answer
        assert terms_of_small_products() == 0


def test_kernels_with_other_runs_than_is_believed_are_found_out(anew, monkeypatch):
    with one_blas_thread():
        longest = terms_of_small_products()
        if not longest:
            pytest.skip("the BLAS of this NumPy has no kernels for small products")
        kernels = blas.blas_of_numpy()["architecture"]
        monkeypatch.setitem(blas._SMALL_KERNELS, kernels, longest - 64)
        blas._terms_of_small_kernels.cache_clear()
        assert terms_of_small_products() == 0


def test_no_bit_depends_on_it():
    """The assumption: what kernels for small products add up at once, others add up in one run."""
    rng = np.random.default_rng(2)
    with one_blas_thread():
        longest = terms_of_small_products()
        if not longest:
            pytest.skip("the BLAS of this NumPy has no kernels for small products")
        lengths = (16, 25, 256, longest - 1, longest, longest + 1, 640, 895, 896, 897, 1568)
        for k, is_transposed in itertools.product(lengths, (False, True)):
            for m, n in ((512, 512), (49, 832), (25, 4096), (32, 288)):
                left, right, out = operands(m, k, n, 1, is_transposed, drawn(rng, False))
                blocking.multiply(left, right, out)
                whole = np.matmul(left, right)
                assert out.tobytes() == whole.tobytes(), (m, k, n, is_transposed)

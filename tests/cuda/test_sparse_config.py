"""Which products sparse kernels serve: a pure function, asked without a GPU."""

from __future__ import annotations

import pytest
from cuda_library import built_library

KERNELS = built_library()


def choose(m, n, k, source="matrix", capability=90, has_sparse=True):
    return KERNELS.choose_config(m, n, k, 1, source, capability, 132, has_sparse)


@pytest.mark.parametrize("capability", [80, 89, 90, 100])
@pytest.mark.parametrize("source", ["matrix", "pixels", "windows", "narrow"])
def test_every_choice_is_built_and_can_read_its_rows(source, capability):
    known = KERNELS.known_configs() + KERNELS.known_sparse_configs()
    for m in (1, 64, 65, 1000, 100_000):
        for n in (1, 64, 200, 5000):
            for k in (16, 1000, 20_000):
                chosen = choose(m, n, k, source, capability)
                assert chosen in known
                if chosen["kernel"] == "sparse_wgmma":
                    assert capability == 90 and source in ("matrix", "pixels")
                if source == "narrow":
                    assert chosen == choose(m, n, k, source, capability, False)


def test_other_generations_have_sparse_products_of_warps():
    for capability in (80, 89, 100):
        assert choose(8192, 8192, 8192, capability=capability)["kernel"] == "sparse_mma"
    assert choose(8192, 8192, 8192, "windows")["kernel"] == "sparse_mma"


def test_dense_weights_never_take_a_sparse_kernel():
    for m, n, k in ((8192, 8192, 8192), (64, 64, 64)):
        assert not choose(m, n, k, has_sparse=False)["kernel"].startswith("sparse")


def test_large_products_take_it_and_tiny_ones_do_not():
    assert choose(8192, 8192, 8192)["kernel"] == "sparse_wgmma"
    assert choose(100_000, 16, 32)["kernel"] != "sparse_wgmma"


def test_unknown_names():
    with pytest.raises(ValueError, match="set_sparse: expected mode auto, never or always, got on"):
        KERNELS.set_sparse("on")
    with pytest.raises(ValueError, match="no kernel sparse_wgmma with tiles 32 x 64"):
        KERNELS.force_config("sparse_wgmma", 32, 64)

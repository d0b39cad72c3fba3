"""Shape -> kernel and tile: a pure function, asked without a GPU."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cuda_library import built_library

KERNELS = built_library()


def choose(m, n, k, source="matrix", capability=90, groups=1, multiprocessors=132):
    return KERNELS.choose_config(m, n, k, groups, source, capability, multiprocessors)


@pytest.mark.parametrize("capability", [80, 86, 89, 90, 100, 120])
@pytest.mark.parametrize("source", ["matrix", "pixels", "windows", "narrow"])
def test_every_choice_is_built(source, capability):
    known = KERNELS.known_configs()
    for m in (1, 64, 65, 1000, 100_000):
        for n in (1, 64, 200, 5000):
            for k in (16, 1000, 20_000):
                assert choose(m, n, k, source, capability) in known


def test_only_hopper_has_wgmma():
    assert choose(4096, 4096, 4096)["kernel"] == "wgmma"
    for capability in (80, 89, 100):
        assert choose(4096, 4096, 4096, capability=capability)["kernel"] == "mma"
    assert choose(4096, 64, 147, "narrow")["kernel"] == "mma"


def test_large_products_take_large_tiles():
    assert choose(8192, 8192, 8192) == {
        "kernel": "wgmma", "block_m": 128, "block_n": 256, "cluster": 2
    }  # fmt: skip
    assert choose(8192, 8192, 8192, "windows")["kernel"] == "mma"


def test_small_products_use_all_multiprocessors():
    config = choose(1024, 1024, 1024)
    assert -(-1024 // config["block_m"]) * -(-1024 // config["block_n"]) >= 100


def best_times(row):
    """Return the sweep of a benchmark's row, with the op's own timing where that is lower."""
    times = dict(row["sweep"])
    if row["config"] in times:  # a first layer has a kernel of its own
        times[row["config"]] = min(times[row["config"]], row["us"])
    return times


def results(name):
    """Return results of bench/bench_gpu.py on an H100."""
    path = Path(__file__).resolve().parents[2] / "bench" / "results" / f"{name}_h100.json"
    return json.loads(path.read_text(encoding="utf-8"))


def measured():
    """Return products, how A is read, and what each kernel and tile took, in microseconds.

    The tile that the op took by itself was timed twice, alone and in the sweep: the lower counts,
    as the sweep slows the largest products by 7 to 11 %, and one shape's sweep was disturbed.
    """
    for row in results("gpu_products")["linear"]:
        m, n, k = map(int, row["shape"].split("x"))
        yield m, n, k, "matrix", best_times(row)
    for row in results("gpu_products")["conv"]:
        found = map(int, re.findall(r"\d+", row["shape"]))
        batch, channels, size, n, kernel, _, stride = found
        source = "matrix" if kernel == stride == 1 else "pixels" if channels % 32 == 0 else "narrow"
        k = kernel**2 * (channels if channels > 4 else 4)
        yield batch * (size // stride) ** 2, n, k, source, best_times(row)


@pytest.mark.parametrize(("m", "n", "k", "source", "times"), measured())
def test_choice_is_near_the_best_measured(m, n, k, source, times):
    name = "{kernel} {block_m}x{block_n} c{cluster}".format(**choose(m, n, k, source))
    assert times[name] <= 1.06 * min(times.values())


def strips(*sizes):
    return KERNELS.choose_depthwise(*sizes)


def measured_strips():
    """Return arguments of choose_depthwise, and what each strip and lanes took, in microseconds."""
    for row in results("gpu_bench")["depthwise"]:
        batch, channels, size, kernel, _, stride = map(int, re.findall(r"\d+", row["shape"]))
        out = -(-size // stride)
        yield (batch, channels, out, out, kernel, stride), row["sweep"]


@pytest.mark.parametrize(("sizes", "times"), measured_strips())
def test_strips_are_near_the_best_measured(sizes, times):
    name = "strip {strip} lanes {lanes}".format(**strips(*sizes))
    # Sweeps of one kernel differ by up to 4 %.
    assert times[name] <= 1.05 * min(times.values())


def test_depthwise_strips_fill_the_device():
    assert strips(32, 1152, 7, 7, 5, 1) == {"kernel": 5, "stride": 1, "strip": 7, "lanes": 32}
    assert strips(1, 1152, 7, 7, 5, 1)["strip"] == 2  # where there is too little to fill it
    for sizes in ((1, 8, 1, 1, 3, 1), (1000, 2048, 300, 1000, 5, 2)):
        assert strips(*sizes)["lanes"] in (16, 32, 64)
    for sizes in ((1, 12, 9, 9, 3, 1), (1, 16, 9, 9, 7, 1), (1, 16, 9, 9, 3, 3)):
        assert strips(*sizes)["kernel"] == 0


def test_unknown_configs_are_named():
    with pytest.raises(ValueError, match=r"force_depthwise: expected strip >= 1 .* got 2 and 48"):
        KERNELS.force_depthwise(2, 48)
    with pytest.raises(
        ValueError,
        match=r"expected kernel mma, .* patch_wgmma or '', got fast",
    ):
        KERNELS.force_config("fast", 64, 64)
    with pytest.raises(ValueError, match="no kernel mma with tiles 32 x 64"):
        KERNELS.force_config("mma", 32, 64)
    with pytest.raises(ValueError, match="expected source matrix, pixels, windows or narrow"):
        choose(1, 1, 16, "rows")

"""What Triton makes of each kernel for GPUs that are not here: registers, no stack, wide loads.

Row kernels: all of them at a short and a long tile for Hopper, and one at every tile for both
architectures; the whole matrix is `slow`.
"""

from __future__ import annotations

import os
import re

import pytest

pytest.importorskip("triton", reason="Triton is missing: its kernels are not compiled")
from aot import ARCHS, CUOBJDUMP, compile_for

from fastinfer.testing.kernels_package import load_kernels

load_kernels()
from fastinfer.kernels import bias_act_residual as bias_act_module  # noqa: E402
from fastinfer.kernels import fp8_linear as fp8_linear_module  # noqa: E402
from fastinfer.kernels import gated as gated_module  # noqa: E402
from fastinfer.kernels import int4_linear as int4_linear_module  # noqa: E402
from fastinfer.kernels import int8_linear as int8_linear_module  # noqa: E402
from fastinfer.kernels import layer_norm as layer_norm_module  # noqa: E402
from fastinfer.kernels import quantize_rows as quantize_rows_module  # noqa: E402
from fastinfer.kernels import rms_norm as rms_norm_module  # noqa: E402
from fastinfer.kernels import rotary as rotary_module  # noqa: E402
from fastinfer.kernels import softmax as softmax_module  # noqa: E402
from fastinfer.kernels import split_k as split_k_module  # noqa: E402
from fastinfer.kernels import weight_only_linear as weight_only_module  # noqa: E402
from fastinfer.kernels.rows import CODES_CONFIG, ROW_CONFIGS, VALUE_CONFIGS  # noqa: E402
from fastinfer.kernels.tiles import (  # noqa: E402
    FP8_CONFIGS,
    INT4_CONFIGS,
    INT8_CONFIGS,
    WEIGHT_ONLY_CONFIGS,
)

# Only where it is set for the whole run: test_interpreted.py does not name this file.
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted: nothing is compiled", allow_module_level=True)
# Registers and instructions cannot be read without it.
if CUOBJDUMP is None:
    pytest.skip("cuobjdump: neither Triton nor the PATH has it", allow_module_level=True)

#: Kernel, types of its own arguments, constants of its own.
ROW_KERNELS = {
    "quantize_rows": (
        quantize_rows_module._quantize_rows_kernel, {"x_ptr": "*fp16", "x_stride": "i32"}, {}
    ),
    "layer_norm": (
        layer_norm_module._layer_norm_kernel,
        {"x_ptr": "*fp16", "weight_ptr": "*fp16", "bias_ptr": "*fp16", "x_stride": "i32",
         "eps": "fp32"},
        {"HAS_WEIGHT": True, "HAS_BIAS": True},
    ),
    "rms_norm": (
        rms_norm_module._rms_norm_kernel,
        {"x_ptr": "*fp16", "weight_ptr": "*fp16", "x_stride": "i32", "eps": "fp32"},
        {"HAS_WEIGHT": True},
    ),
    "softmax": (
        softmax_module._softmax_kernel,
        {"x_ptr": "*fp16", "x_stride": "i32", "factor": "fp32"}, {},
    ),
    "gated": (
        gated_module._gated_kernel,
        {"gate_ptr": "*fp16", "up_ptr": "*fp16", "gate_stride": "i32", "up_stride": "i32"},
        {"KIND": 2},
    ),
    "bias_act_residual": (
        bias_act_module._bias_act_residual_kernel,
        {"x_ptr": "*fp16", "bias_ptr": "*fp16", "residual_ptr": "*fp16", "x_stride": "i32",
         "residual_stride": "i32"},
        {"HAS_BIAS": True, "HAS_RESIDUAL": True, "KIND": 3},
    ),
}  # fmt: skip
RESULT = {"out_ptr": "*u8", "scale_ptr": "*fp32", "zero_point_ptr": "*i32", "rows": "i32",
          "n": "i32", "step": "fp32", "zero": "i32"}  # fmt: skip
BY_ROW = {"MODE": 2, "CODE": 0}
#: A value is a register; the rest is addresses and codes.
MOST_REGISTERS = {64: 64, 256: 96, 1024: 96, 2048: 96, 4096: 96, 8192: 64, 16384: 64}


def check_rows(name, config, arch):
    kernel, types, constants = ROW_KERNELS[name]
    blocks = {"BLOCK_ROWS": config.rows, "BLOCK_COLUMNS": config.columns}
    made = compile_for(
        kernel, arch, {**RESULT, **types}, {**constants, **BY_ROW, **blocks}, config.warps,
    )  # fmt: skip
    assert made.stack == 0
    assert made.registers <= MOST_REGISTERS[config.columns]
    assert re.search(r"LDG\.E\.(LTC\S*)?128|LDG\.E\.128", made.code)
    assert not re.search(r"\bLDG\.E\.[US](8|16)\b", made.code)


@pytest.mark.parametrize("config", [ROW_CONFIGS[1], ROW_CONFIGS[4]], ids=lambda c: str(c.columns))
@pytest.mark.parametrize("name", ROW_KERNELS)
def test_rows_on_hopper(name, config):
    check_rows(name, config, 90)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("config", [*ROW_CONFIGS, CODES_CONFIG], ids=str)
def test_every_tile(config, arch):
    check_rows("gated", config, arch)


@pytest.mark.parametrize("config", VALUE_CONFIGS, ids=lambda c: str(c.columns))
@pytest.mark.parametrize("name", ["gated", "bias_act_residual"])
def test_parts_of_rows(name, config):
    kernel, types, constants = ROW_KERNELS[name]
    blocks = {"BLOCK_ROWS": config.rows, "BLOCK_COLUMNS": config.columns}
    made = compile_for(
        kernel, 90, {**RESULT, **types, "out_ptr": "*fp16"},
        {**constants, "MODE": 0, "CODE": 0, **blocks}, config.warps,
    )  # fmt: skip
    assert made.stack == 0 and made.registers <= 64
    assert re.search(r"LDG\.E\.(LTC\S*)?128|LDG\.E\.128", made.code)
    assert re.search(r"STG\.E\.(LTC\S*)?128|STG\.E\.128", made.code)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("config", ROW_CONFIGS, ids=lambda c: str(c.columns))
@pytest.mark.parametrize("name", ROW_KERNELS)
def test_every_row_kernel(name, config, arch):
    check_rows(name, config, arch)


@pytest.mark.parametrize("arch", ARCHS)
def test_rotary(arch):
    block, width, warps = rotary_module.rotary_config(32, 64)
    made = compile_for(
        rotary_module._rotary_kernel, arch,
        {"x_ptr": "*fp16", "cos_ptr": "*fp16", "sin_ptr": "*fp16", "out_ptr": "*fp16",
         "heads": "i32", "half": "i32", "token_stride": "i32", "head_stride": "i32",
         "cos_stride": "i32", "sin_stride": "i32"},
        {"BLOCK_HEADS": block, "BLOCK_HALF": width}, warps,
    )  # fmt: skip
    assert made.stack == 0 and made.registers <= 64
    assert re.search(r"LDG\.E\.128", made.code) and re.search(r"STG\.E\.128", made.code)


INT8_TYPES = {
    "x_ptr": "*u8", "weight_ptr": "*i8", "bias_ptr": "*i32", "multiplier_ptr": "*fp32",
    "residual_ptr": "*u8", "residual_multiplier_ptr": "*fp32", "table_ptr": "*u8",
    "out_ptr": "*u8", "m": "i32", "n": "i32", "k": "i32", "x_stride": "i32",
    "residual_stride": "i32", "low": "fp32", "high": "fp32", "zero_point": "i32",
}  # fmt: skip
WEIGHT_ONLY_TYPES = {
    "x_ptr": "*fp16", "weight_ptr": "*i8", "scale_ptr": "*fp32", "bias_ptr": "*fp16",
    "out_ptr": "*fp16", "m": "i32", "n": "i32", "k": "i32", "x_stride": "i32", "k_part": "i32",
}  # fmt: skip


def blocks_of(config):
    return {"BLOCK_M": config.m, "BLOCK_N": config.n, "BLOCK_K": config.k}


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("config", INT8_CONFIGS, ids=lambda c: f"{c.m}x{c.n}")
def test_int8_products(config, arch):
    made = compile_for(
        int8_linear_module._int8_linear_kernel, arch, INT8_TYPES,
        {"HAS_RESIDUAL": True, "HAS_TABLE": False, "FLOAT_OUTPUT": False, **blocks_of(config)},
        config.warps, config.stages,
    )  # fmt: skip
    assert made.stack == 0 and made.registers <= 255
    assert re.search(r"\b(IMMA|IGMMA)\.", made.code)
    assert re.search(r"LDGSTS\.\S*128", made.code)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("config", WEIGHT_ONLY_CONFIGS, ids=lambda c: f"{c.m}x{c.n}")
def test_weight_only_products(config, arch):
    made = compile_for(
        weight_only_module._weight_only_linear_kernel, arch, WEIGHT_ONLY_TYPES,
        {"HAS_BIAS": False, "IS_SPLIT": True,
         "IS_WEIGHT_LEFT": config.n >= 64, **blocks_of(config)}, config.warps, config.stages,
    )  # fmt: skip
    assert made.stack == 0 and made.registers <= 255
    assert re.search(r"\b(HMMA|HGMMA)\.", made.code)
    assert re.search(r"LDGSTS\.\S*128", made.code)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("config", INT4_CONFIGS, ids=lambda c: f"{c.m}x{c.n}")
def test_int4_products(config, arch):
    types = {k: v for k, v in WEIGHT_ONLY_TYPES.items() if k != "weight_ptr"}
    made = compile_for(
        int4_linear_module._int4_linear_kernel, arch, {**types, "codes_ptr": "*u8"},
        {"HAS_BIAS": False, "IS_SPLIT": True, "HALF": config.k // 2, "BLOCK_M": config.m,
         "BLOCK_N": config.n},
        config.warps, config.stages,
    )  # fmt: skip
    assert made.stack == 0 and made.registers <= 255
    assert re.search(r"\b(HMMA|HGMMA)\.", made.code)
    assert re.search(r"LDGSTS\.\S*128", made.code)


@pytest.mark.parametrize("arch", ARCHS)
def test_sums_of_parts(arch):
    types = {k: WEIGHT_ONLY_TYPES[k] for k in ("scale_ptr", "bias_ptr", "out_ptr", "m", "n")}
    made = compile_for(
        split_k_module._sum_parts_kernel, arch, {"parts_ptr": "*fp32", **types},
        {"HAS_SCALE": True, "HAS_BIAS": True, "SPLITS": 8, "BLOCK": split_k_module.BLOCK},
        split_k_module.WARPS,
    )  # fmt: skip
    assert made.stack == 0 and made.registers <= 64
    assert re.search(r"LDG\.E\.128", made.code)


FP8_TYPES = {
    "x_ptr": "*fp8e4nv", "weight_ptr": "*fp8e4nv", "x_scale_ptr": "*fp32",
    "weight_scale_ptr": "*fp32", "bias_ptr": "*fp16", "residual_ptr": "*fp16", "out_ptr": "*fp16",
    "m": "i32", "n": "i32", "k": "i32", "x_stride": "i32", "residual_stride": "i32", "step": "fp32",
}  # fmt: skip


@pytest.mark.parametrize("config", FP8_CONFIGS, ids=lambda c: f"{c.m}x{c.n}")
def test_fp8_products(config):
    made = compile_for(
        fp8_linear_module._fp8_linear_kernel, 90, FP8_TYPES,
        {"IS_BY_ROW": True, "HAS_BIAS": True, "HAS_RESIDUAL": True, "KIND": 3, "IS_CODES": False,
         **blocks_of(config)},
        config.warps, config.stages,
    )  # fmt: skip
    assert made.stack == 0 and made.registers <= 255
    assert re.search(r"\bQGMMA\.\S*E4M3\.E4M3", made.code)
    assert re.search(r"LDGSTS\.\S*128", made.code)


def test_float8_codes_are_converted_two_at_once():
    kernel, types, constants = ROW_KERNELS["layer_norm"]
    made = compile_for(
        kernel, 90, {**RESULT, **types, "out_ptr": "*fp8e4nv"},
        {**constants, "MODE": 2, "CODE": 2, "BLOCK_ROWS": 1, "BLOCK_COLUMNS": 4096}, 8,
    )  # fmt: skip
    assert made.stack == 0 and re.search(r"F2FP\.\S*E4M3", made.code)


def test_sizes_of_one_compile():
    """Triton makes constants of arguments that are 1."""
    kernel, types, constants = ROW_KERNELS["layer_norm"]
    rest = {k: v for k, v in {**RESULT, **types}.items() if k not in ("n", "rows", "x_stride")}
    ones = {"n": 1, "rows": 1, "x_stride": 1}
    blocks = {"BLOCK_ROWS": 32, "BLOCK_COLUMNS": 64}
    assert compile_for(kernel, 90, rest, {**constants, **BY_ROW, **ones, **blocks}, 4).stack == 0


def test_every_dtype_compiles():
    kernel, types, constants = ROW_KERNELS["gated"]
    for name in ("fp32", "bf16"):
        pointers = dict.fromkeys(("gate_ptr", "up_ptr", "out_ptr"), f"*{name}")
        made = compile_for(
            kernel, 90, {**RESULT, **types, **pointers},
            {**constants, "MODE": 0, "CODE": 0, "BLOCK_ROWS": 2, "BLOCK_COLUMNS": 1024}, 4,
        )  # fmt: skip
        assert made.stack == 0

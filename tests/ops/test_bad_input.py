"""Bad input: the message names the op, what was wanted and what came; the reference refuses too."""

from __future__ import annotations

import pytest
import torch

from fastinfer import runtime
from fastinfer.ops.catalog import OPS
from fastinfer.testing.cases import OUTPUTS, Output, generator, pack, pack_dynamic, random_weight
from fastinfer.types.packed import FORMS, read_header

ops = torch.ops.fastinfer
SPECS = {op.name: op for op in OPS}
U8, RESIDUAL, F32 = OUTPUTS[0], OUTPUTS[1], OUTPUTS[5]
ERRORS = (RuntimeError, ValueError, TypeError)


def linear(output: Output = U8):
    g = generator("linear")
    return pack("linear", random_weight(g, "normal", 6, 20), g, output, 1, 3)


def conv(output: Output = U8):
    g = generator("conv")
    return pack("conv2d", random_weight(g, "normal", 6, 4, 3, 3), g, output, 1, 3)


def depthwise(output: Output = U8):
    g = generator("depthwise")
    return pack("depthwise_conv2d", random_weight(g, "normal", 6, 1, 3, 3), g, output, 6, 3)


def dynamic_linear():
    g = generator("dynamic")
    return pack_dynamic("linear", random_weight(g, "normal", 6, 20), g, 1)


def dynamic_conv():
    g = generator("dynamic conv")
    return pack_dynamic("conv2d", random_weight(g, "normal", 6, 4, 3, 3), g, 1)


def u8(*shape):
    return torch.zeros(shape, dtype=torch.uint8)


GEOMETRY = ([3, 3], [1, 1], [1, 1], [1, 1])

MAP = (1.0, 3, 1.0, 3, 4, 0, 255)  # int8_add's, behind x and y

#: label -> (op, arguments, words of the message besides the op's name, reference refuses too).
BAD = {
    "norm dtype": ("float_layer_norm", lambda: (u8(2, 5), None, None, 1e-5, 1),
                   ["x", "loat"], True),
    "norm dim": ("float_layer_norm", lambda: (torch.zeros(2, 5, 3), None, None, 1e-5, 1),
                 ["dim", "1", "[2, 5, 3]"], True),
    "norm weight": ("float_layer_norm", lambda: (torch.zeros(2, 5), torch.ones(4), None, 1e-5, 1),
                    ["weight", "[5]", "[4]"], True),
    "softmax dim": ("float_softmax", lambda: (torch.zeros(2, 5), 0), ["dim", "0", "[2, 5]"], True),
    "softmax scalar": ("float_softmax", lambda: (torch.zeros(()), 0), ["dim", "[]"], True),
    "mean dtype": ("float_global_avg_pool2d", lambda: (u8(1, 2, 3, 3),),
                   ["float32", "[1, 2, 3, 3]"], True),
    "mean shape": ("float_global_avg_pool2d", lambda: (torch.zeros(2, 3),), ["[2, 3]"], True),
    "reduce dtype": ("float_reduce", lambda: (u8(2, 5), [1], "sum"), ["loat", "x"], True),
    "reduce dim": ("float_reduce", lambda: (torch.zeros(2, 5), [2], "sum"), ["dims", "2"], True),
    "reduce function": ("float_reduce", lambda: (torch.zeros(2, 5), [1], "median"),
                        ["sum, mean, norm", "median"], True),
    "reduce apart": ("float_reduce", lambda: (torch.zeros(2, 5, 4, 3), [1, 2], "sum"),
                     ["together", "[2, 5, 4, 3]"], True),
    "reduce nothing": ("float_reduce", lambda: (torch.zeros(2, 0), [1], "sum"),
                       ["something to reduce", "[2, 0]"], True),
    "group norm groups": ("float_group_norm",
                          lambda: (torch.zeros(1, 6, 2, 2), 4, None, None, 1e-5),
                          ["groups", "[1, 6, 2, 2]", "4"], True),
    "group norm weight": ("float_group_norm",
                          lambda: (torch.zeros(1, 6, 2, 2), 3, torch.ones(3), None, 1e-5),
                          ["weight", "[6]", "[3]"], True),
    "matmul dtype": ("float_matmul", lambda: (u8(2, 3), torch.zeros(3, 2)), ["a", "loat"], True),
    "matmul inner": ("float_matmul", lambda: (torch.zeros(2, 3), torch.zeros(4, 2)),
                     ["[2, 3]", "[4, 2]"], True),
    "matmul batch": ("float_matmul", lambda: (torch.zeros(2, 3, 4), torch.zeros(3, 4, 5)),
                     ["equal batches", "[2, 3, 4]"], True),
    "attention width": ("float_attention", lambda: (*map(torch.zeros, ((1, 3, 4), (1, 5, 3),
                                                                       (1, 5, 4))), 1.0),
                        ["[1, 3, 4]", "[1, 5, 3]"], True),
    "attention no keys": ("float_attention", lambda: (*map(torch.zeros, ((1, 3, 4), (1, 0, 4),
                                                                         (1, 0, 4))), 1.0),
                          ["some S", "[1, 0, 4]"], True),
    "unary function": ("float_unary", lambda: (torch.zeros(3), "cosh"), ["sqrt", "cosh"], True),
    "unary dtype": ("float_unary", lambda: (u8(3), "exp"), ["x", "loat"], True),
    "float upsample dtype": ("float_upsample2d", lambda: (u8(1, 2, 3, 3), None, [2, 2], [], True),
                             ["x", "loat"], True),
    "float upsample no size": ("float_upsample2d",
                               lambda: (torch.zeros(1, 2, 3, 3), None, [], [], True),
                               ["one of like, output_size", "no like"], True),
    "float upsample empty": ("float_upsample2d",
                             lambda: (torch.zeros(1, 2, 0, 3), None, [2, 2], [], True),
                             ["sizes >= 1", "[1, 2, 0, 3]"], True),
    "upsample no size": ("int8_upsample2d", lambda: (u8(1, 2, 3, 3), None, [], [], True, False),
                         ["one of like, output_size", "no like"], True),
    "upsample two sizes": (
        "int8_upsample2d", lambda: (u8(1, 2, 3, 3), None, [2, 2], [2.0, 2.0], True, False),
        ["one of like, output_size"], True,
    ),
    "upsample like": (
        "int8_upsample2d", lambda: (u8(1, 2, 3, 3), u8(3, 3), [], [], True, False),
        ["like [N, C, H, W]", "[3, 3]"], True,
    ),
    "upsample empty": (
        "int8_upsample2d", lambda: (u8(1, 2, 0, 3), None, [2, 2], [], True, False),
        ["sizes >= 1", "[1, 2, 0, 3]"], True,
    ),
    "upsample to nothing": (
        "int8_upsample2d", lambda: (u8(1, 2, 3, 3), None, [], [0.1, 1.0], False, False),
        ["sizes >= 1"], True,
    ),
    "upsample rank": ("int8_upsample2d", lambda: (u8(2, 3, 3), None, [2, 2], [], True, False),
                      ["x [N, C, H, W]", "[2, 3, 3]"], True),
    "linear x float": ("int8_linear", lambda: (torch.zeros(2, 20), linear(), None, 6, False),
                       ["x", "loat"], True),
    "linear x shape": ("int8_linear", lambda: (u8(2, 19), linear(), None, 6, False),
                       ["20", "[2, 19]"], True),
    "linear x scalar": ("int8_linear", lambda: (u8(), linear(), None, 6, False),
                        ["20", "[]"], True),
    "linear out_features": ("int8_linear", lambda: (u8(2, 20), linear(), None, 7, False),
                            ["out_features=6", "7"], True),
    "linear packed conv": ("int8_linear", lambda: (u8(2, 20), conv(), None, 6, False),
                           ["linear", "conv2d"], True),
    "linear packed dynamic": ("int8_linear", lambda: (u8(2, 20), dynamic_linear(), None, 6, True),
                              ["static", "dynamic"], True),
    "linear packed dtype": ("int8_linear", lambda: (u8(2, 20), torch.zeros(999), None, 6, False),
                            ["packed"], False),
    "linear float_output": ("int8_linear", lambda: (u8(2, 20), linear(), None, 6, True),
                            ["float_output"], True),
    "linear residual missing": ("int8_linear",
                                lambda: (u8(2, 20), linear(RESIDUAL), None, 6, False),
                                ["residual"], True),
    "linear residual unwanted": ("int8_linear", lambda: (u8(2, 20), linear(), u8(2, 6), 6, False),
                                 ["residual", "no residual"], True),
    "linear residual shape": ("int8_linear",
                              lambda: (u8(2, 20), linear(RESIDUAL), u8(1, 6), 6, False),
                              ["residual", "[1, 6]"], True),
    "linear residual dtype": ("int8_linear",
                              lambda: (u8(2, 20), linear(RESIDUAL), torch.zeros(2, 6), 6, False),
                              ["residual", "loat"], True),
    "linear_dynamic x uint8": ("int8_linear_dynamic",
                               lambda: (u8(2, 20), dynamic_linear(), 6, True), ["x"], True),
    "linear_dynamic static": ("int8_linear_dynamic",
                              lambda: (torch.zeros(2, 20), linear(F32), 6, True),
                              ["static", "dynamic"], True),
    "conv x float": ("int8_conv2d",
                     lambda: (torch.zeros(1, 4, 5, 5), conv(), None, 6, *GEOMETRY, 1, False),
                     ["x"], True),
    "conv x channels": ("int8_conv2d",
                        lambda: (u8(1, 5, 5, 5), conv(), None, 6, *GEOMETRY, 1, False),
                        ["4", "[1, 5, 5, 5]"], True),
    "conv x unbatched": ("int8_conv2d",
                         lambda: (u8(4, 5, 5), conv(), None, 6, *GEOMETRY, 1, False),
                         ["[4, 5, 5]"], False),
    "conv kernel": ("int8_conv2d",
                    lambda: (u8(1, 4, 5, 5), conv(), None, 6, [5, 5], *GEOMETRY[1:], 1, False),
                    ["kernel"], True),
    "conv groups": ("int8_conv2d",
                    lambda: (u8(1, 4, 5, 5), conv(), None, 6, *GEOMETRY, 2, False),
                    ["groups"], True),
    "conv stride": ("int8_conv2d",
                    lambda: (u8(1, 4, 5, 5), conv(), None, 6, [3, 3], [0, 1], [1, 1], [1, 1], 1,
                             False),
                    ["stride"], False),
    "conv stride length": ("int8_conv2d",
                           lambda: (u8(1, 4, 5, 5), conv(), None, 6, [3, 3], [1], [1, 1], [1, 1],
                                    1, False),
                           ["stride"], False),
    "conv too small": ("int8_conv2d",
                       lambda: (u8(1, 4, 1, 1), conv(), None, 6, [3, 3], [1, 1], [0, 0], [1, 1], 1,
                                False),
                       [], False),
    "conv packed linear": ("int8_conv2d",
                           lambda: (u8(1, 4, 5, 5), linear(), None, 6, *GEOMETRY, 1, False),
                           ["conv2d", "linear"], True),
    "conv residual missing": ("int8_conv2d",
                              lambda: (u8(1, 4, 5, 5), conv(RESIDUAL), None, 6, *GEOMETRY, 1,
                                       False),
                              ["residual"], True),
    "depthwise packed conv": ("int8_depthwise_conv2d",
                              lambda: (u8(1, 6, 5, 5), conv(), None, *GEOMETRY, False),
                              ["depthwise_conv2d", "conv2d"], True),
    "depthwise channels": ("int8_depthwise_conv2d",
                           lambda: (u8(1, 7, 5, 5), depthwise(), None, *GEOMETRY, False),
                           ["6", "7"], True),
    "conv_dynamic x": ("int8_conv2d_dynamic",
                       lambda: (u8(1, 4, 5, 5), dynamic_conv(), 6, *GEOMETRY, 1), ["x"], True),
    "lookup table": ("int8_lookup", lambda: (u8(4), u8(255)), ["256", "255"], True),
    "lookup x": ("int8_lookup", lambda: (torch.zeros(4), u8(256)), ["x"], True),
    "add x": ("int8_add", lambda: (torch.zeros(4), u8(4), *MAP, None), ["x", "loat"], True),
    "add y": ("int8_add", lambda: (u8(4), torch.zeros(4), *MAP, None), ["y", "loat"], True),
    "add shapes": ("int8_add", lambda: (u8(2, 4), u8(1, 4), *MAP, None), ["[2, 4]", "[1, 4]"],
                   True),
    "add channels": ("int8_add", lambda: (u8(2, 4, 3, 3), u8(1, 4, 1, 1), *MAP, None),
                     ["[2, 4, 3, 3]", "[1, 4, 1, 1]"], True),
    "add x zero point": ("int8_add", lambda: (u8(4), u8(4), 1.0, 256, 1.0, 3, 4, 0, 255, None),
                         ["x_zero_point", "256"], True),
    "add y zero point": ("int8_add", lambda: (u8(4), u8(4), 1.0, 3, 1.0, -1, 4, 0, 255, None),
                         ["y_zero_point", "-1"], True),
    "add bounds": ("int8_add", lambda: (u8(4), u8(4), 1.0, 3, 1.0, 3, 4, 9, 8, None),
                   ["qmin", "9", "8"], True),
    "add table": ("int8_add", lambda: (u8(4), u8(4), *MAP, u8(255)), ["table", "255"], False),
    "mul shapes": ("int8_mul", lambda: (u8(2, 4), u8(4), 1.0, 3, 3, 4, 0, 255),
                   ["[2, 4]", "[4]"], True),
    "mul out zero point": ("int8_mul", lambda: (u8(4), u8(4), 1.0, 3, 3, 999, 0, 255),
                           ["out_zero_point", "999"], True),
    "cat multipliers": ("int8_cat", lambda: ([u8(4), u8(4)], 0, [1.0], [3, 3], 3),
                        ["2", "1"], True),
    "cat dim": ("int8_cat", lambda: ([u8(4)], 1, [1.0], [3], 3), ["dim", "0..0", "1"], True),
    "cat dtype": ("int8_cat", lambda: ([torch.zeros(4)], 0, [1.0], [3], 3), ["loat"], True),
    "cat shapes": ("int8_cat", lambda: ([u8(2, 4), u8(3, 4)], 1, [1.0] * 2, [3, 3], 3),
                   ["[2, 4]", "[3, 4]"], False),
    "cat zero point": ("int8_cat", lambda: ([u8(4)], 0, [1.0], [256], 3), ["256"], True),
    "max_pool x": ("int8_max_pool2d", lambda: (torch.zeros(1, 4, 5, 5), *GEOMETRY, False),
                   ["x", "loat"], True),
    "max_pool unbatched": ("int8_max_pool2d", lambda: (u8(4, 5, 5), *GEOMETRY, False),
                           ["[4, 5, 5]"], True),
    "max_pool no pixels": ("int8_max_pool2d", lambda: (u8(1, 4, 0, 5), *GEOMETRY, False),
                           ["[1, 4, 0, 5]"], True),
    "max_pool padding": ("int8_max_pool2d",
                         lambda: (u8(1, 4, 5, 5), [2, 2], [1, 1], [1, 2], [1, 1], False),
                         ["padding", "half", "2"], True),
    "max_pool stride": ("int8_max_pool2d",
                        lambda: (u8(1, 4, 5, 5), [2, 2], [0, 1], [0, 0], [1, 1], False),
                        ["stride", "0"], False),
    "max_pool too small": ("int8_max_pool2d",
                           lambda: (u8(1, 4, 1, 1), [3, 3], [1, 1], [0, 0], [1, 1], False),
                           ["[1, 4, 1, 1]"], False),
    "avg_pool bounds": ("int8_avg_pool2d",
                        lambda: (u8(1, 4, 5, 5), [2, 2], [1, 1], [0, 0], False, True, 1.0, 3, 4,
                                 -1, 255), ["qmin", "-1"], True),
    "adaptive size": ("int8_adaptive_avg_pool2d",
                      lambda: (u8(1, 4, 5, 5), [-1, 1], 1.0, 3, 4, 0, 255), ["output_size", "-1"],
                      False),
    "adaptive zero point": ("int8_adaptive_avg_pool2d",
                            lambda: (u8(1, 4, 5, 5), [1, 1], 1.0, 300, 4, 0, 255),
                            ["x_zero_point", "300"], True),
    "quantize x": ("quantize", lambda: (u8(4), 0.1, 3), ["loat"], True),
    "dequantize x": ("dequantize", lambda: (torch.zeros(4), 0.1, 3), ["x"], True),
    "quantize_dynamic x": ("quantize_dynamic", lambda: (u8(4, 4), True), ["loat"], True),
}  # fmt: skip


@pytest.mark.parametrize("label", BAD)
def test_bad_input(label):
    op, build, words, reference_too = BAD[label]
    args = build()
    with pytest.raises(ERRORS) as caught:
        getattr(ops, op)(*args)
    text = str(caught.value)
    assert all(word in text for word in [op, *words]), text
    if reference_too:
        with pytest.raises(ERRORS) as caught:
            SPECS[op].reference(*args)
        assert op in str(caught.value)


def test_lines_that_offsets_do_not_reach(every_isa):
    """Padding may be any number; weights by groups are read at 32-bit distances."""
    for isa in every_isa:
        runtime.set_isa(isa)
        packed = pack("conv2d", torch.ones(8, 4, 1, 1).to(torch.int8), generator("far"), U8, 2, 3)

        def convolve(far, packed=packed):
            geometry = ([1, 1], [1, far], [0, far], [1, 1])
            return ops.int8_conv2d(u8(1, 8, 1, 1), packed, None, 8, *geometry, 2, False)

        near = convolve(8)
        assert near.shape == (1, 8, 1, 3)
        if FORMS[read_header(packed).form] == "groups":
            words = r"int8_conv2d: expected lines .* 2\^31 .*\[1, 8, 1, 1\]"
            with pytest.raises(RuntimeError, match=words):
                convolve(1 << 27)
        else:  # the other forms take any
            assert torch.equal(convolve(1 << 27), near)


def test_buffer_of_another_isa(every_isa):
    if len(every_isa) < 2:
        pytest.skip("this CPU has one instruction set")
    one, other = every_isa[:2]
    runtime.set_isa(one)
    packed = linear()
    runtime.set_isa(other)
    with pytest.raises(RuntimeError, match=f"int8_linear: packed: expected layout {other}.*{one}"):
        ops.int8_linear(u8(2, 20), packed, None, 6, False)


def test_truncated_and_broken_buffers():
    packed = linear()
    x = u8(2, 20)
    with pytest.raises(RuntimeError, match=f"int8_linear: packed: expected {packed.numel()} bytes"):
        ops.int8_linear(x, packed[:-1], None, 6, False)
    with pytest.raises(RuntimeError, match="int8_linear: packed: expected a contiguous 1-D buffer"):
        ops.int8_linear(x, packed[:64], None, 6, False)
    with pytest.raises(RuntimeError, match="contiguous"):
        ops.int8_linear(x, torch.stack([packed, packed], 1)[:, 0], None, 6, False)
    broken = packed.clone()
    broken[0] = 0
    with pytest.raises(RuntimeError, match="int8_linear: packed: not a packed weight of version"):
        ops.int8_linear(x, broken, None, 6, False)


def prepack(**changed):
    values = {
        "op": "linear",
        "weight": torch.ones(4, 8, dtype=torch.int8),
        "bias": torch.zeros(4, dtype=torch.int32),
        "multiplier": torch.ones(4),
        "residual_multiplier": None,
        "table": None,
        "float_bias": None,
        "groups": 1,
        "x_zero_point": 0,
        "out_zero_point": 0,
        "qmin": 0,
        "qmax": 255,
        "clamp_min": 0.0,
        "clamp_max": 1.0,
        "float_output": False,
    }
    return list({**values, **changed}.values())


BAD_WEIGHTS = {
    "op": ({"op": "conv9d"}, "conv9d"),
    "dtype": ({"weight": torch.ones(4, 8)}, "weight"),
    "dims": ({"weight": torch.ones(4, 2, 2, 2, dtype=torch.int8)}, "weight"),
    "empty": ({"weight": torch.ones(4, 0, dtype=torch.int8)}, "weight"),
    "minus 128": ({"weight": torch.full((4, 8), -128, dtype=torch.int8)}, "-128"),
    "bias length": ({"bias": torch.zeros(3, dtype=torch.int32)}, "bias"),
    "bias dtype": ({"bias": torch.zeros(4)}, "bias"),
    "multiplier": ({"multiplier": torch.ones(5)}, "multiplier"),
    "groups": ({"groups": 3}, "groups"),
    "zero point": ({"x_zero_point": 256}, "256"),
    "qmin": ({"qmin": 9, "qmax": 8}, "qm"),
    "table float": ({"table": u8(256), "float_output": True}, "table"),
    "table length": ({"table": u8(255)}, "table"),
    "overflow": ({"bias": torch.full((4,), 2**31 - 1, dtype=torch.int32)}, "int32"),
    "dynamic u8": ({"float_bias": torch.zeros(4)}, "dynamic"),
}


@pytest.mark.parametrize("label", BAD_WEIGHTS)
def test_bad_weight(label):
    changed, word = BAD_WEIGHTS[label]
    for prepack_of in (ops.int8_prepack, SPECS["int8_prepack"].reference):
        with pytest.raises(ERRORS, match="int8_prepack") as caught:
            prepack_of(*prepack(**changed))
        assert word in str(caught.value)

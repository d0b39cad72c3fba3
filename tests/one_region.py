"""What tests of regions ask of a converted model."""

from __future__ import annotations

import torch

import fastinfer
from fastinfer.nn.converted_module import region_modules


def regions_of(fast):
    return [module for _, module in region_modules(fast) if hasattr(module, "region")]


def one_by_one(fast, *args):
    """Answer op by op: a hook on a layer inside takes a region apart."""
    kinds = ("Int8Conv2d", "Int8LinearDynamic")
    layers = [m for m in fast.modules() if type(m).__name__ in kinds]
    assert layers
    handles = [layer.register_forward_hook(lambda *_: None) for layer in layers]
    try:
        return fast(*args)
    finally:
        for handle in handles:
            handle.remove()


def assert_kept_by_a_file(fast, path, inputs):
    """Save and load: the same region, the same answers to each of inputs, also op by op."""
    fastinfer.save(fast, path)
    loaded = fastinfer.load(path)
    (region,), (wanted,) = regions_of(loaded), regions_of(fast)
    assert region.region == wanted.region
    for x in inputs:
        assert torch.equal(loaded(*x), fast(*x))
        assert torch.equal(one_by_one(loaded, *x), fast(*x))


def assert_traced_alike(fast, x):
    """Compile, export and trace: the same answer."""
    wanted = fast(*x)
    assert torch.equal(torch.compile(fast, fullgraph=True, backend="eager")(*x), wanted)
    assert torch.equal(torch.export.export(fast, x).module()(*x), wanted)
    assert torch.equal(torch.jit.trace(fast, x)(*x), wanted)

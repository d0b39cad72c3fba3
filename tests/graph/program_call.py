"""Calling a captured program, for the tests of capture."""

from __future__ import annotations

import torch


def run(program, *args, **kwargs):
    """Call a program as its model is called; None when the graph does not take the call."""
    flat = program.call.flatten(args, kwargs)
    if flat is None or not program.call.accepts([t.shape for t in flat]):
        return None
    with torch.no_grad():
        return program.call.unflatten(program.graph_module(*flat))

"""A trained teacher, made once; one thread, as small tensors gain nothing from more."""

from __future__ import annotations

import bars
import pytest
import torch

from fastinfer.compress.distill import finetune


@pytest.fixture(autouse=True)
def _one_thread(threads):
    threads(1)


@pytest.fixture(scope="session")
def trained():
    """A network of over 90 % on pictures it was not trained on."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    model = bars.network()
    finetune(model, bars.batches(640, 32, 1), epochs=3, loss=bars.task_loss, lr=3e-3)
    torch.set_num_threads(before)
    assert bars.accuracy(model.eval()) > 0.9
    return model


@pytest.fixture
def teacher(trained):
    """The same, and a check that a test left it as it was."""
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    yield trained
    assert not any(m.training for m in trained.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in trained.modules())
    for name, value in trained.state_dict().items():
        assert torch.equal(value, before[name]), name

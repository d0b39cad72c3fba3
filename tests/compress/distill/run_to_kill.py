"""A training for test_checkpoint.py to kill: `run_to_kill.py KIND RESULT [CHECKPOINT]`.

It says each step before it is taken and each epoch after it, and writes the weights at the end.
"""

from __future__ import annotations

import random
import sys

import bars
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset

from fastinfer.compress.distill import distill
from fastinfer.compress.prune import CubicSchedule, GradualPruner


class Augmented(Dataset):
    """Pictures with noise from every kind of random numbers."""

    def __init__(self):
        self.images, _ = bars.pictures(80, 5)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        noise = torch.randn(1, 12, 12) * 0.1 + np.random.rand() + random.random()
        return self.images[index] + noise


def main(kind, result, checkpoint=None):
    torch.set_num_threads(1)
    teacher = bars.network().eval()
    student = bars.network() if kind == "gradual" else bars.pruned(teacher)
    student.insert(6, nn.Dropout(0.3))
    options = {}
    if kind == "gradual":
        schedule = CubicSchedule(2, 11, every=2)
        options["pruner"] = GradualPruner(student, "nm64x2", 0.75, schedule, dense_ends=False)
        options["optimizer"] = lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(Augmented(), 16, shuffle=True, generator=generator)

    def loss(ours, theirs):
        if student.training:
            print("step", int(student[1].num_batches_tracked), flush=True)
        return (ours - theirs).square().mean()

    distill(
        student, teacher, loader, epochs=3, lr=3e-3, loss=loss, checkpoint=checkpoint,
        held_out=[bars.pictures(32, 9)[0]], every_steps=3,
        on_epoch=lambda r: print("epoch", r.epoch, r.loss, r.score, r.is_best, flush=True),
        **options,
    )  # fmt: skip
    save_file({n: v.clone() for n, v in student.state_dict().items()}, result)


if __name__ == "__main__":
    main(*sys.argv[1:])

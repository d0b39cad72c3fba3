"""CREPE on sounds made here, whose pitch is known: tones, harmonic notes, vibrato and glides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, partial

import torch
from torch import Tensor

from fastinfer.measure import sqnr_db
from tasks.cache import cached_tensors
from tasks.pitch_network import FRAME, RATE, cents_of, load_pitch_network
from tasks.task import Figure, Split, Task, answers

BATCH = 64
#: Notes of each part, and frames taken of a note; frames of one note are not independent.
NOTES = {"calibration": 100, "distillation": 1500, "choosing": 150, "evaluation": 500}
FRAMES = 4
#: Parts draw from generators of their own; calibration is the beginning of distillation.
SEEDS = {"calibration": 11, "distillation": 11, "choosing": 12, "evaluation": 13}
KINDS = ("tone", "harmonic", "vibrato", "glide")
LOWEST_HZ, HIGHEST_HZ = 65.0, 1000.0
NOTE_SECONDS = 0.4
NEAR_CENTS = 50.0


def crepe_task(size: str = "tiny") -> Task:
    """Return the task; size as in `load_pitch_network`."""
    return Task(
        name="crepe" if size == "tiny" else f"crepe-{size}",
        title=f"CREPE {size}, pitch of synthetic notes",
        headline="within_50_cents",
        higher_is_better=True,
        build=partial(load_pitch_network, size),
        batches=_batches,
        identities=lambda split: frozenset(
            f"{SEEDS[split]}:{index}" for index in range(NOTES[split])
        ),
        judge=lambda wanted, got, split: figures(wanted, got, sounds(split)[1]),
        float_answers=partial(_float_answers, size),
    )


def crepe_full_task() -> Task:
    """Return the task with the large network."""
    return crepe_task("full")


def note(kind: str, draw: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return sound [samples] and its pitch in Hz [samples] of a note of NOTE_SECONDS.

    Args:
        kind: one of KINDS; all but "tone" have harmonics.
        draw: [8] uniform numbers that choose pitch, movement, noise.
        generator: of phases, strengths of harmonics, and noise.
    """
    count = int(NOTE_SECONDS * RATE)
    time = torch.arange(count, dtype=torch.float64) / RATE
    u = draw.double().tolist()
    octaves = torch.full_like(time, u[0] * math.log2(HIGHEST_HZ / LOWEST_HZ))
    if kind == "vibrato":
        depth, speed = (20 + 60 * u[1]) / 1200, 4 + 3 * u[2]
        octaves = octaves + depth * torch.sin(2 * math.pi * (speed * time + u[3]))
    if kind == "glide":
        octaves = octaves + (u[1] - 0.5) * (time / NOTE_SECONDS - 0.5)
    hertz = (LOWEST_HZ * 2**octaves).clamp(LOWEST_HZ / 1.5, HIGHEST_HZ * 1.5)
    turns = torch.cumsum(hertz, 0) / RATE
    harmonics = 1 if kind == "tone" else 3 + int(9 * u[4])
    order = torch.arange(1, harmonics + 1, dtype=torch.float64)
    strength = order ** -(0.5 + 1.5 * u[5])
    strength = strength * (0.3 + 0.7 * torch.rand(harmonics, generator=generator).double())
    strength[0] = max(float(strength[0]), 0.5 * float(strength.max()))
    phase = torch.rand(harmonics, generator=generator).double()
    audible = order[:, None] * hertz[None] < 0.45 * RATE
    waves = torch.sin(2 * math.pi * (order[:, None] * turns[None] + phase[:, None])) * audible
    sound = (strength[:, None] * waves).sum(0)
    noise = torch.randn(count, generator=generator).double()
    level = 10 ** (-(10 + 30 * u[6]) / 20)  # 10 to 40 dB below the sound
    return (sound + level * sound.std() * noise).float(), hertz.float()


@cache
def sounds(split: Split) -> tuple[Tensor, Tensor]:
    """Return frames [N, 1024], mean 0 and deviation 1, and the pitch in cents in their middle."""
    generator = torch.Generator().manual_seed(SEEDS[split])
    frames, cents = [], []
    for index in range(NOTES[split]):
        draw = torch.rand(8, generator=generator)
        sound, hertz = note(KINDS[index % len(KINDS)], draw, generator)
        starts = torch.linspace(0, len(sound) - FRAME, FRAMES).long()
        for start in starts.tolist():
            part = sound[start : start + FRAME]
            frames.append((part - part.mean()) / part.std().clamp(min=1e-10))
            cents.append(1200 * torch.log2(hertz[start + FRAME // 2] / 10))
    return torch.stack(frames), torch.stack(cents)


@cache
def _batches(split: Split) -> Sequence[Tensor]:
    return sounds(split)[0].split(BATCH)


@cache
def _float_answers(size: str, split: Split) -> Tensor:
    recipe = (size, split, NOTES, FRAMES, SEEDS, LOWEST_HZ, HIGHEST_HZ, NOTE_SECONDS)

    def make() -> dict[str, Tensor]:
        return {"answers": answers(load_pitch_network(size), _batches(split))}

    return cached_tensors(f"crepe-{size}", recipe, make)["answers"]


def figures(wanted: Tensor, got: Tensor, cents: Tensor) -> dict[str, Figure]:
    """Return the share of frames within 50 cents of the truth and of float, and SQNR.

    Args:
        wanted: [N, 360] probabilities of the float network.
        got: [N, 360] probabilities of the network that is judged.
        cents: [N] true pitch, in cents above 10 Hz.
    """
    heard, count = cents_of(got), len(cents)
    near_truth = (heard - cents).abs() <= NEAR_CENTS
    near_float = (heard - cents_of(wanted)).abs() <= NEAR_CENTS
    return {
        "within_50_cents": Figure(float(near_truth.double().mean()), count),
        "agreement": Figure(float(near_float.double().mean()), count),
        "sqnr_db": Figure(sqnr_db(wanted, got), count),
    }

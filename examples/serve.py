"""Serve a saved model over HTTP on this machine: python examples/serve.py model.fastinfer.

Without a model a small one is converted. Requests that come within --wait-ms of each other run as
one batch, one batch at a time, in a thread of its own. Needs fastapi and uvicorn.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import fastinfer


@dataclass
class Stats:
    """What /stats answers."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    batches: int = 0
    largest_batch: int = 0


@dataclass
class Job:
    """A sample and where its answer goes."""

    x: Tensor  # one sample, [1, ...]
    answer: asyncio.Future[Any] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Full(Exception):
    """The queue is full."""


class Batcher:
    """Collects samples into batches for a model that takes them one batch at a time."""

    def __init__(self, model: nn.Module, most: int, wait_ms: float, queued: int) -> None:
        self.model, self.most, self.wait_s = model, most, wait_ms / 1e3
        self.queue: asyncio.Queue[Job] = asyncio.Queue(queued)
        self.worker = ThreadPoolExecutor(1, "inference")
        self.stats = Stats()

    async def answer(self, x: Tensor) -> Any:
        """Return the model's answer to one sample; Full when too many wait already."""
        job = Job(x)
        self.stats.requests += 1
        try:
            self.queue.put_nowait(job)
        except asyncio.QueueFull:
            self.stats.refused += 1
            raise Full from None
        return await job.answer

    async def run(self) -> None:
        """Answer jobs until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            jobs = [await self.queue.get()]
            end = clock() + self.wait_s
            while len(jobs) < self.most:
                if not self.queue.empty():
                    jobs.append(self.queue.get_nowait())
                elif (left := end - clock()) > 0:
                    # Not wait_for: before Python 3.12 it may lose what it gets as time runs out.
                    await asyncio.sleep(min(left, 0.001))
                else:
                    break
            # Samples of other sizes cannot share a batch.
            for shape in dict.fromkeys(job.x.shape for job in jobs):
                await self._run_batch([job for job in jobs if job.x.shape == shape])

    async def _run_batch(self, jobs: list[Job]) -> None:
        loop = asyncio.get_running_loop()
        self.stats.batches += 1
        self.stats.largest_batch = max(self.stats.largest_batch, len(jobs))
        batch = torch.cat([job.x for job in jobs])
        try:
            answers = await loop.run_in_executor(self.worker, self._call, batch, len(jobs))
        except Exception as error:  # whatever the model raises belongs to who asked
            if len(jobs) > 1:  # one sample's fault is not the others'
                for job in jobs:
                    await self._run_batch([job])
                return
            self.stats.errors += 1
            if not jobs[0].answer.done():
                jobs[0].answer.set_exception(error)
            return
        for job, answer in zip(jobs, answers, strict=True):
            if not job.answer.done():  # the client may have gone
                job.answer.set_result(answer)

    def _call(self, batch: Tensor, count: int) -> list[Any]:
        with torch.inference_mode():
            output = self.model(batch)
        return [pytree.tree_map(lambda t, i=i: t[i].tolist(), output) for i in range(count)]


class Sample(BaseModel):
    """One input without the batch dimension, as nested lists of numbers."""

    input: list[Any]


def make_app(model: nn.Module, *, batch: int, wait_ms: float, queued: int) -> FastAPI:
    """Return the server of a model that takes one float32 tensor with the batch first."""
    batcher = Batcher(model, batch, wait_ms, queued)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()  # uvicorn stops only when every request is answered
        batcher.worker.shutdown()

    app = FastAPI(title="fastinfer", lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "isa": fastinfer.isa(), "fastinfer": fastinfer.__version__}

    @app.get("/stats")
    async def stats() -> dict[str, Any]:
        return {**vars(batcher.stats), "waiting": batcher.queue.qsize()}

    @app.post("/predict")
    async def predict(sample: Sample) -> dict[str, Any]:
        try:
            x = torch.tensor([sample.input], dtype=torch.float32)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise HTTPException(400, f"input: expected nested lists of numbers: {error}") from None
        if not x.isfinite().all():
            raise HTTPException(400, "input: expected finite numbers")
        try:
            output = await batcher.answer(x)
        except Full:
            raise HTTPException(503, "too many requests wait; try again later") from None
        except (TypeError, ValueError) as error:
            raise HTTPException(400, str(error)) from None
        if not all(map(math.isfinite, pytree.tree_leaves(output))):
            raise HTTPException(500, "the answer is not finite")
        return {"output": output}

    return app


def small_model() -> nn.Module:
    """Return a converted model for images of 3 x 32 x 32."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    ).eval()  # fmt: skip
    return fastinfer.convert(model, torch.randn(4, 3, 32, 32), config="int8")


def main() -> None:
    """Serve until SIGTERM or Ctrl-C; requests that came before are answered."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="what fastinfer.save wrote")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=16, help="samples in one batch at most")
    parser.add_argument("--wait-ms", type=float, default=5.0, help="for others to join a batch")
    parser.add_argument("--queue", type=int, default=256, help="requests that may wait")
    options = parser.parse_args()
    model = fastinfer.load(options.model) if options.model else small_model()
    app = make_app(model, batch=options.batch, wait_ms=options.wait_ms, queued=options.queue)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()

"""examples/serve.py as a user starts it: a process of its own on a free port."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import torch
from torch import nn

import fastinfer

SERVE = Path(__file__).resolve().parents[2] / "examples" / "serve.py"
START_S = 60


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 4),
    ).eval()  # fmt: skip
    return fastinfer.convert(layers, torch.randn(2, 3, 16, 16), config="int8")


@pytest.fixture
def start(tmp_path, model):
    """Return a function that starts the server with these options and gives (process, url)."""
    fastinfer.save(model, tmp_path / "model.fastinfer")
    started = []

    def run(*options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, str(SERVE), str(tmp_path / "model.fastinfer")]
        process = subprocess.Popen(
            [*command, "--port", str(port), *options], cwd=SERVE.parents[1],
            env={"PYTHONPATH": str(SERVE.parents[1])}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(process)
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + START_S
        while True:
            try:
                assert httpx.get(f"{url}/health").json()["status"] == "ok"
                return process, url
            except httpx.TransportError:
                assert process.poll() is None, process.stdout.read()
                assert time.monotonic() < end, "the server did not start"
                time.sleep(0.1)

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_predictions_of_many_threads(start, model):
    process, url = start("--batch", "4", "--wait-ms", "20")
    samples = torch.randn(24, 3, 16, 16)
    with torch.inference_mode():
        wanted = [model(x[None])[0].tolist() for x in samples]
    answers: dict[int, httpx.Response] = {}

    def ask(first):
        with httpx.Client(timeout=60) as client:
            for i in range(first, len(samples), 8):
                body = {"input": samples[i].tolist()}
                answers[i] = client.post(f"{url}/predict", json=body)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[i].json()["output"] for i in range(len(samples))] == wanted
    stats = httpx.get(f"{url}/stats").json()
    assert stats["requests"] == 24 and stats["errors"] == stats["refused"] == stats["waiting"] == 0
    assert stats["largest_batch"] > 1 and 6 <= stats["batches"] < 24
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode in (0, -signal.SIGTERM), output
    assert "Traceback" not in output


def test_bad_input_fails_alone(start, model):
    _, url = start("--wait-ms", "200")
    good = torch.randn(3, 16, 16)
    bodies = {
        "good": {"input": good.tolist()},
        "channels": {"input": torch.zeros(2, 16, 16).tolist()},
        "ragged": {"input": [[1.0, 2.0], [3.0]]},
        "text": {"input": ["a"]},
        "huge": {"input": [1e300]},
        "missing": {},
    }
    found = {}

    def ask(name):
        found[name] = httpx.post(f"{url}/predict", json=bodies[name], timeout=60)

    threads = [threading.Thread(target=ask, args=(name,)) for name in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = {name: answer.status_code for name, answer in found.items()}
    assert codes == {
        "good": 200, "channels": 400, "ragged": 400, "text": 400, "huge": 400, "missing": 422,
    }  # fmt: skip
    with torch.inference_mode():
        assert found["good"].json()["output"] == model(good[None])[0].tolist()
    assert "[*, 3, *, *], got [1, 2, 16, 16]" in found["channels"].json()["detail"]
    assert "nested lists of numbers" in found["ragged"].json()["detail"]
    assert "input" in found["missing"].text


@pytest.fixture(scope="module")
def serve():
    spec = importlib.util.spec_from_file_location("serve", SERVE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["serve"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["serve"]


def test_a_full_queue_refuses(serve):
    busy, go = threading.Event(), threading.Event()

    def slow(x):
        busy.set()
        assert go.wait(60)
        return x

    async def ask():
        batcher = serve.Batcher(slow, most=1, wait_ms=0, queued=1)
        task = asyncio.create_task(batcher.run())
        running = asyncio.create_task(batcher.answer(torch.ones(1, 2)))
        await asyncio.to_thread(busy.wait, 60)
        waiting = asyncio.create_task(batcher.answer(torch.zeros(1, 2)))
        await asyncio.sleep(0)
        with pytest.raises(serve.Full):
            await batcher.answer(torch.ones(1, 2))
        go.set()
        answers = await running, await waiting
        task.cancel()
        return answers, batcher.stats.refused

    assert asyncio.run(ask()) == (([1.0, 1.0], [0.0, 0.0]), 1)


def test_a_failing_sample_fails_alone(serve):
    def picky(x):
        if (x < 0).any():
            raise ValueError("negative")
        return {"y": x}

    async def ask():
        batcher = serve.Batcher(picky, most=3, wait_ms=1000, queued=8)
        task = asyncio.create_task(batcher.run())
        samples = (torch.ones(1, 1), -torch.ones(1, 1), torch.zeros(1, 1))
        answers = await asyncio.gather(*map(batcher.answer, samples), return_exceptions=True)
        task.cancel()
        return answers, batcher.stats

    (first, second, third), stats = asyncio.run(ask())
    assert (first, third) == ({"y": [1.0]}, {"y": [0.0]})
    assert isinstance(second, ValueError) and str(second) == "negative"
    assert (stats.errors, stats.largest_batch) == (1, 3)

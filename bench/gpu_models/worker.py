"""The process of one contender: python -m gpu_models.worker CONTENDER NETWORK BATCH DEVICE.

It builds its network by itself. Requests and answers are JSON lines: {"do": "prepare"} gives what
preparing took and how near its answers are to float's, {"do": "time", "seconds": s} milliseconds of
each call; what goes wrong is an answer too, {"failed": why}.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from turns.answering import Answer, answer_stream, time_for

from fastinfer.measure import sqnr_db
from gpu_models.contenders import CONTENDERS, Prepared, placed, placed_model
from gpu_models.networks import NETWORKS, Network

#: Answers of a broken kernel have about 0 dB; bfloat16 has 17 or more of these networks.
LEAST_DB = 6.0
#: What JSON and tables show of an exact answer.
MOST_DB = 200.0
#: Inputs that the float model takes at a time when it is asked for what is right.
PART = 32


def reason(error: BaseException) -> str:
    """Return what went wrong, with where, short enough for a table's footnote."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0][:300]} ({last.name}, line {last.lineno})"


class WrongAnswerError(RuntimeError):
    """A contender's answers are not those of the float model."""


def checked_db(got: Tensor, wanted: Tensor) -> float:
    """Return the signal-to-noise ratio in dB of answers against the float model's.

    Raises:
        WrongAnswerError: it has another shape, or less than LEAST_DB.
    """
    if got.shape != wanted.shape:
        raise WrongAnswerError(f"expected answers {list(wanted.shape)}, got {list(got.shape)}")
    if not got.isfinite().all():
        raise WrongAnswerError("expected finite answers")
    found = min(sqnr_db(wanted, got), MOST_DB)
    if not found >= LEAST_DB:
        raise WrongAnswerError(f"expected {LEAST_DB} dB or more against float, got {found:.1f} dB")
    return found


class Worker:
    """One contender of one network, at one shape."""

    def __init__(
        self, contender: Callable[[Network, Tensor], Prepared], network: Network, x: Tensor
    ) -> None:
        self._contender, self._network, self._x = contender, network, x
        self._call: Callable[[], Tensor] | None = None

    def prepare(self) -> dict[str, Any]:
        """Return what making it took, and its answers' dB, taken before anything is timed."""
        call, facts = self._contender(self._network, self._x)
        model = placed_model(self._network, self._x.device, torch.float32)
        with torch.inference_mode():
            for _ in range(2):  # the third call is one of those that are timed: a replayed graph
                call()
            got = call().float()
            wanted = torch.cat([model(part) for part in self._x.split(PART)])
        facts["sqnr_db"] = checked_db(got, wanted)
        del model, wanted, got
        if self._x.is_cuda:
            torch.cuda.empty_cache()  # others have the same GPU
        self._call = call
        return facts

    def time(self, seconds: float) -> dict[str, Any]:
        """Return milliseconds of calls, each with waiting for its result."""
        if self._call is None:
            raise RuntimeError("asked for a time before it was prepared")
        wait = torch.cuda.synchronize if self._x.is_cuda else lambda: None
        with torch.inference_mode():
            return {"ms": time_for(self._call, seconds, wait)}


def serve(worker: Callable[[], Worker], requests: Iterable[str], answer: Answer) -> None:
    """Answer requests until there are no more."""
    made: Worker | None = None
    why = ""
    try:
        made = worker()
    except Exception as error:  # named in the answer to each request
        why = reason(error)
    for line in requests:
        request = json.loads(line)
        if made is None:
            answer({"failed": why})
            continue
        try:
            is_time = request["do"] == "time"
            answer(made.time(request["seconds"]) if is_time else made.prepare())
        except Exception as error:  # what others measure is worth having all the same
            answer({"failed": reason(error)})


def main(
    contenders: Mapping[str, Callable[[Network, Tensor], Prepared]] = CONTENDERS,
    networks: Mapping[str, Callable[[], Network]] = NETWORKS,
) -> None:
    """Serve the contender that the command line names, of those given."""
    name, network_name, batch, device = sys.argv[1:5]
    answer = answer_stream()
    torch.backends.cudnn.benchmark = True

    def made() -> Worker:
        network = networks[network_name]()
        x = placed(network.more(int(batch)), torch.device(device))
        return Worker(contenders[name], network, x)

    serve(made, sys.stdin, answer)


if __name__ == "__main__":
    main()

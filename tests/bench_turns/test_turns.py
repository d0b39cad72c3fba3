"""Processes timed in turns, and whole networks' schedule: with contenders that fail or hang."""

from __future__ import annotations

import json
import re
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from gpu_models import contenders as named
from gpu_models.schedule import CASES, Case, Limits, run_cases
from gpu_models.worker import Worker, WrongAnswerError, checked_db, serve
from turns.process import BENCH, SHOWN, TRACEBACK, ContenderError, last_words, started
from turns.rounds import time_in_turns

HERE = Path(__file__).resolve().parent
OURS = named.OURS


@pytest.fixture
def fake(tmp_path):
    """Return what starts a fake contender of a name."""
    return lambda name: started(["fake_contender", name, str(tmp_path / "ticks")], [HERE])


def run(fake, names, cases, limits, background=()):
    """Return the rows of a schedule, in which ours is the fake one of the name "ours"."""
    rows = []

    def launch(case, name):
        return fake("ours" if name == OURS else name.partition(" ")[0])

    run_cases(cases, names, launch, limits, rows.append, background)
    return rows


def test_each_failure_is_a_reason_and_the_others_are_timed(fake):
    names = ["raises", "hangs", "twice", "dies", OURS]
    limits = Limits(total=60, prepare=0.5, turn=0.0, rounds=3)
    (row,) = run(fake, names, [Case("net", 1, {"twice": 1.5})], limits)
    assert set(row["ms"]) == {"twice", OURS}
    assert row["ours_vs"] == {"twice": 2.0, OURS: 1.0}
    assert row["ms"]["twice"]["median_ms"] == 2.0 and row["ms"]["twice"]["runs"] == 6
    assert row["failed"]["raises"] == "ValueError: no kernel"
    assert row["failed"]["hangs"] == "no answer within 0.5 s"
    assert row["failed"]["dies"] == "out of memory, said the driver"
    assert row["facts"]["twice"] == {"sqnr_db": 30.0, "name": "twice"}
    assert row["bars"] == {"twice": 1.5}


def test_without_ours_the_others_have_times_and_no_ratios(fake):
    rows = []
    launch = lambda case, name: fake("raises" if name == OURS else name)  # noqa: E731
    run_cases([Case("net", 1)], ["twice", OURS], launch, Limits(60, rounds=1), rows.append)
    assert rows[0]["ours_vs"] == {"twice": None} and OURS in rows[0]["failed"]


def test_the_time_is_kept_and_rows_that_are_there_stay(fake):
    rows = run(
        fake, ["hangs", OURS], [Case("net", n) for n in (1, 32, 256)],
        Limits(total=1.5, prepare=1.0, turn=0.0, rounds=1),
    )  # fmt: skip
    assert [row["batch"] for row in rows] == [1, 32, 256]
    assert set(rows[0]["ms"]) == {OURS}
    assert rows[2]["failed"] == {"hangs": "no time left", OURS: "no time left"}


def test_what_compiles_ahead_is_held_while_another_has_the_machine(fake, tmp_path):
    names = ["ticks", "waits", OURS]
    # Of the first case "ticks" is not there, so that only the second's runs beside "waits".
    rows = []

    def launch(case, name):
        if name == "ticks" and case.batch == 1:
            return fake("raises")
        return fake("ours" if name == OURS else name)

    run_cases(
        [Case("net", 1), Case("net", 2)], names, launch, Limits(60, turn=0.0, rounds=1),
        rows.append, ["ticks"],
    )  # fmt: skip
    times = [line.split() for line in (tmp_path / "ticks").read_text().splitlines()]
    ticks = [float(at) for word, at in times if word == "tick"]
    first, last = (next(float(at) for word, at in times if word == w) for w in ("from", "to"))
    assert last - first >= 0.3
    assert not [at for at in ticks if first <= at <= last]
    assert [at for at in ticks if at > last]  # it went on
    assert set(rows[1]["ms"]) == set(names)


def test_a_stuck_turn_ends(fake, monkeypatch):
    monkeypatch.setattr("turns.rounds.LEAST_SLACK", 0.2)
    with fake("stuck") as stuck, fake("ours") as mine:
        began = time.monotonic()
        measured, failed = time_in_turns({"stuck": stuck, "ours": mine}, "ours", 3, 0.0, 0.5)
        assert time.monotonic() - began < 10
    assert set(measured) == {"ours"} and "no answer within" in failed["stuck"]


def test_a_process_that_ended_says_so_at_the_next_request(fake):
    with fake("dies") as process:
        with pytest.raises(ContenderError, match="out of memory"):
            process.ask(do="time", seconds=0.0)
        with pytest.raises(ContenderError, match="out of memory"):
            process.ask(do="time", seconds=0.0)
    with started(["no_such_module"]) as process, pytest.raises(ContenderError, match="No module"):
        process.ask(do="prepare")


def test_last_words_name_no_folder_of_the_machine():
    trace = f'{TRACEBACK}:\n  File "{BENCH}/peers/worker.py", line 3, in main\nValueError: no'
    wanted = f'{TRACEBACK}:\n  File "bench/peers/worker.py", line 3, in main\nValueError: no'
    assert last_words(f"{BENCH}/a.py: a warning\n{trace}\n") == wanted
    assert last_words(f"{Path.home()}/a.py: out of memory\n") == "a.py: out of memory"
    assert last_words("") == ""
    # Whole lines: none begins in the middle of a path.
    lines = [f"{BENCH}/{i:04}.py" for i in range(400)]
    said = last_words("\n".join(lines)).splitlines()
    assert said == [f"bench/{i:04}.py" for i in range(400 - len(said), 400)]
    assert 0 < len("\n".join(said)) <= SHOWN
    assert len(last_words("x" * (2 * SHOWN))) == SHOWN


def test_results_name_no_folder_of_a_machine():
    """Those that are committed; a path there starts with none of these folders."""
    folder = re.compile(r"(?<![\w.-])/(?:home|root|work|tmp|mnt|Users|opt)/")
    results = sorted((BENCH / "results").glob("*.json"))
    assert results
    for path in results:
        found = folder.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.name}: {found and found.group()}"


def test_bars_come_first():
    first = [(case.network, case.batch) for case in CASES[:2]]
    assert first == [("resnet50", 256), ("resnet50", 1)]
    assert CASES[0].bars == {named.COMPILED: 1.5} and CASES[1].bars == {named.EAGER: 3.0}
    assert len(set(CASES)) == 12


def tiny_worker(contender):
    from real_contender import tiny

    network = tiny()
    return Worker(contender, network, network.more(3))


def test_answers_are_compared_before_anything_is_timed():
    worker = tiny_worker(named.eager_bf16)
    with pytest.raises(RuntimeError, match="before it was prepared"):
        worker.time(0.0)
    assert 20 < worker.prepare()["sqnr_db"] < 200
    assert len(worker.time(0.0)["ms"]) == 1


def test_wrong_answers_are_refused():
    wanted = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    for got, why in (
        (wanted.flip(0), "6.0 dB or more"),
        (wanted[:3], r"answers \[4, 5\], got \[3, 5\]"),
        (wanted / 0, "finite"),
    ):
        with pytest.raises(WrongAnswerError, match=why):
            checked_db(got, wanted)
    assert checked_db(wanted, wanted) == 200

    def zeros(network, x):
        return lambda: torch.zeros_like(x), {}

    said = []
    requests = [json.dumps({"do": do, "seconds": 0.0}) for do in ("prepare", "time")]
    serve(partial(tiny_worker, zeros), requests, said.append)
    assert "WrongAnswerError" in said[0]["failed"] and "before it was" in said[1]["failed"]


def test_a_network_that_cannot_be_built_is_said_at_each_request():
    said = []
    serve(lambda: 1 / 0, ['{"do": "prepare"}'], said.append)
    assert said[0]["failed"].startswith("ZeroDivisionError")


def test_the_real_process_on_a_cpu():
    with started(["real_contender", OURS, "tiny", "2", "cpu"], [HERE]) as process:
        facts = process.ask(60, do="prepare")
        assert facts["sqnr_db"] > 15 and sum(facts["layers"].values()) == 2
        assert process.ask(60, do="time", seconds=0.0)["ms"][0] > 0

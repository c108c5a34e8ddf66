"""anytime_bench: the benchmark suite for anytime prediction, networks that answer whenever they are stopped.

``run``, ``load_method`` and ``load_task`` are the whole entry; ``AnytimeModel``, ``Method`` and ``MethodCard`` are what
a plugin derives from. Everything is imported on first use, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anytime_bench.errors import UserError
    from anytime_bench.method import AnytimeModel, Method, MethodCard, Progress
    from anytime_bench.record import Record
    from anytime_bench.registry import load_method, load_plugin
    from anytime_bench.runner import run
    from anytime_bench.tasks import Split, Task, TaskCard, load_task, make_task
    from anytime_bench.trace import Trace

_HOME = {
    "AnytimeModel": "method",
    "Method": "method",
    "MethodCard": "method",
    "Progress": "method",
    "Record": "record",
    "Split": "tasks",
    "Task": "tasks",
    "TaskCard": "tasks",
    "Trace": "trace",
    "UserError": "errors",
    "load_method": "registry",
    "load_plugin": "registry",
    "load_task": "tasks",
    "make_task": "tasks",
    "run": "runner",
}
__all__ = [
    "AnytimeModel",
    "Method",
    "MethodCard",
    "Progress",
    "Record",
    "Split",
    "Task",
    "TaskCard",
    "Trace",
    "UserError",
    "load_method",
    "load_plugin",
    "load_task",
    "make_task",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'anytime_bench' has no attribute '{name}'")
    return getattr(import_module(f"anytime_bench.{_HOME[name]}"), name)

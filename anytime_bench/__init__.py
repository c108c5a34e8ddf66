"""anytime_bench: the benchmark suite for anytime prediction, networks that answer whenever they are stopped.

``run``, ``load_method`` and ``load_task`` are the whole entry; ``AnytimeModel``, ``Method`` and ``MethodCard`` are what
a plugin derives from. Everything is imported on first use, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: Public names and the modules they live in.
_HOME = {
    "Answers": "scores.stopping_contract",
    "Answer": "harness.interruptible",
    "AnytimeModel": "methods.contract",
    "FittedRule": "scores.stopping_contract",
    "Method": "methods.contract",
    "MethodCard": "methods.contract",
    "Progress": "methods.contract",
    "Record": "records.record",
    "Split": "tasks.task",
    "StoppingRule": "scores.stopping_contract",
    "Task": "tasks.task",
    "TaskCard": "tasks.task",
    "Trace": "trace.answers",
    "UserError": "errors",
    "Interruptible": "harness.interruptible",
    "load_method": "methods.plugins",
    "load_plugin": "methods.plugins",
    "load_results": "records.frame",
    "load_task": "tasks.loading",
    "make_task": "tasks.task",
    "register_corruption": "corruptions.catalogue",
    "register_recipe": "training.recipes",
    "register_score": "scores.catalogue",
    "register_stopping_rule": "scores.stopping_rules",
    "register_task": "tasks.loading",
    "run": "runs.pipeline",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'anytime_bench' has no attribute '{name}'")
    return getattr(import_module(f"anytime_bench.{_HOME[name]}"), name)

"""The scores of single exits and of single images: one table, to which plugins add.

A score is a pure function of a trace and of the cumulative cost of its exits: ``function(trace, cost) -> values``, with
``cost (E,)`` in multiples of the reference's full cost in MACs. A score per *exit* gives ``(E,)`` numbers, NaN where it
is undefined; a score per *image* gives ``(N,)``, and its mean over images is the run's score, with an interval.

A built-in score is one function and one line here. A plugin calls ``register_score``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.errors import UserError
from anytime_bench.registry import Registry
from anytime_bench.scores import confidence, per_sample
from anytime_bench.trace.answers import Array, Trace

Floats = NDArray[np.float64]
Function = Callable[[Trace, Floats], ArrayLike]
Per = Literal["exit", "image"]
Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Score:
    """A score with what a table says of it. ``better`` is ``neither`` where it does not rank."""

    name: str
    title: str
    per: Per
    better: Better
    function: Function


def _top5(trace: Trace, cost: Floats) -> Floats:
    top5 = (np.asarray(trace.true_rank, dtype=np.int64) < 5).mean(axis=1, dtype=np.float64)
    return top5 if trace.num_classes > 5 else np.full_like(top5, np.nan)


def _of_sets(trace: Trace, table: Array | None) -> Floats:
    """Mean over images of what a trace says of its prediction sets; NaN where it has none."""
    if table is None:
        return np.full(trace.num_exits, np.nan)
    return np.asarray(table, dtype=np.float64).mean(axis=1)


def _consistency(trace: Trace, cost: Floats) -> Floats:
    """Share of an exit's own prediction set that no earlier exit had ruled out; an empty set contradicts nobody."""
    if trace.set_size is None or trace.set_own is None:
        return np.full(trace.num_exits, np.nan)
    own = np.asarray(trace.set_own, dtype=np.float64)
    share = np.divide(trace.set_size, own, out=np.ones_like(own), where=own > 0)
    return share.mean(axis=1)


_BUILTIN = (
    Score("top5", "Top-5", "exit", "higher", _top5),
    Score("nll", "NLL", "exit", "lower", lambda t, c: confidence.nll(t.true_log_probability)),
    Score("brier", "Brier", "exit", "lower", lambda t, c: confidence.brier(t.true_log_probability, t.squared_norm)),
    Score("ece", "ECE", "exit", "neither", lambda t, c: confidence.ece(t.confidence, t.correct)),
    Score("auroc", "AUROC", "exit", "higher", lambda t, c: confidence.auroc(t.confidence, t.correct)),
    Score("augrc", "AUGRC", "exit", "lower", lambda t, c: confidence.augrc(t.confidence, t.correct)),
    Score("improvable", "Hindsight improvability", "exit", "lower",
          lambda t, c: per_sample.hindsight_improvability(t.correct)),
    Score("set_size", "Classes in the prediction set", "exit", "lower", lambda t, c: _of_sets(t, t.set_size)),
    Score("coverage", "Coverage of the prediction sets", "exit", "neither", lambda t, c: _of_sets(t, t.set_covers)),
    Score("consistency", "Consistency of the prediction sets", "exit", "higher", _consistency),
    Score("overthinking", "Destructive overthinking", "image", "lower",
          lambda t, c: per_sample.destructive_overthinking(t.correct)),
    Score("wasted", "Wasted cost", "image", "lower", lambda t, c: per_sample.wasted_cost(t.correct, c)),
    Score("falls", "Falling probability", "image", "lower", lambda t, c: per_sample.falls(t.true_log_probability)),
    Score("flips", "Flips", "image", "neither", lambda t, c: per_sample.flips(t.predictions)),
)  # fmt: skip

SCORES = Registry("anytime_bench.scores", "score", {score.name: score for score in _BUILTIN})


def register_score(
    name: str, function: Function, *, title: str = "", per: Per = "exit", better: Better = "neither"
) -> Score:
    """Add a score of one's own; a taken name, or another ``per`` or ``better``, raises ``UserError``.

    It stands in every record that is made or rescored from then on:
    ``register_score("error", lambda trace, cost: 1 - trace.accuracy, better="lower")``.
    """
    for key, value, known in (("per", per, get_args(Per)), ("better", better, get_args(Better))):
        if value not in known:
            raise UserError(f"score '{name}': {key}={value!r}, expected {' or '.join(known)}.")
    score = Score(name, title or name, per, better, function)
    SCORES.add(name, score)
    return score


def scores(per: Per) -> list[Score]:
    """All scores per exit or per image, the suite's own first."""
    return [score for name in SCORES.names() if (score := SCORES.resolve(name)[0]).per == per]

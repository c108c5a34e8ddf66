"""How the values of columns are read, and the columns that come in groups: per axis, kind of noise, batch size.

A function that takes a line reads one value; one that takes a board and an item makes the item's column (``Each``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.column import (
    COUNT,
    DIGITS_3,
    MILLISECONDS,
    PERCENT,
    PERCENT_2,
    RANK,
    TIMES,
    Better,
    Column,
    Each,
    Form,
    Missing,
    Value,
)
from anytime_bench.leaderboard.row_parts import AxisScores, Reach, digits
from anytime_bench.records.record import Estimate
from anytime_bench.trace.axes import AXES


def shown_axes(board: Board) -> list[str]:
    return board.shown_axes


def on_axis(line: Any, axis: str, read: Callable[[AxisScores], Value]) -> Value:
    scores = line.row.axes.get(axis)
    return Missing("not measured") if scores is None else read(scores)


def area_up_to(board: Board, horizon: float) -> Callable[[AxisScores], Value]:
    place = board.horizons.index(horizon)

    def read(scores: AxisScores) -> Value:
        if scores.cost[0] >= horizon:
            within = "H" if horizon == 1 else f"{horizon:g} H"
            return Missing(f"its first answer costs {scores.cost[0]:.3g} x H", f"no answer within {within}")
        return scores.curve[place]

    return read


def areas(horizon: float, table: str, only_ranking: bool = False) -> Each:
    def column(board: Board, axis: str) -> Column:
        tables = ("csv",) if only_ranking and axis != board.ranking.axis else (table, "csv")
        title, read = f"AUC@{horizon:g} {AXES[axis].title}", area_up_to(board, horizon)
        return Column(f"auc_{horizon:g}_{axis}", title, lambda line: on_axis(line, axis, read), PERCENT,
                      tables, "high", "mean accuracy (%) when the deadline is uniform on [0, "
                      f"{horizon:g} x the reference's full cost]")  # fmt: skip

    return Each(shown_axes, column)


def time_to(board: Board, item: tuple[str, int]) -> Column:
    axis, percent = item

    def read(scores: AxisScores) -> Value:
        reach = scores.time_to.get(str(percent))
        return Missing("no accuracy of the reference is known") if reach is None else reached(reach)

    shown = ("reached", "csv") if axis == board.ranking.axis else ("csv",)
    return Column(f"time_to_{percent}_{axis}", f"{percent} % at", lambda line: on_axis(line, axis, read), TIMES, shown,
                  "low", "cost at which that share of the reference's final accuracy is reached")  # fmt: skip


def reached(reach: Reach) -> Value:
    if reach.value is None or reach.low is None:
        return Missing("its last exit is less accurate", "never")
    if reach.high is None:  # An open end is shown, never stored, so it is not validated.
        return Estimate.model_construct(value=reach.value, low=reach.low, high=math.inf)
    return Estimate(value=reach.value, low=reach.low, high=reach.high)


def regret(board: Board, axis: str) -> Column:
    shown = ("reached", "csv") if axis == board.ranking.axis else ("csv",)
    none = Missing(f"fewer than two rows have comparable {AXES[axis].title}: there is no best row to be behind")
    return Column(f"regret_{axis}", f"Regret {AXES[axis].title}",
                  lambda line: on_axis(line, axis, lambda s: s.regret or none), PERCENT_2, shown, "low",
                  "mean points behind the best row at each deadline up to H")  # fmt: skip


def costs_of_answer(which: str, place: int, table: str) -> Each:
    def column(board: Board, axis: str) -> Column:
        shown = (table, "csv") if axis in board.shown_axes[:3] else ("csv",)
        return Column(f"{which}_{axis}", f"{which.capitalize()} answer {AXES[axis].title}",
                      lambda line: on_axis(line, axis, lambda scores: scores.cost[place]), DIGITS_3, shown,
                      "low", "multiples of the reference's full answer")  # fmt: skip

    return Each(shown_axes, column)


def anytime_gain(name: str, title: str, read: Callable[[AxisScores], Value], form: Form, meaning: str) -> Each:
    """What being anytime adds, on every axis in files and on the ranking one in the table."""

    def column(board: Board, axis: str) -> Column:
        shown = ("added", "csv") if axis == board.ranking.axis else ("csv",)
        return Column(f"{name}_{axis}", title, lambda line: on_axis(line, axis, read), form, shown, "high", meaning)

    return Each(shown_axes, column)


def rank_end(end: str) -> Each:
    def column(board: Board, axis: str) -> Column:
        def read(scores: AxisScores) -> Value:
            return Missing(scores.unranked) if scores.place is None else getattr(scores.place, end)

        title = f"{end.capitalize()} rank, {AXES[axis].title}"
        return Column(f"rank_{end}_{axis}", title, lambda line: on_axis(line, axis, read), COUNT, ("csv",), "low")

    return Each(shown_axes, column)


def rank(line: Any) -> Value:
    return Missing(line.row.unranked) if line.row.place is None else RANK.number(line.row.place)


def held_for(line: Any) -> Value:
    reach = line.part.horizons
    return Missing("the verdict is none that could turn") if reach is None else f"{reach[0]:g} to {reach[1]:g}"


def batches(board: Board) -> list[int]:
    return sorted({entry.batch for row in board.rows for entry in row.throughput})


def throughput(name: str, title: str, form: Form, meaning: str) -> Each:
    def column(board: Board, batch: int) -> Column:
        def read(line: Any) -> Value:
            return next((getattr(t, name) for t in line.row.throughput if t.batch == batch), Missing("not measured"))

        return Column(f"{name}_batch_{batch}", title.format(batch), read, form, ("costs", "csv"), "high", meaning)

    return Each(batches, column)


def promise_kept(line: Any) -> Value:
    """Time saved over MACs saved, over all exits that save MACs."""
    saving = [promise for promise in line.row.promises if promise.arrives is not None]
    if not line.row.promises:
        return Missing(line.row.untimed_reason or "not measured")
    if not saving:
        return Missing("no exit saves MACs against the reference")
    return digits(sum(p.time_saved.value for p in saving) / sum(p.macs_saved for p in saving))


def promise_at_exit(name: str, title: str, form: Form, better: Better, meaning: str) -> Column:
    def read(line: Any) -> Value:
        if line.k >= len(line.row.promises):
            return Missing("not measured")
        value = getattr(line.row.promises[line.k], name)
        return Missing("it saves no MACs") if value is None else value

    return Column(name, title, read, form, ("exits",), better, meaning)


def full_run(line: Any) -> Value:
    """Where the full run was timed that the time saved is held against."""
    if not line.part.saved:
        return Missing(line.row.untimed_reason)
    return "in turn" if line.part.beside else "in another session"


def quality_at_exit(name: str, title: str, better: Better, meaning: str) -> Column:
    return Column(
        name, title, lambda line: getattr(line.row.quality[line.k], name), DIGITS_3, ("quality",), better, meaning
    )


def milliseconds(board: Board, item: tuple[str, str]) -> Column:
    clock, percentile = item

    def read(line: Any) -> Value:
        seconds = line.row.seconds.get(clock)
        return getattr(seconds[line.k], percentile) if seconds else Missing("not measured")

    title = f"{AXES[clock].title}, ms, {percentile}"
    return Column(f"{clock}_{percentile}", title, read, MILLISECONDS, ("quality",), "low",
                  "until this exit answers, every earlier answer given")  # fmt: skip


def kinds(board: Board) -> list[str]:
    return list(dict.fromkeys(kind for row in board.rows if row.noise for kind in row.noise.persistent))


def policies(board: Board) -> list[str]:
    return list(dict.fromkeys(moving.policy for row in board.rows if row.noise for moving in row.noise.moving))


def under_noise(line: Any, read: Callable[[Any], Value]) -> Value:
    noise = line.row.noise
    if noise is None:
        return Missing("not examined under noise")
    value = read(noise)
    return Missing(noise.near_chance) if value is None else value


def kind_of_noise(board: Board, kind: str) -> Column:
    def read(line: Any) -> Value:
        return under_noise(line, lambda n: n.persistent[kind].left if kind in n.persistent else Missing("not measured"))

    return Column(f"noise_left_{kind}", kind.replace("_", " "), read, PERCENT, ("noise", "csv"), "high")  # fmt: skip


def policy(board: Board, policy: str) -> Column:
    """Under the mode of changing frames that the line is about."""

    def read(line: Any) -> Value:
        left = {moving.policy: moving.modes for moving in line.row.noise.moving}.get(policy, {})
        return left.get(line.part) or Missing(line.row.noise.near_chance or "it cannot follow frames in this way")

    return Column(f"noise_left_{policy}", policy.replace("_", " "), read, PERCENT, ("moving",), "high")


def mce(line: Any) -> Value:
    return under_noise(line, lambda noise: noise.mce or Missing("the reference's own row was not examined under noise"))

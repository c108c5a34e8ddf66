"""The one list of columns: every table of CSV, Markdown and page is a choice from ``COLUMNS``. A new one is one entry.

A column reads one *line* of a table. Each kind of table has its lines (``tables.KINDS``): a row of the board, one of
its exits, one real stop, one mode of changing frames; ``line.row`` is always the ``BoardRow`` it belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from anytime_bench.leaderboard.added_columns import ADDED_COLUMNS
from anytime_bench.leaderboard.board import AxisScores, Board, Reach, digits
from anytime_bench.leaderboard.column import (
    COUNT,
    DIGITS_3,
    MILLISECONDS,
    PERCENT,
    PERCENT_2,
    RANK,
    TEXT,
    TIMES,
    Better,
    Column,
    Each,
    Form,
    Missing,
    Value,
)
from anytime_bench.records.record import Estimate
from anytime_bench.trace.axes import AXES, timed


def columns(board: Board, table: str) -> list[Column]:
    """The columns of one table of ``board``, in the order of ``COLUMNS``."""
    expanded: list[Column] = []
    for entry in COLUMNS:
        expanded += [entry.column(board, item) for item in entry.over(board)] if isinstance(entry, Each) else [entry]
    return [column for column in expanded if table in column.tables]


def shown_axes(board: Board) -> list[str]:
    return board.shown_axes


def _scores(line: Any, axis: str, read: Callable[[AxisScores], Value]) -> Value:
    scores = line.row.axes.get(axis)
    return Missing("not measured") if scores is None else read(scores)


def _area(board: Board, horizon: float) -> Callable[[AxisScores], Value]:
    place = board.horizons.index(horizon)

    def read(scores: AxisScores) -> Value:
        if scores.cost[0] >= horizon:
            within = "H" if horizon == 1 else f"{horizon:g} H"
            return Missing(f"its first answer costs {scores.cost[0]:.3g} x H", f"no answer within {within}")
        return scores.curve[place]

    return read


def _auc(horizon: float, table: str, only_ranking: bool = False) -> Each:
    def column(board: Board, axis: str) -> Column:
        tables = ("csv",) if only_ranking and axis != board.ranking.axis else (table, "csv")
        title, read = f"AUC@{horizon:g} {AXES[axis].title}", _area(board, horizon)
        return Column(f"auc_{horizon:g}_{axis}", title, lambda line: _scores(line, axis, read), PERCENT,
                      tables, "high", "mean accuracy (%) when the deadline is uniform on [0, "
                      f"{horizon:g} x the reference's full cost]")  # fmt: skip

    return Each(shown_axes, column)


def _time_to(board: Board, item: tuple[str, int]) -> Column:
    axis, percent = item

    def read(scores: AxisScores) -> Value:
        reached = scores.time_to.get(str(percent))
        return Missing("no accuracy of the reference is known") if reached is None else _reach(reached)

    shown = ("reached", "csv") if axis == board.ranking.axis else ("csv",)
    return Column(f"time_to_{percent}_{axis}", f"{percent} % at", lambda line: _scores(line, axis, read), TIMES, shown,
                  "low", "cost at which that share of the reference's final accuracy is reached")  # fmt: skip


def _reach(reached: Reach) -> Value:
    if reached.value is None or reached.low is None:
        return Missing("its last exit is less accurate", "never")
    return Estimate(value=reached.value, low=reached.low, high=math.inf if reached.high is None else reached.high)


def _regret(board: Board, axis: str) -> Column:
    shown = ("reached", "csv") if axis == board.ranking.axis else ("csv",)
    return Column(f"regret_{axis}", f"Regret {AXES[axis].title}", lambda line: _scores(line, axis, lambda s: s.regret),
                  PERCENT_2, shown, "low", "mean points behind the best row at each deadline up to H")  # fmt: skip


def _cost(which: str, place: int, table: str) -> Each:
    def column(board: Board, axis: str) -> Column:
        shown = (table, "csv") if axis in board.shown_axes[:3] else ("csv",)
        return Column(f"{which}_{axis}", f"{which.capitalize()} answer {AXES[axis].title}",
                      lambda line: _scores(line, axis, lambda scores: scores.cost[place]), DIGITS_3, shown,
                      "low", "multiples of the reference's full answer")  # fmt: skip

    return Each(shown_axes, column)


def _added(name: str, title: str, read: Callable[[AxisScores], Value], form: Form, meaning: str) -> Each:
    """What being anytime adds, on every axis in files and on the ranking one in the table."""

    def column(board: Board, axis: str) -> Column:
        shown = ("added", "csv") if axis == board.ranking.axis else ("csv",)
        return Column(f"{name}_{axis}", title, lambda line: _scores(line, axis, read), form, shown, "high", meaning)

    return Each(shown_axes, column)


def _place(end: str) -> Each:
    def column(board: Board, axis: str) -> Column:
        def read(scores: AxisScores) -> Value:
            return Missing(scores.unranked) if scores.place is None else getattr(scores.place, end)

        title = f"{end.capitalize()} rank, {AXES[axis].title}"
        return Column(f"rank_{end}_{axis}", title, lambda line: _scores(line, axis, read), COUNT, ("csv",), "low")

    return Each(shown_axes, column)


def _rank(line: Any) -> Value:
    return Missing(line.row.unranked) if line.row.place is None else RANK.number(line.row.place)


def _held(line: Any) -> Value:
    reach = line.part.horizons
    return Missing("the verdict is none that could turn") if reach is None else f"{reach[0]:g} to {reach[1]:g}"


def _batches(board: Board) -> list[int]:
    return sorted({entry.batch for row in board.rows for entry in row.throughput})


def _throughput(name: str, title: str, form: Form, meaning: str) -> Each:
    def column(board: Board, batch: int) -> Column:
        def read(line: Any) -> Value:
            return next((getattr(t, name) for t in line.row.throughput if t.batch == batch), Missing("not measured"))

        return Column(f"{name}_batch_{batch}", title.format(batch), read, form, ("costs", "csv"), "high", meaning)

    return Each(_batches, column)


def _promise(line: Any) -> Value:
    """Time saved over MACs saved, over all exits that save MACs."""
    saving = [promise for promise in line.row.promises if promise.arrives is not None]
    if not line.row.promises:
        return Missing(line.row.untimed_reason or "not measured")
    if not saving:
        return Missing("no exit saves MACs against the reference")
    return digits(sum(p.time_saved.value for p in saving) / sum(p.macs_saved for p in saving))


def _at_exit(name: str, title: str, form: Form, better: Better, meaning: str) -> Column:
    def read(line: Any) -> Value:
        if line.k >= len(line.row.promises):
            return Missing("not measured")
        value = getattr(line.row.promises[line.k], name)
        return Missing("it saves no MACs") if value is None else value

    return Column(name, title, read, form, ("exits",), better, meaning)


def _quality(name: str, title: str, better: Better, meaning: str) -> Column:
    return Column(
        name, title, lambda line: getattr(line.row.quality[line.k], name), DIGITS_3, ("quality",), better, meaning
    )


def _milliseconds(board: Board, item: tuple[str, str]) -> Column:
    clock, percentile = item

    def read(line: Any) -> Value:
        seconds = line.row.seconds.get(clock)
        return getattr(seconds[line.k], percentile) if seconds else Missing("not measured")

    title = f"{AXES[clock].title}, ms, {percentile}"
    return Column(f"{clock}_{percentile}", title, read, MILLISECONDS, ("quality",), "low",
                  "until this exit answers, every earlier answer given")  # fmt: skip


def _kinds(board: Board) -> list[str]:
    return list(dict.fromkeys(kind for row in board.rows if row.noise for kind in row.noise.persistent))


def _policies(board: Board) -> list[str]:
    return list(dict.fromkeys(moving.policy for row in board.rows if row.noise for moving in row.noise.moving))


def _noise(line: Any, read: Callable[[Any], Value]) -> Value:
    noise = line.row.noise
    if noise is None:
        return Missing("not examined under noise")
    value = read(noise)
    return Missing(noise.near_chance) if value is None else value


def _kind(board: Board, kind: str) -> Column:
    def read(line: Any) -> Value:
        return _noise(line, lambda n: n.persistent[kind].left if kind in n.persistent else Missing("not measured"))

    return Column(f"noise_left_{kind}", kind.replace("_", " "), read, PERCENT, ("noise", "csv"), "high")  # fmt: skip


def _policy(board: Board, policy: str) -> Column:
    """Under the mode of changing frames that the line is about."""

    def read(line: Any) -> Value:
        left = {moving.policy: moving.modes for moving in line.row.noise.moving}.get(policy, {})
        return left.get(line.part) or Missing(line.row.noise.near_chance or "it cannot follow frames in this way")

    return Column(f"noise_left_{policy}", policy.replace("_", " "), read, PERCENT, ("moving",), "high")


def _mce(line: Any) -> Value:
    return _noise(line, lambda noise: noise.mce or Missing("the reference's own row was not examined under noise"))


ALL = (
    "ranking", "horizons", "reached", "added", "pairs", "costs", "budgets", "behaviour", "stops", "noise", "moving",
    "csv",
)  # fmt: skip
BEHAVIOUR = ("behaviour", "csv")

QUALITY: tuple[tuple[str, str, Better, str], ...] = (
    ("nll", "NLL", "low", "mean negative log-likelihood"),
    ("brier", "Brier", "low", "Brier score"),
    ("ece", "ECE", "low", "expected calibration error, 15 bins"),
    ("auroc", "AUROC", "high", "of confidence for being right"),
    ("augrc", "AUGRC", "low", "area under the generalised risk-coverage curve"),
)

COLUMNS: tuple[Column | Each, ...] = (
    Column("rank", "Rank", _rank, RANK, ("ranking",), "low"),
    Column("rank", "Rank", lambda line: str(line.row.place or ""), TEXT, ("csv",)),
    Column("method", "Method", lambda line: line.row.method, TEXT, ("csv",)),
    Column("label", "Method", lambda line: line.row.label, TEXT, ALL),
    Column("exit", "Exit", lambda line: line.k, COUNT, ("exits", "quality")),
    Column("final", "Final %", lambda line: line.row.final, PERCENT, ("ranking", "csv"), "high",
           "accuracy of the last exit on the test split"),
    _auc(1, "ranking"),
    _auc(0.5, "horizons", only_ranking=True),
    _auc(2, "horizons"),
    _auc(4, "horizons", only_ranking=True),
    _place("first"),
    _place("last"),
    Each(lambda board: [(axis, percent) for axis in board.shown_axes for percent in (50, 90, 95, 99)], _time_to),
    Each(shown_axes, _regret),
    _added("fixed_exit", "Best fixed exit", lambda s: s.fixed_exit, COUNT,
           "the single exit with the largest AUC@1 when it alone is asked for, chosen on validation"),
    _added("gain_over_fixed_exit", "Gain over it", lambda s: s.gain_over_fixed_exit, PERCENT,
           "points of AUC@1 that asking for every exit is ahead of that one"),
    _added("exit_set", "Exits worth asking for", lambda s: ", ".join(map(str, s.exit_set)) or "none", TEXT,
           "the exits whose AUC@1 is largest when no others are asked for, chosen on validation; passing an exit "
           "saves what its answer adds to the cost of later ones"),
    _added("exit_set_auc_1", "AUC@1 of these", lambda s: s.exit_set_auc_1, PERCENT, ""),
    _added("gain_of_exit_set", "Gain over every exit", lambda s: s.gain_of_exit_set, PERCENT, ""),
    _added("gain_over_static", "Gain over static nets",
           lambda s: s.gain_over_static or Missing("no two other rows have a single exit"), PERCENT,
           "points of AUC@1 that the row is ahead of the best single-exit net that fits a deadline known in advance"),
    Column("against", "Against", lambda line: line.part.b, TEXT, ("pairs",)),
    Column("gap", "AUC@1 ahead", lambda line: line.part.gap, PERCENT_2, ("pairs",), "high",
           "points, with the interval of this pair alone"),
    Column("verdict", "Verdict", lambda line: line.part.verdict, TEXT, ("pairs",), "",
           "better and worse are corrected for all pairs, at 5 % together; equivalent is within one point by two "
           "one-sided tests at 5 %"),
    Column("p", "p", lambda line: line.part.p, DIGITS_3, ("pairs",), "low", "corrected for all pairs"),
    Column("held", "For H from", _held, TEXT, ("pairs",), "", "the horizons at which the verdict is the same"),
    Column("seeds_needed", "Seeds needed", lambda line: line.part.seeds_needed or Missing(
        "decided, or out of reach of 100 seeds"), COUNT, ("pairs",), "low",
           "with how many seeds an undecided pair is decided with chance 80 %, if its gap is what it seems"),
    Column("first", "Order", lambda line: line.part.first, TEXT, ("agreement",)),
    Column("second", "Other order", lambda line: line.part.second, TEXT, ("agreement",)),
    Column("tau", "Kendall's tau", lambda line: line.part.tau, TIMES, ("agreement",), "high",
           "share of pairs of rows that both order alike less the share that they order differently"),
    Column("ranked_rows", "Rows", lambda line: line.part.rows, COUNT, ("agreement",)),
    Column("accuracy", "Accuracy %", lambda line: line.row.accuracy[line.k], PERCENT, ("exits",), "high"),
    Each(shown_axes, lambda board, axis: Column(
        f"cost_{axis}", f"{AXES[axis].title} (x reference)",
        lambda line: _scores(line, axis, lambda scores: scores.cost[line.k]), DIGITS_3, ("exits",), "low")),
    _at_exit("macs_saved", "MACs saved %", PERCENT, "high", "asked for alone, against the reference's full answer"),
    _at_exit("time_saved", "Time saved %", PERCENT, "high", "the same on the clock, batch 1"),
    _at_exit("arrives", "Promise kept %", PERCENT, "high", "time saved over MACs saved"),
    Column("improvable", "Hindsight %", lambda line: line.row.behaviour.improvable[line.k], PERCENT, ("exits",), "low",
           "share of this exit's errors that an earlier exit had right"),
    *(_quality(name, title, better, meaning) for name, title, better, meaning in QUALITY),
    Column("top5", "Top-5 %", lambda line: line.row.quality[line.k].top5, PERCENT, ("quality",), "high"),
    Each(lambda board: [(clock, p) for clock in timed() if clock in board.axes for p in ("p50", "p90", "p99")],
         _milliseconds),
    _cost("first", 0, "costs"),
    _cost("full", -1, "costs"),
    Column("promise_kept", "Promise kept %", _promise, PERCENT, ("costs", "csv"), "high",
           "time saved over MACs saved against the reference, over the exits that save MACs, each asked for alone"),
    _throughput("per_second", "Images/s, batch {}", COUNT, "full answers per second on this device"),
    _throughput("times_reference", "x reference, batch {}", TIMES, "the same over the reference's, in the same rounds"),
    Column("parameters", "Parameters", lambda line: line.row.parameters, COUNT, ("costs", "csv"), "low"),
    Column("training_seconds", "Training s", lambda line: line.row.training_seconds, COUNT, ("costs", "csv"), "low",
           "mean over seeds, on the machine that trained"),
    Column("overthinking", "Overthinking %", lambda line: line.row.behaviour.overthinking, PERCENT, BEHAVIOUR, "low",
           "images that an earlier exit gets right and the last one wrong"),
    Column("wasted", "Wasted MACs %", lambda line: line.row.behaviour.wasted, PERCENT, BEHAVIOUR, "low",
           "share of the row's full MACs that is spent after the first right answer"),
    Column("falls", "Falls %", lambda line: line.row.behaviour.falls, PERCENT, BEHAVIOUR, "low",
           "images whose true class loses more than 0.1 of probability from an exit to a later one"),
    Column("flips", "Changes", lambda line: line.row.behaviour.flips, TIMES, BEHAVIOUR, "low",
           "how often the answer changes from one exit to the next"),
    *ADDED_COLUMNS,
    Column("batch", "Batch", lambda line: line.part.batch, COUNT, ("stops",)),
    Column("rule", "Rule", lambda line: line.part.rule, TEXT, ("stops",)),
    Column("saved", "Time saved %", lambda line: line.part.saved, PERCENT, ("stops",), "high",
           "of the row's own full run at this batch size, deciding included"),
    Column("times_reference", "x reference", lambda line: line.part.times_reference, TIMES, ("stops",), "low",
           "time when stopping over the reference's full time"),
    Column("stop_accuracy", "Accuracy %", lambda line: line.part.accuracy, PERCENT, ("stops",), "high"),
    Column("change", "Against its last exit, points", lambda line: line.part.change or Missing(
        "the record does not hold the last exit's accuracy on these images"), PERCENT, ("stops",), "high"),
    Column("images", "Images", lambda line: line.part.images, COUNT, ("stops",)),
    Column("mean_exit", "Mean exit", lambda line: line.part.mean_exit, TIMES, ("stops",)),
    Column("deciding", "Deciding %", lambda line: line.part.deciding, PERCENT, ("stops",), "low",
           "share of the time that went into deciding"),
    Column("leaves", "Done images", lambda line: "leave the batch" if line.part.real else "wait for the last", TEXT,
           ("stops",)),
    Column("noise_left", "Noise leaves %", lambda line: _noise(line, lambda n: n.mean), PERCENT, ("ranking", "csv"),
           "high", "share of the clean accuracy above chance that persistent noise leaves, mean over kinds"),
    Column("noise_left_mean", "Mean", lambda line: _noise(line, lambda n: n.mean), PERCENT, ("noise",), "high"),
    Column("mce", "mCE", _mce, TIMES, ("noise", "csv"), "low",
           "mean over kinds of error / the reference's error on the same kind"),
    Each(_kinds, _kind),
    Each(_policies, _policy),
    Column("seeds", "Seeds", lambda line: len(line.row.seeds), COUNT, ("ranking", "csv")),
    Column("n", "Test images", lambda line: line.row.n, COUNT, ("csv",)),
    Column("reported", "Reported %", lambda line: line.row.reported, PERCENT_2, ("ranking", "csv"), "high",
           "final accuracy that the paper reports for this task"),
    Column("timed", "Comparable times", lambda line: "yes" if line.row.timed else "no", TEXT, ("csv",)),
    Column("unranked", "Why unranked", lambda line: line.row.unranked, TEXT, ("csv",)),
    Column("records", "Records", lambda line: " ".join(r.record[:12] for r in line.row.records), TEXT, ("csv",)),
)  # fmt: skip

"""The one list of columns: every table of CSV, Markdown and page is a choice from ``COLUMNS``. A new one is one entry.

A column reads one *line* of a table. Each kind of table has its lines (``tables.KINDS``): a row of the board, one of
its exits, one real stop, one mode of changing frames; ``line.row`` is always the ``BoardRow`` it belongs to.
"""

from __future__ import annotations

from anytime_bench.leaderboard import column_groups as groups
from anytime_bench.leaderboard.added_columns import ADDED_COLUMNS
from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.column import (
    COUNT,
    DIGITS_3,
    PERCENT,
    PERCENT_2,
    RANK,
    TEXT,
    TIMES,
    Better,
    Column,
    Each,
    Missing,
)
from anytime_bench.leaderboard.deadline_columns import DEADLINE_COLUMNS
from anytime_bench.leaderboard.execution import EXECUTION_COLUMNS
from anytime_bench.leaderboard.lane_columns import LANE_COLUMNS
from anytime_bench.leaderboard.streaming import STREAMING_COLUMNS
from anytime_bench.trace.axes import AXES, timed


def columns(board: Board, table: str) -> list[Column]:
    """The columns of one table of ``board``, in the order of ``COLUMNS``."""
    expanded: list[Column] = []
    for entry in COLUMNS:
        expanded += [entry.column(board, item) for item in entry.over(board)] if isinstance(entry, Each) else [entry]
    return [column for column in expanded if table in column.tables]


ALL = (
    "ranking", "horizons", "reached", "added", "pairs", "costs", "budgets", "behaviour", "stops", "noise", "moving",
    "csv", "lanes", "lane_checks", "break_even", "deadlines", "streaming", "execution",
)  # fmt: skip
BEHAVIOUR = ("behaviour", "csv")

QUALITY: tuple[tuple[str, str, Better, str], ...] = (
    ("nll", "NLL", "low", "mean negative log-likelihood"),
    ("brier", "Brier", "low", "Brier score"),
    ("ece", "ECE", "low", "expected calibration error, 15 bins"),
    ("auroc", "AUROC", "high", "of confidence for being right"),
    ("augrc", "AUGRC", "low", "area under the generalised risk-coverage curve"),
    ("set_size", "Set size", "low", "classes in the prediction set that holds the true one at every exit with 90 %"),
    ("coverage", "Coverage", "", "share of images whose prediction sets hold the true class up to this exit"),
    ("consistency", "Consistency", "high", "share of the exit's own prediction set that no earlier exit had ruled out"),
)

COLUMNS: tuple[Column | Each, ...] = (
    Column("rank", "Rank", groups.rank, RANK, ("ranking",), "low"),
    Column("rank", "Rank", lambda line: str(line.row.place or ""), TEXT, ("csv",)),
    Column("method", "Method", lambda line: line.row.method, TEXT, ("csv",)),
    Column("label", "Method", lambda line: line.row.label, TEXT, ALL),
    Column("exit", "Exit", lambda line: line.k, COUNT, ("exits", "quality")),
    Column("final", "Final %", lambda line: line.row.final, PERCENT, ("ranking", "csv"), "high",
           "accuracy of the last exit on the test split"),
    groups.areas(1, "ranking"),
    *DEADLINE_COLUMNS,
    *STREAMING_COLUMNS,
    groups.areas(0.5, "horizons", only_ranking=True),
    groups.areas(2, "horizons"),
    groups.areas(4, "horizons", only_ranking=True),
    groups.rank_end("first"),
    groups.rank_end("last"),
    Each(lambda board: [(axis, percent) for axis in board.shown_axes for percent in (50, 90, 95, 99)], groups.time_to),
    Each(groups.shown_axes, groups.regret),
    groups.anytime_gain("fixed_exit", "Best fixed exit", lambda s: s.fixed_exit, COUNT,
           "the single exit with the largest AUC@1 when it alone is asked for, chosen on validation"),
    groups.anytime_gain("gain_over_fixed_exit", "Gain over it", lambda s: s.gain_over_fixed_exit, PERCENT,
           "points of AUC@1 that asking for every exit is ahead of that one"),
    groups.anytime_gain("exit_set", "Exits worth asking for", lambda s: ", ".join(map(str, s.exit_set)) or "none", TEXT,
           "the exits whose AUC@1 is largest when no others are asked for, chosen on validation; passing an exit "
           "saves what its answer adds to the cost of later ones"),
    groups.anytime_gain("exit_set_auc_1", "AUC@1 of these", lambda s: s.exit_set_auc_1, PERCENT, ""),
    groups.anytime_gain("gain_of_exit_set", "Gain over every exit", lambda s: s.gain_of_exit_set, PERCENT, ""),
    groups.anytime_gain("gain_over_static", "Gain over static nets",
           lambda s: s.gain_over_static or Missing("no two other rows have a single exit"), PERCENT,
           "points of AUC@1 that the row is ahead of the best single-exit net that fits a deadline known in advance"),
    Column("against", "Against", lambda line: line.part.b, TEXT, ("pairs",)),
    Column("gap", "AUC@1 ahead", lambda line: line.part.gap, PERCENT_2, ("pairs",), "high",
           "points, with the interval of this pair alone"),
    Column("verdict", "Verdict", lambda line: line.part.verdict, TEXT, ("pairs",), "",
           "better and worse are corrected for all pairs, at 5 % together; equivalent is within one point by two "
           "one-sided tests at 5 %"),
    Column("p", "p", lambda line: line.part.p, DIGITS_3, ("pairs",), "low", "corrected for all pairs"),
    Column("held", "For H from", groups.held_for, TEXT, ("pairs",), "",
           "the horizons at which the verdict is the same"),
    Column("seeds_needed", "Seeds needed", lambda line: line.part.seeds_needed or Missing(
        "decided, or out of reach of 100 seeds"), COUNT, ("pairs",), "low",
           "with how many seeds an undecided pair is decided with chance 80 %, if its gap is what it seems"),
    Column("first", "Order", lambda line: line.part.first, TEXT, ("agreement",)),
    Column("second", "Other order", lambda line: line.part.second, TEXT, ("agreement",)),
    Column("tau", "Kendall's tau", lambda line: line.part.tau, TIMES, ("agreement",), "high",
           "share of pairs of rows that both order alike less the share that they order differently"),
    Column("ranked_rows", "Rows", lambda line: line.part.rows, COUNT, ("agreement",)),
    Column("accuracy", "Accuracy %", lambda line: line.row.accuracy[line.k], PERCENT, ("exits",), "high"),
    Each(groups.shown_axes, lambda board, axis: Column(
        f"cost_{axis}", f"{AXES[axis].title} (x reference)",
        lambda line: groups.on_axis(line, axis, lambda scores: scores.cost[line.k]), DIGITS_3, ("exits",), "low")),
    groups.promise_at_exit("macs_saved", "MACs saved %", PERCENT, "high",
                           "asked for alone, against the reference's full answer"),
    groups.promise_at_exit("time_saved", "Time saved %", PERCENT, "high", "the same on the clock, batch 1"),
    groups.promise_at_exit("arrives", "Promise kept %", PERCENT, "high", "time saved over MACs saved"),
    Column("improvable", "Hindsight %", lambda line: line.row.behaviour.improvable[line.k], PERCENT, ("exits",), "low",
           "share of this exit's errors that an earlier exit had right"),
    *(groups.quality_at_exit(name, title, better, meaning) for name, title, better, meaning in QUALITY),
    Column("top5", "Top-5 %", lambda line: line.row.quality[line.k].top5, PERCENT, ("quality",), "high"),
    Each(lambda board: [(clock, p) for clock in timed() if clock in board.axes for p in ("p50", "p90", "p99")],
         groups.milliseconds),
    groups.costs_of_answer("first", 0, "costs"),
    groups.costs_of_answer("full", -1, "costs"),
    Column("promise_kept", "Promise kept %", groups.promise_kept, PERCENT, ("costs", "csv"), "high",
           "time saved over MACs saved against the reference, over the exits that save MACs, each asked for alone"),
    groups.throughput("per_second", "Images/s, batch {}", COUNT, "full answers per second on this device"),
    groups.throughput("times_reference", "x reference, batch {}", TIMES,
                      "the same over the reference's, in the same rounds"),
    Column("parameters", "Parameters", lambda line: line.row.parameters, COUNT, ("costs", "csv"), "low"),
    Column("training_seconds", "Training s", lambda line: line.row.training_seconds, COUNT, ("costs", "csv"), "low",
           "mean over seeds, on the machine that trained"),
    *EXECUTION_COLUMNS,
    *LANE_COLUMNS,
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
    Column("saved", "Time saved %", lambda line: line.part.saved or Missing(line.row.untimed_reason), PERCENT,
           ("stops",), "high", "of the row's own full run at this batch size, deciding included"),
    Column("full_run", "Full run timed", groups.full_run, TEXT, ("stops",), "",
           "in another session the machine may have been faster or slower, which is then in the time saved too"),
    Column("times_reference", "x reference", lambda line: line.part.times_reference or Missing(
        line.row.untimed_reason), TIMES, ("stops",), "low", "time when stopping over the reference's full time"),
    Column("stop_accuracy", "Accuracy %", lambda line: line.part.accuracy, PERCENT, ("stops",), "high"),
    Column("change", "Against its last exit, points", lambda line: line.part.change or Missing(
        "the record does not hold the last exit's accuracy on these images"), PERCENT, ("stops",), "high"),
    Column("images", "Images", lambda line: line.part.images, COUNT, ("stops",)),
    Column("mean_exit", "Mean exit", lambda line: line.part.mean_exit, TIMES, ("stops",)),
    Column("deciding", "Deciding %", lambda line: line.part.deciding, PERCENT, ("stops",), "low",
           "share of the time that went into deciding"),
    Column("leaves", "Done images", lambda line: "leave the batch" if line.part.real else "wait for the last", TEXT,
           ("stops",)),
    Column("noise_left", "Noise leaves %", lambda line: groups.under_noise(line, lambda n: n.mean), PERCENT,
           ("ranking", "csv"), "high",
           "share of the clean accuracy above chance that persistent noise leaves, mean over kinds"),
    Column("noise_left_mean", "Mean", lambda line: groups.under_noise(line, lambda n: n.mean), PERCENT,
           ("noise",), "high"),
    Column("mce", "mCE", groups.mce, TIMES, ("noise", "csv"), "low",
           "mean over kinds of error / the reference's error on the same kind"),
    Each(groups.kinds, groups.kind_of_noise),
    Each(groups.policies, groups.policy),
    Column("seeds", "Seeds", lambda line: len(line.row.seeds), COUNT, ("ranking", "csv")),
    Column("n", "Test images", lambda line: line.row.n, COUNT, ("csv",)),
    Column("reported", "Reported %", lambda line: line.row.reported, PERCENT_2, ("ranking", "csv"), "high",
           "final accuracy that the paper reports for this task"),
    Column("timed", "Comparable times", lambda line: "yes" if line.row.timed else "no", TEXT, ("csv",)),
    Column("unranked", "Why unranked", lambda line: line.row.unranked, TEXT, ("csv",)),
    Column("records", "Records", lambda line: " ".join(r.record[:12] for r in line.row.records), TEXT, ("csv",)),
)  # fmt: skip

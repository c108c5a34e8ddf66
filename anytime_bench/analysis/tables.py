"""What was read from records as tables for a terminal, at most 100 columns, each with one sentence of meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anytime_bench.analysis.readings import Reading
from anytime_bench.analysis.results import (
    OOD,
    RULES,
    Bounds,
    LearnedStopping,
    RuleGap,
    SeedMeans,
    SeedRange,
    Typicality,
)
from anytime_bench.analysis.typicality import CONFIDENCE

#: The scores of ``ood_auroc`` as a reader meets them.
OOD_SCORES = {
    "last_exit": "last exit",
    "mean_confidence": "mean of exits",
    "trace_density": "trace density",
}


def show(readings: Sequence[Reading], means: Sequence[SeedMeans], axis: str) -> None:
    """Print all blocks to standard output."""
    from rich.console import Console

    console = Console(highlight=False)
    # Without a terminal there is no width to keep to but the one the tables are made for.
    console.width = min(console.width, 100) if console.is_terminal else 100
    blocks = [typicality_block(readings, means), stopping_block(readings, means, axis)]
    if any(reading.ood is not None for reading in readings):
        blocks.append(ood_block(readings, means))
    for table, lines in blocks:
        if table is not None and table.row_count:
            console.print(table)
        for line in "\n".join(lines).splitlines():
            # A command is not broken, so that it can be copied.
            console.print(line, markup=False, soft_wrap=line.startswith("  "))
        console.print()


def typicality_block(readings: Sequence[Reading], means: Sequence[SeedMeans]) -> tuple[Any, list[str]]:
    table = _table(
        "Response time against typicality (Spearman)",
        left=("record",),
        right=("seed", "typical to seeds", "correlation", "95 % interval", "cost: typical", "atypical"),
    )
    missing, signs = [], []
    for reading in readings:
        result = reading.typicality
        if not isinstance(result, Typicality):
            missing += _why(reading, result)
            continue
        rho, time = result.spearman, result.response_time
        seeds = ", ".join(str(each.seed) for each in result.references)
        signs.append(_sign(rho))
        table.add_row(
            *_who(reading), seeds, _signed(rho.value), _interval(rho, signed=True),
            f"{time.typical_quarter:.3f}", f"{time.atypical_quarter:.3f}",
        )  # fmt: skip
    for mean in means:
        if row := mean.typicality:
            table.add_row(*_mean(mean), "", _signed(row.value), _range(row, signed=True), "", "")
    if not signs:
        return table, missing
    meanings = {
        -1: "typical images are answered earlier",
        1: "typical images are answered later",
        0: "whether typical images are answered earlier cannot be told",
    }
    how = (
        f"An image is answered at confidence {CONFIDENCE:g}. Costs: mean of the most and of the least typical quarter, "
        "in multiples of the reference."
    )
    return table, [f"Meaning: {_tally(signs, meanings)}.", how, *missing]


def stopping_block(readings: Sequence[Reading], means: Sequence[SeedMeans], axis: str) -> tuple[Any, list[str]]:
    table = _table(
        f"Stopping by a GRU on the trace against the confidence threshold (costs in {axis})",
        left=("record",),
        right=("seed", "budget", "both spend", "GRU", "confidence", "GRU - conf.", "95 % interval"),
    )
    missing, signs, areas = [], [], []
    for reading in readings:
        result = reading.stopping
        if not isinstance(result, LearnedStopping):
            missing += _why(reading, result)
            continue
        areas.append([_mean_of_known(rule.auroc) for rule in (result.gru, result.confidence)])
        who = _who(reading)
        for budget, gap in result.equal_cost.items():
            if gap is None:
                table.add_row(*who, f"{budget} %", "no exit is that cheap")
            else:
                signs.append(_sign(gap))
                table.add_row(*who, f"{budget} %", f"{100 * gap.cost['gru']:.1f} %", *_gap(gap))
            who = ("", "")
    for mean in means:
        who = _mean(mean)
        for budget, difference in (mean.stopping or {}).items():
            table.add_row(*who, f"{budget} %", "", *_gap(difference))
            who = ("", "")
    lines = []
    if signs:
        meanings = {1: "the GRU stops better", -1: "the GRU stops worse", 0: "no difference is seen"}
        lines.append(f"Meaning: at equal cost {_tally(signs, meanings, 'budgets')}.")
    if areas and np.isfinite(areas).all():
        gru_area, bare_area = np.mean(areas, axis=0)
        lines.append(
            f"Telling final answers from others (AUROC, mean over exits): GRU {gru_area:.3f}, confidence "
            f"{bare_area:.3f}."
        )
    return table, lines + missing


def ood_block(readings: Sequence[Reading], means: Sequence[SeedMeans]) -> tuple[Any, list[str]]:
    names = {each.ood.task for each in readings if isinstance(each.ood, OOD)}
    table = _table(
        f"Own test images against those of {', '.join(sorted(names))} (AUROC; 0.5 is chance)",
        left=("record",),
        right=("seed",),
    )
    table.add_column("score", no_wrap=True)
    for name in ("AUROC", "95 % interval", "- last exit", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    missing, signs = [], []
    for reading in readings:
        result = reading.ood
        if not isinstance(result, OOD):
            missing += _why(reading, result)
            continue
        who = _who(reading)
        for score, label in OOD_SCORES.items():
            auroc, gap = getattr(result, score), getattr(result, f"{score}_minus_last_exit", None)
            if gap is not None and score == "trace_density":
                signs.append(_sign(gap))
            difference = ("", "") if gap is None else (_signed(gap.value), _interval(gap, signed=True))
            table.add_row(*who, label, f"{auroc.value:.3f}", _interval(auroc), *difference)
            who = ("", "")
    for mean in means:
        who = _mean(mean)
        for score, label in OOD_SCORES.items():
            if mean.ood is None:
                continue
            row, gain = mean.ood[score], mean.ood.get(f"{score}_minus_last_exit")
            difference = ("", "") if gain is None else (_signed(gain.value), _range(gain, signed=True))
            table.add_row(*who, label, f"{row.value:.3f}", _range(row), *difference)
            who = ("", "")
    if not signs:
        return table, missing
    meanings = {
        1: "the trace's density knows out-of-distribution images better than the last exit alone",
        -1: "the trace's density knows out-of-distribution images worse than the last exit alone",
        0: "the trace's density and the last exit alone cannot be told apart",
    }
    return table, [f"Meaning: {_tally(signs, meanings)}.", *missing]


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in left:
        table.add_column(name, max_width=22, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _who(reading: Reading) -> tuple[str, str]:
    from rich.markup import escape

    return escape(reading.answers.record.method.name), str(reading.answers.seed)


def _mean_of_known(values: Sequence[float | None]) -> float:
    """Mean of what is known; NaN where nothing is, as where every answer is final or none."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _mean(mean: SeedMeans) -> tuple[str, str]:
    from rich.markup import escape

    return escape(mean.method), "mean"


def _why(reading: Reading, reason: object) -> list[str]:
    return [f"{reading.answers.record.method.name}, seed {reading.answers.seed}: {reason}"] if reason else []


def _tally(signs: Sequence[int], meanings: Mapping[int, str], of: str = "records") -> str:
    """What the intervals agree on, or how many say what.

    >>> _tally([1, 1, 0], {1: "later", -1: "earlier", 0: "unknown"})
    'later for 2 of 3 records, unknown for 1'
    >>> _tally([1, 1], {1: "later"})
    'later'
    """
    counts = {sign: signs.count(sign) for sign in (-1, 1, 0) if sign in signs}
    if len(counts) == 1:
        return meanings[next(iter(counts))]
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    first = f"{meanings[ordered[0][0]]} for {ordered[0][1]} of {len(signs)} {of}"
    return ", ".join([first, *(f"{meanings[sign]} for {count}" for sign, count in ordered[1:])])


def _sign(interval: Bounds | RuleGap) -> int:
    """1 or -1 where the interval excludes 0, else 0; NaN excludes nothing."""
    return int(interval.low > 0) - int(interval.high < 0)


def _signed(value: float) -> str:
    return f"{value:+.3f}" if np.isfinite(value) else "undefined"


def _gap(gap: RuleGap) -> tuple[str, ...]:
    accuracies = (f"{100 * getattr(gap, name):.2f} %" for name in RULES)
    return (*accuracies, f"{100 * gap.value:+.2f} %", _interval(gap, signed=True, scale=100))


def _interval(row: Bounds | RuleGap, signed: bool = False, scale: float = 1) -> str:
    if not np.isfinite([row.low, row.high]).all():
        return "-"
    form = f"{'+' if signed else ''}.{3 if scale == 1 else 2}f"
    return f"{scale * row.low:{form}} to {scale * row.high:{form}}"


def _range(row: SeedRange, signed: bool = False) -> str:
    form = f"{'+' if signed else ''}.3f"
    return f"seeds {row.lowest:{form}}..{row.highest:{form}}"

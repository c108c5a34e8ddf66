"""What a run ends with on a terminal: its exits, a small curve, its scores, its answers under noise. 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from anytime_bench.harness.deadline_summary import DeadlineBlock
from anytime_bench.harness.streaming_summary import StreamingBlock
from anytime_bench.records.axes import comparable, exit_costs
from anytime_bench.records.record import Record
from anytime_bench.scores.results import Estimate, NoiseRow
from anytime_bench.trace.axes import AXES

WIDTH = 80
#: Size of the curve in characters, without its axis.
CURVE_WIDTH, CURVE_HEIGHT = 60, 6
#: Lower blocks of one to eight eighths.
BLOCKS = " ▁▂▃▄▅▆▇█"
#: Modes of noise that are shown; the record and the report hold them all.
MODES = ("persistent", "transient_1")


def closing(record: Record, curve: bool = False) -> Iterator[RenderableType]:
    """Tables and, with ``curve``, a picture of accuracy over cost, each at most ``WIDTH`` characters wide."""
    yield exit_table(record)
    if curve:
        yield Text("\n".join(curve_of(record)))
    yield score_table(record)
    yield from deadline_tables(record.deadlines)
    yield from streaming_tables(record.streaming)
    yield from noise_tables(record)


def can_draw(console: Console) -> bool:
    """Whether block characters are sure to be seen as such."""
    return console.is_terminal and console.encoding.lower().startswith("utf") and not console.legacy_windows


def exit_table(record: Record) -> Table:
    """Exit, ticks, MACs, latency and accuracy with its interval."""
    latency = latency_per_exit(record)
    table = _table(f"{record.method.name} on {record.task.title}, seed {record.seed}")
    for name in ("exit", "ticks", "MACs", "latency", "accuracy", "95 % interval"):
        table.add_column(name, justify="right")
    for entry in record.exits:
        accuracy = entry.accuracy
        time = f"{1e3 * latency[entry.k]:.2f} ms" if entry.k < len(latency) else "-"
        table.add_row(
            str(entry.k), f"{entry.ticks:g}", si(entry.macs), time, percent(accuracy.value), _interval(accuracy),
        )  # fmt: skip
    return table


def score_table(record: Record) -> Table:
    """The areas under the anytime curve per cost axis."""
    table = _table("Areas under the anytime curve")
    for name in ("axis", "AUC@1", "95 % interval", "AUC@2", "ALC@1"):
        table.add_column(name, justify="left" if name == "axis" else "right")
    for axis, areas in {**record.scores, **record.timed_scores}.items():
        first, *others = (percent(areas[key].value) for key in ("auc_1", "auc_2", "alc_1"))
        table.add_row(AXES[axis].title, first, _interval(areas["auc_1"]), *others)
    return table


def deadline_tables(block: DeadlineBlock | None) -> Iterator[RenderableType]:
    """Per mode and kind of deadlines what was delivered and promised, the verdicts, and what to know about them.

    ``late`` and ``free`` (the 99th percentile of the time until the model is free again) are ms after the deadline.
    """
    if block is None:
        return
    table = _table(f"Interrupted at deadlines within {1e3 * block.horizon:.2f} ms")
    for name in ("mode", "deadlines", "got", "promised", "missed", "late p50", "p99", "max", "free"):
        table.add_column(name, justify="left" if name in ("mode", "deadlines") else "right")
    for row in block.rows:
        late, free = row.lateness, row.release
        shares = (f"{100 * share:.1f} %" for share in (row.accuracy.value, row.promised, row.misses.value))
        times = (f"{1e3 * seconds:.1f}" for seconds in (late.p50, late.p99, late.max, free.p99))
        table.add_row(row.mode, row.kind.replace("_", "-"), *shares, *times)
    yield table
    for mode in block.points:
        yield Text(f"{mode}: the curve's promise is {block.row(mode).verdict}")
    for line in (*block.reasons, *block.notes):
        yield Text(line)


def streaming_tables(block: StreamingBlock | None) -> Iterator[RenderableType]:
    """Rates down, ways of following across: streaming accuracy, and what the state of a model is ahead of restart."""
    if block is None:
        return
    ways = list(dict.fromkeys(row.way for row in block.rows))
    table = _table(f"Streaming, {block.meta.kind}, H = {1e3 * block.reference:.2f} ms")
    for name in ("a frame every", *ways):
        table.add_column(name, justify="right")
    for rate in dict.fromkeys(row.rate for row in block.rows):
        table.add_row(f"{rate:g} H", *(percent(block.row(way, rate).accuracy.value) for way in ways))
    yield table
    if "watch" in ways:
        for rate in dict.fromkeys(row.rate for row in block.rows):
            ahead = block.row("watch", rate).ahead
            value, low, high = (100 * each for each in (ahead.value, ahead.low, ahead.high))
            yield Text(f"every {rate:g} H, watch less restart: {value:+.1f} points [{low:+.1f}, {high:+.1f}]")
    for line in block.meta.reasons:
        yield Text(line)


def noise_tables(record: Record) -> Iterator[Table]:
    """Per mode: policies down, clean and each kind across; final accuracy in % and, below it, the share kept."""
    if record.robustness is None:
        return
    clean = record.robustness.clean
    names = {policy: policy.replace("_", " ") for policy in clean}
    for mode in MODES:
        cells = {(row.policy, row.kind): row for row in record.robustness.rows if row.mode == mode}
        kinds = list(dict.fromkeys(kind for _, kind in cells))
        room = WIDTH - max(map(len, (*names.values(), "every policy"))) - 2 - len("clean") - 2
        for part in _parts(kinds, room):
            table = _table(f"{mode.replace('_', ', period ')} noise: final accuracy in %, share of clean kept")
            for name in ("policy", "clean", *part):
                table.add_column(name.replace("_", " "), justify="left" if name == "policy" else "right")
            lines = {
                names[policy]: [
                    f"{100 * untouched.final_accuracy.value:.1f}",
                    *(_noise_cell(cells.get((policy, kind))) for kind in part),
                ]
                for policy, untouched in clean.items()
            }
            first = next(iter(lines.values()))
            if len(lines) > 1 and all(line == first for line in lines.values()):
                lines = {"every policy": first}
            for name, line in lines.items():
                table.add_row(name, *line)
            yield table


def curve_of(record: Record) -> list[str]:
    """Accuracy over latency where it was measured and may be compared, else over MACs, relative to the reference."""
    axis = "latency" if comparable(record)[0] and exit_costs(record, "latency") is not None else "macs"
    costs = exit_costs(record, axis)
    if costs is None:
        return []
    accuracies = [entry.accuracy.value for entry in record.exits]
    end = max(1.0, 1.15 * costs.relative[-1])
    lines = curve_lines(costs.relative, accuracies, 1 / record.task.classes, end)
    label = f"{AXES[axis].title} in multiples of the reference's"
    return [*lines, f"{'':7}0{label:^{CURVE_WIDTH - 6}}{end:5.2f}"]


def curve_lines(
    costs: Sequence[float], accuracies: Sequence[float], chance: float, end: float,
    width: int = CURVE_WIDTH, height: int = CURVE_HEIGHT,
) -> list[str]:  # fmt: skip
    """The step function of accuracy over cost in [0, ``end``], drawn with blocks, 0 to 100 % from bottom to top.

    Accuracies and ``chance`` are in [0, 1]; before the first exit the answer is a guess.

    >>> print("\\n".join(curve_lines([0.25, 0.5], [0.5, 1.0], 0.25, 1.0, width=8, height=2)))
    100 % |    ████
      0 % |▄▄██████
    """
    levels = []
    for column in range(width):
        cost = (column + 0.5) * end / width
        ready = [accuracy for at, accuracy in zip(costs, accuracies, strict=True) if at <= cost]
        levels.append(round(8 * height * (ready[-1] if ready else chance)))
    rows = []
    for row in reversed(range(height)):
        label = "100 %" if row == height - 1 else "0 %" if row == 0 else ""
        cells = "".join(BLOCKS[min(max(level - 8 * row, 0), 8)] for level in levels)
        rows.append(f"{label:>5} |{cells}".rstrip())
    return rows


def latency_per_exit(record: Record) -> list[float]:
    """Median run-through latency per exit in seconds at batch 1; empty where nothing was timed."""
    return [times.p50 for times in record.timing.latency.run_through] if record.timing else []


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def si(value: float) -> str:
    """``1234567`` -> ``1.23 M``."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.2f} {unit}"
    return f"{value:.0f}"


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", box=None, padding=(0, 2, 0, 0), width=None)


def _interval(estimate: Estimate) -> str:
    return f"{100 * estimate.low:.2f} - {100 * estimate.high:.2f}"


def _parts(kinds: Sequence[str], room: int) -> Iterator[list[str]]:
    """``kinds`` in groups whose columns fit into ``room`` characters."""
    part: list[str] = []
    for kind in kinds:
        if part and sum(max(len(each), 5) + 2 for each in (*part, kind)) > room:
            yield part
            part = []
        part.append(kind)
    if part:
        yield part


def _noise_cell(row: NoiseRow | None) -> str:
    if row is None:
        return ""
    return f"{100 * row.final_accuracy.value:.1f}\n" + ("" if row.kept is None else f"{100 * row.kept.value:.0f} %")

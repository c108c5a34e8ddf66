"""The figures of a board: accuracy over each cost axis, areas over horizons, and whether MACs saved are time saved.

Curves are named at their right ends, in the order in which they end, so that no legend takes the width of the picture.
Rows are the best of the board, as many as can be told apart; those without a rank on the ranking axis only fill up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from anytime_bench.leaderboard.board import Board, BoardRow
from anytime_bench.leaderboard.deadline_columns import served
from anytime_bench.leaderboard.row_parts import LaneScore
from anytime_bench.records.figures import (
    FORMS,
    Line,
    draw_curve,
    dress,
    extent_of,
    figure_bytes,
    figure_style,
    mark_of,
    new_figure,
)
from anytime_bench.scores.results import Estimate
from anytime_bench.trace.axes import AXES

#: More curves than this cannot be told apart in one picture.
MOST = 12
#: Points with intervals take more room than curves.
MOST_INTERRUPTED = 6
#: Rows are shown with every way of following, up to four curves each.
MOST_STREAMED = 3
#: Share of a figure's height that its panel takes, about.
PANEL_SHARE = 0.78


@dataclass(frozen=True)
class Size:
    """Width and height in inches, font size in points, kind of fonts in a PDF.

    Fonts of type 42 are what venues ask for; picking their glyphs takes longer than drawing the figure.
    """

    width: float
    height: float
    font: float
    font_type: int = 3


SCREEN = Size(7.6, 4.4, 9)
#: Column widths of common two-column styles.
PAPER = {"one": Size(3.35, 2.5, 6.5, 42), "two": Size(6.9, 3.4, 8, 42)}


def figure_names(board: Board) -> list[str]:
    """The figures that a board has data for, the one of the ranking axis first."""
    promised = any(promise.arrives is not None for row in board.rows for promise in row.promises)
    further = {
        "horizons": bool(board.rows),
        "promise": promised,
        "lanes": any(row.parallel for row in board.rows),
        "deadlines": any(row.interrupted for row in board.rows),
        "streaming": any(row.streaming for row in board.rows),
    }
    return [*board.shown_axes, *(name for name, known in further.items() if known)]


def board_figure(
    board: Board, name: str, size: Size = SCREEN, forms: Sequence[str] = FORMS
) -> Iterator[tuple[str, bytes]]:
    """One figure of ``figure_names`` as (format, file)."""
    fonts = dict.fromkeys(("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"), size.font)
    with figure_style(**fonts, **{"axes.titlesize": size.font + 1, "pdf.fonttype": size.font_type}):
        figure = new_figure(size.width, size.height)
        panel = figure.subplots()
        data = DRAWN[name](panel, board, size) if name in DRAWN else _curves(panel, board, name, size)
        panel.set_title(f"{board.task.title} on {board.device}, protocol {board.protocol_version}", loc="left")
        for form in forms:
            yield form, figure_bytes(figure, form, [name, asdict(size), data])


def _curves(panel: Axes, board: Board, axis: str, size: Size) -> Any:
    rows = shown_rows(board, axis)
    names = short_names(rows)
    lines = [
        Line(
            name,
            row.axes[axis].cost,
            [estimate.value for estimate in row.accuracy],
            [estimate.low for estimate in row.accuracy],
            [estimate.high for estimate in row.accuracy],
            board.chance,
        )
        for row, name in zip(rows, names, strict=True)
    ]
    extent = extent_of([line.cost for line in lines])
    for index, line in enumerate(lines):
        draw_curve(panel, line, index, extent)
    dress(panel, axis, extent, board.chance)
    panel.set_ylabel("test accuracy")
    name_ends(panel, [(extent.end, line.accuracy[-1], line.label) for line in lines], size.height)
    panel.annotate("chance", (extent.end, board.chance), (-2, 2), textcoords="offset points", ha="right", color="0.4",
                   fontsize="small")  # fmt: skip
    return [asdict(line) for line in lines]


def _band(
    panel: Axes, index: int, x: Sequence[float], *band: Sequence[float], alpha: float = 0.15, size: float = 4
) -> None:
    """A line of curve ``index`` with markers of ``size`` in the band of its intervals: values, low ends, high ends."""
    (value, low, high), mark = band, mark_of(index)
    panel.fill_between(x, low, high, color=mark["color"], alpha=alpha, lw=0)
    panel.plot(x, value, lw=1.4, ms=size, **mark)


def _close(panel: Axes, ends: Sequence[tuple[float, float, str]], height: float) -> None:
    """What every panel of accuracies ends with; see ``name_ends``."""
    panel.set_ylim(0, 1.02)
    panel.grid(axis="y", color="0.92", lw=0.8)
    name_ends(panel, ends, height)


def _whiskers(estimates: Sequence[Estimate], scale: float = 1.0) -> list[list[float]]:
    """What an interval reaches below and above its value; nothing where a record that does not verify says less."""
    below = [max(scale * (each.value - each.low), 0.0) for each in estimates]
    return [below, [max(scale * (each.high - each.value), 0.0) for each in estimates]]


def _promise(panel: Axes, board: Board, size: Size) -> Any:
    rows = [row for row in shown_rows(board, board.ranking.axis) if any(p.arrives is not None for p in row.promises)]
    names = short_names(rows)
    drawn = []
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        saving = sorted((p for p in row.promises if p.arrives is not None), key=lambda promise: promise.macs_saved)
        x, y = [100 * p.macs_saved for p in saving], [100 * p.time_saved.value for p in saving]
        bars = _whiskers([p.time_saved for p in saving], 100)
        panel.errorbar(x, y, bars, lw=1, ms=4, elinewidth=0.7, **mark_of(index))
        drawn.append((name, x, y))
    panel.plot([0, 100], [0, 100], color="0.6", lw=0.8, ls=(0, (1, 2)), zorder=0)
    panel.text(3, 1, "on this line time falls as MACs do", color="0.4", fontsize="small", va="top", rotation=45,
               rotation_mode="anchor", transform_rotates_text=True)  # fmt: skip
    panel.set_xlabel("MACs saved against the reference's full answer (%)")
    panel.set_ylabel("time saved, batch 1 (%)")
    panel.set_xlim(0, 101)
    panel.set_ylim(min(0.0, *(min(y) - 5 for _, _, y in drawn)), 101)
    panel.grid(color="0.92", lw=0.8)
    name_ends(panel, [(x[-1], y[-1], name) for name, x, y in drawn], size.height)
    return drawn


def _horizons(panel: Axes, board: Board, size: Size) -> Any:
    axis = board.ranking.axis
    rows = shown_rows(board, axis)
    drawn = []
    for index, (row, name) in enumerate(zip(rows, short_names(rows), strict=True)):
        areas = row.axes[axis].curve
        value, low, high = ([getattr(area, end) for area in areas] for end in ("value", "low", "high"))
        _band(panel, index, board.horizons, value, low, high, size=3.5)
        drawn.append((name, value, low, high))
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.axvline(1, color="0.8", lw=0.8, zorder=0)
    panel.set_xlabel(f"H: {AXES[axis].title} (multiples of the reference's full answer)")
    panel.set_ylabel("mean accuracy up to H")
    panel.set_xlim(board.horizons[0], board.horizons[-1])
    _close(panel, [(board.horizons[-1], value[-1], name) for name, value, _, _ in drawn], size.height)
    return [board.horizons, drawn]


def _lanes(panel: Axes, board: Board, size: Size) -> Any:
    """AUC@1 over the number of lanes, edges between lanes being free; unlimited lanes stand at the right end."""
    rows = [row for row in board.rows if row.parallel][:MOST]
    counts = list(dict.fromkeys(each.lanes for row in rows for each in _free(row)))
    drawn, ends = [], []
    for index, (row, name) in enumerate(zip(rows, short_names(rows), strict=True)):
        areas = {each.lanes: each.auc_1 for each in _free(row)}
        x = [place for place, count in enumerate(counts) if count in areas]
        value, low, high = ([getattr(areas[counts[k]], end) for k in x] for end in ("value", "low", "high"))
        _band(panel, index, x, value, low, high)
        drawn.append((name, x, value, low, high))
        ends.append((float(x[-1]), value[-1], name))
    panel.set_xticks(range(len(counts)), ["unlimited" if count == "inf" else count for count in counts])
    panel.set_xlabel("lanes")
    panel.set_ylabel("AUC@1 over time on that many lanes")
    panel.set_xlim(0, len(counts) - 1)
    _close(panel, ends, size.height)
    return [counts, drawn]


def _deadlines(panel: Axes, board: Board, size: Size) -> Any:
    """What was delivered at deadlines, as points with intervals, over the curve that promised it.

    Dashes are what it promised at these very draws, at the speed that the machine had then.
    """
    rows = [row for row in board.rows if row.interrupted and "latency" in row.axes][:MOST_INTERRUPTED]
    drawn, ends = [], []
    for index, (row, name) in enumerate(zip(rows, short_names(rows), strict=True)):
        assert row.interrupted is not None  # by the choice of rows
        points = served(row.interrupted.modes).points
        x, y = [point.deadline for point in points], [point.delivered.value for point in points]
        bars = _whiskers([point.delivered for point in points])
        costs = [0.0, *row.axes["latency"].cost, 1.0]
        answers = [board.chance, *(each.value for each in row.accuracy)]
        mark = mark_of(index)
        panel.stairs(answers, [min(cost, 1.0) for cost in costs], baseline=None, color=mark["color"], lw=1)
        panel.errorbar(x, y, bars, ls="none", ms=4.5, elinewidth=0.8, color=mark["color"], marker=mark["marker"])
        promised = [point.promised for point in points]
        panel.plot(x, promised, ls="none", ms=9, mew=1.2, color=mark["color"], marker="_")
        ends.append((1.0, y[-1], name))
        drawn.append((name, costs, answers, x, y, bars, promised))
    panel.set_xlabel("deadline (multiples of the reference's full answer)")
    panel.set_ylabel("delivered (points), promised (steps; dashes: at the same deadlines)")
    panel.set_xlim(0, 1)
    _close(panel, ends, size.height)
    return drawn


def _streaming(panel: Axes, board: Board, size: Size) -> Any:
    """Streaming accuracy over the period of the frames, a curve per row and way of following."""
    rows = [row for row in board.rows if row.streaming][:MOST_STREAMED]
    drawn: list[tuple[str, list[float], list[float], list[float], list[float]]] = []
    for row, name in zip(rows, short_names(rows), strict=True):
        for way in dict.fromkeys(each.way for each in row.streaming):
            points = sorted((each for each in row.streaming if each.way == way), key=lambda each: each.rate)
            value, low, high = ([getattr(each.accuracy, end) for each in points] for end in ("value", "low", "high"))
            drawn.append((f"{name}: {way}", [each.rate for each in points], value, low, high))
    for index, (_, x, value, low, high) in enumerate(drawn):
        _band(panel, index, x, value, low, high, alpha=0.12)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.set_xlabel("time between frames (multiples of the reference's full answer)")
    panel.set_ylabel("streaming accuracy")
    _close(panel, [(x[-1], value[-1], name) for name, x, value, _, _ in drawn], size.height)
    return drawn


def _free(row: BoardRow) -> list[LaneScore]:
    return [each for each in row.parallel.lanes if not each.edge_us] if row.parallel else []


#: Figures that are not curves over an axis, by name.
DRAWN: dict[str, Callable[[Axes, Board, Size], Any]] = {
    "horizons": _horizons,
    "promise": _promise,
    "lanes": _lanes,
    "deadlines": _deadlines,
    "streaming": _streaming,
}


def shown_rows(board: Board, axis: str) -> list[BoardRow]:
    """The best rows with costs on ``axis``; rows without a rank only where ranked ones leave room."""
    return [row for row in board.rows if axis in row.axes][:MOST]


def short_names(rows: Sequence[BoardRow]) -> list[str]:
    """Method names, with the options where a method is shown twice."""
    methods = [row.method for row in rows]
    return [row.label if methods.count(row.method) > 1 else row.method for row in rows]


def name_ends(panel: Axes, ends: Sequence[tuple[float, float, str]], height: float) -> None:
    """Name curves right of the panel by the height of their ends ``(x, y, name)``; names that would overlap move apart.

    A thin line joins each name to its end; ``height`` is the figure's, in inches.
    """
    low, high = panel.get_ylim()
    font = 0.9 * float(panel.xaxis.label.get_fontsize())
    line_height = 1.25 * font / (72 * height * PANEL_SHARE)
    order = sorted(range(len(ends)), key=lambda i: -ends[i][1])
    places = spread([(ends[i][1] - low) / (high - low) for i in order], line_height)
    for i, place in zip(order, places, strict=True):
        x, y, name = ends[i]
        mark = mark_of(i)
        arrow = {"arrowstyle": "-", "color": mark["color"], "lw": 0.5, "shrinkA": 0, "shrinkB": 0}
        panel.annotate("", (x, y), (1.035, place), "data", "axes fraction", arrow, annotation_clip=False)
        panel.plot([1.05], [place], transform=panel.transAxes, clip_on=False, color=mark["color"],
                   marker=mark["marker"], ms=0.5 * font, ls="none")  # fmt: skip
        panel.text(1.07, place, name, transform=panel.transAxes, va="center", fontsize=font, color=mark["color"])


def spread(wanted: Sequence[float], gap: float, top: float = 1.0) -> list[float]:
    """Falling places at least ``gap`` apart, near the falling ``wanted`` ones, from ``top`` downwards.

    >>> [round(place, 2) for place in spread([0.99, 0.98, 0.5], 0.1)]
    [0.99, 0.89, 0.5]
    """
    places: list[float] = []
    for at in wanted:
        places.append(min(at, top if not places else places[-1] - gap))
    return places

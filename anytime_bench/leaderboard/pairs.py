"""Who is better than whom, as a square: one line and one column per ranked row, in the order of the board."""

from __future__ import annotations

from dataclasses import dataclass

from anytime_bench.leaderboard.board import Board, Pair

SIGNS = {"better": "▲", "worse": "▼", "equivalent": "≈", "undecided": "○"}
OPPOSITE = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Verdict:
    """What may be said of a line's row against a column's."""

    kind: str
    sign: str
    words: str


@dataclass(frozen=True)
class VerdictLine:
    """A row at ``place`` on the board and its verdict against every ranked row; None against itself."""

    place: int
    label: str
    verdicts: list[Verdict | None]


def verdicts(board: Board) -> list[VerdictLine]:
    """One line per ranked row; empty where no two rows are ranked."""
    against = {(pair.a, pair.b): pair for pair in board.pairs}
    labels = {label for ends in against for label in ends}
    ranked = [(place, row.label) for place, row in enumerate(board.rows) if row.label in labels]
    return [
        VerdictLine(place, label, [_verdict(against, label, other) for _, other in ranked]) for place, label in ranked
    ]


def _verdict(against: dict[tuple[str, str], Pair], label: str, other: str) -> Verdict | None:
    pair, mirrored = against.get((label, other)), against.get((other, label))
    if pair is not None:
        low, high = pair.gap.low, pair.gap.high
        return _words(pair, pair.verdict, pair.gap.value, low, high)
    if mirrored is not None:
        gap = mirrored.gap
        return _words(mirrored, OPPOSITE.get(mirrored.verdict, mirrored.verdict), -gap.value, -gap.high, -gap.low)
    return None


def _words(pair: Pair, kind: str, value: float, low: float, high: float) -> Verdict:
    words = f"{kind}: {100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points, p = {pair.p:.3g}"
    if pair.horizons is not None:
        words += f", for H from {pair.horizons[0]:g} to {pair.horizons[1]:g}"
    if pair.seeds_needed is not None:
        words += f", {pair.seeds_needed} seeds would decide it"
    return Verdict(kind, SIGNS[kind], words)

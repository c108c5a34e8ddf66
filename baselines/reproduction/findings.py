"""How a claim becomes a verdict; the rules are fixed here, before any record is read.

A ``Claim`` judges one task's ``Evidence`` and gives ``Finding``s: what was compared, on which axis, the difference in
points with its 95 % interval (over images and seeds), and a verdict:

- one comparison *holds* if its interval lies on the claimed side of 0 and *fails* if it lies on the other side;
  otherwise it is *equivalent* if two one-sided tests put it within one point, and else *undecided*;
- a claim about *every* deadline holds if every single interval lies on the claimed side, and fails if one lies on the
  other side at level 0.05 / (number of deadlines), so that many deadlines do not make a failure likely by chance;
  otherwise it is equivalent if each deadline is on the claimed side or within one point, and else undecided.

A comparison that the newest protocol's records cannot make is taken from those of an earlier one, and says so.

An undecided finding says how many seeds would decide it, if the difference and its scatter are what they seem.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from anytime_bench.scores.verdicts import MOST_SEEDS, Difference, paired_difference
from anytime_bench.trace.axes import AXES
from baselines.reproduction.evidence import Evidence, Floats, Row

Verdict = Literal["holds", "fails", "equivalent", "undecided"]
#: Deadlines in multiples of the reference's full answer, on the axes that are not counted in ticks.
DEADLINES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Finding:
    """One comparison: ``value`` and its interval in ``unit``, points being percent; ``note`` says what else to know."""

    task: str
    axis: str
    what: str
    verdict: Verdict
    value: float = 0.0
    low: float = 0.0
    high: float = 0.0
    seeds: str = ""
    images: int = 0
    note: str = ""
    unit: str = "points"


@dataclass(frozen=True)
class Claim:
    """``reported`` is the paper's number; ``rule`` says what the comparison is; ``judge`` makes it."""

    title: str
    reported: str
    rule: str
    judge: Callable[[Evidence], list[Finding]]

    def findings(self, evidence: Evidence) -> list[Finding]:
        """What is known of a task: each comparison under the newest protocol that has the records for it."""
        findings = self.judge(evidence)
        for older in evidence.older:
            known = {(each.axis, each.what) for each in findings}
            findings += [
                replace(each, note="; ".join(filter(None, (each.note, f"protocol {older.protocol}"))))
                for each in self.judge(older)
                if (each.axis, each.what) not in known
            ]
        return findings


def side(low: float, high: float, claimed: int = 1) -> Verdict:
    """The verdict on an interval that is claimed to be above (+1) or below (-1) 0.

    >>> side(0.1, 0.2), side(-0.2, -0.1), side(-0.1, 0.1), side(-0.2, -0.1, claimed=-1)
    ('holds', 'fails', 'undecided', 'holds')
    """
    if claimed < 0:
        low, high = -high, -low
    return "holds" if low > 0 else "fails" if high < 0 else "undecided"


def finding(
    evidence: Evidence, axis: str, what: str, rows: Sequence[Row], gap: Difference, verdict: Verdict, note: str = ""
) -> Finding:
    """A ``Finding`` in points from a difference of shares."""
    seeds = " and ".join(str(count) for count in sorted({row.seeds for row in rows}))
    return Finding(
        evidence.task,
        AXES[axis].title if axis in AXES else axis,
        what,
        verdict,
        100 * gap.value,
        100 * gap.low,
        100 * gap.high,
        seeds,
        rows[0].correct.shape[2],
        note,
    )


def judge(
    evidence: Evidence,
    axis: str,
    what: str,
    rows: tuple[Row, Row],
    tables: tuple[Floats | None, Floats | None],
    claimed: int = 1,
) -> list[Finding]:
    """First minus second, judged by the side of 0; nothing where one of them was not measured."""
    if tables[0] is None or tables[1] is None:
        return []
    gap = paired_difference(tables[0], tables[1], by_seed=same_trainings(*rows))
    return [_judged(evidence, axis, what, rows, gap, claimed)]


def judge_delivered(evidence: Evidence, what: str, rows: tuple[Row, Row]) -> list[Finding]:
    """First minus second in what interrupted models gave by uniform deadlines; nothing where one was not interrupted.

    Seeds of one number are tried on the same deadlines and images, so they are pairs.
    """
    a, b = (row.delivered for row in rows)
    if a is None or b is None or a.shape != b.shape or _draws(rows[0]) != _draws(rows[1]):
        return []
    judged = _judged(evidence, "delivered", what, rows, paired_difference(a, b, by_seed=True))
    note = f"mode ask, {a.shape[1]} deadlines a seed, uniform up to the reference's full answer"
    return [replace(judged, images=a.shape[1], note="; ".join(filter(None, (note, judged.note))))]


def _judged(
    evidence: Evidence, axis: str, what: str, rows: tuple[Row, Row], gap: Difference, claimed: int = 1
) -> Finding:
    verdict = side(gap.low, gap.high, claimed)
    if verdict == "undecided" and gap.verdict == "equivalent":
        verdict = "equivalent"
    return finding(evidence, axis, what, rows, gap, verdict, to_decide(gap) if verdict == "undecided" else "")


def _draws(row: Row) -> list[int]:
    return [entry.record.deadlines.meta.seed for entry in row.trained if entry.record.deadlines]


def same_trainings(a: Row, b: Row) -> bool:
    """Whether seed by seed two rows have the same weights, so that their seeds are pairs and no independent samples."""
    weights = [[each.record.training and each.record.training.weights_sha256 for each in row.entries] for row in (a, b)]
    return a is b or (weights[0] == weights[1] and all(weights[0]))


def to_decide(gap: Difference) -> str:
    """How many seeds would decide an undecided difference."""
    if gap.seeds_needed is None:
        return f"{MOST_SEEDS} seeds would not decide it, or there is one seed alone to judge by"
    return f"about {gap.seeds_needed} seeds would decide it"


def every_deadline(
    evidence: Evidence, axis: str, what: str, rows: tuple[Row, Row], pairs: Sequence[tuple[str, Floats, Floats]]
) -> list[Finding]:
    """First better than second in each of ``pairs`` (deadline, first, second); the worst deadline is shown."""
    if not pairs:
        return []
    gaps = [paired_difference(a, b, by_seed=same_trainings(*rows)) for _, a, b in pairs]
    worse = [name for gap, (name, *_) in zip(gaps, pairs, strict=True) if gap.value < 0 and gap.p <= 0.05 / len(pairs)]
    better = sum(gap.low > 0 for gap in gaps)
    open_gaps = [gap for gap in gaps if gap.low <= 0 and gap.verdict != "equivalent"]
    verdict: Verdict = (
        "holds" if better == len(pairs) else "fails" if worse else "undecided" if open_gaps else "equivalent"
    )
    least = int(np.argmin([gap.value for gap in gaps]))
    most = int(np.argmax([gap.value for gap in gaps]))
    note = (
        f"better at {better} of {len(pairs)} deadlines, worse at {len(worse)}"
        f"{' (' + ', '.join(worse) + ')' if worse else ''}; shown is the least, at {pairs[least][0]}; "
        f"the largest is {100 * gaps[most].value:+.1f} at {pairs[most][0]}"
    )
    if verdict == "undecided":
        needed = [gap.seeds_needed for gap in open_gaps]
        known = [number for number in needed if number is not None]
        note += (
            f"; about {max(known)} seeds would decide every deadline"
            if len(known) == len(needed)
            else f"; {len(open_gaps)} open, of which {len(known)} would be decided by up to {MOST_SEEDS} seeds"
        )
    return [finding(evidence, axis, what, rows, gaps[least], verdict, note)]


def deadlines(evidence: Evidence, axis: str) -> list[tuple[str, float]]:
    """(name, deadline): every tick of the reference, or shares of its full answer on the other axes."""
    if axis == "ticks":
        full = round(evidence.full("ticks"))
        return [(f"tick {tick}", tick / full) for tick in range(1, full + 1)]
    return [(f"{share:g}x", share) for share in DEADLINES]

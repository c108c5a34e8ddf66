"""The paper's claims, each with what it reported and a rule that turns records into a verdict.

A ``Claim`` judges one task's ``Evidence`` and gives ``Finding``s: what was compared, on which axis, the difference in
points with its 95 % interval, and ``holds``, ``fails`` or ``undecided``. The rules are fixed here, before any record is
read:

- one comparison holds if its 95 % interval (over images and seeds) lies on the claimed side of 0,
  fails if it lies on the other side, and is undecided otherwise;
- a claim about *every* deadline holds if every single interval lies on the claimed side, and fails if one lies on the
  other side at level 1 - 0.05 / (number of deadlines), so that many deadlines do not make a failure likely by chance.

Sources: Iuzzolino, Mozer and Bengio, NeurIPS 2021 (figures); Kaya et al., ICML 2019 for SDN; Huang et al., ICLR 2018
for MSDNet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from anytime_bench.scores.verdicts import Difference, paired_difference
from anytime_bench.trace.axes import AXES
from baselines.reproduction.evidence import Evidence, Floats, Row

Verdict = Literal["holds", "fails", "undecided"]
#: Deadlines in multiples of the reference's full answer, on the axes that are not counted in ticks.
DEADLINES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
#: What the cascade may stay behind the serial net: the largest of the three reported gaps.
KEPT = 0.011
#: What lambda = 1 is reported to cost in final accuracy.
LAMBDA_COST = (0.05, 0.07)
SMALL_LAMBDAS = (0.0, 0.25, 0.5)


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


def side(low: float, high: float, claimed: int = 1) -> Verdict:
    """The verdict on an interval that is claimed to be above (+1) or below (-1) 0.

    >>> side(0.1, 0.2), side(-0.2, -0.1), side(-0.1, 0.1), side(-0.2, -0.1, claimed=-1)
    ('holds', 'fails', 'undecided', 'holds')
    """
    if claimed < 0:
        low, high = -high, -low
    return "holds" if low > 0 else "fails" if high < 0 else "undecided"


def finding(
    evidence: Evidence, axis: str, what: str, rows: Sequence[Row], found: Difference, verdict: Verdict, note: str = ""
) -> Finding:
    """A ``Finding`` in points from a difference of shares."""
    seeds = " and ".join(str(count) for count in sorted({row.seeds for row in rows}))
    points = (100 * found.value, 100 * found.low, 100 * found.high)
    return Finding(
        evidence.task,
        AXES[axis].title if axis in AXES else axis,
        what,
        verdict,
        *points,
        seeds,
        rows[0].correct.shape[2],
        note,
    )


def compared(
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
    found = paired_difference(tables[0], tables[1])
    return [finding(evidence, axis, what, rows, found, side(found.low, found.high, claimed))]


def every_deadline(
    evidence: Evidence, axis: str, what: str, rows: tuple[Row, Row], pairs: Sequence[tuple[str, Floats, Floats]]
) -> list[Finding]:
    """First better than second in each of ``pairs`` (deadline, first, second); the worst deadline is shown."""
    if not pairs:
        return []
    plain = [paired_difference(a, b) for _, a, b in pairs]
    worse = [name for d, (name, *_) in zip(plain, pairs, strict=True) if d.value < 0 and d.p <= 0.05 / len(pairs)]
    better = sum(each.low > 0 for each in plain)
    verdict: Verdict = "holds" if better == len(pairs) else "fails" if worse else "undecided"
    worst = int(np.argmin([d.value for d in plain]))
    best = int(np.argmax([d.value for d in plain]))
    note = (
        f"better at {better} of {len(pairs)} deadlines, worse at {len(worse)}"
        f"{' (' + ', '.join(worse) + ')' if worse else ''}; shown is the least, at {pairs[worst][0]}; "
        f"the largest is {100 * plain[best].value:+.1f} at {pairs[best][0]}"
    )
    return [finding(evidence, axis, what, rows, plain[worst], verdict, note)]


def deadlines(evidence: Evidence, axis: str) -> list[tuple[str, float]]:
    """(name, deadline): every tick of the reference, or shares of its full answer on the other axes."""
    if axis == "ticks":
        full = round(evidence.full("ticks"))
        return [(f"tick {tick}", tick / full) for tick in range(1, full + 1)]
    return [(f"{share:g}x", share) for share in DEADLINES]


def td_beats_cross_entropy(evidence: Evidence) -> list[Finding]:
    found = []
    for ours, theirs in (("cascaded_td", "cascaded_ce"), ("serial_td", "serial_ce")):
        a, b = evidence.row(ours), evidence.row(theirs)
        if a is None or b is None:
            continue
        exits = range(min(a.correct.shape[1], b.correct.shape[1]) - 1)
        pairs = [(f"tick {k + 1}", a.exit(k), b.exit(k)) for k in exits]
        found += every_deadline(evidence, "all axes", f"{ours} - {theirs}", (a, b), pairs)
    return found


def cascade_beats_sdn(evidence: Evidence) -> list[Finding]:
    found: list[Finding] = []
    cascade = evidence.row("cascaded_td")
    for rival in ("serial_td_multihead", "sdn"):
        other = evidence.row(rival)
        if cascade is None or other is None:
            continue
        for axis in evidence.axes:
            pairs = []
            for name, deadline in deadlines(evidence, axis):
                a, b = cascade.owned(axis, deadline), other.owned(axis, deadline)
                if a is not None and b is not None:
                    pairs.append((name, a, b))
            found += every_deadline(evidence, axis, f"cascaded_td - {rival}", (cascade, other), pairs)
    return found


def heads(evidence: Evidence) -> list[Finding]:
    found: list[Finding] = []
    for kind, claimed in (("serial", 1), ("cascaded", -1)):
        many, one = evidence.row(f"{kind}_td_multihead"), evidence.row(f"{kind}_td")
        if many is None or one is None:
            continue
        what = f"{kind}_td_multihead - {kind}_td"
        last = (many.exit(-1), one.exit(-1))
        found += compared(evidence, "final", f"{what}, last exit", (many, one), last, claimed)
        areas = (many.area("ticks", 1.0), one.area("ticks", 1.0))
        found += compared(evidence, "ticks", f"{what}, AUC@1", (many, one), areas, claimed)
    return found


def cascade_keeps_accuracy(evidence: Evidence) -> list[Finding]:
    a, b = evidence.row("cascaded_td"), evidence.row("serial_ce")
    if a is None or b is None:
        return []
    found = paired_difference(a.exit(-1), b.exit(-1))
    verdict = side(found.low + KEPT, found.high + KEPT)
    return [finding(evidence, "final", "cascaded_td - serial_ce, last exit", (a, b), found, verdict)]


def lambda_costs(evidence: Evidence) -> list[Finding]:
    usual = evidence.row("cascaded_td")
    found: list[Finding] = []
    for rows in evidence.lambdas("cascaded_td"):
        if usual is not None and 0.0 in rows and 1.0 in rows:
            changed = ", ".join(f"{key} {value}" for key, value in rows[0.0].changed(usual).items())
            found += _lambda_costs(evidence, rows, f" ({changed})" if changed else "")
    return found


def _lambda_costs(evidence: Evidence, rows: dict[float, Row], recipe: str) -> list[Finding]:
    """The findings of one sweep; ``recipe`` says in what its recipe differs from the usual one."""
    one, zero = rows[1.0], rows[0.0]
    lost = paired_difference(one.exit(-1), zero.exit(-1))
    least, most = LAMBDA_COST
    outside = lost.low > -least or lost.high < -most
    verdict: Verdict = "fails" if outside else "holds" if lost.high < 0 else "undecided"
    told = f"lambda 1 - lambda 0, last exit{recipe}"
    found = [finding(evidence, "final", told, (one, zero), lost, verdict, "reported: -5 to -7")]
    small = [rows[lam] for lam in SMALL_LAMBDAS if lam in rows]
    what = f"lambda {', '.join(f'{lam:g}' for lam in SMALL_LAMBDAS if lam in rows)} (mean) - lambda 1{recipe}"
    scores: tuple[tuple[str, str, Callable[[Row], Floats | None]], ...] = (
        ("final", "last exit", lambda row: row.exit(-1)),
        ("ticks", "AUC@1", lambda row: row.area("ticks", 1.0)),
    )
    for axis, score, of in scores:
        tables = [table for row in small if (table := of(row)) is not None]
        # As many seeds of each lambda as the one with fewest has.
        fewest = min(map(len, tables))
        mean = np.mean([table[:fewest] for table in tables], axis=0)
        found += compared(
            evidence, axis, f"{what}, {score}", (min(small, key=lambda row: row.seeds), one), (mean, of(one))
        )
    return found


CLAIMS = (
    Claim(
        "TD training beats cross-entropy at every deadline",
        "CIFAR-10, cascade, ticks 2 to 8 (0-based mean step 1 to 7): 10.0 48.2 77.8 91.1 91.5 91.5 91.5 against "
        "10.0 10.2 10.3 11.5 33.4 62.8 77.3 %",
        "Exit by exit, without the last one, where the paper's own numbers favour cross-entropy. Both rows are the "
        "same network, so ticks, MACs and time are the same axis up to its scale.",
        td_beats_cross_entropy,
    ),
    Claim(
        "The cascade beats SDN at every deadline",
        "CIFAR-10, mean step 1 to 8: 10.0 48.2 77.8 91.1 91.5 91.5 91.5 91.5 against SerialTD-MultiHead's "
        "11.6 34.0 58.8 81.2 89.9 90.4 90.3 90.3 %, on ticks alone",
        "The answer owned at every tick, and at 0.25 to 2 times the serial net's MACs and latency. The paper's SDN is "
        "serial_td_multihead; sdn is the published recipe of Kaya et al.",
        cascade_beats_sdn,
    ),
    Claim(
        "Several heads help the serial net and hurt the cascade",
        "Final accuracy on CIFAR-10: serial 87.2 to 90.3 %, cascade 91.5 to 90.0 %",
        "Claimed above 0 for the serial net and below 0 for the cascade.",
        heads,
    ),
    Claim(
        "The cascade keeps about the serial net's accuracy",
        "0.4, 1.1 and 1.0 points below on CIFAR-10, CIFAR-100 and TinyImageNet",
        "Holds if the interval lies above -1.1 points, the largest gap reported; fails if it lies below.",
        cascade_keeps_accuracy,
    ),
    Claim(
        "Lambda = 1 costs 5 to 7 points of final accuracy; small to middle lambda is best",
        "5 to 7 points",
        "The first line holds if the interval is below 0 and meets [-7, -5], and fails if it misses [-7, -5].",
        lambda_costs,
    ),
)

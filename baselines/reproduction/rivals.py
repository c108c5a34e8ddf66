"""Claims of the other papers: Shallow-Deep Networks, MSDNet, BoostNet, Zero Time Waste, and of mixed training.

Sources: Kaya, Hong and Dumitras, ICML 2019; Huang et al., ICLR 2018; Yu et al., AAAI 2023; Wolczyk et al., NeurIPS
2021; for joint, disjoint and mixed training the finding of 2025 that each of the first two is suboptimal. The rules are
those of ``findings``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from anytime_bench.analysis.answers import read_answers
from anytime_bench.trace.answers import Array
from baselines.reproduction.evidence import Evidence, Floats
from baselines.reproduction.findings import Claim, Finding, deadlines, every_deadline, judge

#: Of the exits, those that are late: the last half.
LATE = 0.5
Judge = Callable[[Evidence], list[Finding]]


def last_exit(ours: str, theirs: str) -> Judge:
    """Claims the last exit of ``ours`` to be above that of ``theirs``."""

    def judged(evidence: Evidence) -> list[Finding]:
        a, b = evidence.row(ours), evidence.row(theirs)
        if a is None or b is None:
            return []
        return judge(evidence, "final", f"{ours} - {theirs}, last exit", (a, b), (a.exit(-1), b.exit(-1)))

    return judged


def late_exits(ours: str, theirs: str) -> Judge:
    """Claims each late exit of ``ours`` to be above that of ``theirs``; both have as many exits."""

    def judged(evidence: Evidence) -> list[Finding]:
        a, b = evidence.row(ours), evidence.row(theirs)
        if a is None or b is None or a.correct.shape[1] != b.correct.shape[1]:
            return []
        exits = a.correct.shape[1]
        pairs = [(f"exit {k + 1}", a.exit(k), b.exit(k)) for k in range(int(exits * LATE), exits)]
        return every_deadline(evidence, "exits", f"{ours} - {theirs}, late exits", (a, b), pairs)

    return judged


def areas(ours: str, theirs: str, axes: tuple[str, ...] = ("macs", "latency")) -> Judge:
    """Claims AUC@1 of ``ours`` to be above that of ``theirs``."""

    def judged(evidence: Evidence) -> list[Finding]:
        a, b = evidence.row(ours), evidence.row(theirs)
        findings: list[Finding] = []
        if a is not None and b is not None:
            for axis in axes:
                tables = (a.area(axis, 1.0), b.area(axis, 1.0))
                findings += judge(evidence, axis, f"{ours} - {theirs}, AUC@1", (a, b), tables)
        return findings

    return judged


def at_every_budget(ours: str, theirs: str) -> Judge:
    """Claims ``ours`` to be ahead of ``theirs`` at every budget in MACs."""

    def judged(evidence: Evidence) -> list[Finding]:
        a, b = evidence.row(ours), evidence.row(theirs)
        if a is None or b is None:
            return []
        pairs = []
        for name, deadline in deadlines(evidence, "macs"):
            first, second = a.owned("macs", deadline), b.owned("macs", deadline)
            if first is not None and second is not None:
                pairs.append((name, first, second))
        return every_deadline(evidence, "macs", f"{ours} - {theirs}", (a, b), pairs)

    return judged


def both(*judges: Judge) -> Judge:
    """The findings of all ``judges``."""
    return lambda evidence: [each for judged in judges for each in judged(evidence)]


def overthinking(evidence: Evidence) -> list[Finding]:
    """The first exit that is right, if any is, against the last exit: what a perfect stopping rule would gain."""
    row = evidence.row("sdn")
    if row is None:
        return []
    perfect: Floats = row.correct.max(axis=1)
    return judge(evidence, "exits", "sdn, any exit right - last exit", (row, row), (perfect, row.exit(-1)))


def half_the_cost(evidence: Evidence) -> list[Finding]:
    """Stopping by confidence at half of the reference's MACs, as chosen on validation, against the last exit."""
    row = evidence.row("sdn")
    if row is None:
        return []
    stopped = [_stopped(evidence, number) for number in range(row.seeds)]
    known = [each for each in stopped if each is not None]
    if len(known) < row.seeds:
        return []
    what = "sdn, stopped by confidence at half of the MACs - last exit"
    return judge(evidence, "macs", what, (row, row), (np.stack(known), row.exit(-1)))


def _stopped(evidence: Evidence, number: int) -> Floats | None:
    """Correctness ``(N,)`` under the largest confidence threshold that spends at most half on validation."""
    row = evidence.row("sdn")
    costs = None if row is None else row.costs("macs")
    if row is None or costs is None:
        return None
    entry = row.entries[number]
    if entry.diverged:
        return row.correct[number, -1]
    answers = read_answers(entry.path, entry.record)
    affordable = [
        threshold
        for threshold in np.linspace(0, 1, 101)
        if costs[number][_first_confident(answers.val.confidence, threshold)].mean() <= 0.5
    ]
    if not affordable:
        return None
    exits = _first_confident(answers.test.confidence, max(affordable))
    return row.correct[number][exits, np.arange(row.correct.shape[2])]


def _first_confident(confidence: Array, threshold: float) -> NDArray[np.intp]:
    """The first exit whose confidence ``(E, N)`` reaches ``threshold``, else the last, ``(N,)``."""
    reached = np.asarray(confidence, dtype=np.float64) >= threshold
    reached[-1] = True
    return np.argmax(reached, axis=0)


SDN = (
    Claim(
        "Later layers overthink",
        "a right early answer is lost at the end, or was there long before",
        "Images that some exit of sdn answers rightly, less those that its last one does. It cannot be negative; what "
        "counts is the size.",
        overthinking,
    ),
    Claim(
        "Stopping early halves the cost and keeps the accuracy",
        "confidence exits cut the mean cost by more than half and keep the accuracy",
        "The largest confidence threshold that spends at most half of the reference's MACs on the validation split, on "
        "the test split, less the last exit. Equivalent is as good as claimed.",
        half_the_cost,
    ),
    Claim(
        "Training with internal classifiers does not harm the network",
        "said of fine-tuned and jointly trained networks; no number that can be compared",
        "The last exit of sdn less that of serial_ce.",
        last_exit("sdn", "serial_ce"),
    ),
    Claim(
        "Mixed training beats joint and frozen training",
        "training the network alone first, then everything together, beats both joint and disjoint training",
        "AUC@1 on MACs and latency: sdn/mixed, which starts from serial_ce's weights and trains everything, less sdn "
        "and less sdn_ic_only.",
        both(areas("sdn/mixed", "sdn"), areas("sdn/mixed", "sdn_ic_only")),
    ),
)
MSDNET = (
    Claim(
        "MSDNet beats an ensemble of ResNets at every budget",
        "more accurate at every budget than a row of independent nets of growing size",
        "The answer owned at 0.25 to 2 times the reference's MACs, msdnet less ensemble.",
        at_every_budget("msdnet", "ensemble"),
    ),
    Claim(
        "MSDNet beats a ResNet with several classifiers at every budget",
        "more accurate at every budget than ResNets with exits",
        "The answer owned at 0.25 to 2 times the reference's MACs, msdnet less sdn.",
        at_every_budget("msdnet", "sdn"),
    ),
    Claim(
        "Early classifiers harm the last one of a ResNet, not of an MSDNet",
        "early classifiers of a dense network do not cost its last one accuracy",
        "The last exit of msdnet less that of sdn; MSDNet's network is another one, so this shows the sum of both.",
        last_exit("msdnet", "sdn"),
    ),
)
BOOSTNET = (
    Claim(
        "Boosted training is better at late exits",
        "better in anytime mode than its network trained jointly, most of all at late exits",
        "Each of the last half of the exits, boostnet less msdnet, the same network.",
        late_exits("boostnet", "msdnet"),
    ),
    Claim(
        "Boosted training is better over all deadlines",
        "better in anytime mode than its network trained jointly",
        "AUC@1 on MACs and latency, boostnet less msdnet.",
        areas("boostnet", "msdnet"),
    ),
)
ZTW = (
    Claim(
        "Zero Time Waste beats frozen exits at every budget",
        "a better accuracy-cost curve than independent heads on the same frozen network",
        "The answer owned at 0.25 to 2 times the reference's MACs, ztw less sdn_ic_only; both on serial_ce's frozen "
        "weights.",
        at_every_budget("ztw", "sdn_ic_only"),
    ),
    Claim(
        "What earlier exits said helps",
        "heads that reuse earlier heads' answers, and their ensemble, give a better curve",
        "AUC@1 on MACs and latency, ztw less sdn_ic_only.",
        areas("ztw", "sdn_ic_only"),
    ),
)

"""Claims about what happens between the exits: under noise, on typical images, and when the trace decides to stop.

The rules are those of ``findings``. Noise is read from the records' stored correctness bits; typicality and the learned
stopping rule are ``anytime_bench.analysis.readings``, on the records' traces.
"""

from __future__ import annotations

import numpy as np

from anytime_bench.analysis import readings
from anytime_bench.analysis.answers import read_answers, trace_on_test
from anytime_bench.analysis.learned_stopping import rule_difference
from anytime_bench.analysis.results import RULES, LearnedStopping
from anytime_bench.analysis.typicality import response_against_typicality
from baselines.reproduction.evidence import Evidence
from baselines.reproduction.findings import Claim, Finding, judge, side
from baselines.reproduction.learned import with_learned


def robustness(evidence: Evidence) -> list[Finding]:
    """Persistent noise: accuracy under noise, and what noise takes away, of the answer to one frame."""
    a, b = evidence.row("cascaded_td"), evidence.row("serial_ce")
    if a is None or b is None:
        return []
    findings: list[Finding] = []
    noisy = [row.under_noise("persistent", "onset") for row in (a, b)]
    clean = [row.under_noise("clean", "onset") for row in (a, b)]
    if any(table is None for table in (*noisy, *clean)):
        return []
    findings += judge(evidence, "final", "persistent noise, accuracy", (a, b), (noisy[0], noisy[1]))
    kept = tuple(n - c for n, c in zip(noisy, clean, strict=True) if n is not None and c is not None)
    what = "persistent noise, accuracy under noise less clean accuracy"
    return findings + judge(evidence, "final", what, (a, b), (kept[0], kept[1]))


def watching(evidence: Evidence) -> list[Finding]:
    """A new noisy frame every tick: the cascade on the fly against the serial net on the same frames."""
    a, b = evidence.row("cascaded_td"), evidence.row("serial_ce")
    mode = "transient_1"
    if a is None or b is None:
        return []
    findings: list[Finding] = []
    for policy in ("watch", "watch_mean"):
        ours = a.under_noise(mode, policy)
        ticks, macs = (a.spent_under_noise(mode, policy, axis) for axis in ("ticks", "macs"))
        if ours is None or ticks is None or macs is None:
            continue
        rivals = (
            ("equal hardware, when the cascade is done", "pipelined_mean", "ticks", ticks),
            ("equal hardware, when the serial net is done too", "pipelined_mean", "ticks", np.inf),
            ("equal MACs", "restart_mean", "macs", macs),
        )
        for when, against, axis, budget in rivals:
            theirs = b.under_noise(mode, against, axis=axis, budget=budget)
            what = f"{when}: {policy} - {against}"
            findings += judge(evidence, axis, what, (a, b), (ours, theirs))
    return findings


def typical_first(evidence: Evidence) -> list[Finding]:
    """Spearman's correlation of response time and typicality; the interval reaches over those of all seeds."""
    row = evidence.row("cascaded_td")
    references = evidence.row("serial_ce")
    if row is None or references is None:
        return []
    traces = {entry.seed: trace_on_test(entry.path, entry.record) for entry in references.trained}
    correlations = []
    for entry in row.trained:
        others = [trace for seed, trace in traces.items() if seed != entry.seed]
        if others:
            correlations.append(response_against_typicality(trace_on_test(entry.path, entry.record), others))
    known = [each for each in correlations if np.isfinite(each.value)]
    if not known:
        return []
    value = float(np.mean([each.value for each in known]))
    low, high = min(each.low for each in known), max(each.high for each in known)
    what = "Spearman's correlation of response time and typicality, cascaded_td"
    note = "mean over seeds; from the lowest to the highest bound of any seed"
    numbers = (value, low, high)
    images = row.correct.shape[2]
    return [
        Finding(
            evidence.task,
            "exits",
            what,
            side(low, high, -1),
            *numbers,
            str(len(row.trained)),
            images,
            note,
            "correlation",
        )
    ]


def trace_stops(evidence: Evidence) -> list[Finding]:
    """The GRU on the trace against a confidence threshold that spends exactly as much, in MACs."""
    row = evidence.row("cascaded_td")
    if row is None:
        return []
    tables = []
    for entry in row.trained:
        result = readings.read_stopping(with_learned(read_answers(entry.path, entry.record)))
        if not isinstance(result, LearnedStopping):
            return []
        tables.append(result.expected)
    findings = []
    for budget in tables[0]:
        if not all(budget in table for table in tables):
            continue
        gru, bare = (np.stack([table[budget][rule] for table in tables]) for rule in RULES)
        gap = rule_difference(gru, bare)
        verdict = side(gap.low, gap.high)
        value, low, high = (100 * end for end in (gap.value, gap.low, gap.high))
        what = f"GRU - confidence at {budget} % of the serial net's MACs"
        findings.append(
            Finding(evidence.task, "MACs", what, verdict, value, low, high, str(len(row.trained)), gru.shape[1])
        )
    return findings


CLAIMS = (
    Claim(
        "The cascade is more robust to persistent noise",
        "said of six kinds; no number that can be compared",
        "cascaded_td - serial_ce, mean over kinds and severities, one noisy frame, last exit. The first line is what a "
        "user sees, the second what noise alone does.",
        robustness,
    ),
    Claim(
        "The cascade is more robust to transient noise",
        "said of six kinds; no number that can be compared",
        "cascaded_td follows a new noisy frame every tick (watch; watch_mean averages its answers). Equal hardware: "
        "the serial net with as many frames in flight as it is deep, averaged: it runs the same blocks in a tick as "
        "the cascade, so equal ticks are equal time on any number of lanes. Equal MACs: one full pass after another, "
        "averaged, until it has spent the cascade's MACs.",
        watching,
    ),
    Claim(
        "Typical images are answered earlier",
        "said of CIFAR-10; no number that can be compared",
        "Typicality is the mean probability that serial nets of other seeds give the true class; response time the "
        "first exit with confidence of at least 0.9. Claimed below 0.",
        typical_first,
    ),
    Claim(
        "Reading the trace stops better than a confidence threshold",
        "not in the paper's figures; asked of this suite",
        "A GRU on confidence, spread and changes of the answers so far, trained on half of the validation split, "
        "against a confidence threshold; both spend the same MACs on the test split. Positive: the GRU is better.",
        trace_stops,
    ),
)

"""What stopping does: rules simulated on stored answers, and one rule run for real against the clock. Means over seeds.

Costs of simulated rules are multiples of the reference's full MACs. A real stop is judged against the row's own full
run at the same batch size: the share of time it saves, and the accuracy it costs on the same images. Full runs are
timed in turn with those that stop; in older records they were timed in a session of their own, which is said.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anytime_bench.harness.timing_block import EarlyStopTiming
from anytime_bench.leaderboard.row_parts import RealStop, StoppingCurve, mean_digits, mean_share, share
from anytime_bench.leaderboard.speed import over_seeds
from anytime_bench.records.record import Record

#: What a reader calls a record's rules.
RULES = {"confidence": "confidence threshold"}


def stopping_curves(records: Sequence[Record]) -> dict[str, StoppingCurve]:
    """Accuracy over mean cost of each simulated rule.

    Thresholds are the same for every seed, so curves are averaged point by point; a rule that some seed lacks is left
    out.
    """
    parts = [record.stopping for record in records if record.stopping]
    if len(parts) < len(records):
        return {}
    curves = {
        RULES.get(rule, rule.replace("_", " ")): _curve([(p.curves[rule].cost, p.curves[rule].accuracy) for p in parts])
        for rule in parts[0].curves
        if all(rule in part.curves for part in parts)
    }
    curves["oracle"] = _curve([([part.oracle.cost], [part.oracle.accuracy.value]) for part in parts])
    return curves


def _curve(by_seed: Sequence[tuple[Sequence[float], Sequence[float]]]) -> StoppingCurve:
    cost, accuracy = (np.mean([pair[part] for pair in by_seed], axis=0) for part in (0, 1))
    return StoppingCurve(cost=[share(value) for value in cost], accuracy=[share(value) for value in accuracy])


def real_stops(records: Sequence[Record], timed: bool = True) -> list[RealStop]:
    """One entry per batch size and rule that every seed was stopped by; none for a single exit, which leaves no choice.

    ``timed`` says whether the row's times are comparable; without that no time is shown. Stopping runs a model's own
    Python; where full runs were timed otherwise, as graphs say, the two do not compare.
    """
    if any(len(record.exits) == 1 for record in records):
        return []
    by_seed = [{(s.batch_size, s.policy): s for s in _comparable_stops(record)} for record in records]
    places = [place for place in by_seed[0] if all(place in stops for stops in by_seed)] if by_seed else []
    return [_real_stop(place, [stops[place] for stops in by_seed], records, timed) for place in sorted(places)]


def _comparable_stops(record: Record) -> list[EarlyStopTiming]:
    meta = record.timing.meta if record.timing else None
    return [stop for stop in meta.early_stop if meta.engine in ("", stop.engine)] if meta else []


def _real_stop(
    place: tuple[int, str], stops: Sequence[EarlyStopTiming], records: Sequence[Record], timed: bool
) -> RealStop:
    batch, rule = place
    apart = [_full_seconds(record, batch) for record in records]
    full = [own if stop.full is None else stop.full.mean for stop, (own, _) in zip(stops, apart, strict=True)]
    seconds = [stop.latency.mean for stop in stops]
    changes = [s.accuracy - s.final_accuracy for s in stops if s.final_accuracy is not None]
    return RealStop(
        batch=batch,
        rule=rule,
        real=all(stop.stop == "real" for stop in stops),
        images=min(stop.images for stop in stops),
        saved=over_seeds([1 - took / own for took, own in zip(seconds, full, strict=True)]) if timed else None,
        times_reference=mean_digits([took / ref for took, (_, ref) in zip(seconds, apart, strict=True)])
        if timed
        else None,
        beside=all(stop.full is not None for stop in stops),
        deciding=mean_share([stop.policy_share for stop in stops]),
        accuracy=mean_share([stop.accuracy for stop in stops]),
        change=over_seeds(changes) if len(changes) == len(stops) else None,
        mean_exit=mean_digits([stop.mean_exit for stop in stops]),
    )


def _full_seconds(record: Record, batch: int) -> tuple[float, float]:
    """Mean seconds of the row's own full run and of the reference's full answer, at one batch size."""
    assert record.timing is not None  # as one that was stopped has
    block = record.timing.batches[str(batch)].clocks["latency"]
    return block.run_through[-1].mean, block.reference_full.mean

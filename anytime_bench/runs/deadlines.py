"""An existing record's model interrupted at deadlines, or shown frames at a rate, from its stored weights.

The result is a record that supersedes it.
"""

from __future__ import annotations

from pathlib import Path

from anytime_bench.errors import UserError
from anytime_bench.harness.deadlines import DeadlineSettings
from anytime_bench.harness.streaming_clips import StreamingSettings
from anytime_bench.records import store
from anytime_bench.records.record import Record
from anytime_bench.records.scoring import derive_again
from anytime_bench.runs.display import Display
from anytime_bench.runs.plan import Plan
from anytime_bench.runs.rerun import plan_of, refuse_other_charges, weights_of
from anytime_bench.runs.stages import Arrays, deadline_stage, streaming_stage


def deadlines_on_record(
    path: Path,
    settings: DeadlineSettings | StreamingSettings,
    *,
    data_root: Path | None = None,
    device: str = "auto",
    out: Path | None = None,
    command: str = "",
    display: Display,
) -> Record:
    """Interrupt the record's model, or let frames arrive before it, and store a new record that supersedes it.

    ``out`` is the runs folder that holds the weights, by default the one in which the record lies. Raises ``UserError``
    where they are not there, or where this machine is of another device class: what is promised was timed there.
    """
    record = store.load(path)
    store.refuse_superseded(path, record, out)
    if isinstance(settings, StreamingSettings):
        refuse_other_charges(record, path)
    plan = plan_of(record, path, data_root=data_root, device=device, out=out)
    _same_device(plan, record, path)
    model = weights_of(plan, record)
    if isinstance(settings, StreamingSettings):
        clips, streaming_meta = streaming_stage(plan, model, settings, display)
        arrays = _others(path, record, "streaming_") | clips
        derived = derive_again(record, arrays, streaming_meta=streaming_meta)
    else:
        draws, deadline_meta = deadline_stage(plan, model, settings, display)
        arrays = _others(path, record, "deadlines_") | draws
        derived = derive_again(record, arrays, deadline_meta=deadline_meta)
    made = store.save_successor(plan.out, record, derived, arrays, command=command)
    display.say(f"record  {made}")
    return store.load(made)


def _same_device(plan: Plan, record: Record, path: Path) -> None:
    if plan.device_name != record.device:
        raise UserError(
            f"record '{path}' was made on {record.device}, this is {plan.device_name}: what it promises in ms was "
            "measured there. Give --device, or run the method here."
        )


def _others(path: Path, record: Record, kind: str) -> Arrays:
    """The record's arrays but for those of one kind, which are made anew."""
    return {name: a for name, a in store.load_arrays(path, record).items() if not name.startswith(kind)}


def read_rates(text: str) -> tuple[float, ...]:
    """Periods of frames: numbers with commas between them."""
    try:
        return tuple(float(each) for each in text.split(",") if each.strip())
    except ValueError:
        raise UserError(
            f"rates '{text}': expected periods in full answers of the reference with commas, such as 0.5,1,2."
        ) from None


def read_jitter(path: Path) -> tuple[float, ...]:
    """Deadlines to replay: a text file, one per line in multiples of the horizon; ``#`` begins a comment."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the deadlines in '{path}': {error}") from error
    values = []
    for number, line in enumerate(lines, 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        try:
            values.append(float(text))
        except ValueError:
            raise UserError(
                f"'{path}', line {number}: '{text}' is no number. Expected one deadline per line, in multiples of the "
                "horizon, such as 0.5."
            ) from None
    if not values:
        raise UserError(f"'{path}' holds no deadline. Expected one per line, in multiples of the horizon.")
    return tuple(values)

"""What a person sees while a run goes on: the plan, progress bars with time left, the table of exits.

Everything goes to standard error, so that standard output stays clean for ``--json``.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from anytime_bench.errors import TRACEBACK, traceback_wanted
from anytime_bench.records.record import Record
from anytime_bench.runs.plan import Plan
from anytime_bench.runs.progress import Steps, progress
from anytime_bench.training.loop import TrainingStep


class Display:
    """Prints to ``console``; ``quiet`` leaves only warnings. ``on_training_step`` hears of every step of training."""

    def __init__(
        self,
        console: Console | None = None,
        quiet: bool = False,
        on_training_step: Callable[[TrainingStep], None] = lambda step: None,
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.quiet = quiet
        self.on_training_step = on_training_step

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", soft_wrap=True, markup=False, style="yellow")

    def trace(self, error: BaseException) -> None:
        """The traceback of a method's own failure, where it was asked for; else how to ask."""
        if traceback_wanted():
            self.console.print("".join(traceback.format_exception(error)), markup=False, soft_wrap=True)
        else:
            self.say(f"--traceback (or {TRACEBACK}=1) shows the full traceback")

    def say(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, soft_wrap=True, markup=False)

    def plan(self, plan: Plan) -> None:
        """What is about to happen, before it happens."""
        if self.quiet:
            return
        card, resolved = plan.task.card, plan.resolved
        sizes = " / ".join(f"{card.sizes[key]:,}" for key in ("train", "val", "test"))
        lines = {"method": f"{resolved.name} from {resolved.origin}"}
        if resolved.options:
            lines["options"] = ", ".join(f"{key}={value}" for key, value in resolved.options.items())
        if resolved.weights_source is not None:
            verb = "evaluates" if resolved.method.weights_from else "starts from"
            lines["weights"] = f"{verb} those of {resolved.weights_source.name}"
        lines["task"] = f"{card.title}, {sizes} images (train / val / test), shape {card.shape}"
        lines["device"] = f"{plan.device_name}, seed {plan.seed}"
        if plan.skip:
            lines["skipped"] = plan.skip
        else:
            size = f"{plan.costs.parameters:,} parameters, {plan.costs.macs[-1] / 1e6:.2f} MMAC"
            ratio = plan.costs.macs[-1] / plan.reference_costs.macs_prefix[-1]
            lines["model"] = f"{len(plan.costs.ticks)} exits, {size} ({ratio:.2f} x {plan.reference.name})"
            if not resolved.method.weights_from:
                t = resolved.config.training
                cut = f"{t.train_images:,} of the images, " if t.train_images else ""
                recipe = f" (recipe {resolved.config.recipe_name})" if resolved.config.recipe_name else ""
                lines["training"] = f"{t.epochs} epochs, {cut}batch {t.batch_size}, lr {t.lr:g} {t.schedule}{recipe}"
        lines["output"] = str(shown(plan.folder.parent))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, line in lines.items():
            # Names and options are a plugin's: nothing in them is markup.
            table.add_row(name, Text(line, overflow="fold"))
        self.console.print(table)

    @contextlib.contextmanager
    def training(self, name: str, epochs: int) -> Iterator[Callable[[TrainingStep], None]]:
        """A bar with epoch, loss and validation accuracy of the first, middle and last exit."""
        with self.bar(f"train {name}", 1.0) as bar:

            def on_step(step: TrainingStep) -> None:
                loss = "" if step.loss is None else f" loss {step.loss:.3f}"
                last = len(step.accuracies) - 1
                picks = [step.accuracies[i] for i in sorted({0, last // 2, last})] if step.accuracies else []
                accuracy = " val " + " ".join(f"{100 * value:.0f}" for value in picks) + " %" if picks else ""
                bar.at(step.fraction, f"epoch {step.epoch}/{epochs}{loss}{accuracy}")
                self.on_training_step(step)

            yield on_step

    @contextlib.contextmanager
    def bar(self, title: str, total: float) -> Iterator[Steps]:
        """``advance(amount, note)`` or ``advance.at(done, note)`` for a stage of known length."""
        if self.quiet:
            yield Steps(title, total, lambda share, title, note: None)
        else:
            with progress(title, total, console=self.console, lines=True, transient=False) as steps:
                yield steps

    def result(self, record: Record, path: Path, next_command: str) -> None:
        """The table of exits, the scores, the record's path and what to type next."""
        if self.quiet:
            return
        if record.status != "ok":
            self.console.print(f"{record.status}: {record.reason}", soft_wrap=True, markup=False, style="red")
        else:
            self.console.print(exit_table(record))
            for line in score_lines(record):
                self.console.print(line, soft_wrap=True)
            for table in noise_tables(record).values():
                self.console.print(table)
        self.console.print(f"record  {shown(path)}", soft_wrap=True, markup=False)
        self.console.print(f"next    {next_command}", soft_wrap=True, markup=False)


def shown(path: Path) -> Path:
    """``path`` from the working directory where it lies below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def exit_table(record: Record) -> Table:
    """Exit, ticks, MACs, latency and accuracy with its interval; fits 100 columns."""
    latency = latency_per_exit(record)
    table = Table(
        title=f"{record.method.name} on {record.task.title}, seed {record.training.seed if record.training else 0}"
    )
    for name in ("exit", "ticks", "MACs", "latency", "accuracy", "95 % interval"):
        table.add_column(name, justify="right")
    for entry in record.exits:
        a = entry.accuracy
        time = f"{1e3 * latency[entry.k]:.2f} ms" if entry.k < len(latency) else "-"
        table.add_row(
            str(entry.k), f"{entry.ticks:g}", si(entry.macs), time, f"{100 * a.value:.2f} %",
            f"{100 * a.low:.2f} - {100 * a.high:.2f}",
        )  # fmt: skip
    return table


def noise_tables(record: Record, modes: tuple[str, ...] = ("persistent", "transient_1")) -> dict[str, Table]:
    """Per mode: policies down, clean and each kind across; final accuracy in % and, below it, the share kept."""
    rows = record.robustness.get("rows") or []
    tables = {}
    for mode in modes:
        chosen = [row for row in rows if row["mode"] == mode]
        kinds = list(dict.fromkeys(row["kind"] for row in chosen))
        # More columns than this do not fit 100 characters; the record and the report hold them all.
        for start in range(0, len(kinds), 7):
            part = kinds[start : start + 7]
            table = Table(title=f"{mode.replace('_', ', period ')} noise: final accuracy in %, share of clean kept")
            for name in ("policy", "clean", *part):
                table.add_column(name.replace("_", " "), justify="left" if name == "policy" else "right")
            for policy, clean in record.robustness["clean"].items():
                cells = {row["kind"]: row for row in chosen if row["policy"] == policy}
                shown = [f"{100 * cells[kind]['final_accuracy']['value']:.1f}\n{_kept(cells[kind])}" for kind in part]
                table.add_row(policy.replace("_", " "), f"{100 * clean['final_accuracy']['value']:.1f}", *shown)
            tables[f"{mode} {start}"] = table
    return tables


def _kept(cell: dict[str, Any]) -> str:
    kept = cell.get("kept")
    kept = kept.get("final_accuracy", kept) if isinstance(kept, dict) else kept
    value = kept.get("value") if isinstance(kept, dict) else kept
    return "" if value is None else f"{100 * value:.0f} %"


def latency_per_exit(record: Record) -> list[float]:
    """Median run-through latency per exit in seconds at batch 1; empty where nothing was timed."""
    rows: list[dict[str, Any]] = record.timing.get("run_through") or []
    return [float(row["p50"]) for row in rows]


def score_lines(record: Record) -> list[str]:
    """One line per cost axis: the areas under the anytime curve."""
    lines = []
    for axis, scores in {**record.scores, **record.timed_scores}.items():
        if not isinstance(scores, dict) or "auc_1" not in scores:
            continue
        parts = []
        for key, label in (("auc_1", "AUC@1"), ("auc_2", "AUC@2"), ("alc_1", "ALC@1")):
            if isinstance(scores.get(key), dict):
                s = scores[key]
                parts.append(f"{label} {100 * s['value']:.2f} % ({100 * s['low']:.2f} - {100 * s['high']:.2f})")
        lines.append(f"{axis:<12}{'   '.join(parts)}")
    return lines


def si(value: float) -> str:
    """``1234567`` -> ``1.23 M``."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.2f} {unit}"
    return f"{value:.0f}"

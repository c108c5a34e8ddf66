"""What a person sees while a run goes on: the plan, progress bars with time left, the table of exits.

Everything goes to standard error, so that standard output stays clean for ``--json``.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from anytime_bench.errors import TRACEBACK, traceback_wanted
from anytime_bench.harness.engines import chosen_engine
from anytime_bench.records.record import Record
from anytime_bench.runs.closing import can_draw, closing
from anytime_bench.runs.plan import Plan, ResolvedMethod
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
            lines["options"] = ", ".join(
                f"{key}={value}{_instead(resolved, key)}" for key, value in resolved.options.items()
            )
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
            if plan.device.type == "cuda" and resolved.config.evaluation.timing_rounds:
                engine = chosen_engine(resolved.config.evaluation.engine, plan.device)
                rest = f"; eagerly where method or reference cannot be run by {engine}"
                lines["timing"] = f"by engine {engine}" + (rest if engine != "eager" else "")
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
        """The exits with a small curve, the scores, the record's path and what to type next."""
        if self.quiet:
            return
        if record.status != "ok":
            self.console.print(f"{record.status}: {record.reason}", soft_wrap=True, markup=False, style="red")
        else:
            for part in closing(record, curve=can_draw(self.console)):
                self.console.print(part)
        self.console.print(f"record  {shown(path)}", soft_wrap=True, markup=False)
        if next_command:
            self.console.print(f"next    {next_command}", soft_wrap=True, markup=False)


def _instead(resolved: ResolvedMethod, key: str) -> str:
    """The method's own default of an option that the recipe sets to another value; empty for any other option."""
    own = {each.name: each.default for each in fields(resolved.method.Config) if each.default is not MISSING}
    stated = {key, f"options.{key}"} & resolved.overrides.keys() or key == resolved.method.variant_option
    recipe = resolved.config.recipe_name
    if stated or not recipe or key not in own or own[key] == getattr(resolved.config.options, key):
        return ""
    return f" (recipe {recipe}; own default {own[key]})"


def shown(path: Path) -> Path:
    """``path`` from the working directory where it lies below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

"""The command line: verbs only. Heavy modules are imported inside the commands, so ``--help`` and ``list`` are instant.

Exit status: 0 done; 1 the run failed (a record says why), a check found faults or a plugin broke off; 2 bad input or a
disk that cannot be written, one line says what; 3 a generated file differs from its sources; 130 interrupted.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from anytime_bench.cli import records
from anytime_bench.cli.analyse import analyse
from anytime_bench.cli.deadlines import deadlines
from anytime_bench.cli.options import DataRoot, Device, Json, Plugin, Verbs, command_line, load_plugins
from anytime_bench.cli.profile import profile
from anytime_bench.cli.run import check, noise, run
from anytime_bench.cli.span import span
from anytime_bench.cli.sweep import sweep
from anytime_bench.cli.tune import tune
from anytime_bench.errors import UserError, describe, did_you_mean, message, traceback_wanted
from anytime_bench.registry import Origin
from anytime_bench.runs.guard import guarded

app = Verbs(
    name="anytime-bench",
    help="The benchmark suite for anytime prediction: train, measure and score methods that can be interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

for verb in (run, noise, check):
    app.command()(verb)


@app.command(name="list")
def list_names(
    what: Annotated[str, typer.Argument(help="methods, tasks, corruptions, scores, or 'stopping rules'")] = "methods",
    plugin: Plugin = None,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Draw the corruptions into this PNG.")] = None,
    task: Annotated[str, typer.Option("--task", "-t", help="Whose images --sheet shows.")] = "digits",
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """List methods, tasks, corruptions, scores or stopping rules with where they come from."""
    kinds = ("methods", "tasks", "corruptions", "scores", "stopping rules")
    if what not in kinds:
        raise UserError(f"cannot list '{what}'.{did_you_mean(what, kinds)}")
    load_plugins(plugin)
    if what == "corruptions":
        from anytime_bench.corruptions.catalogue import KINDS

        header = ("name", "family", "what it does")
        rows = [(kind.name, str(kind.family), kind.summary) for kind in KINDS.values()]
        if sheet is not None:
            for path in _contact_sheets(task, data_root, sheet):
                print(path, file=sys.stderr)
    elif what in ("scores", "stopping rules"):
        from anytime_bench.cli.titles import rules_or_scores

        header = ("name", "title", "origin")
        rows = [(o.name, title, _origin(o)) for o, title in rules_or_scores(what)]
    else:
        from anytime_bench import registry
        from anytime_bench.cli.titles import titled

        header = ("name", "title", "origin")
        rows = [(o.name, title, _origin(o)) for o, title in titled(getattr(registry, what))]
    if as_json:
        print(json.dumps([dict(zip(header, row, strict=True)) for row in rows]))
        return
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header) - 1)]
    for row in (header, *rows):
        print("  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]))


def _origin(origin: Origin) -> str:
    return origin.file or f"{origin.distribution} {origin.version}".strip() or "this process"


@app.command()
def doctor(
    device: Device = "auto",
    self_test: Annotated[bool, typer.Option("--self-test", help="Time two copies of the reference (A/A).")] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="Everything that only a GPU can answer, in --minutes.")] = False,
    minutes: Annotated[float, typer.Option("--minutes", help="With --gpu: how long it may take.")] = 8.0,
    out: Annotated[Path, typer.Option("--out", help="With --gpu: the folder for its table and JSON.")] = Path(),
    as_json: Json = False,
) -> None:
    """Examine this machine: what is installed, and what each finding does to a measurement."""
    if gpu:
        raise typer.Exit(_examine_gpu(device, minutes, out))
    from anytime_bench.harness.environment import capture, findings
    from anytime_bench.runs.plan import pick_device

    place = pick_device(device)
    environment = capture(place, import_torchvision=True)
    results = findings(environment)
    report: dict[str, object] = {"environment": environment, "findings": [vars(finding) for finding in results]}
    if not as_json:
        for finding in results:
            print(f"{finding.level:<6}{finding.what}")
            if finding.effect:
                print(f"      -> {finding.effect}")
    failed = any(finding.level == "error" for finding in results)
    if self_test and not failed:
        from anytime_bench.harness.self_test import self_test as two_copies

        result = two_copies(place)
        report["self_test"] = result.model_dump()
        if not as_json:
            for key, value in result.model_dump().items():
                print(f"{key}: {value}")
    if as_json:
        print(json.dumps(report, default=str))
    if failed:
        raise typer.Exit(FAILED)


def _examine_gpu(device: str, minutes: float, out: Path) -> int:
    """The exit status of ``doctor --gpu``: 0 where everything that concerns correctness holds."""
    import torch

    if not torch.cuda.is_available():
        raise UserError("torch finds no CUDA device, so there is nothing to examine.")
    from anytime_bench.conformance.gpu_doctor import Scope, doctor_gpu
    from anytime_bench.runs.plan import pick_device

    holds = doctor_gpu(Scope(pick_device(device), minutes), out, lambda text: print(text, flush=True))
    return 0 if holds else FAILED


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The new method's name, such as two_exits.")],
    kind: Annotated[str, typer.Option(help="file or package")] = "file",
    folder: Annotated[Path, typer.Option("--folder", help="Where to write it.")] = Path(),
) -> None:
    """Write a working plugin: a file, or a package with entry point, test and README."""
    from anytime_bench.methods.scaffold import new_plugin

    paths = new_plugin(name, folder, kind=kind)
    for path in paths:
        print(path)
    print(f"next: anytime-bench check {paths[0]}" if kind == "file" else f"next: pip install -e {folder / name}")


records.mount(app)
for later in (analyse, span, deadlines, profile, sweep, tune):
    app.command()(later)


def _contact_sheets(task: str, data_root: Path | None, path: Path) -> list[Path]:
    """Both sheets on test images of ``task``: kinds and severities at ``path``, transient frames beside it."""
    from anytime_bench.corruptions.contact_sheet import contact_sheet, frame_sheet
    from anytime_bench.tasks.loading import load_task
    from anytime_bench.training.data import DeviceSplit

    loaded = load_task(task, data_root)
    images = DeviceSplit.place(loaded.splits["test"], loaded.card, "cpu").sample(8).normalised()
    frames = path.with_name(f"{path.stem}-frames{path.suffix}")
    return [contact_sheet(images, loaded.card, path), frame_sheet(images, loaded.card, frames)]


def main() -> NoReturn:
    """Entry point of the console script."""
    # A record is a large tree of small objects without cycles, which Python would search for some all the time.
    gc.set_threshold(100_000)
    try:
        with guarded(own_output=True):
            status = app(standalone_mode=False)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BaseException as error:
        closed = error.__context__ if isinstance(error, SystemExit) else error
        if isinstance(closed, BrokenPipeError):
            # Whoever read standard output has closed it, as ``head`` does, and rich makes an exit of that. What Python
            # would still flush has no reader.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            status = FAILED
        else:
            status = INTERRUPTED if isinstance(error, typer.Abort) else _explain(error)
    if status == INTERRUPTED:
        _say_how_to_resume()
    # Outside its standalone mode typer returns the status of typer.Exit instead of raising it.
    _leave(status if isinstance(status, int) else 0)


def _leave(status: int) -> NoReturn:
    """End the process with ``status``, whatever a plugin made of ``sys.exit`` and whichever threads it left behind."""
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        print("note: a plugin's thread goes on; it is ended", file=sys.stderr, flush=True)
        os._exit(status)
    raise SystemExit(status)


def _explain(error: BaseException) -> int:
    """One line about ``error``, whatever a library put into its message, and the exit status."""
    if traceback_wanted():
        traceback.print_exception(error)
    status = BAD_INPUT
    if isinstance(error, UserError):
        line = message(error)
    elif type(error).__name__ == "NoArgsIsHelpError":
        print(error.ctx.get_help(), file=sys.stderr)  # type: ignore[attr-defined]
        return status
    elif hasattr(error, "format_message"):
        # A usage error of the command-line library itself.
        line = f"{error.format_message().rstrip('.')}. See anytime-bench --help."
    elif isinstance(error, OSError) and error.filename is not None:
        line = f"cannot read or write '{error.filename}': {error.strerror or message(error)}."
    elif isinstance(error, SystemExit):
        line, status = f"a plugin ended the process with status {error.code} ({describe(error)}).", FAILED
    else:
        line, status = f"{describe(error)} (--traceback shows the whole way there)", FAILED
    print(f"error: {line}", file=sys.stderr)
    return status


def _say_how_to_resume() -> None:
    """What is left of an interrupted verb, and the command that goes on from it, where there is one."""
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    command = command_line()
    if verb == "run":
        again = command if "--resume" in sys.argv else f"{command} --resume"
        left = f" the last finished epoch is stored. Resume with:\n  {again}"
    elif verb == "sweep":
        left = f" finished runs and epochs are stored. Go on with:\n  {command}"
    else:
        left = " nothing half-written is left."
    print(f"\ninterrupted;{left}", file=sys.stderr)

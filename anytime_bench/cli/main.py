"""The command line: verbs only. Heavy modules are imported inside the commands, so ``--help`` and ``list`` are instant.

Exit status: 0 done; 1 the run failed (a record says why) or a check found faults; 2 bad input, one line says what;
3 a generated file differs from its sources; 130 interrupted.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from anytime_bench.cli import analyse as cli_read
from anytime_bench.cli import records as cli_board
from anytime_bench.cli import sweep as cli_sweep
from anytime_bench.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from anytime_bench.runs.display import Display

app = typer.Typer(
    name="anytime-bench",
    help="The benchmark suite for anytime prediction: train, measure and score methods that can be interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130

Plugin = Annotated[list[str] | None, typer.Option("--plugin", help="A .py file or module that defines a Method.")]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Where the task's files lie.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for checkpoints and records.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:0.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")]


@app.command()
def run(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as epochs=5 or options.lam=0.5")
    ] = None,
    method: Annotated[str, typer.Option("--method", "-m", help="A name from `anytime-bench list methods`.")] = "",
    task: Annotated[str, typer.Option("--task", "-t", help="A name from `anytime-bench list tasks`.")] = "digits",
    seed: Annotated[int, typer.Option(help="Weights, order and augmentation follow from it; the split does not.")] = 0,
    device: Device = "auto",
    plugin: Plugin = None,
    data_root: DataRoot = None,
    out: Out = Path("runs"),
    recipe: Annotated[str | None, typer.Option(help="A recipe's name or file instead of the task's own.")] = None,
    noise: Annotated[str | None, typer.Option(help="none, paper, common, all, or kinds separated by commas.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of the same run.")] = False,
    as_json: Json = False,
) -> None:
    """Train, measure and score one method on one task, and write its record."""
    _load_plugins(plugin)
    if not method:
        from anytime_bench.registry import methods

        raise UserError(f"which method? Give one with --method. Known: {', '.join(methods.names())}.")
    if seed < 0:
        raise UserError(f"--seed {seed}: expected 0 or more.")
    given = [*(overrides or []), *([f"evaluation.noise={noise}"] if noise is not None else [])]
    from anytime_bench.runs.pipeline import run as run_method

    record = run_method(
        method, task, seed=seed, overrides=given, device=device, out=out, data_root=data_root,
        recipe=recipe, resume=resume, command=_command(), display=_display(),
    )  # fmt: skip
    if as_json:
        print(json.dumps({"path": str(record.path), **record.model_dump(mode="json")}))
    if record.status == "failed":
        raise typer.Exit(1)


@app.command(name="list")
def list_names(
    what: Annotated[str, typer.Argument(help="methods, tasks or corruptions")] = "methods",
    plugin: Plugin = None,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Draw the corruptions into this PNG.")] = None,
    task: Annotated[str, typer.Option("--task", "-t", help="Whose images --sheet shows.")] = "digits",
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """List methods, tasks or corruptions with where they come from."""
    kinds = ("methods", "tasks", "corruptions")
    if what not in kinds:
        raise UserError(f"cannot list '{what}'.{did_you_mean(what, kinds)}")
    _load_plugins(plugin)
    if what == "corruptions":
        from anytime_bench.corruptions.catalogue import KINDS

        rows = [(kind.name, str(kind.family), kind.summary) for kind in KINDS.values()]
        if sheet is not None:
            for path in _contact_sheets(task, data_root, sheet):
                print(path, file=sys.stderr)
    else:
        from anytime_bench import registry

        origins = getattr(registry, what).origins()
        rows = [(o.name, o.file or f"{o.distribution} {o.version}", o.target) for o in origins]
    if as_json:
        print(json.dumps([dict(zip(("name", "origin", "detail"), row, strict=True)) for row in rows]))
        return
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for name, origin, detail in rows:
        print(f"{name:<{widths[0]}}  {origin:<{widths[1]}}  {detail}")


@app.command()
def doctor(
    device: Device = "auto",
    self_test: Annotated[bool, typer.Option("--self-test", help="Time two copies of the reference (A/A).")] = False,
    as_json: Json = False,
) -> None:
    """Examine this machine: what is installed, and what each finding does to a measurement."""
    from anytime_bench.harness.environment import capture, findings
    from anytime_bench.runs.plan import pick_device

    place = pick_device(device)
    environment = capture(place)
    found = findings(environment)
    report: dict[str, object] = {"environment": environment, "findings": [vars(finding) for finding in found]}
    if not as_json:
        for finding in found:
            print(f"{finding.level:<6}{finding.what}")
            if finding.effect:
                print(f"      -> {finding.effect}")
    failed = any(finding.level == "error" for finding in found)
    if self_test and not failed:
        from anytime_bench.harness.self_test import self_test as two_copies

        result = two_copies(place)
        report["self_test"] = result
        if not as_json:
            for key, value in result.items():
                print(f"{key}: {value}")
    if as_json:
        print(json.dumps(report, default=str))
    if failed:
        raise typer.Exit(1)


@app.command()
def noise(
    record: Annotated[Path, typer.Argument(help="A record whose trained weights are still in its runs folder.")],
    kinds: Annotated[str, typer.Option(help="paper, common, all, or kinds separated by commas.")] = "paper",
    plugin: Plugin = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Examine an existing record's trained weights under noise; writes a new record that supersedes it."""
    _load_plugins(plugin)
    from anytime_bench.runs.rerun import noise_on_record

    made = noise_on_record(record, kinds, data_root=data_root, device=device, command=_command(), display=_display())
    if as_json:
        print(json.dumps({"path": str(made.path), **made.model_dump(mode="json")}))


@app.command()
def check(
    method: Annotated[str, typer.Argument(help="A method's name, or a plugin file.")],
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Check on this task instead of a synthetic one.")
    ] = None,
    data_root: DataRoot = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value option of the method.")] = None,
    as_json: Json = False,
) -> None:
    """Check a method against the plugin contract: pass, fail and why, per check."""
    from anytime_bench.conformance.report import check_named

    results = check_named(method, task, data_root, overrides or [])
    if as_json:
        print(json.dumps([{"method": name, **vars(result)} for name, result in results]))
    else:
        for name, result in results:
            why = f"  {result.why}" if result.why else ""
            print(f"{result.status:<5} {name}: {result.name}{why}")
    counts = {status: sum(result.status == status for _, result in results) for status in ("pass", "fail", "skip")}
    failures = counts["fail"]
    if not as_json:
        told = [f"{counts['pass']} checks hold"]
        told += [f"{failures} fail"] * (failures > 0) + [f"{counts['skip']} do not apply"] * (counts["skip"] > 0)
        print(", ".join(told))
    if failures:
        raise typer.Exit(1)


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


cli_board.mount(app)
cli_read.mount(app)
app.command()(cli_sweep.sweep)


def _load_plugins(plugins: list[str] | None) -> None:
    if plugins:
        from anytime_bench.methods.plugins import load_plugin

        for plugin in plugins:
            load_plugin(plugin)


def _display() -> Display:
    from anytime_bench.runs.display import Display

    return Display()


def _contact_sheets(task: str, data_root: Path | None, path: Path) -> list[Path]:
    """Both sheets on test images of ``task``: kinds and severities at ``path``, transient frames beside it."""
    from anytime_bench.corruptions.contact_sheet import contact_sheet, frame_sheet
    from anytime_bench.tasks.loading import load_task
    from anytime_bench.training.data import DeviceSplit

    loaded = load_task(task, data_root)
    images = DeviceSplit.place(loaded.splits["test"], loaded.card, "cpu").sample(8).normalised()
    frames = path.with_name(f"{path.stem}-frames{path.suffix}")
    return [contact_sheet(images, loaded.card, path), frame_sheet(images, loaded.card, frames)]


def _command() -> str:
    return shlex.join(["anytime-bench", *sys.argv[1:]])


def main() -> NoReturn:
    """Entry point of the console script."""
    try:
        status = app(standalone_mode=False)
    except UserError as error:
        # One line, whatever a library put into its message.
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        status = 2
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        # A usage error of the command-line library itself.
        print(f"error: {error.format_message()} See anytime-bench --help.", file=sys.stderr)
        status = 2
    if status == INTERRUPTED:
        again = _command() if "--resume" in sys.argv else f"{_command()} --resume"
        hint = f" Resume with:\n  {again}" if len(sys.argv) > 1 and sys.argv[1] == "run" else ""
        print(f"\ninterrupted; the last finished epoch is kept.{hint}", file=sys.stderr)
    # Outside its standalone mode typer returns the status of typer.Exit instead of raising it.
    sys.exit(status if isinstance(status, int) else 0)

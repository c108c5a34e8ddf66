"""What the verbs share: options spelt once, plugins loaded, the command as it was typed. Nothing heavy is imported."""

from __future__ import annotations

import functools
import inspect
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from anytime_bench.errors import TRACEBACK, UserError

Plugin = Annotated[list[str] | None, typer.Option("--plugin", help="A .py file or module that defines plugins.")]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Where the tasks' files lie.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for checkpoints and records.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:0.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")]
Records = Annotated[list[Path], typer.Argument(metavar="RECORD...", help="Record files, or folders of them.")]
Results = Annotated[Path, typer.Option("--results", help="The store of published records.")]
Boards = Annotated[Path, typer.Option("--out", help="Folder of the generated leaderboards.")]


Traceback = Annotated[
    bool,
    typer.Option("--traceback", envvar=TRACEBACK, help="Show the full traceback of an error in a plugin or library."),
]


class Verbs(typer.Typer):
    """A group of commands that all take ``--traceback``."""

    def command(self, *args: Any, **kwargs: Any) -> Any:
        register = super().command(*args, **kwargs)

        def with_traceback(verb: Callable[..., Any]) -> Callable[..., Any]:
            register(_also_traceback(verb))
            return verb

        return with_traceback


def _also_traceback(verb: Callable[..., Any]) -> Callable[..., Any]:
    """``verb`` with one more option, which typer reads off the signature."""

    @functools.wraps(verb)
    def wrapped(*args: Any, traceback: bool = False, **kwargs: Any) -> Any:
        if traceback:
            # Through the environment, so that the processes of a sweep know it too.
            os.environ[TRACEBACK] = "1"
        return verb(*args, **kwargs)

    signature = inspect.signature(verb, eval_str=True)
    option = inspect.Parameter("traceback", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Traceback)
    wrapped.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {**get_type_hints(verb, include_extras=True), "traceback": Traceback}
    return wrapped


def load_plugins(plugins: list[str] | None) -> None:
    """Import every ``--plugin`` and register what it defines."""
    if plugins:
        from anytime_bench.harness.torch_settings import restored_settings
        from anytime_bench.methods.plugins import load_plugin
        from anytime_bench.runs.guard import guarded, time_limit

        for plugin in plugins:
            what = f"plugin '{plugin}'"
            with guarded(), restored_settings(what), time_limit(f"the import of {what}"):
                load_plugin(plugin)


def require_folder(results: Path) -> None:
    """Raise ``UserError`` where ``--results`` names no folder."""
    if not results.is_dir():
        raise UserError(
            f"'{results}' is not a folder. Give the store of published records with --results, or publish a record "
            "first."
        )


def command_line() -> str:
    """The command as it was typed, quoted for a shell; ``--traceback`` is no part of what a run is."""
    return shlex.join(["anytime-bench", *(argument for argument in sys.argv[1:] if argument != "--traceback")])

"""A real record that is made in a second: the small plugin on digits, under one kind of noise, not timed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anytime_bench
from anytime_bench.methods.plugins import load_plugin
from anytime_bench.records.record import Record
from anytime_bench.registry import methods
from anytime_bench.runs.display import Display

PLUGIN = Path(__file__).with_name("plugin_small.py")
OVERRIDES = {
    "epochs": 5, "batch_size": 32, "lr": 0.05, "width": 8, "timing_rounds": 0, "noise": "contrast", "noise_images": 64,
    "reference": "small",
}  # fmt: skip


@contextmanager
def loaded(plugin: Path = PLUGIN) -> Iterator[None]:
    """Inside, ``small`` is the method of this plugin file and no other added method is known."""
    with methods.temporary(empty=True):
        load_plugin(str(plugin))
        yield


def make(folder: Path, overrides: Mapping[str, Any] | None = None, **arguments: Any) -> tuple[Record, Path]:
    """The record and the plugin file that it comes from, a copy of one's own; both lie below ``folder``."""
    plugin = folder / PLUGIN.name
    folder.mkdir(parents=True, exist_ok=True)
    if not plugin.is_file():
        shutil.copyfile(PLUGIN, plugin)
    with loaded(plugin):
        record = anytime_bench.run(
            "small", "digits", overrides={**OVERRIDES, **(overrides or {})}, out=folder / "runs",
            command="anytime-bench run -m small reference=small", display=Display(quiet=True), **arguments,
        )  # fmt: skip
    return record, plugin

"""What is said of a run before it starts."""

import dataclasses
import io

import pytest
import torch
from rich.console import Console

from anytime_bench import load_task
from anytime_bench.runs.display import Display
from anytime_bench.runs.plan import make_plan


@pytest.mark.parametrize(
    ("device", "overrides", "line"),
    [
        ("cuda", {}, "by engine graph; eagerly where method or reference cannot be run by graph"),
        ("cuda", {"engine": "eager"}, "by engine eager"),
        ("cuda", {"timing_rounds": 0}, None),
        ("cpu", {}, None),
    ],
)
def test_on_a_gpu_the_plan_names_the_engine(device, overrides, line, tmp_path):
    plan = make_plan("serial_ce", load_task("digits"), overrides=overrides, device="cpu", out=tmp_path)
    said = io.StringIO()
    Display(Console(file=said, width=200)).plan(dataclasses.replace(plan, device=torch.device(device)))
    timing = [text for text in said.getvalue().splitlines() if text.startswith("timing")]
    assert [text.split(maxsplit=1)[1].rstrip() for text in timing] == ([line] if line else [])

"""What is said of a run before it starts."""

import dataclasses
import io

import pytest
import torch
import yaml
from rich.console import Console

from anytime_bench import UserError, load_task
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


@pytest.mark.parametrize(("overrides", "shown"), [({}, " (recipe mine; own default 64)"), ({"width": 4}, "")])
def test_the_plan_shows_an_own_default_that_the_recipe_overrides(overrides, shown, tmp_path):
    plan = _plan({"options": {"width": 4, "stem_pool": False}}, tmp_path, overrides)
    said = io.StringIO()
    Display(Console(file=said, width=400)).plan(plan)
    assert f"width=4{shown}," in said.getvalue()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (
            {"methods": {"msdnett": {"why": "a slip"}}},
            "'mine': methods.msdnett: no such method. Did you mean msdnet",
        ),
        ({"methods": {"msdnet": {"training": {"lr": 0.1}}}}, "'mine': methods.msdnet has no 'why': say in a sentence"),
        ({"options": {"widht": 4}}, "recipe 'mine': options.widht: no method has such an option. Did you mean .*width"),
    ],
)
def test_names_in_a_recipe_that_nobody_has_are_refused(part, words, tmp_path):
    with pytest.raises(UserError, match=words):
        _plan(part, tmp_path)


def _plan(part, folder, overrides=()):
    (folder / "mine.yaml").write_text(yaml.safe_dump({"reference": "serial_ce", **part}))
    recipe = str(folder / "mine.yaml")
    return make_plan("serial_ce", load_task("digits"), recipe=recipe, overrides=overrides, device="cpu", out=folder)

"""The diffs of CONTRIBUTING.md apply to the sources as they stand, and give what runs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from anytime_bench.corruptions.draws import Draws
from anytime_bench.scores.stopping_contract import Answers
from anytime_bench.trace.answers import Trace

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```diff\n--- (\S+)\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)


def applied(path: str, diff: str) -> str:
    """The file with the diff's new lines; its other lines must stand there together, once."""
    lines = [line or " " for line in diff.splitlines()]
    assert all(line[0] in " +" for line in lines)
    before = "".join(f"{line[1:]}\n" for line in lines if line[0] == " ")
    text = (ROOT / path).read_text()
    assert text.count(before) == 1, f"{path} does not hold once:\n{before}"
    return text.replace(before, "".join(f"{line[1:]}\n" for line in lines))


def names_of(path: str) -> dict[str, object]:
    """What a module defines after its diff."""
    (diff,) = (diff for where, diff in BLOCKS if where == path)
    names: dict[str, object] = {"__name__": "anytime_bench"}  # a module that exists, for dataclasses look it up
    exec(compile(applied(path, diff), path, "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize(("path", "diff"), BLOCKS, ids=[path for path, _ in BLOCKS])
def test_every_diff_applies_and_gives_what_parses(path: str, diff: str) -> None:
    text = applied(path, diff)
    if path.endswith(".toml"):
        tomllib.loads(text)
    else:
        compile(text, path, "exec", dont_inherit=True)


def test_there_is_a_diff_for_every_kind() -> None:
    named = " ".join(path for path, _ in BLOCKS)
    for place in ("scores/catalogue", "columns", "axes", "stopping_rules", "corruptions/catalogue", "pyproject"):
        assert place in named


def test_the_new_column_and_axis_are_in_their_tables() -> None:
    columns = names_of("anytime_bench/leaderboard/columns.py")["COLUMNS"]
    assert columns[0].name == "errors"  # type: ignore[index]
    axis = names_of("anytime_bench/trace/axes.py")["AXES"]["energy"]  # type: ignore[index]
    assert (axis.unit, axis.shown_unit, axis.measured) == ("J", "mJ", True)


def test_the_new_corruption_and_rule_work() -> None:
    speckle = names_of("anytime_bench/corruptions/pixel_noise.py")["speckle_noise"]
    pixels = torch.full((2, 1, 8, 8), 0.5)
    noisy = speckle(pixels, Draws(0, "speckle_noise", torch.arange(2), torch.zeros(2, dtype=torch.int64)), 0.2)  # type: ignore[operator]
    assert noisy.shape == pixels.shape
    assert not torch.equal(noisy, pixels)
    rule = names_of("anytime_bench/scores/simple_rules.py")["MeanConfidence"]()  # type: ignore[operator]
    trace = Trace.from_logits(np.array([[[2.0, 0.0]], [[0.0, 4.0]]]), np.array([0]))
    answers = Answers.of(trace)
    sureness = rule.fit(trace, np.array([1.0, 2.0])).sureness(answers)
    assert sureness[1] == pytest.approx(answers.confidence.mean(axis=0))

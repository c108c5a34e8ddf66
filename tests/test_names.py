"""What holds of all sources: methods are not known by name, files are short, dictionaries have types."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import anytime_bench
from anytime_bench.registry import methods

SUITE = Path(anytime_bench.__file__).parent
#: Names that are also plain words of the field.
WORDS = {"static", "ensemble", "timm"}
#: Where a dictionary may hold anything, and why; ``dict[str, object]`` is for JSON that is only written.
ANYTHING = {
    "cli/sweep.py": "a plan file before make_grid types it",
    "conformance/gpu_doctor.py": "the machine as read",
    "conformance/gpu_speed.py": "keywords of a line",
    "harness/disturbance.py": "readings as they are stored",
    "harness/environment.py": "the machine as read",
    "harness/timing.py": "readings as they are stored",
    "harness/timing_processes.py": "readings as they are stored",
    "leaderboard/board.py": "options, recipe and machine as the record holds them",
    "methods/contract.py": "torch's parameter groups",
    "records/entries.py": "settings as the record holds them",
    "records/figures.py": "matplotlib's keywords",
    "records/record.py": "a record as JSON",
    "records/schema1.py": "an older record as JSON",
    "records/store.py": "a record as JSON, before it is validated",
    "runs/pipeline.py": "fields of a record, which validates them",
    "runs/plan.py": "the machine as read",
    "runs/profile.py": "fields of a row, which validates them",
    "training/config.py": "settings in YAML, and an optimiser's keywords",
    "training/ddp.py": "torch's keywords",
    "training/optimisers.py": "torch's parameter groups and keywords",
}
MOST_ANYTHING = 40
MOST_LINES = 350


def test_no_string_or_name_of_the_suite_is_a_methods_name():
    names = "|".join(re.escape(name) for name in methods.names() if name not in WORDS)
    pattern = re.compile(rf"\b(?:{names})\b")
    places = []
    for path in sorted(SUITE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.value if isinstance(node, ast.Constant) else getattr(node, "id", None)
            if isinstance(text, str) and pattern.search(text):
                places.append(f"{path.relative_to(SUITE)}:{node.lineno}: {pattern.search(text).group()}")
    assert places == []


def test_few_dictionaries_hold_anything_and_each_has_a_reason():
    uses = {
        path.relative_to(SUITE).as_posix(): count
        for path in SUITE.rglob("*.py")
        if (count := path.read_text().count("dict[str, Any]"))
    }
    assert set(uses) == set(ANYTHING)
    assert sum(uses.values()) <= MOST_ANYTHING


def test_no_file_is_longer_than_one_idea():
    root = Path(__file__).parents[1]
    files = [
        path
        for folder in ("anytime_bench", "baselines", "tests", "docs", "examples")
        for path in (root / folder).rglob("*.py")
    ]
    assert [str(path) for path in files if path.read_text().count("\n") > MOST_LINES] == []

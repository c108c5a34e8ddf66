"""What publish keeps of plugins beside a record, and what it tells its user to type next."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import generated_records as generated
from typer.testing import CliRunner

from anytime_bench.cli.main import app
from anytime_bench.methods.plugins import load_plugin
from anytime_bench.records.publish import publish
from anytime_bench.records.scoring import from_plugins
from anytime_bench.registry import tasks
from anytime_bench.scores.catalogue import SCORES
from anytime_bench.scores.stopping_rules import RULES

SCORE = "from beside import gap\nfrom anytime_bench import register_score\nregister_score('gap', gap)\n"
BESIDE = "def gap(trace, cost):\n    return trace.accuracy[-1] - trace.accuracy\n"
TASK = "from anytime_bench import register_task\nregister_task('made_up', lambda root, argument: None)\n"


@pytest.fixture
def plugins(tmp_path: Path):
    """A score of two files and a task, both loaded."""
    texts = {"beside.py": BESIDE, "gap.py": SCORE, "made_up.py": TASK}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    with SCORES.temporary(), RULES.temporary(), tasks.temporary():
        paths = [str(tmp_path / name) for name in ("gap.py", "made_up.py")]
        for path in paths:
            load_plugin(path)
        yield paths


def test_the_sources_of_scores_and_of_the_task_are_kept_beside_the_record(tmp_path: Path, plugins) -> None:
    record = generated.save(tmp_path / "runs", "quick", change={"added": from_plugins()})
    results = tmp_path / "results"
    assert not publish([record], results).faults
    expected = {
        SCORES.added()["gap"].sha256: {"gap.py": SCORE, "beside.py": BESIDE},
        tasks.added()["made_up"].sha256: {"made_up.py": TASK},
    }
    folders = {folder.name: folder for folder in (results / "plugins").iterdir()}
    assert {
        name: {file.name: file.read_text() for file in folder.iterdir()} for name, folder in folders.items()
    } == expected


def test_a_score_that_was_not_the_records_is_not_kept(tmp_path: Path, plugins) -> None:
    other = {name: each.model_copy(update={"origin": "gap.py (sha256 000000000000)"})
             for name, each in from_plugins().items()}  # fmt: skip
    record = generated.save(tmp_path / "runs", "quick", task="another", change={"added": other})
    results = tmp_path / "results"
    assert not publish([record], results).faults
    assert not (results / "plugins").exists()


def test_what_to_type_next_loads_the_plugins_again_and_names_methods_alone(tmp_path: Path, plugins) -> None:
    record = generated.save(tmp_path / "runs", "quick", change={"added": from_plugins()})
    results = tmp_path / "the results"
    options = [word for each in plugins for word in ("--plugin", each)]
    out = CliRunner().invoke(app, ["publish", str(record), "--results", str(results), *options]).output
    lines = out.split("next:\n")[1].splitlines()
    assert lines == [
        f"  anytime-bench leaderboard build --results '{results}' {' '.join(options)}",
        f"  git add '{results}' leaderboards",
        "  git commit -m 'Results: quick'",
    ]

"""Every kind of forgery is caught by the level that the table names and by no level below it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.forgeries import FORGERIES, NOBODY, REBUILD, RETRAIN, VERIFY, Forgery
from support import generated_records as generated
from support import small_run
from support.forger import Evidence

from anytime_bench.records import store
from anytime_bench.records.verify_all import verify_paths
from anytime_bench.runs import reproduce
from anytime_bench.runs.display import Display

LEVELS = (VERIFY, REBUILD, RETRAIN)
BUILT_BY_DEFAULT = ("MACs halved", "another plugin's code", "one parameter")
DOCS = Path(__file__).parents[2] / "docs" / "trust.md"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    folder = tmp_path_factory.mktemp("originals")
    first, plugin = small_run.make(folder)
    second, _ = small_run.make(folder, seed=1)
    with small_run.loaded(plugin):
        yield {"trained": first.path, "other_seed": second.path, "timed": generated.save(folder, "quick")}


@pytest.fixture
def evidence(originals: dict[str, Path], tmp_path: Path) -> Evidence:
    return Evidence(folder=tmp_path, **originals)


def faults(level: str, paths: list[Path]) -> list[str]:
    if level == VERIFY:
        return [fault for _, said in verify_paths(paths) for fault in said]
    again = {REBUILD: reproduce.rebuild, RETRAIN: reproduce.retrain}[level]
    return [fault for path in paths for fault in again(path, display=Display(quiet=True)).faults]


def judge(forgery: Forgery, evidence: Evidence, levels: tuple[str, ...]) -> None:
    paths = forgery.make(evidence)
    for level in levels:
        said = faults(level, paths)
        assert all("\n" not in line for line in said)
        if level == forgery.caught_by:
            assert any(forgery.words in line for line in said), said
            return
        assert said == [], f"already {level} catches it"
    assert forgery.caught_by not in levels


def test_the_honest_records_hold_at_every_level(evidence: Evidence) -> None:
    assert faults(VERIFY, [evidence.trained, evidence.other_seed, evidence.timed]) == []
    assert faults(REBUILD, [evidence.trained, evidence.other_seed]) == []
    copied = evidence.forged()
    assert faults(VERIFY, [copied]) == [], "the forger's tools alone leave no trace"


@pytest.mark.parametrize("forgery", [f for f in FORGERIES if f.caught_by == VERIFY], ids=lambda f: f.kind)
def test_verify_alone_catches(forgery: Forgery, evidence: Evidence) -> None:
    judge(forgery, evidence, (VERIFY,))


@pytest.mark.parametrize(
    "forgery",
    [
        pytest.param(f, id=f.kind, marks=[pytest.mark.slow] * (f.kind not in BUILT_BY_DEFAULT))
        for f in FORGERIES
        if f.caught_by == REBUILD
    ],
)
def test_building_the_model_catches(forgery: Forgery, evidence: Evidence) -> None:
    judge(forgery, evidence, (VERIFY, REBUILD))


@pytest.mark.slow
@pytest.mark.parametrize("forgery", [f for f in FORGERIES if f.caught_by == RETRAIN], ids=lambda f: f.kind)
def test_training_again_catches(forgery: Forgery, evidence: Evidence) -> None:
    judge(forgery, evidence, LEVELS)


@pytest.mark.slow
@pytest.mark.parametrize("forgery", [f for f in FORGERIES if f.caught_by == NOBODY], ids=lambda f: f.kind)
def test_what_no_file_can_show_is_stated_with_its_reason(forgery: Forgery, evidence: Evidence) -> None:
    (path,) = forgery.make(evidence)
    trained = store.load(path).task.name != "made_up"
    judge(forgery, evidence, LEVELS if trained else (VERIFY,))
    assert forgery.why


def test_the_table_is_the_one_in_the_docs() -> None:
    assert len({forgery.kind for forgery in FORGERIES}) == len(FORGERIES) >= 45
    lines = [f"| {f.kind} | {f'nobody: {f.why}' if f.caught_by == NOBODY else f'`{f.caught_by}`'} |" for f in FORGERIES]
    text = DOCS.read_text(encoding="utf-8")
    assert "\n".join(lines) in text, "docs/trust.md lacks these lines:\n" + "\n".join(lines)

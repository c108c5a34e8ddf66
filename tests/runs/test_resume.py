"""A run that was killed after it had stored its record is not stored again, and what it left unfinished is finished."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import small_run

from anytime_bench.records import store
from anytime_bench.records.record import Record
from anytime_bench.runs.display import Display


@pytest.fixture
def run(tmp_path: Path) -> Record:
    record, _ = small_run.make(tmp_path, {"epochs": 1})
    return record


def again(folder: Path, overrides: dict[str, object] | None = None, **arguments: object) -> Record:
    record, _ = small_run.make(folder, {"epochs": 1, **(overrides or {})}, resume=True, **arguments)
    return record


def test_a_stored_record_is_returned_and_its_figures_are_drawn(run: Record, tmp_path: Path, monkeypatch) -> None:
    assert run.path is not None
    said: list[str] = []
    monkeypatch.setattr(Display, "say", lambda self, text: said.append(text))
    figures = [run.path.with_suffix(end) for end in (".png", ".noise.png")]
    for figure in figures:
        figure.unlink()
    assert again(tmp_path) == run
    assert [line for line in said if "stored its record already" in line]
    assert list(store.find(tmp_path / "runs")) == [run.path]
    assert all(figure.is_file() for figure in figures)


def test_another_run_is_not_taken_for_it(run: Record, tmp_path: Path) -> None:
    ids = {run.record_id}
    for overrides, arguments in (({}, {"seed": 1}), ({"noise": "none"}, {})):
        ids.add(again(tmp_path, overrides, **arguments).record_id)
    assert len(ids) == 3


def test_other_weights_in_its_folder_give_another_record(run: Record, tmp_path: Path) -> None:
    (weights,) = (tmp_path / "runs").rglob("weights.safetensors")
    weights.unlink()
    assert again(tmp_path).record_id != run.record_id


def test_a_trace_without_record_goes_and_the_run_is_stored(run: Record, tmp_path: Path) -> None:
    assert run.path is not None
    run.path.unlink()
    record = again(tmp_path)
    assert record.exits == run.exits
    assert record.path is not None
    assert list(run.path.parent.glob("*.npz")) == [record.path.with_suffix(".npz")]

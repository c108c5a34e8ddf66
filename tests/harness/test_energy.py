"""Energy counters on a powercap tree made by hand: joules, a counter that wraps, and reasons where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anytime_bench.harness.energy import Counter, NoCounter, energy_counter, joules_per_answer

RANGE = 1000.0


def zone(root: Path, name: str, title: str, microjoules: int) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{title}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{int(RANGE * 1e6)}\n")
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number in (0, 1):
        zone(tmp_path, f"intel-rapl:{number}", f"package-{number}", 5_000_000)
        zone(tmp_path, f"intel-rapl:{number}:0", "core", 4_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 900_000_000)
    return tmp_path


def spend(root: Path, package: int, microjoules: int) -> None:
    path = root / f"intel-rapl:{package}" / "energy_uj"
    path.write_text(str((int(path.read_text()) + microjoules) % int(RANGE * 1e6)))


def test_packages_are_added_and_their_parts_are_not(tree: Path) -> None:
    counter = energy_counter("cpu", tree)
    assert isinstance(counter, Counter)
    assert counter.name == "RAPL package-0, package-1"
    counter.restart()
    spend(tree, 0, 2_500_000)
    spend(tree, 1, 500_000)
    assert counter.joules() == pytest.approx(3.0)
    assert counter.joules() == 0.0


def test_a_counter_that_wraps_is_put_right(tree: Path) -> None:
    counter = energy_counter("cpu", tree)
    assert isinstance(counter, Counter)
    spend(tree, 0, 994_000_000)
    counter.restart()
    spend(tree, 0, 3_000_000)
    assert counter.joules() == pytest.approx(3.0)


def test_joules_per_answer_are_those_between_warm_up_and_end(tree: Path) -> None:
    counter = energy_counter("cpu", tree)
    assert isinstance(counter, Counter)
    assert joules_per_answer(lambda: spend(tree, 0, 250_000), counter, seconds=0.02) == pytest.approx(0.25)


def test_where_nothing_can_be_read_the_reason_is_given(tmp_path: Path) -> None:
    absent = energy_counter("cpu", tmp_path / "none")
    assert isinstance(absent, NoCounter)
    assert "shows no energy counter" in absent.reason
    empty = energy_counter("cpu", tmp_path)
    assert isinstance(empty, NoCounter)
    assert "virtual machines" in empty.reason
    broken = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    (broken / "energy_uj").write_text("much\n")
    odd = energy_counter("cpu", tmp_path)
    assert isinstance(odd, NoCounter)
    assert "cannot be read" in odd.reason


def test_root_only_counters_say_so(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *args: object, **options: object) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return "package-0"

    monkeypatch.setattr(Path, "read_text", refuse)
    counter = energy_counter("cpu", tree)
    assert isinstance(counter, NoCounter)
    assert counter.reason.endswith("may be read by root alone")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nvml_counts_nothing() -> None:
    counter = energy_counter("cuda")
    assert isinstance(counter, NoCounter)
    assert "NVML does not count" in counter.reason

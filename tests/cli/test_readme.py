"""The README's table is what the leaderboard says, and its pictures exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"<!-- board (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
LANES = {"1": "1 lane", "4": "4 lanes", "inf": "unlimited lanes"}


def board_table(board: dict) -> list[str]:
    """Rows of several exits by AUC@1 on ticks, the paper's only axis; beside what lanes and MACs make of them."""

    def percent(estimate: dict) -> str:
        return f"{100 * estimate['value']:.1f} [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"

    rows = [row for row in board["rows"] if len(row["seeds"]) == max(len(each["seeds"]) for each in board["rows"])]
    rows = [row for row in rows if len(row["accuracy"]) > 1]
    lines = [
        f"| Row | Final accuracy % | ticks | {' | '.join(LANES.values())} | MACs |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]
    for row in sorted(rows, key=lambda row: -row["axes"]["ticks"]["auc_1"]["value"]):
        lanes = {each["lanes"]: each["auc_1"] for each in row["parallel"]["lanes"] if each["edge_us"] == 0}
        areas = [row["axes"]["ticks"]["auc_1"], *(lanes[count] for count in LANES), row["axes"]["macs"]["auc_1"]]
        lines.append(f"| {row['label']} | {percent(row['final'])} | {' | '.join(map(percent, areas))} |")
    return lines


@pytest.mark.parametrize("match", list(BLOCK.finditer(README)), ids=lambda match: match.group(1))
def test_the_readmes_table_is_the_boards(match: re.Match) -> None:
    board = json.loads((ROOT / "leaderboards" / f"{match.group(1)}.json").read_text())
    table = [line for line in match.group(2).splitlines() if line.startswith("|")]
    assert table == board_table(board), "\n".join(["README.md should hold:", *board_table(board)])
    told = match.group(2)
    seeds = max(len(row["seeds"]) for row in board["rows"])
    assert f"{seeds} seeds" in told
    assert f"{board['rows'][0]['n']:,} test images" in told
    assert "CPU" in told


def test_the_readme_shows_a_board_and_pictures_that_exist() -> None:
    assert BLOCK.search(README)
    pictures = re.findall(r'(?:src="|!\[[^]]*\]\()([^")]+)', README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).is_file(), picture


def test_results_stay_small() -> None:
    """Committed results under 60 MB, and nothing in them but records and their traces."""
    files = [path for path in (ROOT / "results").rglob("*") if path.is_file() and path.name != "README.md"]
    assert {path.suffix for path in files} <= {".json", ".npz"}
    assert sum(path.stat().st_size for path in files) < 60e6

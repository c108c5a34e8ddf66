"""The verb ``span``: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anytime_bench.cli import main as command_line
from anytime_bench.cli.span import parsed_lanes
from anytime_bench.errors import UserError

QUICK = ("--seconds", "0.05")


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """The console script in an empty folder: status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("anytime_bench.registry.methods._added", {})

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["anytime-bench", "span", *arguments])
        with pytest.raises(SystemExit) as leave:
            command_line.main()
        out, err = capsys.readouterr()
        return int(leave.value.code or 0), out, err

    return call


def test_tables_fit_80_columns_and_files_are_written(cli, tmp_path: Path, monkeypatch) -> None:
    # Two threads on two busy cores wait for each other; the next test measures them on a smaller model.
    monkeypatch.setattr("anytime_bench.harness.span.cores_at_hand", lambda: 1)
    files = ("t.json", "g.dot", "s.png")
    status, out, err = cli(
        "cascaded_td",
        "--lanes",
        "1,2,4,8,16,inf",
        *QUICK,
        "--trace",
        files[0],
        "--graph",
        files[1],
        "--gantt",
        files[2],
    )
    assert status == 0, err
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    for words in ("work T_1", "span T_inf", "parallelism", "P = inf", "20 us", "The longest chain", " stem.conv"):
        assert words in out
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


def test_json_holds_the_same_and_keeps_the_bounds(cli) -> None:
    status, out, err = cli("sdn", "--lanes", "2,inf", *QUICK, "--json")
    assert status == 0, err
    report = json.loads(out)
    assert report["span_macs"][-1] < report["work_macs"][-1]
    assert [row["lanes"] for row in report["times"][:2]] == ["2", "inf"]
    for row in report["times"]:
        if row["operators"] == "on one lane":
            assert row["seconds"][-1] <= report["work_seconds"][-1] * (1 + 1e-9)
            assert row["seconds"][-1] >= report["span_seconds"][-1] * (1 - 1e-9)
    assert sum(step["share"] for step in report["critical_path"]) == pytest.approx(1)


def test_a_plugin_is_measured_without_its_help(cli, plugin_file: Path) -> None:
    status, out, err = cli("two_exits", "--plugin", str(plugin_file), *QUICK, "--json")
    assert status == 0, err
    assert len(json.loads(out)["span_seconds"]) == 2


RAISES = """
from anytime_bench import AnytimeModel, Method, MethodCard

class Net(AnytimeModel):
    num_exits, ticks = 1, (1,)
    def stream(self, images):
        raise RuntimeError("no answer today")
        yield images

class Raises(Method):
    card = MethodCard(title="Raises")
    def build(self, task):
        return Net()
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cascaded_td", "--lanes", "0"), "--lanes '0': '0' is not a number of lanes. Expected whole numbers"),
        (("cascaded_td", "--lanes", "2,many"), "'many' is not a number of lanes"),
        (("cascaded_td", "--batch", "0"), "--batch 0: expected at least 1 image."),
        (("cascaded_td", "--seconds", "0"), "--seconds 0: expected more than 0."),
        (("cascaded_td", "--gantt", "s.pdf"), "--gantt 's.pdf': expected a file that ends in .png or .svg."),
        (("cascade_td",), "unknown method 'cascade_td'"),
        (("cascaded_td", "--set", "widht=3"), "width"),
        (("cascaded_td", "--task", "digit"), "unknown task 'digit'"),
        (("raises", "--plugin", "raises.py"), "method 'raises' on task 'digits': stream raised after 0 answers"),
    ],
)
def test_bad_input_is_one_line(cli, arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    if "raises.py" in arguments:
        (tmp_path / "raises.py").write_text(RAISES)
    before = sorted(tmp_path.iterdir())
    status, _, err = cli(*arguments)
    assert status == 2, err
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, err
    assert words in lines[0]
    assert "Traceback" not in err
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "__pycache__"] == before


def test_a_file_that_cannot_be_written(cli, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    status, _, err = cli("sdn", *QUICK, "--graph", "taken/g.dot")
    assert status == 2
    assert "cannot be written" in err


@pytest.mark.parametrize(("text", "lanes"), [("4, 1,inf,4", (1, 4, None)), ("3", (3,)), ("inf", (None,))])
def test_lanes_are_read_in_any_order(text: str, lanes: tuple[int | None, ...]) -> None:
    assert parsed_lanes(text) == lanes


@pytest.mark.parametrize("text", ["", "1,,2", "-1", "1.5", "infinity"])
def test_lanes_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="is not a number of lanes"):
        parsed_lanes(text)

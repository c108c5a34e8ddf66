"""What a run ends with fits 80 columns, and the small curve is the anytime curve."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support import generated_records as generated

from anytime_bench.records import store
from anytime_bench.runs.closing import CURVE_WIDTH, WIDTH, can_draw, closing, curve_lines, si


def printed(record, **options) -> list[str]:
    console = Console(file=io.StringIO(), width=200, highlight=False)
    for part in closing(record, **options):
        console.print(part)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_tables_and_curve_fit_eighty_columns(tmp_path):
    record = store.load(generated.save(tmp_path, "a_method_with_a_rather_long_name", seed=3))
    lines = printed(record, curve=True)
    assert max(map(len, lines)) <= WIDTH
    assert any("█" in line for line in lines)
    assert any("AUC@1" in line for line in lines)
    assert [line.split()[0] for line in lines if line.endswith(")") is False and line.strip()[:1].isdigit()]
    assert not any("█" in line for line in printed(record))


def test_the_curve_needs_a_terminal_that_knows_its_characters():
    assert not can_draw(Console(file=io.StringIO()))
    assert can_draw(Console(file=io.StringIO(), force_terminal=True))
    latin = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    assert not can_draw(Console(file=latin, force_terminal=True))


@given(st.lists(st.tuples(st.floats(0.01, 1.5), st.floats(0, 1)), min_size=1, max_size=8), st.floats(0, 1))
def test_every_column_of_the_curve_is_as_high_as_the_latest_answer_is_accurate(exits, chance):
    exits = sorted(exits)
    costs, accuracies = [cost for cost, _ in exits], [accuracy for _, accuracy in exits]
    height, end = 4, 1.5
    rows = [line[7:].ljust(CURVE_WIDTH) for line in curve_lines(costs, accuracies, chance, end, height=height)]
    for column in range(CURVE_WIDTH):
        eighths = sum(" ▁▂▃▄▅▆▇█".index(row[column]) for row in rows)
        cost = (column + 0.5) * end / CURVE_WIDTH
        answers = [accuracy for at, accuracy in exits if at <= cost]
        assert eighths == round(8 * height * (answers[-1] if answers else chance))


def test_large_numbers_have_three_digits():
    assert [si(value) for value in (999, 1234, 1234567, 2.5e9)] == ["999", "1.23 k", "1.23 M", "2.50 G"]

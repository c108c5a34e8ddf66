"""What a record says of itself is quoted: no markup and no HTML of its own in any generated file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import generated_records as generated

from anytime_bench.leaderboard.build import files
from anytime_bench.leaderboard.text import code, quoted
from anytime_bench.records.record import Environment

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)> **bold** [x](javascript:alert(3)) `tick` | cell"


@given(st.text())
def test_quoted_text_holds_no_markup(text: str) -> None:
    for safe in (quoted(text), code(text)[6:-7]):
        assert "<" not in safe
        assert ">" not in safe
        assert "\n" not in safe
        for place, character in enumerate(safe):
            if character in "`*[]|":
                assert safe[place - 1] == "\\"


@pytest.mark.parametrize(("text", "written"), [("a|b", "a\\|b"), ("a & <b>", "a &amp; &lt;b&gt;"), ("a_b", "a_b")])
def test_plain_words_stay_readable(text: str, written: str) -> None:
    assert quoted(text) == written


def test_no_file_of_a_board_passes_on_what_a_record_smuggles(tmp_path: Path) -> None:
    generated.save(tmp_path, "plain")
    record, arrays = generated.make_record("quick", options={"note": ATTACK})
    card = record.method.card.model_copy(
        update={"title": ATTACK, "paper": ATTACK, "deviations": [ATTACK], "url": "javascript:alert(4)"}
    )
    environment = Environment.model_validate({**record.environment.model_dump(), "device": ATTACK})
    changed = record.model_copy(
        update={
            "method": record.method.model_copy(update={"card": card}),
            "command": ATTACK,
            "environment": environment,
        }
    )
    generated.store.save(tmp_path, changed, arrays)
    other, _ = generated.make_record("doomed")
    generated.store.save(tmp_path, generated.failed(other, reason=ATTACK), {})
    written = dict(files(tmp_path))
    assert {path.suffix for path in written} >= {".md", ".html", ".json", ".csv", ".svg"}
    for path, data in written.items():
        if path.suffix in (".md", ".html", ".svg"):
            text = data.decode()
            assert "<script>alert" not in text, path
            assert "<img src=x" not in text, path
            assert 'href="javascript' not in text, path
            if path.suffix == ".md":
                assert "[x](javascript" not in text
                assert "**bold**" not in text

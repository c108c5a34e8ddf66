"""Frames that arrive at a rate, over a row's seeds: a line per way of following and rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anytime_bench.harness.streaming_summary import Followed
from anytime_bench.leaderboard.column import DIGITS_3, PERCENT, TEXT, TIMES, Column
from anytime_bench.leaderboard.deadlines import over_draws
from anytime_bench.leaderboard.row_parts import Streamed, digits
from anytime_bench.records.record import Record


def streamed(records: Sequence[Record]) -> list[Streamed]:
    """Per way and rate that all of the row's records with clips share; empty where none has any."""
    blocks = [record.streaming for record in records if record.streaming]
    tables = [{(row.way, row.rate): row for row in block.rows} for block in blocks]
    shared = [key for key in (tables[0] if tables else {}) if all(key in table for table in tables)]
    disturbed = any(block.meta.reasons for block in blocks)
    clips = [block.meta.seed for block in blocks]
    return [_streamed([table[key] for table in tables], clips, disturbed) for key in shared]


def _streamed(rows: Sequence[Followed], clips: Sequence[int], disturbed: bool) -> Streamed:
    return Streamed(
        way=rows[0].way,
        rate=digits(rows[0].rate),
        accuracy=over_draws([row.accuracy for row in rows], clips),
        ahead=over_draws([row.ahead for row in rows], clips, -1.0),
        answers=digits(sum(row.answers for row in rows) / len(rows)),
        disturbed=disturbed,
    )


def _part(name: str, title: str, *rest: Any) -> Column:
    return Column(name, title, lambda line: getattr(line.part, name), *rest)


TABLE = ("streaming",)
STREAMING_COLUMNS: tuple[Column, ...] = (
    _part("rate", "A frame every, x H", DIGITS_3, TABLE),
    _part("way", "Followed by", TEXT, TABLE),
    _part("accuracy", "Streaming accuracy %", PERCENT, TABLE, "high",
          "share of the time in which the newest finished answer names the class on view"),
    _part("ahead", "Ahead of restart, points", PERCENT, TABLE, "high", "paired over clips"),
    _part("answers", "Answers per frame", TIMES, TABLE),
    Column("idle", "Idle machine", lambda line: "no" if line.part.disturbed else "yes", TEXT, TABLE),
)  # fmt: skip

"""What the trace GRUs of the published cascades learned, so that the papers' page is written without training them.

``trace_gru.npz`` beside this file holds weights by what they were learned from (``learned_stopping.lesson``). Records
from protocol 2 on hold their own; a trace that neither knows is learned from when it is asked for. The weights are an
outcome and no source: a test trains each anew and compares. Written by
``python -m baselines.reproduction.learned [RESULTS]``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from anytime_bench.analysis.answers import Answers, read_answers
from anytime_bench.analysis.learned_stopping import lesson
from anytime_bench.files import npz_bytes, write_atomically
from anytime_bench.records.archive import read_npz
from anytime_bench.scores.trace_gru import TraceGru, train
from baselines.reproduction.evidence import read_evidence

METHOD = "cascaded_td"
NAME = "trace_gru.npz"


@cache
def learned() -> dict[str, dict[str, NDArray[Any]]]:
    """Weights of every lesson of the file, by name."""
    by_lesson: dict[str, dict[str, NDArray[Any]]] = {}
    for key, values in read_npz(files("baselines.reproduction").joinpath(NAME).read_bytes()).items():
        digest, _, part = key.partition(".")
        by_lesson.setdefault(digest, {})[part] = values
    return by_lesson


def with_learned(answers: Answers) -> Answers:
    """``answers`` with the weights of its GRU, where the record or the file knows them."""
    return answers if answers.gru else replace(answers, gru=learned().get(lesson(answers.val), {}))


def write(results: Path) -> Path:
    """Train the GRU of every published cascade that stores none, and write the file; half a minute."""
    arrays: dict[str, NDArray[Any]] = {}
    for evidence in (each for newest in read_evidence(results) for each in newest.with_older):
        row = evidence.row(METHOD)
        for entry in row.trained if row else []:
            answers = read_answers(entry.path, entry.record)
            if not answers.gru:
                weights = train(TraceGru().halves(answers.val)[0])
                arrays |= {f"{lesson(answers.val)}.{part}": values for part, values in weights.items()}
    path = Path(__file__).with_name(NAME)
    write_atomically(path, npz_bytes(arrays))
    return path


if __name__ == "__main__":
    print(write(Path(sys.argv[1] if len(sys.argv) > 1 else "results")))

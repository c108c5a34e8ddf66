"""Shared by all tests: threads, a small task that needs no file, and runs that are made once."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is the machine's matter, not a fact that a test states.
settings.register_profile("facts", deadline=None)
settings.load_profile("facts")

# Parallel regions of two threads on busy cores cost more than they give on networks this small.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# A shell that starts the tests in its background has them ignore Ctrl-C, and so the processes they interrupt would.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What is kept for later belongs to this session, not to whoever runs the tests; subprocesses know it too.
_cache = tempfile.TemporaryDirectory(prefix="anytime-bench-cache-")
os.environ["ANYTIME_BENCH_CACHE"] = _cache.name


# Scripts and fixtures, not tests: doctest collection would import, and so run, them.
collect_ignore_glob = ["benchmarks/*", "support/*"]


@pytest.fixture(scope="module", autouse=True)
def _methods_stay_in_their_module():
    """A method that one test file registers is unknown in the next, as in two runs."""
    from anytime_bench.registry import methods

    with methods.temporary():
        yield


@pytest.fixture(scope="session")
def plugin_file() -> Path:
    return Path(__file__).parent / "support" / "plugin_two_exits.py"


@pytest.fixture(scope="session")
def tiny_task():
    """Three classes of 16x16 grey patterns with noise: learnable in a second, no file read."""
    import numpy as np

    from anytime_bench import Split, make_task

    rng = np.random.default_rng(5)
    patterns = rng.integers(0, 200, (3, 1, 16, 16))

    def draw(count: int) -> Split:
        labels = rng.integers(0, 3, count)
        images = np.clip(patterns[labels] + rng.integers(0, 60, (count, 1, 16, 16)), 0, 255)
        return Split(images.astype(np.uint8), labels.astype(np.int64))

    return make_task("tiny", "Tiny patterns", ("a", "b", "c"), draw(96), draw(48), draw(64))

"""Walk pages as a reader would: write the files they show, run the commands they print, in an empty folder.

    python tests/docs/walk.py README.md docs/index.md docs/plugins.md

Python blocks with ``title="NAME"`` become files, other Python blocks are run, and so is every line of a shell block,
with the ``anytime-bench`` of this Python. Lines that install, that hold a placeholder in angle brackets, or that ask
for what a page says is elsewhere (a cluster, a GPU, another data set) are listed and not run. Each page has a folder of
its own, outside the project; two pages are walked at a time, each with one thread. What ``run`` trains and times is
made short (:data:`SHORT`): what a reader's command does is shown by its one full run, that of the README's command one.
Exit status 1 and the output of the first command that fails otherwise.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^( *)```(\w+)?(?: +title=\"([^\"]+)\")?[^\n]*\n(.*?)^ *```", re.M | re.S)
#: What a line must hold to be left out, and why.
ELSEWHERE = {
    "pip install": "installs", "<": "holds a placeholder", "python3 -m venv": "installs", "pytest": "runs the tests",
    "--cluster": "needs a cluster", "torchrun": "needs several processes", "cuda": "needs a GPU",
    "--gpu": "needs a GPU",
    "fashion_mnist": "needs another data set", "cifar10": "needs another data set", "PATH": "names the reader's data",
    "git ": "needs a clone", ".ci/run": "needs a clone", "tests/": "needs a clone", "docs/": "needs a clone",
    "DIR": "names the reader's data",
}  # fmt: skip
#: What a ``run`` gets that its own line does not state.
SHORT = {"epochs": "1", "timing_budget": "1"}


@dataclass(frozen=True)
class Step:
    """A file to write (``name``), a Python block or a shell line to run."""

    kind: str
    text: str
    name: str = ""


def steps(page: str) -> Iterator[Step]:
    """The blocks of a page, in order."""
    for _, language, title, body in BLOCK.findall(page):
        if language == "python":
            yield Step("file" if title else "python", body, title)
        elif language == "sh":
            joined = body.replace("\\\n", " ")
            yield from (Step("sh", line.split("  #")[0].strip()) for line in joined.splitlines() if line.strip())


def reason_to_leave_out(line: str) -> str:
    """Why a shell line is not run here; nothing where it is."""
    if line.startswith("#"):
        return "is a comment"
    return next((why for word, why in ELSEWHERE.items() if word in line), "")


def shortened(line: str) -> str:
    """A line whose ``anytime-bench run`` trains and times as little as it may; any other line as it is."""
    if not re.match(r"anytime-bench run\b", line):
        return line
    return " ".join([line, *(f"{key}={value}" for key, value in SHORT.items() if not re.search(rf"\b{key}=", line))])


class Failed(Exception):
    """A command of a page ended with another status than 0; the message holds its output."""


def walk(path: Path, limit: float = 600.0) -> str:
    """Run one page; returns a line per step. Raises :class:`Failed` with the output of a command that fails."""
    lines = [str(path)]
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    environment.pop("PYTHONPATH", None)
    environment["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        for step in steps(path.read_text()):
            if step.kind == "file":
                Path(folder, step.name).write_text(step.text)
                continue
            why = reason_to_leave_out(step.text) if step.kind == "sh" else ""
            if why:
                lines.append(f"  left out ({why}): {step.text}")
                continue
            line = shortened(step.text) if step.kind == "sh" else step.text
            command = [sys.executable, "-c", line] if step.kind == "python" else ["bash", "-c", line]
            begun = time.perf_counter()
            result = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=limit,
                stdin=subprocess.DEVNULL,
            )
            shown = line if step.kind == "sh" else "a Python block"
            lines.append(f"  {time.perf_counter() - begun:6.1f} s  {shown}")
            if result.returncode:
                raise Failed(f"{path}: status {result.returncode} of\n{line}\n{result.stdout}\n{result.stderr}")
    return "\n".join(lines)


if __name__ == "__main__":
    with ThreadPoolExecutor(2) as pool:
        walks = [pool.submit(walk, Path(name)) for name in sys.argv[1:]]
        for each in walks:
            try:
                print(each.result(), flush=True)
            except (Failed, subprocess.TimeoutExpired) as fault:
                pool.shutdown(wait=False, cancel_futures=True)
                raise SystemExit(str(fault)) from None

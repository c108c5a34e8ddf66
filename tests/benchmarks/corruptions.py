"""How long noise takes: the paper's kinds on 10,000 colour images of 32x32, and each common kind on a tenth of them.

    OMP_NUM_THREADS=2 python tests/benchmarks/corruptions.py

Prints the median of interleaved rounds in seconds; the set of paper kinds has to stay below 20 s on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from anytime_bench.corruptions import KINDS, conditions, corrupt


def seconds(images: torch.Tensor, kind: str, severity: int | None, frame: int) -> float:
    start = time.perf_counter()
    corrupt(images, kind, severity=severity, seed=0, indices=range(len(images)), frame=frame)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(arguments.images, 3, 32, 32, generator=generator)
    tenth = images[: max(1, arguments.images // 10)]
    rounds: dict[tuple[str, int | None], list[float]] = {}
    for frame in range(arguments.rounds):
        for condition in conditions(KINDS, [1, 5]):
            source = tenth if condition[1] else images
            rounds.setdefault(condition, []).append(seconds(source, *condition, frame))
    print(f"threads {torch.get_num_threads()}, rounds {arguments.rounds}, torch {torch.__version__}")
    total = 0.0
    for (kind, severity), times in rounds.items():
        count = len(tenth) if severity else len(images)
        total += 0 if severity else statistics.median(times)
        print(f"{kind:20s} {severity or '-'!s:>2s} {count:6d} images {statistics.median(times):7.3f} s")
    print(f"paper set on {len(images)} images: {total:.2f} s")


if __name__ == "__main__":
    main()

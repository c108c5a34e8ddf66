"""What a second process of a test runs: it must be importable there."""

from __future__ import annotations

from pathlib import Path

from support import generated_records as generated


def write_some(root: str, worker: int) -> None:
    for seed in range(6):
        generated.save(Path(root), f"method_{worker if seed % 2 else 'shared'}", seed=seed, images=60, exits=2)

"""Weights on disk: equal trainings leave equal files, since a record names its weights by their bytes."""

from __future__ import annotations

import torch

from anytime_bench.files import file_sha256
from anytime_bench.training.checkpoints import read_tensors, write_tensors


def test_equal_tensors_and_losses_give_equal_bytes_in_every_write(tmp_path):
    path = tmp_path / "weights.safetensors"
    tensors = {"a": torch.arange(3.0), "b": torch.zeros(())}
    hashes = set()
    for seconds in range(20):  # a header in random order would show in one of twenty
        write_tensors(path, tensors, seconds=seconds, losses=[1.0, 0.5])
        hashes.add(file_sha256(path))
    assert len(hashes) == 1
    read, seconds, losses = read_tensors(path)
    assert losses == [1.0, 0.5]
    assert seconds == 19.0
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())

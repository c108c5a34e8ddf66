"""Weights on disk: equal trainings leave equal files, since a record names its weights by their bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anytime_bench.errors import UserError
from anytime_bench.files import file_sha256
from anytime_bench.training.checkpoints import load_weights, read_tensors, write_tensors


def test_equal_tensors_and_losses_give_equal_bytes_in_every_write(tmp_path):
    path = tmp_path / "weights.safetensors"
    tensors = {"a": torch.arange(3.0), "b": torch.zeros(())}
    hashes = set()
    for seconds in range(20):  # a header in random order would show in one of twenty
        write_tensors(path, tensors, seconds=seconds, losses=[1.0, 0.5], precision="bf16")
        hashes.add(file_sha256(path))
    assert len(hashes) == 1
    read, seconds, losses, precision = read_tensors(path)
    assert losses == [1.0, 0.5]
    assert seconds == 19.0
    assert precision == "bf16"
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_every_flipped_bit_of_the_content_is_noticed(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"a": torch.arange(6.0), "b": torch.tensor(3)}, seconds=1.5, losses=[2.0, 1.0])
    whole = path.read_bytes()
    content = 8 + int.from_bytes(whole[:8], "little")
    for position in range(content, len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(UserError, match="were altered"):
            load_weights(tmp_path)
    path.write_bytes(whole)
    loaded = load_weights(tmp_path)
    assert loaded is not None
    assert loaded[1].losses == [2.0, 1.0]


def test_a_kill_between_the_two_files_leaves_no_weights_without_their_seconds(tmp_path, monkeypatch):
    """Where the tensors lie, the rest does: a later run takes them and would never write, and so clean, here again."""
    path, replaced = tmp_path / "weights.safetensors", []

    def replace(part, target):
        replaced.append(Path(target).name)
        if len(replaced) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write_tensors(path, {"a": torch.arange(3.0)}, seconds=1.5, losses=[1.0])
    assert replaced == ["weights.seconds"]
    assert list(tmp_path.iterdir()) == []

"""What training asks of a GPU's libraries so that it repeats, and that nothing of it stays behind."""

import os

import pytest
import torch

from anytime_bench.training.loop import _repeatable

CUDNN = torch.backends.cudnn


@pytest.fixture
def device(monkeypatch):
    """A process that has a CUDA device, chooses cuDNN's algorithms by trial and says nothing of cuBLAS."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(CUDNN, "benchmark", True)
    monkeypatch.setattr(CUDNN, "deterministic", False)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)


def state():
    return CUDNN.deterministic, CUDNN.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG")


@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_repeatable_algorithms_are_asked_for_while_training_and_no_longer(device, monkeypatch, workspace):
    if workspace:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace)
    before = state()
    with _repeatable(True):
        assert state() == (True, False, ":4096:8")
    assert state() == before == (False, True, workspace)


def test_whoever_does_not_want_it_is_left_alone(device):
    with _repeatable(False):
        assert state() == (False, True, None)

"""What training asks of a GPU's libraries so that it repeats, and that nothing of it stays behind."""

import pytest
import torch

from anytime_bench.training.loop import _repeatable

CUDNN, CUDA = torch.backends.cudnn, torch.backends.cuda


@pytest.fixture
def device(monkeypatch):
    """A process that chooses cuDNN's algorithms by trial."""
    monkeypatch.setattr(CUDNN, "benchmark", True)
    monkeypatch.setattr(CUDNN, "deterministic", False)


def state():
    fused = CUDA.flash_sdp_enabled(), CUDA.mem_efficient_sdp_enabled(), CUDA.cudnn_sdp_enabled()
    return CUDNN.deterministic, CUDNN.benchmark, any(fused), CUDA.math_sdp_enabled()


def test_repeatable_algorithms_are_asked_for_while_training_and_no_longer(device):
    before = state()
    with _repeatable(True):
        assert state() == (True, False, False, True)
    assert state() == before == (False, True, True, True)


def test_whoever_does_not_want_it_is_left_alone(device):
    with _repeatable(False):
        assert state() == (False, True, True, True)

"""Settings that hold for the whole process, by torch's older and newer names."""

import pytest
import torch

from anytime_bench.harness.environment import capture
from anytime_bench.harness.torch_settings import (
    NEWER,
    OLDER,
    SETTINGS,
    in_force,
    restored_settings,
    tf32,
    tf32_convolutions,
    tf32_products,
)


def settings():
    return {name: read() for name, (read, _) in SETTINGS.items()}


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        (torch.backends.cudnn.conv, "fp32_precision", "ieee"),
        (torch.backends.cudnn.rnn, "fp32_precision", "ieee"),
        (torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
        (torch.backends.mkldnn.conv, "fp32_precision", "bf16"),
        (torch.backends, "fp32_precision", "tf32"),
        (torch.backends.cudnn, "allow_tf32", False),
        (torch.backends.cuda.matmul, "allow_tf32", True),
    ],
)
def test_a_precision_set_by_any_name_is_read_told_and_put_back(place, name, value, capsys):
    before = settings()
    with restored_settings("a plugin"):
        setattr(place, name, value)
        in_force()
        assert capture("cpu")["cuda"]["tf32_matmul"] == tf32_products()
        changed = settings()
    assert changed != before
    assert settings() == before
    assert "a plugin set " in capsys.readouterr().err
    assert torch.get_float32_matmul_precision() == before["the precision of float32 products"], "torch reads it again"


def test_both_names_say_what_holds():
    with restored_settings("a plugin"):
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        assert (tf32_products(), tf32_convolutions()) == (True, False)
        assert in_force().float32_products == "mixed"
    with restored_settings("a plugin"):
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = False
        assert (tf32_products(), tf32_convolutions()) == (True, False)
        assert in_force().float32_products == "high"


def test_what_was_set_by_a_newer_name_before_stays_so():
    with restored_settings("a test"):
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        before = settings()
        with restored_settings("a plugin"):
            torch.backends.cudnn.allow_tf32 = True
            assert tf32_convolutions()
        assert settings() == before
        with tf32(True):
            assert tf32_convolutions()
        assert settings() == before


@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_sets_convolutions_and_products_and_nothing_else(allowed):
    before, enabled = settings(), torch.backends.cudnn.enabled
    with tf32(allowed):
        assert (tf32_products(), tf32_convolutions()) == (allowed, allowed)
        assert torch.backends.cudnn.enabled == enabled
        others = before.keys() - OLDER.keys() - NEWER.keys()
        assert all(SETTINGS[name][0]() == before[name] for name in others)
    assert settings() == before

"""Trains one method in this process, or in a group of processes, and prints its losses: see test_ddp.py."""

import json
import sys
from pathlib import Path

import torch

from anytime_bench.methods.plugins import load_method
from anytime_bench.tasks.loading import load_task
from anytime_bench.training import ddp as distributed
from anytime_bench.training.config import AugmentConfig, RunConfig, TrainingConfig
from anytime_bench.training.data import DeviceSplit
from anytime_bench.training.loop import train

OPTIONS = {
    "cascaded_td": {"lam": 0.5, "width": 8, "stem_pool": False, "blocks": [1, 1]},
    "serial_td": {"lam": 1.0, "width": 8, "stem_pool": False, "blocks": [1, 1]},
    "sdn": {"width": 8, "stem_pool": False, "blocks": [1, 1]},
}


def main(name: str, folder: Path) -> None:
    distributed.start("cpu")
    task = load_task("digits")
    # The last batch has 9 images, which two processes share unevenly. Training is chaotic: rounding differences grow
    # with every step, the faster the larger the rate, and more so with a handful of values per channel.
    settings = TrainingConfig(epochs=4, batch_size=64, lr=0.02, train_images=201, channels_last=False, precision="fp32")
    config = RunConfig(training=settings, augment=AugmentConfig(crop_padding=1, crop_mode="constant"))
    method = load_method(name, **OPTIONS[name])
    torch.manual_seed(0)
    model = method.build(task.card)
    splits = [DeviceSplit.place(task.splits[key], task.card, "cpu") for key in ("train", "val")]
    report = train(method, model, *splits, config, seed=0, folder=folder, resume=False)
    statistics = {key: value for key, value in model.state_dict().items() if "running" in key}
    if distributed.rank() == 0:
        sums = {key: value.double().sum().item() for key, value in statistics.items()}
        print(json.dumps({"losses": report.losses, "statistics": sums}))
    distributed.leave()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

"""What the lazy streams of MSDNet and SDN cost over the same layers written down plainly.

For every exit k, at batch 1: the time from an image to the answer of exit k with all answers before it, by ``stream``
and by plain PyTorch: nn.Sequential of nn.Conv2d, nn.BatchNorm2d and nn.ReLU, strung together by a loop, with the same
weights and the same answers (asserted). MSDNet is compared with two plain forms: ``same``, exactly the features that
the exit needs, and ``blocks``, whole blocks as published. All are timed in random order, round by round, in one
process; ``again`` is our own stream a second time and shows how far a ratio of 1 strays.

    OMP_NUM_THREADS=1 python tests/benchmarks/rivals.py [--rounds 40]

prints one line per exit: medians over the rounds in milliseconds, and the median of the rounds' ratios (goal: 1.1 or
less), on one thread.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from baselines.msdnet.model import Branch, ConvUnit, DenseFeature, MSDNet
from baselines.residual import ResidualBlock, cifar_resnet, suite_resnet
from baselines.sdn.model import ShallowDeepNet

Stream = Callable[[Tensor], Iterator[Tensor]]


def unit(module: ConvUnit) -> nn.Sequential:
    return nn.Sequential(module.conv, module.norm, nn.ReLU(inplace=True))


def branch(module: Branch) -> nn.Sequential:
    return nn.Sequential(*unit(module.bottleneck), *unit(module.conv3x3))


class PlainDense(nn.Module):
    """One scale of an MSDNet layer."""

    def __init__(self, module: DenseFeature) -> None:
        super().__init__()
        self.normal = branch(module.normal)
        self.down = branch(module.down) if module.down is not None else nn.Sequential()

    def forward(self, *x: Tensor) -> Tensor:
        if len(x) == 1:
            return torch.cat([x[0], self.normal(x[0])], dim=1)
        return torch.cat([x[0], self.down(x[1]), self.normal(x[0])], dim=1)


def plain_msdnet(model: MSDNet, lazy: bool) -> Stream:
    """The grid as one straight list of plain modules per exit."""
    modules = {
        f.name: PlainDense(m) if isinstance(m := model.features[f.name], DenseFeature) else unit(m) for f in model.grid
    }
    steps = model._lazy_steps if lazy else model._eager_steps
    todo = [[(modules[f.name].eval(), f.name, f.inputs) for f in step.compute] for step in steps]
    classifiers = [
        nn.Sequential(*unit(c.conv1), *unit(c.conv2), nn.AvgPool2d(2), nn.Flatten(), c.linear).eval()
        for c in model.classifiers
    ]

    def stream(images: Tensor) -> Iterator[Tensor]:
        x = {"images": images}
        for layers, classifier, name in zip(todo, classifiers, model.exit_features, strict=True):
            for layer, output, inputs in layers:
                x[output] = layer(*[x[i] for i in inputs])
            yield classifier(x[name])

    return stream


class PlainBlock(nn.Module):
    """A residual block up to its last ReLU."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.residual = nn.Sequential(block.conv1, block.norm1, nn.ReLU(inplace=True), block.conv2, block.norm2)
        self.shortcut = block.shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.shortcut(x)


class PlainReduction(nn.Module):
    """Feature reduction of an internal classifier."""

    def __init__(self, alpha: Tensor, window: tuple[int, int]) -> None:
        super().__init__()
        self.alpha, self.max, self.avg = alpha, nn.MaxPool2d(window), nn.AvgPool2d(window)

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * self.max(x) + (1 - self.alpha) * self.avg(x)


def plain_sdn(model: ShallowDeepNet) -> Stream:
    """Segments between exits, each one nn.Sequential that ends before a ReLU."""
    segments, previous = [], 0
    parts: list[nn.Module] = list(model.backbone.stem)
    for last in (*model.ic_blocks, len(model.backbone.blocks) - 1):
        for block in model.backbone.blocks[previous : last + 1]:
            parts += [PlainBlock(block), nn.ReLU()]
        segments.append(nn.Sequential(*parts[:-1]).eval())
        parts, previous = [nn.ReLU()], last + 1
    classifiers = [
        nn.Sequential(
            PlainReduction(c.alpha, c.window) if c.alpha is not None else nn.Identity(), nn.Flatten(), c.linear
        )
        for c in model.classifiers
    ]
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.backbone.head.linear)

    def stream(images: Tensor) -> Iterator[Tensor]:
        x = images
        for segment, classifier in zip(segments, [*classifiers, head], strict=True):
            x = segment(x)
            yield classifier(x)

    return stream


def take(stream: Stream, images: Tensor, k: int) -> float:
    """Seconds from the image to the answer of exit ``k``."""
    start = time.perf_counter()
    answers = stream(images)
    for _ in range(k + 1):
        next(answers)
    return time.perf_counter() - start


def compare(title: str, model: MSDNet | ShallowDeepNet, plain: dict[str, Stream], rounds: int) -> None:
    images = torch.randn(1, 3, 32, 32)
    plain = {**plain, "again": model.stream}
    ours = list(model.stream(images))
    for name, stream in plain.items():
        for k, (mine, theirs) in enumerate(zip(ours, stream(images), strict=True)):
            assert torch.allclose(mine, theirs, atol=1e-4), f"{title}, {name}: exit {k} differs"
    print(f"\n{title}\nexit  ours ms" + "".join(f"  {name:>8} ms   ratio" for name in plain))
    for k in range(model.num_exits):
        streams = {"ours": model.stream, **plain}
        times: dict[str, list[float]] = {name: [] for name in streams}
        for turn in range(rounds + 3):
            for name in random.sample(list(streams), len(streams)):
                seconds = take(streams[name], images, k)
                if turn >= 3:
                    times[name].append(seconds)
        line = f"{k:4}  {1e3 * statistics.median(times['ours']):7.2f}"
        for name in plain:
            ratios = [a / b for a, b in zip(times["ours"], times[name], strict=True)]
            line += f"  {1e3 * statistics.median(times[name]):8.2f}     {statistics.median(ratios):5.3f}"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, CPU, {torch.get_num_threads()} thread, batch 1, 3x32x32, {rounds} rounds")
    with torch.no_grad():
        msdnet = MSDNet().eval()
        forms = {"same": plain_msdnet(msdnet, lazy=True), "blocks": plain_msdnet(msdnet, lazy=False)}
        compare("MSDNet, anytime network of CIFAR-10", msdnet, forms, rounds)
        for title, backbone in (
            ("SDN, CIFAR ResNet-56", cifar_resnet(56)),
            ("SDN, the suite's ResNet-18", suite_resnet()),
        ):
            model = ShallowDeepNet(backbone).eval()
            compare(title, model, {"same": plain_sdn(model)}, rounds)


if __name__ == "__main__":
    main()

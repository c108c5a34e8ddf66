"""Inner widths that make every residual block of a cascade take about equally long, at the plain network's MACs.

A cascade's tick lasts as long as its slowest block. The stages of a ResNet have equal MACs, but not equal times: at
batch 1 a late block multiplies each of its many weights with few pixels, and then reading the weights is what takes
time. So a block's cost is modelled as ``MACs + MACS_PER_WEIGHT * weights``, and the channels between its two
convolutions are chosen so that all blocks cost the same and the sum of MACs is the plain network's::

    m_l = K / (9 (c_{l-1} + c_l) (pixels_l + MACS_PER_WEIGHT))     for c_l channels and pixels_l positions of block l

Outputs and shortcuts keep their channels.
"""

from __future__ import annotations

from collections.abc import Sequence

#: MACs in the time of reading one float32 weight that no cache holds: 0.45 ns against 20 ps a MAC, fitted to the
#: blocks of ResNet-18 at width 64 on one core of an x86 server (AVX-512); machines with less bandwidth have more.
MACS_PER_WEIGHT = 22
#: Inner widths are multiples of this, which kernels like.
MULTIPLE = 4


def inner_widths(blocks: Sequence[int], width: int, height: int, breadth: int) -> list[int]:
    """Channels between the two convolutions of each basic block, for stem features of ``height x breadth``.

    >>> inner_widths((2, 2, 2, 2), 64, 16, 16)
    [96, 96, 204, 156, 232, 176, 168, 128]
    """
    shapes, channels = [], width
    for stage, count in enumerate(blocks):
        pixels = -(-height // 2**stage) * -(-breadth // 2**stage)
        for _ in range(count):
            shapes.append((channels + width * 2**stage, width * 2**stage, pixels))
            channels = width * 2**stage
    total = sum(both * own * pixels for both, own, pixels in shapes)
    share = total / sum(pixels / (pixels + MACS_PER_WEIGHT) for _, _, pixels in shapes)
    exact = (share / (both * (pixels + MACS_PER_WEIGHT)) for both, _, pixels in shapes)
    return [max(MULTIPLE, MULTIPLE * round(each / MULTIPLE)) for each in exact]

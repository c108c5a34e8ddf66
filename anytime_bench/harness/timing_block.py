"""The timing block of a record as typed models. Seconds, unless a field says otherwise.

``Timing.meta`` is what was asked and noticed while the clock ran; all else is derived from the raw samples and
``meta`` by ``timing_summary.summarise``. Every batch size has its block, and in it one ``ClockBlock`` per timed axis.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, model_validator

from anytime_bench.scores.results import Estimate, Strict

Stop = Literal["real", "simulated"]


class Spread(Strict):
    """Percentiles and mean over all inferences, and the 95 % interval of the median over rounds."""

    p50: float
    p90: float
    p99: float
    mean: float
    low: float
    high: float


class Execution(Strict):
    """Run-through times of the model executed in another way, per exit.

    ``reference_full`` is the reference executed in that way too, where the ratios are to that and not to its plain
    answer.
    """

    run_through: list[Spread]
    ratio_to_reference: list[Estimate]
    reference_full: Spread | None = None


class ProcessRatios(Strict):
    """Ratios to the reference per exit as one of several timing processes measured them."""

    ratio_to_reference: list[Estimate]
    prefix_ratio_to_reference: list[Estimate] = Field(default_factory=list)


class ClockBlock(Strict):
    """One clock at one batch size; lists are per exit.

    ``stop`` says whether run-through times are of a run that could be stopped there, ``prefix_stop`` the same of the
    times of single exits (``answer(images, k)``, batch 1 only). ``throughput`` is images per second up to each exit,
    ``queue_share`` the part of all latencies for which the thread was runnable without a core, None where unknown.
    ``a_a`` is the ratio of two copies of the reference in the same rounds, with its 99 % interval.
    """

    clock: str
    stop: Stop
    prefix_stop: Stop
    reference_full: Spread
    run_through: list[Spread]
    ratio_to_reference: list[Estimate]
    throughput: list[float]
    prefix: list[Spread] = Field(default_factory=list)
    prefix_ratio_to_reference: list[Estimate] = Field(default_factory=list)
    executions: dict[str, Execution] = Field(default_factory=dict)
    processes: list[ProcessRatios] = Field(default_factory=list)
    queue_share: float | None = None
    a_a: Estimate | None = None


class BatchTiming(Strict):
    """Everything about one batch size; ``reasons`` say why its times are not ``comparable``.

    ``widest`` is the width, relative to its ratio, of the widest interval on the host's clock.
    """

    rounds: int
    inferences_per_round: int
    stopped_because: str
    comparable: bool
    reasons: list[str]
    clocks: dict[str, ClockBlock]
    widest: float | None = None


class Dispatch(Strict):
    """How much of the last exit's latency is fixed, a line through its times at the batch sizes.

    ``seconds`` is what a run-through takes whatever the batch, which on a small network is dispatch, and ``share`` its
    part of one image's time; ``seconds_per_image`` and ``seconds_per_mac`` are what the arithmetic takes.
    """

    seconds: float
    seconds_per_image: float
    seconds_per_mac: float | None = None
    share: float


class EarlyStopTiming(Strict):
    """Stopping for real at one batch size: ``latency`` per group of images with the decisions, whose part is
    ``policy_share``; ``full`` are the same groups run to the last exit without deciding, in turn with these, None in
    records made without. ``final_accuracy`` is that of the last exit on the same images, None likewise. ``engine`` ran
    the model, which times of another engine are not comparable to."""

    policy: str
    stop: Stop
    engine: str = "eager"
    batch_size: int
    images: int
    accuracy: float
    final_accuracy: float | None = None
    mean_exit: float
    latency: Spread
    full: Spread | None = None
    policy_share: float


class TorchSettings(Strict):
    """Settings of torch for a whole process: ``threads`` are intra-op ones, ``float32_products`` is the precision of
    matrix products ("highest" is full)."""

    threads: int
    default_dtype: str
    gradients: bool
    float32_products: str
    deterministic: bool
    cudnn_benchmark: bool
    cudnn_deterministic: bool


class TimingMeta(Strict):
    """How a model was timed. Dictionaries are keyed by batch size (as text) or by clock.

    ``settings`` are torch's while the clock ran, None in records made without. ``tf32`` is said of convolutions,
    ``tf32_products`` of matrix products. ``target`` is the width of every ratio's interval at which timing may end
    before its time is over, ``inferences`` how many make a round, ``best_threads`` how many intra-op threads the
    model runs on fastest. ``answers_agree`` is the share of answers given while timing that an untimed pass
    repeats; ``watch`` is what the watch on the machine read per batch size, ``disturbances`` its reasons against
    comparing.
    """

    device: str = ""
    engine: str = ""
    engine_requested: str = ""
    precision: str = "fp32"
    tf32: bool = False
    tf32_products: bool = False
    cache: str = "warm"
    threads: int = 0
    settings: TorchSettings | None = None
    seed: int = 0
    num_exits: int = 0
    macs: list[int] = Field(default_factory=list)
    processes: int = 1
    target: float | None = None
    inferences: dict[str, int] = Field(default_factory=dict)
    best_threads: int | None = None
    batch_sizes: list[int] = Field(min_length=1)
    clocks: dict[str, str]
    stop: dict[str, dict[str, Stop]]
    queue_wait_known: bool = False
    stopped_because: dict[str, str]
    answers_agree: float | None = None
    disturbances: dict[str, list[str]] = Field(default_factory=dict)
    watch: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    early_stop: list[EarlyStopTiming] = Field(default_factory=list)


class Timing(Strict):
    """The timing block of a record. The first batch size is the headline, on which boards rank."""

    meta: TimingMeta
    batches: dict[str, BatchTiming]
    notes: list[str]
    dispatch: Dispatch | None = None

    @model_validator(mode="after")
    def _batches_are_those_asked_for(self) -> Timing:
        if list(self.batches) != [str(size) for size in self.meta.batch_sizes]:
            raise ValueError(f"expected one block per batch size {self.meta.batch_sizes}, got {list(self.batches)}")
        if any("latency" not in batch.clocks for batch in self.batches.values()):
            raise ValueError("every batch size must hold the clock 'latency'")
        return self

    @property
    def headline(self) -> BatchTiming:
        return self.batches[str(self.meta.batch_sizes[0])]

    @property
    def comparable(self) -> bool:
        """Whether the headline's times may be ranked."""
        return self.headline.comparable

    @property
    def latency(self) -> ClockBlock:
        """The host's clock at the headline batch size, which every timing reads."""
        return self.headline.clocks["latency"]

    def clock(self, axis: str) -> ClockBlock | None:
        """One clock at the headline batch size; None where it was not read."""
        return self.headline.clocks.get(axis)

"""The names, families and severities of all corruptions. No torch here, so that listing them is instant.

Paper kinds act on normalised images (value 0 is the data set's mean) and have no severities. Common kinds act on
pixels in [0, 1] and have severities 1 to 5: the constants of the script that made CIFAR-10-C (Hendrycks and
Dietterich, ICLR 2019, arXiv 1903.12261), which are not those of ImageNet-C. Frost is left out; see ``LEFT_OUT``.

A plugin adds a corruption with ``register_corruption`` or through the entry-point group
``anytime_bench.corruptions``, whose target is a ``Corruption`` of family "plugin".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from anytime_bench.errors import UserError
from anytime_bench.registry import Registry

Family = Literal["paper", "common", "plugin"]
Space = Literal["normalised", "unit"]


@dataclass(frozen=True)
class Corruption:
    """One kind of noise.

    ``operator`` is a function ``(images (B, D, H, W), draws, *constants) -> (B, D, H, W)``, or the string
    ``"module:function"``, imported on first use. ``space`` says what it is given: ``"normalised"`` images or pixels in
    [0, 1] (``"unit"``, snapped to the 8-bit grid). ``levels`` holds the constants of severity 1, 2, ...; a kind
    without severities has none.
    """

    name: str
    family: Family
    space: Space
    operator: str | Callable[..., Any]
    levels: tuple[tuple[Any, ...], ...] = ()
    summary: str = ""

    @property
    def severities(self) -> tuple[int, ...]:
        return tuple(range(1, len(self.levels) + 1))

    def constants(self, severity: int | None) -> tuple[Any, ...]:
        """The constants of a severity; ``UserError`` for a severity that the kind does not have."""
        if not self.levels:
            if severity is not None:
                raise UserError(f"corruption '{self.name}' has no severities, got severity {severity}. Leave it out.")
            return ()
        if isinstance(severity, bool) or not isinstance(severity, int) or severity not in self.severities:
            raise UserError(
                f"severity of '{self.name}': expected an integer from 1 to {len(self.levels)}, got {severity!r}."
            )
        return self.levels[severity - 1]

    def load(self) -> Callable[..., Any]:
        """The operator itself; imports torch the first time."""
        if not isinstance(self.operator, str):
            return self.operator
        module, _, function = self.operator.partition(":")
        return getattr(importlib.import_module(module), function)


#: Kinds that are deliberately absent, with the reason that an error quotes.
LEFT_OUT: Mapping[str, str] = {
    "frost": "it blends in photographs of frost that this suite does not carry. Put the official CIFAR-10-C files "
    "under the data root to evaluate it",
}


class Catalogue(Registry, Mapping[str, Corruption]):
    """All corruptions by name, in the order of their tables: built-in ones first, then what plugins add."""

    def __getitem__(self, name: str) -> Corruption:
        if name in LEFT_OUT:
            raise UserError(f"corruption '{name}' is left out: {LEFT_OUT[name]}.")
        kind, origin = self.resolve(name)
        if not isinstance(kind, Corruption):
            raise UserError(f"corruption '{name}' of {origin}: expected a Corruption, got {type(kind).__name__}.")
        return kind

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def family(self, family: Family) -> tuple[str, ...]:
        """Names of one family, in order."""
        return tuple(name for name in self if self[name].family == family)


def _paper(name: str, summary: str) -> Corruption:
    return Corruption(name, "paper", "normalised", f"anytime_bench.corruptions.paper:{name}", (), summary)


def _common(module: str, name: str, summary: str, *levels: tuple[Any, ...]) -> Corruption:
    return Corruption(name, "common", "unit", f"anytime_bench.corruptions.{module}:{name}", levels, summary)


def _zooms(last: float) -> tuple[float, ...]:
    return tuple(round(1 + 0.01 * step, 2) for step in range(round((last - 1) * 100) + 1))


def _by_name(*kinds: Corruption) -> dict[str, Corruption]:
    return {kind.name: kind for kind in kinds}


#: Every known corruption by name.
KINDS = Catalogue(
    "anytime_bench.corruptions",
    "corruption",
    _by_name(
        _paper("focus", "sharp 16x16 window, 3x3 Gaussian blur elsewhere"),
        _paper("occlusion", "16x16 patch set to the mean"),
        _paper("resolution", "average-pooled by 1, 2 or 4, then upsampled"),
        _paper("perlin", "40 % of the pixels, chosen by Perlin noise, set to the mean"),
        _paper("translation", "random walk of 1 pixel per axis and frame, within 8 pixels"),
        _paper("rotation", "rotated by up to 60 degrees either way"),
        # (standard deviation)
        _common("pixel_noise", "gaussian_noise", "additive normal noise", (0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
        # (photons at full brightness)
        _common("pixel_noise", "shot_noise", "Poisson photon counts", (500,), (250,), (100,), (75,), (50,)),
        # (share of values)
        _common("pixel_noise", "impulse_noise", "salt and pepper", (0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
        # (radius, sigma of the kernel's own blur)
        _common("blur", "defocus_blur", "disk kernel", (0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        # (sigma, largest displacement, rounds)
        _common(
            "blur",
            "glass_blur",
            "neighbouring pixels swapped between two blurs",
            *((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ),
        # (radius, sigma)
        _common("blur", "motion_blur", "one-sided line kernel", (6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        # (zoom factors)
        _common("blur", "zoom_blur", "mean over zooms", *((_zooms(last),) for last in (1.05, 1.10, 1.15, 1.20, 1.25))),
        # (mean, deviation, zoom, threshold, blur radius, blur sigma, share of the picture)
        _common(
            "weather",
            "snow",
            "drifting flakes on a whitened image",
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        # (amount, decay of roughness)
        _common("weather", "fog", "plasma fractal haze", (0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        # (amount)
        _common("digital", "brightness", "added to the HSV value", (0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
        # (factor)
        _common("digital", "contrast", "shrunk towards the mean", (0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
        # (displacement, its smoothness, corner displacement), as shares of the image's side
        _common(
            "digital",
            "elastic_transform",
            "affine and smooth displacement",
            *((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        ),
        # (share of the side)
        _common("digital", "pixelate", "box-averaged and upsampled", (0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
        # (quality)
        _common("jpeg", "jpeg_compression", "JPEG quantisation, 4:2:0", (80,), (65,), (58,), (50,), (40,)),
    ),
)


def register_corruption(
    name: str,
    operator: Callable[..., Any],
    *,
    space: Space = "unit",
    levels: tuple[tuple[Any, ...], ...] = (),
    summary: str = "",
) -> Corruption:
    """Add a corruption of one's own, of family "plugin"; a taken name raises ``UserError``.

    ``operator(images, draws, *constants)`` returns images of the same shape; see ``Corruption``. It enters ``--noise``
    by its name and never joins the paper's or the common set:
    ``register_corruption("negative", lambda pixels, draws: 1 - pixels)``.
    """
    if name in LEFT_OUT:
        raise UserError(f"corruption '{name}' is taken by the suite. Rename yours.")
    kind = Corruption(name, "plugin", space, operator, levels, summary)
    KINDS.add(name, kind)
    return kind


def conditions(kinds: Iterable[str], severities: Iterable[int] | None = None) -> list[tuple[str, int | None]]:
    """(kind, severity) for every kind and each of its severities; ``severities`` narrows those that have any.

    >>> conditions(["focus", "fog"], [1, 5])
    [('focus', None), ('fog', 1), ('fog', 5)]
    """
    wanted = None if severities is None else list(severities)
    chosen: list[tuple[str, int | None]] = []
    for name in kinds:
        kind = KINDS[name]
        if not kind.levels:
            chosen.append((name, None))
            continue
        for severity in kind.severities if wanted is None else wanted:
            kind.constants(severity)
            chosen.append((name, severity))
    return chosen


def named(choice: str) -> tuple[str, ...]:
    """The kinds behind ``none``, ``paper``, ``common`` or ``all``, or a comma-separated list of names.

    >>> named("focus,rotation")
    ('focus', 'rotation')
    """
    if choice == "none":
        return ()
    if choice == "all":
        return KINDS.family("paper") + KINDS.family("common")
    if choice in ("paper", "common"):
        return KINDS.family(choice)  # type: ignore[arg-type]
    return tuple(KINDS[name.strip()].name for name in choice.split(","))

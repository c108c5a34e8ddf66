"""The cost axes: the one table of them. Every other list of axes in the package derives from ``AXES``.

It lies in the lowest room that names an axis, because stored answers under noise (``trace/noise.py``), scores and the
timing summary need it as well as records and boards. ``records/axes.py`` reads an axis's numbers off a record.

A new axis is one entry here, if its numbers lie in one of the known places:

========== ===========================================================================================================
place      numbers of exit k, and of the reference's full answer
========== ===========================================================================================================
``exits``  ``exits[k].<name>`` and ``reference.<name>``, counted; ``derive`` takes them from its argument ``costs``
``timing`` samples ``timing_batch<b>_<name>_*`` of a clock, whose rounds hold the reference too; see
           ``harness/timing_summary.py``
``span``   samples ``span_*`` of the operators, whose rounds hold the reference too; see ``harness/span_summary.py``
========== ===========================================================================================================

Measured numbers depend on the machine: exits that noise put out of order are settled, and records of different devices
are never compared on them. Counted ones are the same everywhere, and must increase from exit to exit, unless exits
may be ready together (``ties``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Axis:
    """One cost axis. ``unit`` is the stored numbers'; ``shown_unit`` is ``shown_scale`` times as large.

    ``horizon`` names the axis on which the reference's full cost is the unit, where that is another one: parallel time
    is compared with what the reference takes one operator after the other.
    """

    name: str
    title: str
    unit: str
    measured: bool
    place: Literal["exits", "timing", "span"]
    shown_unit: str
    shown_scale: float = 1.0
    horizon: str = ""
    ties: bool = False

    @property
    def settled(self) -> bool:
        """Whether costs that do not increase are put in order, rather than refused."""
        return self.measured or self.ties


#: In the order of every table and figure.
AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis("ticks", "ticks", "ticks", False, "exits", "ticks"),
        Axis("macs", "MACs", "MACs", False, "exits", "million MACs", 1e6),
        Axis("span_macs", "span in MACs", "MACs", False, "span", "million MACs", 1e6, horizon="macs", ties=True),
        Axis("span", "span", "s", True, "span", "ms", 1e-3),
        Axis("latency", "latency", "s", True, "timing", "ms", 1e-3),
        Axis("device_time", "device time", "s", True, "timing", "ms", 1e-3),
    )
}


def counted() -> list[str]:
    """Axes whose numbers are the same on every machine."""
    return [name for name, axis in AXES.items() if not axis.measured]


def measured() -> list[str]:
    """Axes whose numbers depend on the machine."""
    return [name for name, axis in AXES.items() if axis.measured]


def timed() -> list[str]:
    """Axes that a clock reads in rounds with the reference; the first is the headline, on which boards rank."""
    return [name for name, axis in AXES.items() if axis.place == "timing"]

"""What a watch on the machine may read before times are not comparable: limits, and reasons in words.

A pure function of stored readings, without torch, so that whoever has a record can ask again what its watch saw.
Readings are ``foreign_busy_cores`` and ``stolen_cores``, means over the measurement in cores, and ``queue_share``, the
part of its time for which the measuring thread was runnable without a core; None where that is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

#: A neighbour using more than this share of all cores makes a timing not comparable.
FOREIGN_LIMIT = 0.10
#: So does a hypervisor that takes more than this share of one core away.
STOLEN_LIMIT = 0.10
#: And a measuring thread that was runnable without a core for more than this share of its time.
QUEUE_LIMIT = 0.02
WAITED = "the measuring thread was runnable without a core"


def cpu_reasons(readings: Mapping[str, JsonValue], cores: int) -> list[str]:
    """Reasons why what was timed meanwhile, on a machine of ``cores``, is not comparable.

    Raises ``ValueError`` for a reading that is no number.
    """
    foreign, stolen, queue = (_read(readings, name) for name in ("foreign_busy_cores", "stolen_cores", "queue_share"))
    reasons = []
    if foreign > FOREIGN_LIMIT * cores:
        reasons.append(f"other processes kept {foreign:.2f} of {cores} cores busy, which slows and scatters times")
    if stolen > STOLEN_LIMIT:
        reasons.append(f"the hypervisor took {stolen:.0%} of a core away")
    if queue > QUEUE_LIMIT:
        reasons.append(f"{WAITED} {queue:.0%} of the time")
    return reasons


def _read(readings: Mapping[str, JsonValue], name: str) -> float:
    value = readings.get(name)
    if isinstance(value, bool | str | list | dict):
        raise ValueError(f"{name} is {value!r:.40}, expected a number")
    return value or 0.0

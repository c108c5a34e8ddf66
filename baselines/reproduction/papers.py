"""The papers whose claims are judged, and which claims: one page each."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.reproduction import cascade, dynamics, rivals
from baselines.reproduction.findings import Claim


@dataclass(frozen=True)
class Paper:
    """``name`` is the page's file name; ``short`` stands in tables, ``title`` over the page."""

    name: str
    short: str
    title: str
    source: str
    claims: tuple[Claim, ...]

    @property
    def path(self) -> str:
        return f"reproduction/{self.name}.md"


PAPERS = (
    Paper(
        "cascade",
        "Cascaded networks",
        "What of the cascade paper holds",
        "[Iuzzolino, Mozer and Bengio, NeurIPS 2021](https://arxiv.org/abs/2102.09808)",
        (*cascade.CLAIMS, *dynamics.CLAIMS),
    ),
    Paper(
        "msdnet",
        "MSDNet",
        "What of the MSDNet paper holds",
        "[Huang et al., ICLR 2018](https://arxiv.org/abs/1703.09844)",
        rivals.MSDNET,
    ),
    Paper(
        "sdn",
        "Shallow-Deep Networks",
        "What of the SDN paper holds, and of mixed training",
        "[Kaya, Hong and Dumitras, ICML 2019](https://arxiv.org/abs/1810.07052) and, for the last claim, of the mixed "
        "regime (2025)",
        rivals.SDN,
    ),
    Paper(
        "boostnet",
        "BoostNet",
        "What of the BoostNet paper holds",
        "[Yu et al., AAAI 2023](https://arxiv.org/abs/2211.16726)",
        rivals.BOOSTNET,
    ),
    Paper(
        "ztw", "Zero Time Waste", "What of the Zero Time Waste paper holds", "Wolczyk et al., NeurIPS 2021", rivals.ZTW
    ),
)

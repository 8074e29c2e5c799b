"""What mapping did, in numbers and as text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.mapping.check import CheckResult
from nmc_compiler.mapping.notebook import mapping_html
from nmc_compiler.mapping.place import PlacementReport
from nmc_compiler.mapping.resources import RESOURCES
from nmc_compiler.mapping.route import RouteReport


@dataclass(frozen=True)
class LayerTiles:
    """How one cluster was cut: tiles along channels, rows and columns, and the cores that they stand on."""

    name: str
    cut: tuple[int, int, int]
    cores: tuple[int, ...]

    @property
    def tiles(self) -> int:
        return self.cut[0] * self.cut[1] * self.cut[2]


@dataclass(frozen=True)
class MappingReport:
    """Utilisation, placement, routes and the result of the checker.

    ``utilisation``: per core resource -> (used, limit). Traffic is in packets per timestep at the
    rates that were given; without any, ratios of hops mean something and absolute values do not.
    """

    target: str
    chips: int
    layers: tuple[LayerTiles, ...]
    utilisation: tuple[dict[str, tuple[int, int]], ...]
    placement: PlacementReport
    routes: RouteReport
    check: CheckResult
    measured_rates: bool

    @property
    def cores(self) -> int:
        return len(self.utilisation)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return mapping_html(self)

    def summary(self) -> str:
        """Lines for a terminal: cores, each resource's mean and fullest core, hops, what was checked."""
        lines = [self.title]
        for name in RESOURCES:
            used = np.array([core[name][0] for core in self.utilisation])
            limit = self.utilisation[0][name][1]
            fullest = int(np.argmax(used))
            lines.append(
                f"  {name:<14} mean {used.mean() / limit:6.1%}   fullest core {fullest}: "
                f"{used[fullest]}/{limit} ({used[fullest] / limit:.1%})"
            )
        return "\n".join([*lines, *(f"  {line}" for line in self.traffic)])

    @property
    def title(self) -> str:
        """How many cores of what."""
        return f"{self.cores} cores of {self.target} on {self.chips} chip{'s' * (self.chips > 1)}"

    @property
    def traffic(self) -> list[str]:
        """Hops, links, and what was checked, a line each."""
        place = self.placement
        rates = "measured rates" if self.measured_rates else "a uniform rate"
        return [
            f"packet-hops per timestep at {rates}: {place.final:.1f}, "
            f"{place.saving:.1%} below row-major order ({place.row_major:.1f}; greedy {place.greedy:.1f})",
            f"busiest link {self.routes.max_link:.1f} packets per timestep, between chips {self.routes.crossings:.1f}",
            f"checked: {self.check.synapses} synapses of {self.check.projections} event streams "
            f"by {self.check.axons} axon rows, each once",
        ]

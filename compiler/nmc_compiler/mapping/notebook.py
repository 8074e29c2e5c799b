"""A mapping in a notebook: how full the cores are, and where the layers lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nmc_compiler.html import Html, bar, card, folded, items, table
from nmc_compiler.mapping.resources import RESOURCES

if TYPE_CHECKING:
    from nmc_compiler.mapping.report import MappingReport


def mapping_html(report: MappingReport) -> str:
    """HTML of a mapping, of bounded length."""
    return card(report.title, [*mapping_parts(report), items(report.traffic)])


def mapping_parts(report: MappingReport) -> list[Html]:
    """Use of each resource, and the layers."""
    used = np.array([[core[name][0] for name in RESOURCES] for core in report.utilisation])
    top = np.array([report.utilisation[0][name][1] for name in RESOURCES])
    rows = [
        (x.name.replace("'", ""), f"{x.tiles:,}", "x".join(map(str, x.cut)), f"{len(x.cores):,}") for x in report.layers
    ]
    return [resources(used, top), folded("layers", table(("layer", "tiles", "cut", "cores"), rows, (1, 3)))]


def resources(used: np.ndarray, top: np.ndarray) -> Html:
    """used [cores, resources], top [resources]."""
    rows = [
        (name, f"{top[n]:,}", bar(used[:, n].mean(), top[n]), bar(used[:, n].max(), top[n]))
        for n, name in enumerate(RESOURCES)
    ]
    return table(("resource", "a core has", "mean", "fullest core"), rows, (1,))

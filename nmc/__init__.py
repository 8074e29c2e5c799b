"""nmc: compile trained spiking networks to neuromorphic cores, and emulate what was mapped.

    import nmc

    program = nmc.compile("model.pt", target="loihi2", out="build")
    run = nmc.emulate(program, images, labels)
    print(run.report)

Everything is loaded on first use, so that ``import nmc`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nmc.artefact import Compiled, load
    from nmc.compiling import compile
    from nmc.emulating import Run, emulate, recost
    from nmc.exporting import export
    from nmc.fitting import Fit, fit
    from nmc.inspecting import Inspection, inspect
    from nmc.ladder import Ladder, verify
    from nmc.measuring import Metrics, metrics
    from nmc.sweep.explore import Sweep, explore
    from nmc.traced import trace
    from nmc_compiler.errors import NmcError
    from nmc_compiler.frontends.trace.registry import register_host, register_neuron

__all__ = [
    "Comparison",
    "Compiled",
    "Fit",
    "Inspection",
    "Ladder",
    "Metrics",
    "NmcError",
    "Run",
    "Sweep",
    "__version__",
    "compare",
    "compile",
    "emulate",
    "encode",
    "explore",
    "export",
    "fit",
    "inspect",
    "load",
    "metrics",
    "recost",
    "register_host",
    "register_neuron",
    "trace",
    "verify",
]

_HOME = {
    "Comparison": "nmc.comparing",
    "Compiled": "nmc.artefact",
    "Fit": "nmc.fitting",
    "Inspection": "nmc.inspecting",
    "Ladder": "nmc.ladder",
    "Metrics": "nmc.measuring",
    "NmcError": "nmc_compiler.errors",
    "Run": "nmc.emulating",
    "Sweep": "nmc.sweep.explore",
    "compare": "nmc.comparing",
    "compile": "nmc.compiling",
    "emulate": "nmc.emulating",
    "encode": "nmc.encoders",
    "explore": "nmc.sweep.explore",
    "export": "nmc.exporting",
    "fit": "nmc.fitting",
    "inspect": "nmc.inspecting",
    "load": "nmc.artefact",
    "metrics": "nmc.measuring",
    "recost": "nmc.emulating",
    "register_host": "nmc_compiler.frontends.trace.registry",
    "register_neuron": "nmc_compiler.frontends.trace.registry",
    "trace": "nmc.traced",
    "verify": "nmc.ladder",
}


def __getattr__(name: str) -> Any:
    """PEP 562: import the module of a public name when it is first asked for."""
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'nmc' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import version

    return version("nmc")

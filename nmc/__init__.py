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
    from nmc.inspecting import Inspection, inspect
    from nmc.ladder import Ladder, verify
    from nmc.traced import trace
    from nmc_compiler.errors import NmcError
    from nmc_compiler.frontends.trace.registry import register_neuron

__all__ = [
    "Comparison",
    "Compiled",
    "Inspection",
    "Ladder",
    "NmcError",
    "Run",
    "__version__",
    "compare",
    "compile",
    "emulate",
    "encode",
    "export",
    "inspect",
    "load",
    "recost",
    "register_neuron",
    "trace",
    "verify",
]

_HOME = {
    "Comparison": "nmc.comparing",
    "Compiled": "nmc.artefact",
    "Inspection": "nmc.inspecting",
    "Ladder": "nmc.ladder",
    "NmcError": "nmc_compiler.errors",
    "Run": "nmc.emulating",
    "compare": "nmc.comparing",
    "compile": "nmc.compiling",
    "emulate": "nmc.emulating",
    "encode": "nmc.encoders",
    "export": "nmc.exporting",
    "inspect": "nmc.inspecting",
    "load": "nmc.artefact",
    "recost": "nmc.emulating",
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

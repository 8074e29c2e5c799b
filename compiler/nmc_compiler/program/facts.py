"""What a Program keeps of the target it was compiled for."""

from __future__ import annotations

from typing import Any

from nmc_compiler.target import Target


def target_facts(target: Target) -> dict[str, Any]:
    """Name, digest and integer profile of `target`, its mesh, and the limits a mapping is checked against."""
    mesh = target.mesh
    limits = {name: getattr(target.core, name).value for name in type(target.core).model_fields}
    return {
        "name": target.name,
        "digest": target.digest,
        "profile": target.profile,
        "mesh": {
            "routers": list(mesh.routers.value),
            "cores_per_router": mesh.cores_per_router.value,
            "routing": mesh.routing.value,
            "chip_axis": mesh.chip_axis.value,
            "multicast": "unicast" if mesh.multicast is None else mesh.multicast.value,
        },
        "limits": {key: list(v) if isinstance(v, tuple) else v for key, v in limits.items()},
    }

"""Tensors that no forward pass reads may hold anything: some are memory that the authors' code never wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.checkpoint import import_checkpoint

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "sdt_v1"


@pytest.mark.parametrize(("key", "dead"), [("talking_heads.weight", True), ("proj_conv.weight", False)])
def test_nan_is_refused_only_where_it_is_read(tmp_path: Path, key: str, dead: bool) -> None:
    torch = pytest.importorskip("torch")
    state = torch.load(FIXTURE / "model.pt", weights_only=True)
    name = next(k for k in state if k.endswith(key))
    state[name].view(-1)[0] = float("nan")
    torch.save(state, tmp_path / "model.pt")
    config = next(p for p in sorted(FIXTURE.iterdir()) if p.suffix in (".yaml", ".yml", ".json"))
    if dead:
        assert any(name in note for note in import_checkpoint(tmp_path / "model.pt", config).notes)
        return
    with pytest.raises(FrontendError, match=f"^tensor '{name}' .* has 1 NaN"):
        import_checkpoint(tmp_path / "model.pt", config)

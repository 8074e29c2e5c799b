"""The notebooks run from their first cell to their last, in one kernel, and are kept without outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel: pip install '.[dev]'")
pytest.importorskip("nbclient", reason="needs nbclient and ipykernel: pip install '.[dev]'")
pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel: pip install '.[dev]'")

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NEEDS = {"custom_neuron": "torch"}


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    """One process for all: most of the time of a notebook is that of its imports."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(FOLDER))
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs(path: Path, kernel: Any) -> None:
    from nbclient import NotebookClient

    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem], reason=f"{path.stem} needs nmc[{NEEDS[path.stem]}]")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    NotebookClient(notebook, km=kernel, timeout=120, resources={"metadata": {"path": str(FOLDER)}}).execute()
    shown = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert shown and not any(out.output_type == "error" for out in shown)
    assert not any("stderr" in out.get("name", "") for out in shown), [
        o.text for o in shown if o.get("name") == "stderr"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_is_kept_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells] == [f"{path.stem}-{n}" for n in range(len(notebook.cells))]
    assert all(not c.outputs and c.execution_count is None for c in notebook.cells if c.cell_type == "code")
    assert notebook.cells[0].source.startswith("# ")


def test_links_lead_to_pages() -> None:
    for path in NOTEBOOKS:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (FOLDER / target).exists(), f"{path.name} links to {target}"

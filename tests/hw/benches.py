"""Runs a cocotb bench of hw/tb on Icarus, or says what is missing for it."""

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
RTL, TB = ROOT / "hw" / "rtl", ROOT / "hw" / "tb"


def bench(
    tmp_path: Path, module: str, top: str, sources: Sequence[Path], parameters: Mapping[str, int] | None = None
) -> None:
    """Build ``top`` and run every test of ``hw/tb/<module>.py`` on it; fails with the first that fails."""
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog is missing: apt-get install iverilog")
    if importlib.util.find_spec("cocotb") is None:
        pytest.skip("cocotb is missing: pip install -e '.[dev]' in the checkout")
    from cocotb_tools.runner import get_runner

    runner = get_runner("icarus")
    runner.build(
        sources=list(sources),
        hdl_toplevel=top,
        build_dir=tmp_path,
        parameters=dict(parameters or {}),
        always=True,
        build_args=["-g2012"],
        timescale=("1ns", "1ps"),
        log_file=tmp_path / "build.log",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TB))  # which the runner hands on
        try:
            results = runner.test(
                hdl_toplevel=top,
                test_module=module,
                build_dir=tmp_path,
                test_dir=tmp_path,
                results_xml=str(tmp_path / "results.xml"),
                log_file=tmp_path / "run.log",
            )
        except SystemExit:
            pytest.fail(f"{module} did not run:\n" + (tmp_path / "run.log").read_text()[-4000:])
    cases = list(ElementTree.parse(results).iter("testcase"))
    failed = [case.get("name") for case in cases if any(child.tag in ("failure", "error") for child in case)]
    log = (tmp_path / "run.log").read_text()
    assert cases and not failed, f"{module}: {failed}\n{log[-6000:]}"

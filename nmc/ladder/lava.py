"""A rung beside the ladder: the emulator against Lava, in an interpreter of Lava's own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from nmc.exporting import export
from nmc.ladder.compare import Place, compare_codes, describe
from nmc.ladder.explain import Reader, explain_program
from nmc.ladder.rungs import Rung
from nmc.npz import Npz
from nmc_compiler.errors import ToolNotFound, VerifyError
from nmc_compiler.program.model import Program
from nmc_emulator import Emulator
from nmc_emulator.host import payload_range
from nmc_emulator.trace import codes_of
from nmc_hw.tools import find_tools

CLAIM = "Lava's fixed-point Processes of the exported folder send, in every tick, what the emulator says, bit for bit"
STREAM_STEPS = 16  # timesteps of a network without a window, for each "image"
LARGEST_CODE = 255  # of noise: Lava shifts what a soma receives left by 6 within 32 bits
NOISE_RATE = 0.3  # share of input somas that send in a timestep
START_SECONDS, TICK_SECONDS = 240.0, 5.0  # Lava hangs where one of its processes dies: no longer than that


def lava_python() -> Path:
    """The interpreter that has Lava. ToolNotFound, which says how to get it."""
    tool = next(tool for tool in find_tools() if tool.name == "lava-nc")
    if tool.found is None:
        raise ToolNotFound(f"no Python 3.10 with lava-nc: {tool.how_to_get}")
    return tool.found


def lava_rung(
    program: Program, inputs: dict[str, np.ndarray], *, unroll: bool = False, python: Path | None = None
) -> Rung:
    """Emulator = Lava: every population at every timestep of every sample, and the readout.

    inputs: ``images`` [N, ...], or ``codes/<input>`` [timesteps, C, H, W] of every input (see `noise`).
    unroll: run Convs as the same synapses one by one, which Lava does faster.  python: the interpreter
    that has Lava, looked for where not given.

    ToolNotFound where there is no Lava, LoweringError where the Program cannot be exported, VerifyError
    where Lava does not come to an end.
    """
    python = python or lava_python()
    codes, logits = emulated(program, inputs)
    with tempfile.TemporaryDirectory(prefix="nmc-lava-") as folder:
        export(program, Path(folder) / "net")
        np.savez(Path(folder) / "input.npz", **inputs)  # type: ignore[arg-type]
        said = _run(python, Path(folder), _ticks(program, codes), unroll)
        with Npz(Path(folder) / "results.npz") as file:
            found = {name: file.read(f"spikes/{name}") for name in codes}
            theirs = file.read("logits_int") if logits is not None else None
            outside = sum(int(file.read(f"outside/{name}")) for name in codes)
    return _compare(program, inputs, (codes, logits), (found, theirs), said | {"events_between_windows": outside})


def noise(program: Program, samples: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs drawn evenly from what the Program takes: images, or events of its inputs."""
    rng = np.random.default_rng(seed)
    encoded = {h.population: h for h in program.host_codes}
    if program.host_currents or encoded:
        low, high = next(((h.lo / h.scale, h.hi / h.scale) for h in encoded.values()), (0.0, 1.0))
        shape = (program.timesteps, *program.input_shape) if program.input_time else program.input_shape
        return {"images": rng.uniform(low, high, (samples, *shape))}
    steps, found = samples * (program.timesteps or STREAM_STEPS), {}
    for p in program.populations:
        if p.model == "input":
            low, high = (max(min(end, LARGEST_CODE), -LARGEST_CODE) for end in payload_range(p))
            sends = rng.random((steps, *p.shape)) < NOISE_RATE
            found[f"codes/{p.name}"] = rng.integers(low, high + 1, sends.shape) * sends
    return found


def emulated(program: Program, inputs: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Codes [N, T, C, H, W] of every population that sends, and the readout's potentials [N, classes] if any."""
    emulator = Emulator(program, record="all")
    if "images" in inputs:
        run = emulator.run(inputs["images"])
        return run.codes, run.logits_int if any(p.model == "readout" for p in program.populations) else None
    given = {key.removeprefix("codes/"): codes for key, codes in inputs.items()}
    steps = len(next(iter(given.values())))
    result = emulator.run_events(given, steps)
    window, found = program.timesteps or steps, {}
    for p in program.populations:
        if p.model != "readout":
            whole = codes_of(result.events[p.name], steps, p.shape)
            found[p.name] = whole.reshape(steps // window, window, *p.shape)
    return found, None


def _ticks(program: Program, codes: dict[str, np.ndarray]) -> int:
    samples, steps = next(iter(codes.values())).shape[:2]
    return samples * max(program.interval, steps * program.ticks_per_step) + program.depth


def _run(python: Path, folder: Path, ticks: int, unroll: bool) -> dict[str, Any]:
    """Run the exported folder; what it says of itself."""
    command = [str(python), "run.py", "../input.npz", "-o", "../results.npz", *(["--unroll"] if unroll else [])]
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    limit = START_SECONDS + TICK_SECONDS * ticks
    process = subprocess.Popen(
        command,
        cwd=folder / "net",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Lava has one process per Process; all of them must end with it
        text=True,
    )
    try:
        text, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        raise VerifyError(
            f"Lava did not come to an end in {limit:.0f} s for {ticks} ticks; give fewer images"
        ) from None
    finally:
        _end(process)
    if process.returncode:
        lines = [line for line in text.strip().splitlines() if line.strip()] or ["it said nothing"]
        raise VerifyError(f"Lava did not run the exported folder (exit status {process.returncode}): {lines[-1][:500]}")
    match = re.search(r"(\d+) Processes, (\d+) samples, ([\d.]+) s", text)
    return {"processes": int(match.group(1)), "lava_seconds": float(match.group(3))} if match else {}


def _end(process: subprocess.Popen[str]) -> None:
    """End what is left of it, with all its children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


Answer = tuple[dict[str, np.ndarray], np.ndarray | None]


def _compare(
    program: Program, inputs: dict[str, np.ndarray], ours: Answer, theirs: Answer, said: dict[str, Any]
) -> Rung:
    order = [p for p in sorted(program.populations, key=lambda p: p.level) if p.name in ours[0]]
    sides = [tuple(np.moveaxis(side[0][p.name], 0, 1) for side in (ours, theirs)) for p in order]
    seen = compare_codes((p.name, a, b) for p, (a, b) in zip(order, sides, strict=True))
    compared, different, first = seen.compared, seen.different, None
    if seen.first is not None:
        first = _explained(program, inputs, ours[0], seen.first)
    if ours[1] is not None and theirs[1] is not None:
        wrong = ours[1] != theirs[1]
        compared, different = compared + wrong.size, different + int(wrong.sum())
        if first is None and wrong.any():
            image, c = (int(i) for i in np.argwhere(wrong)[0])
            first = _readout(program, image, c, int(ours[1][image, c]), int(theirs[1][image, c]))
    samples = len(next(iter(ours[0].values())))
    return Rung(
        "emulator = lava", CLAIM, compared, different, first, {"populations": len(order), "images": samples} | said
    )


def _readout(program: Program, image: int, c: int, expected: int, got: int) -> dict[str, Any]:
    """The readout's potential differs though every spike agrees."""
    p = next(p for p in program.populations if p.model == "readout")
    last = program.timesteps - 1
    place = Place(p.name, image, last, (c, 0, 0), expected, got)
    return describe(place, p.shape, last * program.ticks_per_step + p.level)


def _explained(
    program: Program, inputs: dict[str, np.ndarray], codes: dict[str, np.ndarray], place: Place
) -> dict[str, Any]:
    p = next(p for p in program.populations if p.name == place.layer)
    tick = place.timestep * program.ticks_per_step + p.level
    if "images" not in inputs or program.sparses:  # the explanation knows images and no synapses one by one
        return describe(place, p.shape, tick)
    image = inputs["images"][place.image]
    reader = Reader(program, {name: code[place.image] for name, code in codes.items()}, image)
    why = {"emulator": explain_program(reader, place.layer, place.neuron, place.timestep)}
    return describe(place, p.shape, tick, inputs=why)

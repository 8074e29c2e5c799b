"""nmc.explore: many ways to compile one model, run, and put side by side."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmc.artefact import graph_digest
from nmc.compiling import file_digest
from nmc.importing import ModelOptions, import_model
from nmc.sweep.cluster import Lost, check_workers, pool, processors
from nmc.sweep.front import Objective, check_objectives, front, objectives_of
from nmc.sweep.points import DEFAULTS, KEYS, Point, Value, points_of
from nmc.sweep.records import Record, Results, ordered
from nmc.sweep.work import BESIDE, INPUT, MODEL, PRICES, Source, Task, evaluate, lost
from nmc.traced import is_code
from nmc_compiler.errors import NmcError, UsageError
from nmc_compiler.frontends.config import find_config
from nmc_emulator.energies import split_rates
from nmc_emulator.progress import progress_bar

CHECKPOINTS = (".pt", ".pth", ".safetensors")
MAX_SENT = 1 << 31  # bytes of all files that a scheduler is sent


@dataclass(frozen=True)
class Sweep:
    """Points with what became of them, in order; ``front``: keys of those that no other point beats.

    ``vary``: names of the options that the table shows.
    """

    records: list[Record]
    objectives: list[Objective]
    front: set[str]
    vary: list[str]

    @staticmethod
    def of(records: Sequence[Record], objectives: Sequence[str] = (), vary: Sequence[str] = ()) -> Sweep:
        """Of records in any order. UsageError for an objective that no point has."""
        found = ordered(records)
        aims = objectives_of(objectives, found)
        return Sweep(found, aims, front(found, aims), list(vary) or differing(found))


def differing(records: Sequence[Record]) -> list[str]:
    """Options that are not the same in all records."""
    names = [n for n in KEYS if any(n in r.options for r in records)]
    names += sorted({n for r in records for n in r.options} - set(names))
    return [n for n in names if len({repr(r.options.get(n)) for r in records}) > 1]


def explore(
    model: str | os.PathLike[str],
    vary: Mapping[str, Sequence[Value]],
    *,
    input: str | os.PathLike[str] | None = None,
    samples: int | None = None,
    steps: int | None = None,
    prices: Sequence[str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] = "explore.jsonl",
    workers: int | None = None,
    scheduler: str | None = None,
    objectives: Sequence[str] = (),
    progress: bool = False,
    **options: Any,
) -> Sweep:
    """Compile ``model`` in all combinations of the options in ``vary``, run each on ``input``, and keep the results.

    vary: by option of ``nmc.compile`` the values to try.  options: others of its options, the same for all points.
    input: a file as for ``nmc.emulate``; None: nothing is run.  samples: only so many of them.  steps: of a stream.
    prices: profiles of the energies, as for ``nmc.emulate``.
    out: the results, which only grow: points that are in it already are kept and not computed again.
    workers: processes of this machine (None: one per processor; 0: none, one point after the other here).
    scheduler: "tcp://host:port" of Dask instead.  objectives: what the Pareto front is of (docs/explore.md).

    What nmc refuses is a result, with the text of the error. UsageError for options that make no sense.
    """
    check_workers(workers, scheduler)
    check_objectives(objectives)
    _check_options(vary, options)
    if input is None and (samples is not None or steps is not None or prices):
        raise UsageError("samples, steps and prices are of a run; give its --input as well")
    split_rates(prices)  # refuses those that are none
    run = {"samples": samples, "steps": steps, "prices": tuple(os.path.basename(p) for p in prices)}
    given = {} if input is None else {INPUT: input}
    given |= {f"{PRICES} {os.path.basename(p)}": p for p in prices if os.path.isfile(p)}
    tasks = _tasks(model, points_of(vary, options), given, run, scheduler is not None)
    results = Results(out)
    try:
        _compute(tasks, results, workers, scheduler, progress)
    finally:
        results.close()
    wanted = [results.records[task.key] for task in tasks]
    return Sweep.of(wanted, objectives, [name for name in KEYS if name in vary])


def _check_options(vary: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    unknown = next((k for k in vary if k not in KEYS), None)
    if unknown is not None:
        raise UsageError(f"'{unknown}' is nothing to vary; keys: {', '.join(KEYS)}")
    stray = next((k for k in options if k not in DEFAULTS or k in ("example_input", "out", "observer")), None)
    if stray is not None:
        raise UsageError(f"'{stray}' is no option of nmc.compile that a sweep can give")
    empty = next((k for k, values in vary.items() if not values), None)
    if empty is not None:
        raise UsageError(f"{empty} is varied over no value")


# --- what is computed -------------------------------------------------------------------------------------


def _tasks(
    model: str | os.PathLike[str],
    points: Sequence[Point],
    given: Mapping[str, str | os.PathLike[str]],
    run: Mapping[str, Any],
    remote: bool,
) -> list[Task]:
    digests: dict[Path, Source] = {}

    def source(path: str | os.PathLike[str]) -> Source:
        place = Path(path).absolute()
        if place not in digests:
            if not place.is_file():
                raise UsageError(f"{path}: there is no such file")
            digests[place] = Source(place, file_digest(place))
        return digests[place]

    path, call = _model(model, remote)
    networks: dict[str, str] = {}
    common = {MODEL: source(path)} | {name: source(place) for name, place in given.items()}
    beside = find_config(path) if path.suffix in CHECKPOINTS else None
    found = []
    for point in points:
        files = {name: source(place) for name, place in point.paths.items()}
        config = {BESIDE: source(beside)} if beside is not None and "config" not in files else {}
        plain = {k: v for k, v in point.options.items() if k not in point.paths}
        sources = common | config | files
        graph = _network(f"{path}{call}", point, networks) if call else ""
        found.append(Task(sources, plain, point.options, **run, call=call, graph=graph))
    if len({task.key for task in found}) < len(found):
        raise UsageError("two values of an option are the same file or the default; vary each value once")
    return found


def _model(model: str | os.PathLike[str], remote: bool) -> tuple[Path, str]:
    """The file of a model, and what follows its name where it is code."""
    if not is_code(model):
        return Path(model), ""
    if remote:
        raise UsageError(
            f"{os.fspath(model)}: code may import what other machines do not have; explore it with --workers, or"
            " a checkpoint or a NIR graph of it with --scheduler"
        )
    name, _, call = os.fspath(model).rpartition(":")
    return Path(name), f":{call}"


def _network(model: str, point: Point, known: dict[str, str]) -> str:
    """Digest of the network that code makes for a point: the code may import files that nobody tells us of."""
    given = point.options | point.paths
    asked = {k: v for k, v in given.items() if k in ModelOptions.__dataclass_fields__}
    if repr(asked) not in known:
        try:
            known[repr(asked)] = graph_digest(import_model(model, ModelOptions(**asked)).graph)
        except NmcError:  # the point will tell
            known[repr(asked)] = ""
    return known[repr(asked)]


# --- computing --------------------------------------------------------------------------------------------


def _compute(
    tasks: Sequence[Task], results: Results, workers: int | None, scheduler: str | None, progress: bool
) -> None:
    """Run what is not in the results yet."""
    known = {key for key, record in results.records.items() if record.status != "lost"}
    todo = [task for task in tasks if task.key not in known]
    count = min(processors() if workers is None else workers, len(todo))
    if results.dropped:
        _tell(f"{results.path}: an unfinished record at its end was dropped")
    kept = len(tasks) - len(todo)
    told = f"{len(tasks)} point{'s' * (len(tasks) != 1)}: {kept} kept from {results.path}, {len(todo)} to run"
    _tell(told + _where(count, scheduler))
    if not todo:
        return
    with progress_bar(len(todo), "point", progress) as show:
        for record in _serial(todo) if workers == 0 else _spread(todo, count, scheduler):
            results.add(record)
            show(1)


def _where(count: int, scheduler: str | None) -> str:
    if scheduler:
        return f" on the workers of {scheduler}"
    return f" on {count} worker{'s' * (count > 1)}" if count else ""


def _serial(tasks: Sequence[Task]) -> Iterator[Record]:
    return map(evaluate, tasks)


def _spread(tasks: Sequence[Task], workers: int, scheduler: str | None) -> Iterator[Record]:
    with pool(workers, scheduler) as team:
        shared = (team.share(_contents(tasks)),) if scheduler else ()
        for task, outcome in team.unordered(evaluate, tasks, shared):
            yield lost(task, outcome.text) if isinstance(outcome, Lost) else outcome


def _contents(tasks: Sequence[Task]) -> dict[str, bytes]:
    """The files of all points by their sha256, for machines that do not have them."""
    sources = {s.sha256: s.path for task in tasks for s in task.sources.values()}
    size = sum(path.stat().st_size for path in sources.values())
    if size > MAX_SENT:
        raise UsageError(f"--scheduler: the files are {size:,} bytes, and a scheduler is sent at most {MAX_SENT:,}")
    return {digest: path.read_bytes() for digest, path in sources.items()}


def _tell(text: str) -> None:
    print(f"nmc: {text}", file=sys.stderr, flush=True)

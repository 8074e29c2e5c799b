"""Dask workers: processes of this machine, or those of a scheduler that is there already."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from nmc import _version
from nmc_compiler.errors import NmcError, ToolNotFound, UsageError

DEATHS = 2  # of local workers that a piece of work survives; the next one is its last
ANSWER_SECONDS = 10  # until a scheduler answers
WAIT_SECONDS = 60  # for the first worker of a scheduler, and for another where none is left
POLL_SECONDS = 5.0
STOPPED = "the scheduler has been stopped; run the same command again"
NOISY = ("distributed", "tornado", "asyncio")
ENVIRONMENT = {
    "DASK_LOGGING__DISTRIBUTED": "critical",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
}

Job = TypeVar("Job")


@dataclass(frozen=True)
class Lost:
    """What became of work whose workers died: ``text`` says how often."""

    text: str


def check_workers(workers: int | None, scheduler: str | None) -> None:
    """UsageError for options that do not go together."""
    if workers is not None and workers < 0:
        raise UsageError(f"--workers {workers}: give 0, for a run in this process, or more")
    if workers is not None and scheduler is not None:
        raise UsageError("--workers starts processes here, --scheduler uses those that are there; give one of them")


def check_version(version: str) -> None:
    """UsageError where the process that sent work is of another nmc."""
    if version != _version():
        raise UsageError(f"a worker has nmc {_version()}, but was sent work by {version}; install that there")


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def pool(workers: int, scheduler: str | None = None) -> Iterator[Pool]:
    """Workers for as long as the block lasts.

    workers: how many processes to start, which listen on this machine alone.  scheduler: "tcp://host:port" instead;
    it and its workers run what they are sent, and are sent the files: use those of people you trust.  ToolNotFound
    without the package, NmcError where the scheduler does not answer.
    """
    distributed = _distributed()
    settings = {"distributed.scheduler.allowed-failures": DEATHS}
    with contextlib.ExitStack() as stack:
        import dask

        stack.enter_context(dask.config.set(settings))
        stack.enter_context(_silence())
        address = stack.enter_context(_local(distributed, workers)) if scheduler is None else scheduler
        client = stack.enter_context(_client(distributed, address, scheduler))
        try:
            yield Pool(client)
        except distributed.comm.CommClosedError:
            raise NmcError(STOPPED) from None


def _distributed() -> Any:
    try:
        import cryptography  # noqa: F401  distributed makes keys with it
        import distributed
    except ImportError:
        raise ToolNotFound(
            "workers need Dask: pip install 'nmc[sweep]'; or give --workers 0, to run in this process"
        ) from None
    return distributed


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """A worker that dies is told of by us."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in NOISY]
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _local(distributed: Any, workers: int) -> Iterator[Any]:
    try:
        cluster = _started(distributed, workers)
    except RuntimeError as error:
        raise NmcError(f"workers could not be started ({error}); is there memory enough? Try fewer --workers") from None
    try:
        yield cluster
    finally:
        cluster.close(timeout=10)


def _started(distributed: Any, workers: int) -> Any:
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        protocol="tls",
        security=True,  # keys of this run alone: other users of the machine cannot send its workers anything
        dashboard_address=None,
        memory_limit=0,
        silence_logs=logging.CRITICAL,
        env=ENVIRONMENT,
        preload=["nmc.sweep.preload"],
    )


@contextlib.contextmanager
def _client(distributed: Any, address: Any, scheduler: str | None) -> Iterator[Any]:
    try:
        client = distributed.Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise NmcError(f"--scheduler {address}: no answer ({error}); is `dask scheduler` running there?") from None
    try:
        _first_worker(client, scheduler or "this machine")
        yield client
    finally:
        client.close(timeout=5)


def _first_worker(client: Any, where: str) -> None:
    try:
        client.wait_for_workers(1, timeout=WAIT_SECONDS)
    except TimeoutError:
        raise NmcError(f"{where} has no worker after {WAIT_SECONDS} s; start one: dask worker {where}") from None


class Pool:
    """Workers that functions are sent to."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.deaths = self.told = 0  # of workers
        client.subscribe_topic("all", self._note)

    @property
    def slots(self) -> int:
        """Pieces of work that run at a time."""
        return max(sum(self.client.nthreads().values()), 1)

    def share(self, value: Any) -> Any:
        """A value that every worker gets once and any can get again; what stands for it as an argument."""
        return self.client.submit(_same, value, pure=False)

    def unordered(
        self, function: Callable[..., Any], jobs: Iterable[Job], shared: tuple[Any, ...] = ()
    ) -> Iterator[tuple[Job, Any]]:
        """(job, ``function(job, *shared)``, or Lost) of all jobs as they are finished.

        As many are sent as can run: what waits for a worker does not die with it.
        """
        waiting = iter(jobs)
        running: dict[Any, Job] = {}
        while True:
            for job in _first(waiting, self.slots - len(running)):
                running[self.client.submit(function, job, *shared, pure=False)] = job
            if not running:
                return
            future = self._wait(list(running))
            job, outcome = running.pop(future), self._result(future)
            self._tell()
            yield job, outcome

    def in_order(
        self, function: Callable[..., Any], jobs: Iterable[Job], shared: tuple[Any, ...] = ()
    ) -> Iterator[tuple[Job, Any]]:
        """The same in the order of the jobs; at most twice as many as can run are kept in memory."""
        waiting = iter(jobs)
        running: list[tuple[Job, Any]] = []
        while True:
            for job in _first(waiting, 2 * self.slots - len(running)):
                running.append((job, self.client.submit(function, job, *shared, pure=False)))
            if not running:
                return
            job, future = running.pop(0)
            outcome = self._result(self._wait([future]))
            self._tell()
            yield job, outcome

    def _wait(self, futures: list[Any]) -> Any:
        """One that is finished. NmcError where no worker, or no scheduler, is left."""
        from distributed import wait
        from distributed.client import FutureCancelledError, FuturesCancelledError

        alone = 0.0
        while alone < WAIT_SECONDS:
            try:
                with self.client.as_current():
                    done = wait(futures, timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done
                return next(future for future in futures if future in done)
            except TimeoutError:
                alone = 0.0 if self._present() else alone + POLL_SECONDS
            except (FutureCancelledError, FuturesCancelledError, asyncio.CancelledError):
                raise NmcError(STOPPED) from None
        raise NmcError(f"no worker has been left for {WAIT_SECONDS} s; start some, and run again")

    def _present(self) -> bool:
        """Whether there is a worker."""
        try:
            return bool(self.client.nthreads())
        except OSError:
            return False

    def _result(self, future: Any) -> Any:
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker:
            return Lost(f"the worker died each of {self._attempts()} times that it was tried; is there memory enough?")
        except ModuleNotFoundError as error:
            raise NmcError(f"a worker cannot load nmc ({error}); install the same version there") from None

    def _attempts(self) -> int:
        return 1 + int(self.client.run_on_scheduler(_allowed))

    def _tell(self) -> None:
        """Say that workers have died since the last time."""
        if self.deaths > self.told:
            self.told = self.deaths
            died = "1 worker has" if self.told == 1 else f"{self.told} workers have"
            print(f"nmc: {died} died; what was at work there runs again", file=sys.stderr, flush=True)

    def _note(self, event: tuple[float, Any]) -> None:
        """What the scheduler tells of."""
        about = event[1]
        if isinstance(about, dict) and about.get("action") == "remove-worker":
            self.deaths += not about.get("expected")


def _first(items: Iterator[Job], count: int) -> list[Job]:
    return list(itertools.islice(items, max(count, 0)))


def _same(value: Any) -> Any:
    return value


def _allowed(dask_scheduler: Any = None) -> int:
    return int(dask_scheduler.allowed_failures)

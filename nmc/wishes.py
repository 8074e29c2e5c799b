"""What is wanted of a run beside its counters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nmc.recording import EVENTS
from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program
from nmc_emulator.price_profile import PriceProfile
from nmc_emulator.tracing.sinks import ALL_FILES, FORMATS

TRACES = ("events", *FORMATS)
FILES = (EVENTS, *ALL_FILES)


@dataclass(frozen=True)
class Wishes:
    """What is wanted of a run beside its counters.

    record: "all", or names of populations whose codes to return.  trace: file formats (TRACES).  probe: texts as
    ``parse_probes`` takes.  plot: pictures.  checkpoint: the file, or None.  multicast: None as the target does it.
    rates: a profile of times, None for that of the target.
    """

    record: str | list[str] = ""
    trace: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()
    plot: bool = False
    checkpoint: Path | None = None
    timing: str = ""
    multicast: bool | None = None
    rates: PriceProfile | None = None

    def __post_init__(self) -> None:
        for form in self.trace:
            if form not in TRACES:
                raise UsageError(f"no trace format {form!r}; choose of {', '.join(TRACES)}")

    @property
    def files(self) -> bool:
        """Whether the run writes more files than the report and the spikes."""
        return bool(self.trace or self.probe or self.plot)

    @property
    def events(self) -> bool:
        """Whether something wants the events of all populations."""
        return self.files or bool(self.timing)

    def check_names(self, program: Program) -> None:
        """UsageError for a name to record that is no population with events."""
        known, record = [p.name for p in program.populations if p.model != "readout"], self.record
        if record and record != "all" and (unknown := [name for name in record if name not in known]):
            more = ", ..." if len(known) > 8 else ""
            raise UsageError(
                f"cannot record '{unknown[0]}': Program '{program.name}' has no such population;"
                f" it has {', '.join(known[:8])}{more}"
            )

"""Options of every command. Nothing heavy is imported here: `nmc --help` answers at once."""

from __future__ import annotations

import argparse
from typing import Any

DESCRIPTION = "Compile trained spiking networks to neuromorphic cores, and emulate what was mapped."
EXIT = "exit status: 0 done, 1 error, 2 wrong usage, 3 verify found a difference, 130 interrupted"

Subparsers = Any  # argparse has no public name for it


class _Version(argparse.Action):
    """Looks the version up only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from nmc import _version

        print(f"nmc {_version()}")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """The parser of the `nmc` command."""
    parser = argparse.ArgumentParser(prog="nmc", description=DESCRIPTION, epilog=EXIT)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (_compile, _emulate, _report, _verify, _export, _inspect, _targets, _passes, _doctor):
        add(commands)
    return parser


def positive(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def _chips(text: str) -> int | str:
    return "auto" if text == "auto" else positive(text)


def _command(commands: Subparsers, name: str, text: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=EXIT)


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="pure JSON on standard output")


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="constructor arguments of the model, YAML or JSON")
    parser.add_argument("--family", metavar="NAME", help="model family, where the keys do not tell")


def _compile(commands: Subparsers) -> None:
    parser = _command(commands, "compile", "compile a checkpoint to a Program on the cores of a chip")
    add = parser.add_argument
    add("model", metavar="MODEL", help="checkpoint: .pt, .pth or .safetensors")
    add("--target", default="loihi2", metavar="NAME", help="chip, see `nmc targets`, or a YAML file (default: loihi2)")
    add("-o", "--out", default="build", metavar="FOLDER", help="where the artefact goes (default: build)")
    _model(parser)
    add("--chips", type=_chips, metavar="N|auto", help="chips that may be used (default: the target's own)")
    add("--calib", metavar="FILE.npz", help="images, not those of the test, whose spike rates weigh the placement")
    add(
        "--input-encoding",
        choices=("host-current", "graded8"),
        default="host-current",
        help="who computes the first layer: the host, or the cores from 8-bit events",
    )
    add(
        "--input-range",
        nargs=2,
        type=float,
        default=(0.0, 1.0),
        metavar=("LO", "HI"),
        help="values of the input, for graded8 (default: 0 1)",
    )
    add(
        "--residual",
        choices=("auto", "stream", "duplicate"),
        default="auto",
        help="residual streams: shared accumulators, or all fan-in once per reader "
        "(default: duplicate where the target then does only what it is documented to do)",
    )
    add(
        "--stream-pieces",
        type=positive,
        default=0,
        metavar="N",
        help="segments of residual streams, joined by relays (default: cut only what does not fit)",
    )
    add(
        "--attn-order",
        choices=("auto", "kv", "qk"),
        default="auto",
        help="which table attention keeps (default: the smaller)",
    )
    add(
        "--channel-bins",
        type=positive,
        default=4,
        metavar="N",
        help="most neuron groups for the channels of a layer (default: 4)",
    )
    add("--pipelined", action="store_true", help="start a sample as soon as the one before has left the first level")
    add("--seed", type=int, default=0, metavar="N", help="of the placement (default: 0)")
    add(
        "--print-after",
        action="append",
        default=[],
        metavar="PASS",
        help="print the graph after a pass (or `all`) to standard error; repeatable",
    )
    add("--time-passes", action="store_true", help="print how long each pass took to standard error")
    _json(parser)


def _emulate(commands: Subparsers) -> None:
    parser = _command(commands, "emulate", "run a compiled Program on images")
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="what `nmc compile` wrote")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--input",
        metavar="FILE",
        help=".npz of `images`, and `labels` if accuracy is wanted; or a recording of events, with --dt",
    )
    what.add_argument(
        "--from-trace",
        metavar="EVENTS.npz",
        help="do not run: count what this Program does with the events of a run of the same network",
    )
    add("-o", "--out", metavar="FOLDER", help="where the run goes (default: run/ inside FOLDER)")
    add("--record", nargs="+", default=[], metavar="NAME", help="populations whose spikes are kept, or `all`")
    add(
        "--trace",
        nargs="+",
        default=[],
        metavar="FORMAT",
        help="files about the run: events (for --from-trace), csv, parquet, chrome (a timeline for Perfetto)",
    )
    add(
        "--probe",
        nargs="+",
        default=[],
        metavar="NAME[:C,Y,X]",
        help="somas whose spikes and potentials go to probes.vcd, and to the tables of --trace",
    )
    add(
        "--timing",
        choices=("queue", "cycle"),
        default="",
        help="time of every tick: packets in queues and on links, or flit by flit (up to 64 cores)",
    )
    add("--multicast", action="store_true", help="for --timing: one packet per event, copied where its way branches")
    add("--plot", action="store_true", help="pictures: raster of spikes, map of cores, load over time")
    add(
        "--checkpoint",
        metavar="FILE",
        help="keep what is done in FILE; the same command goes on behind it",
    )
    add(
        "--engine",
        choices=("auto", "layers", "events", "ticks"),
        default="auto",
        help="layers or events (both fast), or tick by tick (default: whichever fits the Program)",
    )
    add("--batch", type=positive, default=1, metavar="N", help="samples computed together; changes nothing but memory")
    add("--limit", type=positive, metavar="N", help="only the first N samples")
    add("--dt", type=positive, metavar="N", help="for a recording of events: length of a timestep, in the units of t")
    add("--strict", action="store_true", help="a value out of range is an error, not a count")
    add(
        "--arithmetic",
        choices=("exact", "float"),
        default="exact",
        help="float: potentials that neither round nor wrap nor saturate, to see what the integers cost",
    )
    _json(parser)


def _report(commands: Subparsers) -> None:
    parser = _command(commands, "report", "show the numbers of the last run")
    parser.add_argument("folder", metavar="FOLDER", help="what `nmc compile` wrote, or a run inside or outside it")
    form = parser.add_mutually_exclusive_group()
    _json(form)  # type: ignore[arg-type]
    form.add_argument("--markdown", action="store_true", help="Markdown on standard output")


def _verify(commands: Subparsers) -> None:
    parser = _command(commands, "verify", "compare recorded vectors, interpreters, engines and mapping")
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="what `nmc compile` wrote")
    add("--golden", metavar="FILE.npz", help="`images`, `labels`, `logits`, `spikes/<module>`")
    add("--with", dest="other", choices=("lava",), help="compare the emulator with what is exported, run by Lava")
    add("--images", type=positive, metavar="N", help="for --with: images, golden ones or noise (default: 2)")
    add("--unroll", action="store_true", help="for --with lava: Convs as synapses one by one, which Lava does faster")
    add("--limit", type=positive, metavar="N", help="images whose accuracy is compared (default: 200)")
    add("--tick-images", type=positive, default=2, metavar="N", help="images run tick by tick (default: 2)")
    _json(parser)


def _export(commands: Subparsers) -> None:
    parser = _command(commands, "export", "write a compiled Program as a folder that other software runs")
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="what `nmc compile` wrote")
    add("--format", required=True, choices=("lava",), help="lava: lava-nc 0.10.0, simulation in fixed point")
    add("-o", "--out", required=True, metavar="FOLDER", help="where the files go")
    _json(parser)


def _inspect(commands: Subparsers) -> None:
    parser = _command(commands, "inspect", "tell layer by layer what is event-driven, and why")
    parser.add_argument("model", metavar="MODEL", help="checkpoint, or a folder that `nmc compile` wrote")
    _model(parser)
    _json(parser)


def _targets(commands: Subparsers) -> None:
    parser = _command(commands, "targets", "list the chips that can be compiled for")
    parser.add_argument("action", nargs="?", choices=("list", "show"), default="list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="for show: a name of the list, or a YAML file")
    _json(parser)


def _passes(commands: Subparsers) -> None:
    _json(_command(commands, "passes", "list the passes of the compiler, in order, with their options"))


def _doctor(commands: Subparsers) -> None:
    _json(_command(commands, "doctor", "list tools and packages found, and how to get the missing ones"))

"""Options of every command. Nothing heavy is imported here: `nmc --help` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

DESCRIPTION = "Compile trained spiking networks to neuromorphic cores, and emulate what was mapped."
ENCODINGS = ("poisson", "rate", "ttfs", "phase")  # nmc.encoders, which needs NumPy
EXIT = "exit status: 0 done, 1 error, 2 wrong usage, 3 verify: a difference, fit: does not fit, 130 interrupted"

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
    for add in (_compile, _emulate, _report, _compare, _explore, _verify, _export, _inspect, _fit, _targets, _passes):
        add(commands)
    for add in (_synth, _program, _board, _flash, _run, _doctor):
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


def _count(text: str) -> int:
    try:
        return 0 if text == "0" else positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0") from None


def _chips(text: str) -> int | str:
    return "auto" if text == "auto" else positive(text)


def _command(commands: Subparsers, name: str, text: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=EXIT)


def _prices(parser: argparse.ArgumentParser) -> None:
    what = "price profile of `nmc targets`, or a YAML file of your own (docs/prices.md), in place of others of its kind"
    parser.add_argument("--prices", action="append", default=[], metavar="NAME", help=f"{what}; repeatable")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="pure JSON on standard output")


def _model(parser: argparse.ArgumentParser) -> None:
    """What a model file cannot say."""
    add = parser.add_argument
    add("--config", metavar="FILE", help="constructor arguments of a checkpoint's model, YAML or JSON")
    add("--family", metavar="NAME", help="model family of a checkpoint, where the keys do not tell")
    add("--state", metavar="KEY", help="which state_dict of a file with several (default: the moving average, if any)")
    add(
        "-T",
        "--timesteps",
        type=positive,
        metavar="N",
        help="timesteps of one sample (default: a checkpoint's own; .nir, .net: an endless stream; code: as it runs)",
    )
    _code(parser)
    _nir(parser)
    add(
        "--nir-input", metavar="KIND", help=".nir: what the inputs carry: spikes (default), real, or codes (u8, s4 ...)"
    )


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(positive(part) for part in text.split(","))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 1,3,32,32") from None


def _code(parser: argparse.ArgumentParser) -> None:
    """How a module is traced."""
    add = parser.add_argument
    add("--weights", metavar="FILE", help="file.py:callable: checkpoint that is loaded into the module")
    add(
        "--input-shape", type=_shape, metavar="N,N,...", help="file.py:callable: shape of the input, batch (1) included"
    )
    add(
        "--time-axis",
        type=int,
        choices=(0, 1),
        help="file.py:callable: axis of the input that is time (default: 0 where the batch comes second)",
    )
    add("--input-kind", metavar="KIND", help="file.py:callable: what the input carries: real (default), spikes, u8 ...")


def _nir(parser: argparse.ArgumentParser) -> None:
    """How NIR, which is in continuous time, goes with timesteps."""
    add = parser.add_argument
    add("--dt", type=float, metavar="SECONDS", help=".nir: length of a timestep")
    add(
        "--nir-rule",
        metavar="RULE",
        help=".nir: whose way of taking a step: euler (default), exponential, snntorch, norse, spikingjelly, sinabs, "
        "sinabs-unnormed or rockpool",
    )
    add(
        "--nir-reset",
        metavar="RESET",
        help=".nir: value, subtract, value-late or subtract-late (default: the rule's)",
    )


def _layout(add: Callable[..., Any]) -> None:
    """Choices of the compiler that decide how many cores a network takes."""
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
        "--factors",
        choices=("auto", "fold", "relay"),
        default="auto",
        help="linear layers with no neuron between: folded, or joined by graded events (default: whichever is small)",
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
    add(
        "--allow",
        action="append",
        default=[],
        metavar="NAME",
        help="an approximation of neurons that may be made: decay-groups, or where the target has no microcoded "
        "neurons soft-reset, late-reset or v-min; or `host`: ops of real numbers are left to the host; repeatable",
    )


def _compile(commands: Subparsers) -> None:
    parser = _command(commands, "compile", "compile a model to a Program on the cores of a chip")
    add = parser.add_argument
    what = "a checkpoint (.pt, .pth, .safetensors), a NIR graph (.nir), a lava-dl network (.net) or file.py:callable"
    add("model", metavar="MODEL", help=what)
    add("more", nargs="*", metavar="FILE", help="with --from neurocorex: AA.npy PARAMS.json, where MODEL is FF.npy")
    add("--from", dest="source", choices=("neurocorex",), help="files of another tool: docs/neurocorex.md")
    add("--target", default="loihi2", metavar="NAME", help="chip, see `nmc targets`, or a YAML file (default: loihi2)")
    add("-o", "--out", default="build", metavar="FOLDER", help="where the artefact goes (default: build)")
    _model(parser)
    add("--chips", type=_chips, metavar="N|auto", help="chips that may be used (default: the target's own)")
    add("--weight-bits", type=positive, metavar="N", help="bits of a weight, fewer than the target's (default: all)")
    add("--cloud", metavar="FILE", help="one cloud of points, for which alone a network on voxels is compiled")
    add("--calib", metavar="FILE.npz", help="inputs, not those of the test: spike rates, reach, effect of rounding")
    _layout(add)
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
    parser = _command(commands, "emulate", "run a compiled Program on images or events")
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="a Program: what `nmc compile` wrote, say")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--input",
        metavar="FILE",
        help=".npz of `images`, or of codes or events by the names of input populations, and `labels` if accuracy is"
        " wanted; or a recording of events, with --dt",
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
    add(
        "--multicast",
        action=argparse.BooleanOptionalAction,
        help="for --timing: one packet per event, copied where its way branches, or one per core"
        " (default: as the target does it)",
    )
    add("--plot", action="store_true", help="pictures: raster of spikes, map of cores, load over time")
    add(
        "--checkpoint",
        metavar="FILE",
        help="keep what is done in FILE; the same command goes on behind it",
    )
    add(
        "--engine",
        choices=("auto", "layers", "events", "ticks", "neurocore"),
        default="auto",
        help="layers or events (both fast), tick by tick, or from the image of a neurocore (default: whichever fits)",
    )
    add("--batch", type=positive, default=1, metavar="N", help="samples computed together; changes nothing but memory")
    add("--limit", type=positive, metavar="N", help="only the first N samples")
    add("--steps", type=positive, metavar="N", help="timesteps that a stream runs (default: as long as its input)")
    add("--dt", type=positive, metavar="N", help="for a recording of events: length of a timestep, in the units of t")
    add("--encode", choices=ENCODINGS, help="make spikes of images with values 0 to 1 (docs/traces.md#spike-codes)")
    add("--seed", type=int, default=0, metavar="N", help="of --encode poisson (default: 0)")
    add("--strict", action="store_true", help="a value out of range is an error, not a count")
    _workers(parser, "processes that samples are spread over; the results are the same (default: none but this)")
    add(
        "--arithmetic",
        choices=("exact", "float"),
        default="exact",
        help="float: potentials that neither round nor wrap nor saturate, to see what the integers cost",
    )
    counted = "count what NeuroBench counts, too, with the codes of all neurons (docs/metrics.md)"
    add("--metrics", action="store_true", help=counted)
    _prices(parser)
    _json(parser)


def _report(commands: Subparsers) -> None:
    parser = _command(commands, "report", "show the numbers of the last run, or what quantisation did")
    parser.add_argument("folder", metavar="FOLDER", help="what `nmc compile` wrote, or a run inside or outside it")
    told = "instead: what was rounded, layer by layer, and what it did to spikes on the data of `nmc compile --calib`"
    parser.add_argument("--conversion", action="store_true", help=told)
    form = parser.add_mutually_exclusive_group()
    _json(form)  # type: ignore[arg-type]
    form.add_argument("--markdown", action="store_true", help="Markdown on standard output")
    form.add_argument("--csv", action="store_true", help="the layers as CSV on standard output")
    parser.add_argument("--html", metavar="FILE", help="one page with everything, pictures too, that needs no network")
    _prices(parser)


def _compare(commands: Subparsers) -> None:
    parser = _command(commands, "compare", "put the runs of several artefacts side by side")
    add = parser.add_argument
    add("folders", metavar="FOLDER", nargs="+", help="what `nmc compile` wrote; ratios are to the first")
    told = (
        "count the events of this run for those that have no run of their own (default: the events.npz of one of them)"
    )
    add("--from-trace", metavar="EVENTS.npz", help=told)
    _prices(parser)
    form = parser.add_mutually_exclusive_group()
    _json(form)  # type: ignore[arg-type]
    form.add_argument("--markdown", action="store_true", help="Markdown on standard output")


def _explore(commands: Subparsers) -> None:
    parser = _command(commands, "explore", "compile and run a model in many ways, and show which are worth having")
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a model file, as for `nmc compile`")
    add(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="values of an option of `nmc compile` to try: weight_bits=4,6,8; repeatable: all combinations are run",
    )
    add("--target", metavar="NAME", help="chip of all points, where it is not varied (default: loihi2)")
    _model(parser)
    add("--calib", metavar="FILE.npz", help="as for `nmc compile`")
    add("--cloud", metavar="FILE", help="as for `nmc compile`")
    add("--input", metavar="FILE", help="as for `nmc emulate`, with labels for the accuracy (default: nothing is run)")
    add("--samples", type=positive, metavar="N", help="only the first N samples")
    add("--steps", type=positive, metavar="N", help="timesteps that a stream runs (default: as long as its input)")
    add(
        "--objective",
        action="append",
        default=[],
        metavar="NAME,NAME",
        help="what the front is of: energy, accuracy, cores, latency ... (default: energy,accuracy where labels are)",
    )
    add("-o", "--out", metavar="FILE", help="the results, which only grow (default: explore.jsonl)")
    _prices(parser)
    add("--merge", nargs="+", default=[], metavar="FILE", help="do not run: write the results of these files as one")
    _workers(parser, "processes that compute points (default: one per processor; 0: none but this)")
    add("--plot", metavar="FILE", help="picture of the first two objectives, .png, .svg or .pdf")
    form = parser.add_mutually_exclusive_group()
    _json(form)  # type: ignore[arg-type]
    form.add_argument("--csv", action="store_true", help="every point and figure as CSV on standard output")


def _workers(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--workers", type=_count, metavar="N", help=text)
    parser.add_argument("--scheduler", metavar="URL", help="use the workers of this Dask scheduler, tcp://host:port")


def _verify(commands: Subparsers) -> None:
    parser = _command(commands, "verify", "compare recorded vectors, interpreters, engines and mapping")
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="what `nmc compile` wrote")
    add("--golden", metavar="FILE.npz", help="`images`, `labels`, `logits`, `spikes/<module>`")
    add("--with", dest="other", choices=("lava",), help="compare the emulator with what is exported, run by Lava")
    add("--images", type=positive, metavar="N", help="for --with: images, golden ones or noise (default: 2)")
    add("--unroll", action="store_true", help="for --with lava: Convs as synapses one by one, which Lava does faster")
    add("--limit", type=positive, metavar="N", help="images whose accuracy is compared (default: 200)")
    add(
        "--tick-images", type=positive, default=2, metavar="N", help="images, or windows, run tick by tick (default: 2)"
    )
    _json(parser)


def _export(commands: Subparsers) -> None:
    parser = _command(commands, "export", "write a compiled Program as something that other software runs")
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="what `nmc compile` wrote")
    how = (
        "lava: a folder for lava-nc 0.10.0, simulation in fixed point; netx: a .net file for lava-dl's netx; "
        "nir: a NIR graph of the network as trained"
    )
    add("--format", required=True, choices=("lava", "netx", "nir"), help=how)
    add("-o", "--out", required=True, metavar="OUT", help="where it goes: a folder for lava, a file for netx and nir")
    _nir(parser)
    add(
        "--nir-extension",
        action="store_true",
        help="nir: write what NIR has no words for, in a file that readers other than nmc refuse",
    )
    _json(parser)


def _inspect(commands: Subparsers) -> None:
    parser = _command(commands, "inspect", "tell layer by layer what is event-driven, and why")
    parser.add_argument("model", metavar="MODEL", help="a model file, as for `nmc compile`, or a folder that it wrote")
    _model(parser)
    _json(parser)


def _fit(commands: Subparsers) -> None:
    parser = _command(commands, "fit", "tell whether a network fits, on how many cores and chips, and what binds")
    add = parser.add_argument
    what = "a model file, as for `nmc compile`, or a folder that it wrote; without one: what --config describes"
    add("model", metavar="MODEL", nargs="?", help=what)
    add("--target", action="append", metavar="NAME", help="chip, or a YAML file; repeatable (default: loihi2)")
    add("--chips", type=_chips, default="auto", metavar="N", help="chips that there are (default: as many as it takes)")
    add("--shapes", action="store_true", help="leave the numbers of a checkpoint aside: faster, less sure")
    told = "where it does not fit, try other options and, of a config alone, smaller images and widths"
    add("--suggest", action="store_true", help=told)
    _model(parser)
    add("--weight-bits", type=positive, metavar="N", help="bits of a weight, fewer than the target's (default: all)")
    _layout(add)
    _json(parser)


def _targets(commands: Subparsers) -> None:
    parser = _command(commands, "targets", "list the chips that can be compiled for, and the price profiles")
    parser.add_argument("action", nargs="?", choices=("list", "show"), default="list")
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="for show: a name of the list, or a YAML file of either"
    )
    _json(parser)


def _passes(commands: Subparsers) -> None:
    _json(_command(commands, "passes", "list the passes of the compiler, in order, with their options"))


def _synth(commands: Subparsers) -> None:
    parser = _command(commands, "synth", "make the bitstream of a board from the RTL, or say why it cannot be made")
    add = parser.add_argument
    add("--board", required=True, metavar="NAME", help="ulx3s, ulx3s-25f, icebreaker or cmoda7")
    add("-o", "--out", metavar="FOLDER", help="where bitstream and reports go (default: build/NAME)")
    add("--cores", type=positive, metavar="N", help="1, 2 or 4 (default: the board's)")
    add("--neurons", type=positive, metavar="N", help="per core (default: the board's)")
    add("--axons", type=positive, metavar="N", help="per core (default: the board's)")
    add("--synapses", type=positive, metavar="N", help="synapse words per core (default: the board's)")
    add("--clock", type=positive, metavar="HZ", help="of the cores (default: the board's)")
    add("--seed", type=int, default=1, metavar="N", help="of the placement (default: 1)")
    _json(parser)


def _program(commands: Subparsers) -> None:
    parser = _command(commands, "program", "load a bitstream into a board, with openFPGALoader")
    add = parser.add_argument
    add("bitstream", metavar="BITSTREAM", nargs="?", help="a file (default: what `nmc synth` left in build/NAME)")
    add("--board", required=True, metavar="NAME", help="ulx3s, ulx3s-25f, icebreaker or cmoda7")
    add("--flash", action="store_true", help="into the flash memory, to stay (default: into the chip, until power-off)")
    add("--dry-run", action="store_true", help="print the command and do nothing")


def _board(commands: Subparsers) -> None:
    parser = _command(commands, "board", "simulate a board: its RTL behind a serial port that other programs open")
    add = parser.add_argument
    add("folder", metavar="FOLDER", nargs="?", help="an artefact for neurocores: the board gets the sizes of its image")
    add("--rtl", action="store_true", help="from the RTL of this checkout, by Verilator")
    add("--byte-level", action="store_true", help="without the UART: the same bytes, many times faster")
    add("--faults", metavar="drop=P,flip=P,dup=P,seed=N", default="", help="chances that a byte is harmed on the line")
    add("--clock", type=positive, metavar="HZ", help="of the board, behind a UART (default: 48000000)")
    add("--link", metavar="PATH", help="a name for the port, a symbolic link")
    add("--neurons", type=positive, default=1024, metavar="N", help="per core, without FOLDER (default: 1024)")
    add("--axons", type=positive, default=2048, metavar="N", help="per core (default: 2048)")
    add("--words", type=positive, default=65536, metavar="N", help="synapse words per core (default: 65536)")
    add("--mesh", default="1x1", metavar="WxH", help="cores, 1x1 to 2x2 (default: 1x1)")
    add("--until-input-ends", action="store_true", help="stop when standard input is closed: for other programs")
    _json(parser)


def _at_a_port(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--port", required=True, metavar="PORT", help="serial port, a URL (socket://host:port), or replay:FILE")
    add("--baud", type=positive, metavar="N", help="rate to change to (default: the one after reset)")
    add("--first-baud", type=positive, default=115200, metavar="N", help="the board's after reset (default: 115200)")
    add("--record-link", metavar="FILE", help="write down all that passes over the link, for replay:FILE")
    _json(parser)


def _flash(commands: Subparsers) -> None:
    parser = _command(commands, "flash", "write the image of an artefact to a board, and read it back")
    parser.add_argument("folder", metavar="FOLDER", help="what `nmc compile --target neurocore` wrote")
    parser.add_argument("--no-verify", action="store_true", help="do not read it back")
    _at_a_port(parser)


def _run(commands: Subparsers) -> None:
    parser = _command(commands, "run", "run an artefact on the board that was flashed with it")
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="what `nmc compile --target neurocore` wrote")
    add("--input", metavar="FILE", help="as for `nmc emulate`")
    add("-o", "--out", metavar="FOLDER", help="where the run goes (default: run/ inside FOLDER)")
    add("--record", nargs="+", default=[], metavar="NAME", help="populations whose spikes are kept, or `all`")
    add("--limit", type=positive, metavar="N", help="only the first N samples")
    add("--steps", type=positive, metavar="N", help="timesteps that a stream runs (default: as long as its input)")
    add("--dt", type=positive, metavar="N", help="for a recording of events: length of a timestep, in the units of t")
    add("--encode", choices=ENCODINGS, help="make spikes of images with values 0 to 1 (docs/traces.md#spike-codes)")
    add("--seed", type=int, default=0, metavar="N", help="of --encode poisson (default: 0)")
    _at_a_port(parser)


def _doctor(commands: Subparsers) -> None:
    _json(_command(commands, "doctor", "list tools and packages found, and how to get the missing ones"))

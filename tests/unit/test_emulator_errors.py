"""What the emulator refuses, word for word, and overflow on both sides."""

from dataclasses import replace

import numpy as np
import pytest
from programs import map_program, random_program

from nmc_compiler.errors import UsageError, VerifyError
from nmc_compiler.program.model import Conv, Dendrite, HostCodes, HostCurrent, Map, Population, Program, Transfer
from nmc_compiler.program.timing import check_timing
from nmc_emulator import Emulator, run

ENGINES = ("layers", "ticks")


LARGEST = 2**23 - 1  # of a signed payload of 24 bits


def direct(model: str = "lif", shift: int = 0, timesteps: int = 3, **soma) -> Program:
    """input of 24 bits -> one conv -> one population of two channels, one of them driven; an idle readout."""
    if model == "lif":
        soma = {"vth": np.array([0, 0], np.int32), "dv": 0, **soma}
    elif model == "levels":
        soma = {"thresholds": np.array([[64]], np.int32), **soma}
    elif model == "relay":
        soma = {"payload_bits": 24, "signed": True, **soma}
    kernel, nothing = np.array([[[[0, 1]]]], np.int8), np.zeros((1, 1, 2, 1), np.int8)
    somas = [
        Population("in", (1, 1, 2), 0, "input", "input", -1, payload_bits=24, signed=True),
        Population("probe", (2, 1, 2), 1, model, "readout" if model == "readout" else "neuron", 0, **soma),  # type: ignore
    ]
    dendrites, convs = [Dendrite("d", (2, 1, 2), 0)], [Conv("c", 0, 0, 1, kernel, shift, out_hw=(1, 2))]
    if model != "readout":
        somas.append(Population("out", (1, 1, 1), 2, "readout", "readout", 1))
        dendrites.append(Dendrite("o", (1, 1, 1), 1))
        convs.append(Conv("idle", 1, 1, 1, nothing, 0, collapse=True, out_hw=(1, 2)))
    return Program(
        "direct", timesteps, 1, (1, 1, 2), False, tuple(somas), tuple(dendrites), tuple(convs), (), (), (), (),
        (HostCodes(0, 1.0, -LARGEST - 1, LARGEST),), None, {"mesh": {"routers": (2, 3)}}, timesteps,
    )  # fmt: skip


def image(x: float) -> np.ndarray:
    return np.array([[[[0.0, x]]]])


# -- overflow ----------------------------------------------------------------------------------


WRAPS = "-8388607..8388608", "24-bit current, which wraps"
PAYLOAD = "-8388608..8388607", "24-bit payload"
ACCUMULATOR = "-2147483648..2147483647", "32-bit accumulator"
CASES = [
    # model, input, shift, overflow counter, value, range and what it is
    ("lif", 2**17 + 1, 0, "u", (2**17 + 1) * 64, *WRAPS),
    ("lif", -(2**17), 0, "u", -(2**17) * 64, *WRAPS),
    ("levels", 2**17 + 1, 0, "u", (2**17 + 1) * 64, *WRAPS),
    ("readout", -(2**17), 0, "u", -(2**17) * 64, *WRAPS),
    ("levels", 2**17, 0, "v", 2**23, "-8388607..8388607", "24-bit membrane potential, which saturates"),
    ("relay", 2**22, 1, "payload", 2**23, *PAYLOAD),
    ("relay", -(2**22) - 1, 1, "payload", -(2**23) - 2, *PAYLOAD),
    ("relay", 2**22, 9, "accumulator", 2**31, *ACCUMULATOR),
    ("lif", -(2**22) - 1, 9, "accumulator", -(2**31) - 512, *ACCUMULATOR),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("model", "x", "shift", "counter", "value", "span", "what"), CASES)
def test_strict_names_population_timestep_channel_and_value(engine, model, x, shift, counter, value, span, what):
    program = direct(model, shift=shift)
    with pytest.raises(VerifyError) as error:
        run(program, image(x), engine=engine, strict=True)
    assert str(error.value) == (
        f"overflow in population 'probe', timestep 0, channel 1, position (0, 1): {value} is outside {span} ({what});"
        " lower the weight scale or the input, or run without strict to count such values"
    )
    counters = run(program, image(x), engine=engine).counters
    assert counters.overflow[counter].tolist()[:2] == [0, 3]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_potential_that_grows_over_timesteps_saturates(engine, sign):
    """v gains 100000 * 64 a step without leak: 12800000 at t = 1 is beyond 2^23 - 1."""
    program = direct(vth=np.array([0, 2**17 - 1], np.int32))
    with pytest.raises(VerifyError, match=rf"timestep 1, channel 1, position \(0, 1\): {sign * 12800000} is outside"):
        run(program, image(sign * 100000), engine=engine, strict=True)
    counters = run(program, image(sign * 100000), engine=engine).counters
    steps = 2 if sign < 0 else 1  # upwards it fires at the limit, and starts again
    assert counters.overflow["v"].tolist() == [0, steps, 0] and not counters.overflow["u"].any()
    run(program, image(sign * 40000), engine=engine, strict=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_strict_runs_quietly_where_nothing_overflows(engine):
    program = map_program(random_program(11, layers=5, lags=True), 1, 3, 2)
    images = np.zeros((2, *program.input_shape))
    result = run(program, images, strict=True, engine=engine)
    assert result.counters == run(program, images, engine=engine).counters


@pytest.mark.parametrize("engine", ENGINES)
def test_an_emulator_works_after_an_error(engine):
    program = direct()
    emulator = Emulator(program, strict=True, engine=engine)
    with pytest.raises(VerifyError):
        emulator.run(np.concatenate([image(1), image(2**20)]))
    assert emulator.run(image(1)).counters == run(program, image(1), engine=engine).counters


# -- input -------------------------------------------------------------------------------------


def test_images_that_do_not_fit():
    program = direct()
    with pytest.raises(UsageError) as error:
        run(program, np.zeros((1, 2, 1, 2)))
    assert str(error.value) == "images have shape [1, 2, 1, 2], but Program 'direct' takes [N, 1, 1, 2]"
    with pytest.raises(UsageError) as error:
        run(replace(program, input_time=True), np.zeros((1, 1, 1, 2)))
    assert str(error.value) == "images have shape [1, 1, 1, 2], but Program 'direct' takes [N, 3, 1, 1, 2]"
    with pytest.raises(UsageError, match="images are of type complex128; give real numbers"):
        run(program, np.zeros((1, 1, 1, 2), complex))
    with pytest.raises(UsageError, match="images are of type bool"):
        run(program, np.zeros((1, 1, 1, 2), bool))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number(engine, bad):
    images = np.concatenate([image(1), image(bad)])
    with pytest.raises(UsageError) as error:
        run(direct(), images, engine=engine)
    assert str(error.value) == f"image 1 holds {bad} at [time, channel, y, x] = [0, 0, 0, 1]; clean the input"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_code_outside_the_encoding(engine):
    program = replace(direct(), host_codes=(HostCodes(0, 10.0, 0, 15),))
    with pytest.raises(UsageError) as error:
        run(program, image(1.6), engine=engine)
    assert str(error.value) == (
        "image 0: code 16 at [time, channel, y, x] = [0, 0, 0, 1] is outside 0..15 of input 'in';"
        " scale the input to the encoding"
    )
    assert run(program, image(1.45), engine=engine, record="all").codes["in"].max() == 14  # half to even


def host(weight: int, shift: int, frac: int = 0) -> Program:
    """A host current into the readout."""
    kernel, one = np.full((1, 1, 1, 1), weight, np.int32), (1, 1, 1)
    current = HostCurrent("first", 0, 0, kernel, np.zeros(1, np.int64), frac, shift, one, (1, 1), (0, 0))
    soma = Population("p", one, 0, "readout", "readout", 0)
    return Program(
        "host", 1, 1, one, False, (soma,), (Dendrite("d", one, 0),), (), (), (), (), (current,), (),
        None, {"mesh": {"routers": (1, 1)}}, 1,
    )  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_host_currents_beyond_their_payload(engine):
    with pytest.raises(VerifyError) as error:
        run(host(2, 0), np.full((1, 1, 1, 1), 2.0**22), engine=engine)
    assert str(error.value) == (
        "host current 'first' reaches 8388608..8388608 on image 0, beyond its 24-bit payload; lower its scale"
    )
    run(host(2, 0), np.full((1, 1, 1, 1), -(2.0**22)), engine=engine)
    with pytest.raises(UsageError) as error:
        run(host(1, 0, frac=1), np.full((1, 1, 1, 1), 2.0**30), engine=engine)
    assert str(error.value) == (
        "image 0: |x| * 2^1 reaches 2147483648, the host current 'first' takes less than 2^31; scale the input"
    )


def test_names_and_options():
    program = direct()
    with pytest.raises(UsageError) as error:
        run(program, image(0), record=["in", "nobody"])
    assert str(error.value) == "cannot record 'nobody': Program 'direct' has no such population; it has in, probe"
    with pytest.raises(UsageError, match="no engine 'fast'; choose auto, layers, events, ticks or neurocore"):
        run(program, image(0), engine="fast")
    with pytest.raises(UsageError, match="batch is 0; choose at least 1"):
        run(program, image(0), batch=0)


# -- rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_an_invalid_program_is_refused_before_any_kernel(engine):
    program = direct()
    late = replace(program, convs=(replace(program.convs[0], delay=2), program.convs[1]))
    with pytest.raises(VerifyError, match="convs/0: arrives at level 2, but 'd' is last read at 1"):
        run(late, image(0), engine=engine)


def test_a_transfer_after_the_last_read_of_its_target():
    """Within a tick transfers run in their order: here the second comes too late for the first."""
    shape = (2, 1, 2)
    program = direct()
    somas = (
        program.populations[0],
        *(replace(p, dendrite=2) for p in program.populations[1:2]),
        program.populations[2],
    )
    dendrites = (*program.dendrites, Dendrite("x", shape, 0))
    moves = (Transfer("t", 0, 2, 1, "maxpool"), Transfer("u", 2, 0, 1, "maxpool"))
    with pytest.raises(VerifyError) as error:
        check_timing(replace(program, populations=somas, dendrites=dendrites, transfers=moves))
    assert str(error.value) == "Program field transfers/1: adds to 'd' after its last read"


def test_a_relay_that_feeds_itself_cannot_outgrow_the_arithmetic():
    program = direct("relay", timesteps=60)
    loop = Map("loop", 1, 0, 1, 0, lag=1)
    doubled = Map("loop2", 1, 0, 1, 1, lag=1)
    with pytest.raises(VerifyError, match="dendrite 'd' can reach .* beyond the emulator's 72057594037927936"):
        run(replace(program, maps=(loop, doubled)), image(1))

"""Recordings of event cameras: frames equal a plain recount, whatever their order and parts; damage is told."""

from pathlib import Path

import numpy as np
import pytest
import tiny_models
from safetensors.numpy import save_file

import nmc as api
from nmc import events
from nmc.events import EventWindows, holds_events, look, stream_events
from nmc.npz import Npz
from nmc_compiler.errors import FrontendError, UsageError
from nmc_compiler.program.network import Network
from nmc_emulator import Emulator, Stream

H, W, T = 5, 7, 4
RECORD = np.dtype([("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])


def recording(n: int = 500, seed: int = 0, start: int = 1_000) -> np.ndarray:
    """Events as tonic has them."""
    random = np.random.default_rng(seed)
    found = np.zeros(n, RECORD)
    found["x"], found["y"] = random.integers(0, W, n), random.integers(0, H, n)
    found["t"], found["p"] = start + np.sort(random.integers(0, 10_000, n)), random.integers(0, 2, n)
    return found


def save(path: Path, rows: np.ndarray, form: str) -> Path:
    if form == "records":
        np.savez_compressed(path, events=rows)
    elif form == "arrays":
        np.savez(path, **{name: rows[name] for name in "xytp"})
    else:
        t = rows["t"].astype(np.int64)
        data = np.stack([rows["x"], rows["y"], rows["p"] << 7 | t >> 16, t >> 8 & 255, t & 255], axis=1)
        data.astype(np.uint8).tofile(path)
    return path


def recount(rows: np.ndarray, dt: int) -> np.ndarray:
    """Frames [N, T, 2, H, W], one event at a time."""
    first, last = int(rows["t"][0]), int(rows["t"][-1])
    frames = np.zeros((-(-((last - first) // dt + 1) // T), T, 2, H, W), np.int32)
    for x, y, t, p in rows.tolist():
        n, s = divmod((t - first) // dt, T)
        frames[n, s, int(p), y, x] += 1
    return frames


def windows(path: Path, dt: int | None = 300, limit: int | None = None) -> EventWindows:
    return EventWindows(path, (2, H, W), T, dt, limit)


@pytest.mark.parametrize("form", ["records", "arrays", "bin"])
@pytest.mark.parametrize("part", [1, 7, 100_000])
def test_frames_equal_a_recount(tmp_path: Path, monkeypatch, form: str, part: int) -> None:
    monkeypatch.setattr(events, "PART", part)
    rows = recording()
    path = save(tmp_path / f"e.{'bin' if form == 'bin' else 'npz'}", rows, form)
    assert holds_events(path)
    for dt in (1, 300, 2_500, 20_000):
        want, got = recount(rows, dt), windows(path, dt)
        assert got.shape == want.shape and len(got) == len(want)
        assert np.array_equal(got[:], want)
        step = max(len(want) // 5, 1)
        assert np.array_equal(np.concatenate([got[a : a + step] for a in range(0, len(want), step)]), want)
        assert np.array_equal(got[len(want) - 1 :], want[-1:]) and np.array_equal(got[:1], want[:1])
    assert windows(path, 300, limit=2)[:].shape[0] == 2


def test_all_forms_are_one_input(tmp_path: Path) -> None:
    rows = recording()
    found = {
        look(save(tmp_path / name, rows, form), H, W)
        for name, form in (("a.npz", "records"), ("b.npz", "arrays"), ("c.bin", "bin"))
    }
    [extent] = found
    assert (extent.events, extent.first, extent.last) == (len(rows), rows["t"][0], rows["t"][-1])
    other = recording(seed=1)
    assert look(save(tmp_path / "d.npz", other, "arrays"), H, W).digest != extent.digest


def test_note_tells_what_was_made(tmp_path: Path) -> None:
    rows = recording()
    got = windows(save(tmp_path / "e.npz", rows, "arrays"))
    assert got.note == (
        f"input: 500 events from t = {rows['t'][0]} to {rows['t'][-1]}, counted in timesteps of 300, 4 to a sample;"
        f" {len(got)} samples"
    )


def test_a_length_must_be_given(tmp_path: Path) -> None:
    rows = recording()
    path = save(tmp_path / "e.npz", rows, "arrays")
    length = int(rows["t"][-1] - rows["t"][0])
    with pytest.raises(UsageError) as error:
        windows(path, None)
    whole = length // 4 + 1
    assert str(error.value) == (
        f"{path}: holds 500 events over {length:,} units of time, and the network takes 4 timesteps to a sample;"
        f" say with --dt how long one is, in the units of t (--dt {whole} makes it one sample)"
    )
    assert len(windows(path, whole)) == 1 and len(windows(path, whole - 1)) == 2
    with pytest.raises(UsageError, match="--dt 0: a timestep lasts at least 1 unit of t"):
        windows(path, 0)


def test_nmnist_sample(shared: Path) -> None:
    """The published sample: 34 x 34 pixels, about 300 ms, sorted once its time overflows are added."""
    path = shared / "data" / "events" / "sample_nmnist.bin"
    if not path.exists():
        pytest.skip("the N-MNIST sample is not beside the project")
    raw = np.fromfile(path, np.uint8).reshape(-1, 5).astype(int)
    got = EventWindows(path, (2, 34, 34), 10, 31_000, None)
    assert got.extent.events == int((raw[:, 1] != 240).sum()) == got[:].sum()
    assert 250_000 < got.extent.last - got.extent.first < 350_000
    assert np.array_equal(got[:].sum(axis=(0, 1, 3, 4)), np.bincount(raw[raw[:, 1] != 240, 2] >> 7))


def test_time_overflows_of_nmnist_are_added(tmp_path: Path) -> None:
    rows = np.array([[1, 1, 0, 0, 5], [0, 240, 0, 0, 0], [2, 1, 128, 0, 1], [0, 240, 0, 0, 0], [3, 1, 0, 0, 9]])
    rows.astype(np.uint8).tofile(tmp_path / "e.bin")
    for part in events.read_parts(tmp_path / "e.bin"):
        assert part["t"].tolist() == [5, 8193, 16393] and part["p"].tolist() == [0, 1, 0]


# --- what is refused --------------------------------------------------------------------------------------


def with_field(name: str, at: int, value: int) -> dict[str, np.ndarray]:
    rows = {key: recording()[key].astype(np.int64) for key in "xytp"}
    rows[name][at] = value
    return rows


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        (with_field("x", 3, 7), "event 3 has x = 7, but the network takes 0 to 6; crop or scale the recording"),
        (with_field("y", 400, -1), "event 400 has y = -1, but the network takes 0 to 4; crop or scale the recording"),
        (with_field("p", 9, -1), "event 9 has p = -1, but the network takes 0 to 1; 0 is off, 1 is on"),
        (with_field("t", 200, 0), "event 200 is earlier than the one before; sort by t"),
        (with_field("t", 499, 2**61), "events have times beyond 1152921504606846976; is t in another unit"),
        (with_field("t", 0, -(2**63)), "events have times beyond 1152921504606846976; is t in another unit"),
        ({k: v[:0] for k, v in with_field("x", 0, 0).items()}, "holds no events; give a recording"),
        (with_field("x", 0, 0) | {"t": np.zeros(3, np.int64)}, "array 't' is int64 [3]; x, y, t and p are lists of"),
        (with_field("x", 0, 0) | {"t": np.zeros(500)}, "array 't' is float64 [500]; x, y, t and p are lists of"),
        (with_field("x", 0, 0) | {"y": np.zeros((500, 1), int)}, "array 'y' is int64 [500, 1]; x, y, t and p are"),
        ({"events": np.zeros(3, [("x", "i4"), ("t", "i8")])}, "array 'events' has dtype"),
        ({"events": recording().reshape(5, 100)}, "array 'events' has shape (5, 100); a plain list is needed"),
    ],
)
def test_what_is_no_recording_is_told(tmp_path: Path, monkeypatch, arrays: dict, told: str) -> None:
    monkeypatch.setattr(events, "PART", 64)
    np.savez(tmp_path / "e.npz", **arrays)
    with pytest.raises(FrontendError) as error:
        windows(tmp_path / "e.npz")
    assert str(error.value).startswith(f"{tmp_path}/e.npz: {told}")


def test_damage_is_told(tmp_path: Path) -> None:
    path = save(tmp_path / "e.npz", recording(), "arrays")
    data = path.read_bytes()
    path.write_bytes(data[:400] + bytes([data[400] ^ 1]) + data[401:])
    with pytest.raises(FrontendError, match="is damaged"):
        windows(path)
    (tmp_path / "e.bin").write_bytes(b"1234567")
    with pytest.raises(FrontendError, match="7 bytes are no whole number of 5-byte events"):
        windows(tmp_path / "e.bin")
    with pytest.raises(FrontendError, match="cannot be read: No such file"):
        windows(tmp_path / "none.bin")


def test_rows_of_an_npz_come_in_parts(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", a=np.arange(1000), b=np.zeros((2, 2)))
    with Npz(tmp_path / "x.npz") as file:
        parts = list(file.rows("a", 300))
        assert [len(p) for p in parts] == [300, 300, 300, 100]
        assert np.concatenate(parts).tolist() == list(range(1000))
        with pytest.raises(FrontendError, match=r"has shape \(2, 2\); a plain list is needed"):
            next(file.rows("b", 3))


# --- the whole way ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A network compiled for two polarities and a time axis."""
    folder = tmp_path_factory.mktemp("model")
    save_file(tiny_models.sdt_v1(channels=2), folder / "model.safetensors")
    config = tiny_models.CONFIGS["sdt_v1"] | {"in_channels": 2, "input_time": True, "family": "sdt_v1"}
    (folder / "model.yaml").write_text("".join(f"{k}: {v!r}\n" for k, v in config.items()))
    return api.compile(folder / "model.safetensors", input_encoding="graded8", input_range=(0, 255))


def test_a_recording_is_emulated_as_its_frames_are(seeing, tmp_path: Path) -> None:
    steps, (_, height, width) = seeing.program.timesteps, seeing.program.input_shape
    random = np.random.default_rng(3)
    n = 4000
    arrays = {"x": random.integers(0, width, n), "y": random.integers(0, height, n)}
    arrays |= {"t": np.sort(random.integers(0, 100_000, n)), "p": random.integers(0, 2, n)}
    np.savez(tmp_path / "e.npz", **arrays)
    frames = EventWindows(tmp_path / "e.npz", seeing.program.input_shape, steps, 3_000, None)
    seen, plain = api.emulate(seeing, tmp_path / "e.npz", dt=3_000, batch=3), api.emulate(seeing, frames[:])
    assert seen.report["samples"] == len(frames) > 3 and seen.report["input"] == frames.note
    assert np.array_equal(seen.logits, plain.logits) and seen.result.counters == plain.result.counters
    assert frames.note in seen.report["assumptions"]
    labels = np.zeros(len(frames), int)
    assert api.emulate(seeing, tmp_path / "e.npz", labels, dt=3_000).accuracy == (plain.logits.argmax(1) == 0).mean()
    with pytest.raises(UsageError, match="say with --dt how long one is"):
        api.emulate(seeing, tmp_path / "e.npz")


def test_a_recording_streams_into_a_network(tmp_path: Path) -> None:
    rows, random = recording(), np.random.default_rng(0)
    net = Network("retina")
    pixels, cells = net.input("pixels", (2, H, W), payload_bits=8), net.lif("cells", 20, dv=100, vth=500)
    net.dense("sight", pixels, cells, random.integers(-60, 100, (20, 2 * H * W)) * 2)
    program = net.program()
    path = save(tmp_path / "e.npz", rows, "records")
    frames = recount(rows, 300).reshape(-1, 2, H, W)
    whole = Emulator(program, record="all").run_events({"pixels": frames}, len(frames))
    stream, steps = Stream(program), 0
    for given, count in stream_events(path, (2, H, W), 300, counts=True, part=T):
        out = stream.feed({"pixels": given}, count)["cells"]
        inside = (whole.events["cells"].step >= steps) & (whole.events["cells"].step < steps + count)
        assert np.array_equal(out.soma, whole.events["cells"].soma[inside])
        steps += count
    assert steps == len(frames) and len(whole.events["cells"]) > 20
    plain = [e.code for e, _ in stream_events(path, (2, H, W), 300, counts=False)]
    assert plain and all(code is None for code in plain)


def test_images_need_no_length(seeing) -> None:
    with pytest.raises(UsageError, match="--dt is for recordings of events"):
        api.emulate(seeing, np.zeros((1, seeing.program.timesteps, *seeing.program.input_shape)), dt=3)


def test_networks_that_take_no_recordings(tmp_path: Path) -> None:
    path = save(tmp_path / "e.npz", recording(), "arrays")
    with pytest.raises(UsageError, match="events have 2 polarities, but the network's input has 1 channels"):
        EventWindows(path, (1, H, W), T, 5, None)
    model = Path(__file__).parents[1] / "fixtures" / "sdt_v1" / "model.pt"
    with pytest.raises(UsageError, match="holds events, but the input of the network has no time axis; compile the"):
        api.emulate(api.compile(model), path, dt=3)

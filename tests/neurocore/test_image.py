"""Images on disk, and items field by field."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from nmc_compiler.errors import ArtefactError, UsageError, VerifyError
from nmc_compiler.neurocore import Image, Sizes, check_image, image_digest, load_image, memories, save_image
from nmc_compiler.neurocore import items as it

sys.path.insert(0, str(Path(__file__).resolve().parent))

from random_images import random_image


def still(image):
    """Learning is off: rows with a rule may share words."""
    image.memories[14][:, 1] = 0
    return image


def test_an_image_comes_back_as_it_was(tmp_path):
    image = still(random_image(3))
    digest = save_image(image, tmp_path)
    loaded = load_image(tmp_path)
    assert digest == image_digest(image) == image_digest(loaded)
    assert loaded.sizes == image.sizes
    for memory in memories(image.sizes)[:15]:
        assert np.array_equal(loaded.memory(memory.id), image.memory(memory.id)), memory.name
    assert save_image(loaded, tmp_path / "again") == digest
    assert (tmp_path / "again" / "image.safetensors").read_bytes() == (tmp_path / "image.safetensors").read_bytes()


def test_memories_of_the_default_core():
    table = {m.name: (m.id, m.items, m.bits, m.bytes) for m in memories(Sizes())}
    assert table["synapse words"] == (0, 65536, 18, 3) and table["row descriptors"] == (1, 2048, 36, 5)
    assert table["v and refr"] == (8, 1024, 30, 4) and table["pending"] == (12, 1024, 32, 4)
    assert len(table) == 16


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"neurons": 100}, "neurocore: neurons = 100; expected a power of two from 64 to 1024"),
        ({"words": 32}, "neurocore: words = 32; expected a power of two from 64 to 65536"),
        ({"x": 3}, "neurocore: x = 3; expected a power of two from 1 to 2"),
    ],
)
def test_sizes_that_there_are_not(sizes, text):
    with pytest.raises(UsageError) as error:
        Sizes(**sizes)
    assert str(error.value) == text


def with_memory(mem, items):
    sizes = Sizes(neurons=64, axons=64, words=64)
    return Image(sizes, {mem: items})


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (with_memory(15, np.zeros((1, 16), np.uint64)), "image: memory 15; an image holds memories 0 to 14"),
        (
            with_memory(0, np.zeros((1, 63), np.uint64)),
            "image: synapse words is uint64 [1, 63], expected uint64 [1, 64]",
        ),
        (
            with_memory(3, np.full((1, 64), 1 << 16, np.uint64)),
            "image: routes, core 0, item 0 = 0x10000 has more than 16 bits",
        ),
        (
            Image(Sizes(), {}, inputs=np.array([[0, 0, 1, 0]], np.int32)),
            "image: inputs[0] = [0, 0, 1, 0]; core below 1 and place below 2048",
        ),
    ],
)
def test_images_that_break_their_rules(image, text):
    with pytest.raises(VerifyError) as error:
        check_image(image)
    assert str(error.value) == text


def learning(rows, inputs=(0,), words=(), learn=1, **other):
    """An image of one core that learns, with such rows; events come to the axons of ``inputs``."""
    sizes, made = (
        Sizes(neurons=64, axons=64, words=64),
        {m.id: np.zeros((1, m.items), np.uint64) for m in memories(Sizes(64, 64, 64))},
    )
    made[1][0, : len(rows)], made[0][0, : len(words)], made[14][0, 1] = rows, words, learn
    for mem, place, item in other.values():
        made[mem][0, place] = item
    table = np.array([[0, soma, 0, axon] for soma, axon in enumerate(inputs)], np.int32).reshape(-1, 4)
    return Image(sizes, {mem: made[mem] for mem in range(15)}, inputs=table)


def plastic(base, length, fmt=it.DENSE, more=0, rule=1):
    return int(it.descriptor(fmt, base=base, len=length, rule=rule, more=more))


CHAINS = "is in the chains of 2 axons that have events"
SHARES = "shares some of its words {} with another row"
TO_1 = it.pack(it.ROUTE, axon=1, cores=1)
TO_1_LATER = int(it.descriptor(it.DELAY, axon=1, d=3))
TWICE = it.sparse_words([1, 2, 1, 4], 0)
TWO = [plastic(0, 6, more=1), plastic(4, 8)]  # words 0 to 3 and 4 to 8
FOURS = it.sparse_words([1, 2, 3, 4], [5, 6, 7, 8])


@pytest.mark.parametrize(
    ("image", "row", "text"),
    [
        (learning([plastic(2, 6)]), 0, "begins at word 2, which is no multiple of 4"),
        (learning([plastic(0, 7, more=1), plastic(4, 8)]), 0, SHARES.format("0 to 4")),
        (learning([plastic(0, 6), plastic(3, 2, rule=0)], (0, 1)), 0, SHARES.format("0 to 3")),
        (learning([plastic(60, 8), plastic(0, 2, rule=0)], (0, 1)), 0, SHARES.format("60 to 64")),
        (learning(TWO, (0, 1)), 1, CHAINS),
        (learning(TWO, route=(3, 9, TO_1)), 1, CHAINS),
        (learning(TWO, trace=(11, 1, 1)), 1, CHAINS),
        (learning(TWO, pending=(12, 2 * 3, 2)), 1, CHAINS),
        (learning([*TWO, TO_1_LATER], (0, 2)), 1, CHAINS),
        (learning([plastic(0, 4, it.SPARSE)], words=TWICE), 0, "names a target twice"),
        (learning([plastic(0, 65)]), 0, "names a target twice"),
    ],
)  # fmt: skip
def test_rows_that_learn_share_nothing(image, row, text):
    with pytest.raises(VerifyError) as error:
        check_image(image)
    assert str(error.value) == f"image: core 0, row {row} has a rule and {text}; the core would learn wrongly"


def test_rows_that_may_learn():
    kernel = int(it.descriptor(it.CONV, base64=0))  # of no taps
    for fine in (
        learning(TWO),
        learning(TWO, (1,)),  # a chain that begins in the middle of one without events
        learning([plastic(0, 4, it.SPARSE), plastic(4, 1), kernel], (0, 1, 2), FOURS),
        learning([plastic(2, 6), plastic(2, 6)], (0, 1), learn=0),
        learning([plastic(0, 6), plastic(0, 6)], (0,)),  # nothing ever reaches the second
        learning([plastic(2, 6, rule=0)] * 2, (0, 1)),
    ):
        check_image(fine)


def test_damaged_files_are_refused(tmp_path):
    save_image(still(random_image(0)), tmp_path)
    arrays = tmp_path / "image.safetensors"
    data = arrays.read_bytes()
    arrays.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtefactError, match="the files were altered or are not of one compile"):
        load_image(tmp_path)
    arrays.write_bytes(data[:-8])
    with pytest.raises(ArtefactError, match="bytes, but image.json says"):
        load_image(tmp_path)
    tree = json.loads((tmp_path / "image.json").read_text())
    (tmp_path / "image.json").write_text(json.dumps(tree | {"schema": "nmc.program/2"}))
    with pytest.raises(ArtefactError, match="this nmc reads 'nmc.image/1'"):
        load_image(tmp_path)
    with pytest.raises(ArtefactError, match="No such file"):
        load_image(tmp_path / "nowhere")


LAYOUTS = {
    "word": it.SPARSE_WORD, "pair": it.PAIR_WORD, "neuron": it.NEURON, "route": it.ROUTE, "traces": it.TRACES,
    **{f"row {fmt}": layout for fmt, layout in it.DESCRIPTORS.items()},
    **{f"type {i}": layout for i, layout in enumerate(it.TYPE)},
    **{f"geometry {i}": layout for i, layout in enumerate(it.GEOMETRY)},
    **{f"rule {i}": layout for i, layout in enumerate(it.RULE)},
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_fields_do_not_meet_and_come_back(name):
    layout, rng = LAYOUTS[name], np.random.default_rng(0)
    taken = sum(((1 << f.width) - 1) << f.low for f in layout.values())
    assert taken.bit_count() == sum(f.width for f in layout.values())
    values = {n: rng.integers(f.range[0], f.range[1] + 1, 50) for n, f in layout.items()}
    for n, f in layout.items():
        values[n][:2] = f.range
    found = it.unpack(layout, it.pack(layout, **values))
    assert all(np.array_equal(found[n], v) for n, v in values.items())


def test_a_value_too_large_is_named():
    with pytest.raises(VerifyError) as error:
        it.descriptor(it.ONE, weight=128, target=3)
    assert str(error.value) == "neurocore: weight = 128 does not fit its 8 bits: -128 to 127"


def test_words_of_rows():
    assert it.sparse_words([3, 1023], [-1, 127]).tolist() == [0x3FF, 0x3FF7F]
    assert it.dense_words(5, np.array([1, -1, 2])).tolist() == [0x500, 0xFF01, 0x0002]

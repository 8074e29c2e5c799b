"""The host's part: images in; currents and codes, tick by tick, out. Needs NumPy alone."""

import numpy as np


class InputError(Exception):
    """The input does not fit the network."""


def read_inputs(path, net, limit):
    """Samples for the network: {"images": [N, T or 1, C, H, W]}, or {"codes/<input>": [steps, C, H, W]}."""
    with np.load(path, allow_pickle=False) as file:
        if "images" in net["takes"]:
            return {"images": _images(file, net, limit)}
        missing = [name for name in net["takes"] if f"codes/{name}" not in file]
        if missing:
            raise InputError(f"the input holds no `codes/{missing[0]}`, integers [timesteps, C, H, W]")
        found = {f"codes/{name}": file[f"codes/{name}"].astype(np.int64) for name in net["takes"]}
        steps = {len(codes) for codes in found.values()}
        if len(steps) != 1:
            raise InputError(f"the inputs have different numbers of timesteps: {sorted(steps)}")
        if net["timesteps"] and steps.pop() % net["timesteps"]:
            raise InputError(f"a sample has {net['timesteps']} timesteps; give whole samples")
        return found


def _images(file, net, limit):
    if "images" not in file:
        raise InputError("the input holds no `images`")
    images = file["images"][:limit].astype(np.float64)
    images = images if net["input_time"] else images[:, None]
    wanted = (net["timesteps"] if net["input_time"] else 1, *net["input_shape"])
    if images.shape[1:] != wanted or not len(images) or not np.isfinite(images).all():
        raise InputError(f"images have shape {images.shape}; finite numbers [N, {', '.join(map(str, wanted))}] fit")
    return images


def samples_in(inputs, net):
    """(samples, timesteps of each)."""
    first = next(iter(inputs.values()))
    if "images" in inputs:
        return len(first), net["timesteps"]
    return (len(first) // net["timesteps"], net["timesteps"]) if net["timesteps"] else (1, len(first))


def values(source, inputs, arrays, net):
    """What one source sends: int64 [samples, timesteps, C, H, W]."""
    samples, steps = samples_in(inputs, net)
    if source["kind"] == "codes":
        codes = inputs[f"codes/{source['input']}"]
        if codes.shape[1:] != tuple(source["shape"]):
            raise InputError(f"codes/{source['input']} have shape {codes.shape}; {source['shape']} is one timestep")
        low, high = source["range"]
        if codes.min(initial=low) < low or codes.max(initial=high) > high:
            raise InputError(f"codes/{source['input']} leave {low}..{high}, which the input can send")
        return codes.reshape(samples, steps, *source["shape"])
    of = _encoded if source["kind"] == "encoded" else _current
    found = np.array([[of(source, frame, arrays) for frame in image] for image in inputs["images"]])
    return np.broadcast_to(found, (samples, steps, *found.shape[2:]))


def _encoded(source, frame, arrays):
    codes = np.rint(frame * source["scale"])
    if codes.min() < source["lo"] or codes.max() > source["hi"]:
        raise InputError(f"codes {codes.min():.0f} to {codes.max():.0f} leave {source['lo']}..{source['hi']}")
    return codes.astype(np.int64)


def _current(source, frame, arrays):
    """y = (conv(rint(x 2^frac), weight) + bias + half) >> shift."""
    x = np.rint(frame * 2.0 ** source["frac"])
    if np.abs(x).max() >= 2**31:
        raise InputError(f"|x| * 2^{source['frac']} reaches 2^31; scale the input")
    weight, bias = (arrays[source[k]].astype(np.int64) for k in ("weight", "bias"))
    (sy, sx), (py, px), (dy, dx) = source["stride"], source["pad"], source["dilation"]
    outs, per_group, kh, kw = weight.shape
    x = np.pad(x.astype(np.int64), ((0, 0), (py, py), (px, px)))
    height, width = (x.shape[1] - dy * (kh - 1) - 1) // sy + 1, (x.shape[2] - dx * (kw - 1) - 1) // sx + 1
    found = np.zeros((outs, height, width), np.int64)
    each = outs // source["groups"]
    for g in range(source["groups"]):
        mine, cut = slice(g * each, (g + 1) * each), x[g * per_group : (g + 1) * per_group]
        for i in range(kh):
            for j in range(kw):
                seen = cut[:, i * dy : i * dy + (height - 1) * sy + 1 : sy, j * dx : j * dx + (width - 1) * sx + 1 : sx]
                found[mine] += np.einsum("oi,ihw->ohw", weight[mine, :, i, j], seen)
    return (found + bias[:, None, None] + (1 << source["shift"] >> 1)) >> source["shift"]


def ticks_of(net, samples, steps):
    """Ticks until the last population has lived the last timestep."""
    return (samples - 1) * interval_of(net, steps) + (steps - 1) * net["period"] + net["depth"] + 1


def interval_of(net, steps):
    """Ticks between the starts of two samples."""
    return net["interval"] if net["timesteps"] else max(steps * net["period"], 1)


def live_ticks(net, samples, steps, level):
    """int64 [samples, steps]: the tick at which something of that level lives each timestep."""
    starts = np.arange(samples) * interval_of(net, steps) + level
    return starts[:, None] + np.arange(steps) * net["period"]


def by_tick(sent, net, source):
    """Column per tick for Lava's source: int32 [X, Y, channels, ticks]."""
    samples, steps = sent.shape[:2]
    ticks = ticks_of(net, samples, steps)
    cut = sent[:, :, source["channels"]].transpose(0, 1, 4, 3, 2)
    data = np.zeros((*cut.shape[2:], ticks), np.int32)
    at = live_ticks(net, samples, steps, source["level"]).reshape(-1)
    data[..., at] = np.moveaxis(cut.reshape(-1, *cut.shape[2:]), 0, -1)
    return data

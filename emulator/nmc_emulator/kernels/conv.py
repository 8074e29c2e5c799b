"""Conv-addressed projections: event-driven sums of int8 weight rows.

For each output position the runs of active inputs under the kernel window are collected as *spans*
of the event list: a span (begin, count, base) stands for the weight rows ``index[e] + base`` of the
events e in begin .. begin + count. Their rows are then added by ``add_rows``, the innermost loop of
the emulator: for every output channel o,

    acc[at + o] = (acc[at + o] & keep) + (sum << shift)
    sum = sum over all events of all spans of weight[index[e] + base, o]

with ``keep`` -1 to add, 0 to overwrite; ``add_scaled_rows`` is the same with each row multiplied
by ``value[e]``. LLVM vectorises a plain loop over o but keeps the sums in memory, at half the
speed or less; so the loops are written out as LLVM vectors here: a block of 128, 64, ... 1 output
channels keeps its sums in registers, in 16 bits, while the rows pass. The caller sees to it that
the sums fit 16 bits (``rows_at_once``) and that all indices are in range. Nothing depends on the
width of the machine's vectors.

All of it stands in one file because numba's cache notices changes in the file of a kernel only.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCKS = (128, 64, 32, 16, 8, 1)  # output channels summed together
WIDENED = 1 << 17  # bytes of a widened weight at most: it has to stay in cache

I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


def rows_at_once(code):
    """Rows of weights in -128..127 times codes up to ``code`` whose sum fits 16 bits."""
    return (2**15 - 1) // (128 * max(code, 1))


def pack_geometry(source, grid, kernel, stride, pad, dilation, shift, lag, steps):
    """int64 [16]: source (C, H, W), output grid (H, W), kernel, stride, pad, dilation, and scalars."""
    fields = [*source, *grid, *kernel, *stride, *pad, *dilation, shift, lag, steps]
    return np.array(fields, np.int64).reshape(16)


def value_type(bound):
    """Type of event values with |code| <= bound: int16 where several rows can be summed in 16 bits."""
    return np.int16 if rows_at_once(bound) >= 8 else np.int64


def span_limit(bound):
    """Rows that may be added in one go for |code| <= bound: no limit where sums are as wide as acc."""
    return rows_at_once(bound) if value_type(bound) is np.int16 else 2**31


def neighbours(out_width, weight, stride, collapse):
    """Output positions side by side along x that are best summed together, as one of more channels.

    A row of few channels takes longer to find than to add, so up to 4 positions share the search;
    the rows of the wider kernel are partly zero.
    """
    kh, kw, ins, outs = weight.shape
    most = 4 if outs <= 32 else 2 if outs <= 64 and kw == 1 else 1
    for count in (4, 2):
        size = kh * (kw + (count - 1) * stride) * ins * count * outs
        if count <= most and out_width % count == 0 and not collapse and size <= WIDENED:
            return count
    return 1


def widen(weight, count, stride):
    """weight [kh, kw + (count - 1) * stride, C_in, count * C_out] that does ``count`` positions at once."""
    kh, kw, ins, outs = weight.shape
    wide = np.zeros((kh, kw + (count - 1) * stride, ins, count, outs), np.int8)
    for i in range(count):
        wide[:, i * stride : i * stride + kw, :, i] = weight
    return wide.reshape(kh, -1, ins, count * outs)


# -- weight rows as vectors --------------------------------------------------------------------


def _splat(builder, value, lanes):
    """A vector with ``value`` in every lane."""
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(I32, 0))
    mask = ir.Constant(ir.VectorType(I32, lanes), None)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def _to_16_bits(builder, value, vector):
    """Wider values are cut: callers do not get here with them, but the code is compiled all the same."""
    width = value.type.element.width
    return builder.sext(value, vector) if width < 16 else builder.trunc(value, vector) if width > 16 else value


def _add_span(builder, sums, matrix, column, lanes, events, span):
    """sums += ``lanes`` columns of the rows of one span (begin, count, base)."""
    vector, (begin, count, base), (index, value) = ir.VectorType(I16, lanes), span, events
    narrow = ir.VectorType(matrix.data.type.pointee, lanes).as_pointer()
    pitch = builder.extract_value(matrix.shape, 1)
    with cgutils.for_range(builder, count) as loop:
        e = builder.add(begin, loop.index)
        row = builder.add(builder.sext(builder.load(builder.gep(index.data, [e])), I64), base)
        at = builder.gep(matrix.data, [builder.add(builder.mul(row, pitch), column)])
        weight = _to_16_bits(builder, builder.load(builder.bitcast(at, narrow), align=1), vector)
        if value is not None:
            code = builder.load(builder.gep(value.data, [e]))
            narrow_code = code if code.type == I16 else builder.trunc(code, I16)
            weight = builder.mul(weight, _splat(builder, narrow_code, lanes))
        builder.store(builder.add(builder.load(sums), weight), sums)


def _sum_block(builder, matrix, column, lanes, events, spans, count):
    """int16 sums of ``lanes`` columns over the rows of all spans."""
    sums = cgutils.alloca_once_value(builder, ir.Constant(ir.VectorType(I16, lanes), None))
    builder.store(ir.Constant(ir.VectorType(I16, lanes), None), sums)
    with cgutils.for_range(builder, count) as loop:
        first = builder.mul(loop.index, ir.Constant(I64, 3))
        fields = (builder.add(first, ir.Constant(I64, i)) for i in range(3))
        span = [builder.load(builder.gep(spans.data, [i])) for i in fields]
        _add_span(builder, sums, matrix, column, lanes, events, span)
    return builder.load(sums)


def _add_block(builder, target, column, sums, shift, keep):
    """target[column ...] = (target & keep) + (sums << shift), in the type of the target."""
    wide = ir.VectorType(target.type.pointee, sums.type.count)
    at = builder.bitcast(builder.gep(target, [column]), wide.as_pointer())
    size = target.type.pointee.width // 8
    by, mask = (builder.trunc(n, target.type.pointee) if size < 8 else n for n in (shift, keep))
    scaled = builder.shl(builder.sext(sums, wide), _splat(builder, by, sums.type.count))
    old = builder.and_(builder.load(at, align=size), _splat(builder, mask, sums.type.count))
    builder.store(builder.add(old, scaled), at, align=size)


def _emit(builder, acc, at, matrix, events, spans, count, shift, keep):
    """Blocks of output channels, widest first, until all are done."""
    target, width = builder.gep(acc.data, [at]), builder.extract_value(matrix.shape, 1)
    column = cgutils.alloca_once_value(builder, ir.Constant(I64, 0))
    builder.store(ir.Constant(I64, 0), column)
    for lanes in BLOCKS:
        test, body, after = (builder.append_basic_block(f"{name}{lanes}") for name in ("test", "body", "after"))
        builder.branch(test)
        builder.position_at_end(test)
        start = builder.load(column)
        stop = builder.add(start, ir.Constant(I64, lanes))
        builder.cbranch(builder.icmp_signed("<=", stop, width), body, after)
        builder.position_at_end(body)
        sums = _sum_block(builder, matrix, start, lanes, events, spans, count)
        _add_block(builder, target, start, sums, shift, keep)
        builder.store(stop, column)
        builder.branch(test)
        builder.position_at_end(after)


def _unpack(context, builder, signature, args):
    """Array arguments as structures with ``data`` and ``shape``, numbers as they are."""
    for kind, value in zip(signature.args, args, strict=True):
        yield context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else value


@intrinsic
def add_rows(typingctx, acc, at, weight, index, spans, count, shift, keep):
    """acc [n] int32 or int64, weight int8 [rows, outs], index int32, spans int64 [>= count, 3]."""

    def generate(context, builder, signature, args):
        acc, at, weight, index, spans, count, shift, keep = _unpack(context, builder, signature, args)
        _emit(builder, acc, at, weight, (index, None), spans, count, shift, keep)
        return context.get_dummy_value()

    return types.void(acc, types.int64, weight, index, spans, types.int64, types.int64, types.int64), generate


@intrinsic
def add_scaled_rows(typingctx, acc, at, weight, index, value, spans, count, shift, keep):
    """As ``add_rows``, with each row multiplied by its event's value, int16."""

    def generate(context, builder, signature, args):
        acc, at, weight, index, value, spans, count, shift, keep = _unpack(context, builder, signature, args)
        _emit(builder, acc, at, weight, (index, value), spans, count, shift, keep)
        return context.get_dummy_value()

    return types.void(acc, types.int64, weight, index, value, spans, types.int64, types.int64, types.int64), generate


# -- kernels -----------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _add_wide_rows(acc, at, weight, index, value, spans, count, gain, keep):
    """acc[at + o] = (acc[at + o] & keep) + gain * sum of weight[index[e] + base, o] * value[e], as wide as acc."""
    for o in range(weight.shape[1]):
        acc[at + o] &= keep
    for s in range(count):
        begin, size, base = spans[s]
        for e in range(begin, begin + size):
            row, code = index[e] + base, value[e] * gain
            for o in range(weight.shape[1]):
                acc[at + o] += weight[row, o] * code


@njit(cache=True, nogil=True)
def _add(acc, at, weight, index, value, spans, count, shift, keep):
    """Add the rows of ``count`` spans to acc[at ...]. Which of the three is known when compiling."""
    if value is None:
        add_rows(acc, at, weight, index, spans, count, shift, keep)  # type: ignore[call-arg]
    elif value.itemsize == 2:
        add_scaled_rows(acc, at, weight, index, value, spans, count, shift, keep)  # type: ignore[call-arg]
    else:
        _add_wide_rows(acc, at, weight, index, value, spans, count, np.int64(1) << shift, keep)


@njit(cache=True, nogil=True)
def conv(window, ptr, index, value, weight, acc, geometry, slices, collapse, fresh, at_once, spans):
    """Conv with groups = 1. weight int8 [kd * kh * kw * C_in, C_out].

    ptr, index, value (None for plain spikes): event lists of the source; acc [F, P_out * C_out]
    ([F, C_out] with ``collapse``); slices: the window along them (as ``program.shapes.Window``), the geometry
    then being that of one slice; None for planes, which are compiled by themselves; fresh: overwrite what acc
    holds; at_once: rows whose sum fits 16 bits; spans int64 [kd * kh * kw, 3]. With dilation 1 along x the
    events under one row of the kernel are one run of the list; otherwise every tap is.
    """
    channels, in_height, in_width, height, width, kh, kw = geometry[:7]
    stride_y, stride_x, pad_y, pad_x, dy, dx, shift, lag, steps = geometry[7:]
    in_depth, depth, kd, stride_z, pad_z, dz = (1, 1, 1, 1, 0, 1) if slices is None else slices
    flat, outs = acc.reshape(acc.size), weight.shape[1]
    run = kw if dx == 1 else 1
    for f in range(window[0], window[1]):
        if f % steps < lag:
            continue
        for row in range(depth * height):
            z, y = (0, row) if slices is None else divmod(row, height)
            front, top = z * stride_z - pad_z, y * stride_y - pad_y
            origin = (((f - lag) * in_depth + front) * in_height + top) * in_width
            for x in range(width):
                at = f * acc.shape[1] + (0 if collapse else (row * width + x) * outs)
                count, rows, keep = 0, 0, 0 if fresh else -1
                for k in range(kd * kh):
                    kz, ky = (0, k) if slices is None else divmod(k, kh)
                    if top + ky * dy < 0 or top + ky * dy >= in_height:
                        continue
                    if front + kz * dz < 0 or front + kz * dz >= in_depth:
                        continue
                    line = origin + (kz * dz * in_height + ky * dy) * in_width
                    for kx in range(0, kw, run):
                        column = x * stride_x - pad_x + kx * dx
                        left, right = max(column, 0), min(column + run, in_width)
                        if left >= right:
                            continue
                        begin, end = ptr[line + left], ptr[line + right]
                        base = (k * kw + kx - column) * channels
                        while begin < end:
                            size = min(end - begin, at_once - rows)
                            spans[count, 0], spans[count, 1], spans[count, 2] = begin, size, base
                            count, rows, begin = count + 1, rows + size, begin + size
                            if rows == at_once:
                                _add(flat, at, weight, index, value, spans, count, shift, keep)
                                count, rows, keep = 0, 0, -1
                _add(flat, at, weight, index, value, spans, count, shift, keep)

"""Sums of int8 weight rows, the innermost loop of the emulator, in explicit vectors.

The rows to add are given as *spans* of an event list: a span (begin, count, base) stands for the
rows ``index[e] + base`` of the events e in begin .. begin + count. ``add_rows`` is, for every
output channel o,

    acc[at + o] += (sum over all events of all spans of weight[index[e] + base, o]) << shift

and ``add_scaled_rows`` the same with each row multiplied by ``value[e]``. LLVM vectorises a plain
loop over o but keeps the sums in memory, at half the speed or less; so the loops are written out as
LLVM vectors here: a block of 128, 64, ... 1 output channels keeps its sums in registers, in 16
bits, while the rows pass. The caller sees to it that the sums fit 16 bits (``rows_at_once``) and
that all indices are in range. Nothing depends on the width of the machine's vectors.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCKS = (128, 64, 32, 16, 8, 1)  # columns summed together

I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


def rows_at_once(code):
    """Rows of weights in -128..127 times codes up to ``code`` whose sum fits 16 bits."""
    return (2**15 - 1) // (128 * max(code, 1))


def _splat(builder, value, lanes):
    """A vector with ``value`` in every lane."""
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(I32, 0))
    mask = ir.Constant(ir.VectorType(I32, lanes), None)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def _add_span(builder, sums, matrix, column, lanes, events, span):
    """sums += ``lanes`` columns of the rows of one span (begin, count, base)."""
    vector, (begin, count, base), (index, value) = ir.VectorType(I16, lanes), span, events
    narrow = ir.VectorType(matrix.data.type.pointee, lanes).as_pointer()
    pitch = builder.extract_value(matrix.shape, 1)
    with cgutils.for_range(builder, count) as loop:
        e = builder.add(begin, loop.index)
        row = builder.add(builder.sext(builder.load(builder.gep(index.data, [e])), I64), base)
        at = builder.gep(matrix.data, [builder.add(builder.mul(row, pitch), column)])
        weight = builder.sext(builder.load(builder.bitcast(at, narrow), align=1), vector)
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


def _add_block(builder, target, column, sums, shift):
    """target[column ...] += sums << shift, in the type of the target."""
    wide = ir.VectorType(target.type.pointee, sums.type.count)
    at = builder.bitcast(builder.gep(target, [column]), wide.as_pointer())
    size = target.type.pointee.width // 8
    by = builder.trunc(shift, target.type.pointee) if size < 8 else shift
    scaled = builder.shl(builder.sext(sums, wide), _splat(builder, by, sums.type.count))
    builder.store(builder.add(builder.load(at, align=size), scaled), at, align=size)


def _emit(builder, acc, at, matrix, events, spans, count, shift):
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
        _add_block(builder, target, start, sums, shift)
        builder.store(stop, column)
        builder.branch(test)
        builder.position_at_end(after)


def _unpack(context, builder, signature, args):
    """Array arguments as structures with ``data`` and ``shape``, numbers as they are."""
    for kind, value in zip(signature.args, args, strict=True):
        yield context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else value


@intrinsic
def add_rows(typingctx, acc, at, weight, index, spans, count, shift):
    """acc [n] int32 or int64, weight int8 [rows, outs], index int32, spans int64 [>= count, 3]."""

    def generate(context, builder, signature, args):
        acc, at, weight, index, spans, count, shift = _unpack(context, builder, signature, args)
        _emit(builder, acc, at, weight, (index, None), spans, count, shift)
        return context.get_dummy_value()

    return types.void(acc, types.int64, weight, index, spans, types.int64, types.int64), generate


@intrinsic
def add_scaled_rows(typingctx, acc, at, weight, index, value, spans, count, shift):
    """As ``add_rows``, with each row multiplied by its event's value, int16."""

    def generate(context, builder, signature, args):
        acc, at, weight, index, value, spans, count, shift = _unpack(context, builder, signature, args)
        _emit(builder, acc, at, weight, (index, value), spans, count, shift)
        return context.get_dummy_value()

    return types.void(acc, types.int64, weight, index, value, spans, types.int64, types.int64), generate

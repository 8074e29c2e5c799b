"""Sums of int8 weight rows, the innermost loop of the emulator, in explicit vectors.

``add_rows`` is, for every output channel o,

    acc[line, o] += (sum over k in begin .. begin + count of weight[rows[k], o]) << shift

and ``add_scaled_rows`` the same with each row multiplied by ``gains[k]``. LLVM vectorises a plain
loop over o but keeps the sums in memory, at half the speed or less; so the loops are written out as
LLVM vectors here: a block of 128, 64, ... 1 output channels keeps its sums in registers, in 16
bits, while the rows pass. The caller sees to it that ``count`` products fit 16 bits
(``rows_at_once``). Nothing depends on the width of the machine's vectors.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCKS = (128, 64, 32, 16, 8, 1)  # output channels summed together

I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


def rows_at_once(code):
    """Rows of weights in -128..127 times codes up to ``code`` whose sum fits 16 bits."""
    return (2**15 - 1) // (128 * code)


def _splat(builder, value, lanes):
    """A vector with ``value`` in every lane."""
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(I32, 0))
    mask = ir.Constant(ir.VectorType(I32, lanes), None)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def _sum_block(builder, data, width, column, lanes, rows, gains, begin, count):
    """int16 sums of ``lanes`` columns over ``count`` rows of the matrix at ``data``."""
    vector = ir.VectorType(I16, lanes)
    sums = cgutils.alloca_once_value(builder, ir.Constant(vector, None))
    with cgutils.for_range(builder, count) as loop:
        k = builder.add(begin, loop.index)
        row = builder.sext(builder.load(builder.gep(rows, [k])), I64)
        at = builder.gep(data, [builder.add(builder.mul(row, width), column)])
        narrow = ir.VectorType(data.type.pointee, lanes).as_pointer()
        weight = builder.sext(builder.load(builder.bitcast(at, narrow), align=1), vector)
        if gains is not None:
            gain = builder.trunc(builder.load(builder.gep(gains, [k])), I16)
            weight = builder.mul(weight, _splat(builder, gain, lanes))
        builder.store(builder.add(builder.load(sums), weight), sums)
    return builder.load(sums)


def _add_block(builder, target, column, sums, shift):
    """target[column ...] += sums << shift, in the type of the target."""
    wide = ir.VectorType(target.type.pointee, sums.type.count)
    at = builder.bitcast(builder.gep(target, [column]), wide.as_pointer())
    size = target.type.pointee.width // 8
    by = builder.trunc(shift, target.type.pointee) if size < 8 else shift
    scaled = builder.shl(builder.sext(sums, wide), _splat(builder, by, sums.type.count))
    builder.store(builder.add(builder.load(at, align=size), scaled), at, align=size)


def _emit(builder, acc, line, weight, rows, gains, begin, count, shift):
    """Blocks of output channels, widest first, until all are done."""
    width = builder.extract_value(weight.shape, 1)
    outs = builder.extract_value(acc.shape, 1)
    target = builder.gep(acc.data, [builder.mul(line, outs)])
    column = cgutils.alloca_once_value(builder, ir.Constant(I64, 0))
    for lanes in BLOCKS:
        test, body, done = (builder.append_basic_block(f"{name}{lanes}") for name in ("test", "body", "done"))
        builder.branch(test)
        builder.position_at_end(test)
        after = builder.add(builder.load(column), ir.Constant(I64, lanes))
        builder.cbranch(builder.icmp_signed("<=", after, outs), body, done)
        builder.position_at_end(body)
        at = builder.load(column)
        sums = _sum_block(builder, weight.data, width, at, lanes, rows.data, gains, begin, count)
        _add_block(builder, target, at, sums, shift)
        builder.store(after, column)
        builder.branch(test)
        builder.position_at_end(done)


def _unpack(context, builder, signature, args):
    """Array arguments as structures with ``data`` and ``shape``, numbers as they are."""
    for kind, value in zip(signature.args, args, strict=True):
        yield context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else value


@intrinsic
def add_rows(typingctx, acc, line, weight, rows, begin, count, shift):
    """acc [lines, outs] int32 or int64, weight int8 [rows, outs], rows int32: see the module's text."""

    def generate(context, builder, signature, args):
        acc, line, weight, rows, begin, count, shift = _unpack(context, builder, signature, args)
        _emit(builder, acc, line, weight, rows, None, begin, count, shift)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(acc, i64, weight, rows, i64, i64, i64), generate


@intrinsic
def add_scaled_rows(typingctx, acc, line, weight, rows, gains, begin, count, shift):
    """As ``add_rows``, with each row multiplied by its gain."""

    def generate(context, builder, signature, args):
        acc, line, weight, rows, gains, begin, count, shift = _unpack(context, builder, signature, args)
        _emit(builder, acc, line, weight, rows, gains.data, begin, count, shift)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(acc, i64, weight, rows, gains, i64, i64, i64), generate

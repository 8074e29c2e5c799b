"""Sums of int8 weight rows, the innermost loop of the emulator, in explicit vectors.

``add_rows`` is, for every o in 0 .. width,

    acc[at + o] += (sum over k in begin .. begin + count of weight[rows[k] + base, column + o]) << shift

and ``add_scaled_rows`` the same with each row multiplied by ``gains[k]``. LLVM vectorises a plain
loop over o but keeps the sums in memory, at half the speed or less; so the loops are written out as
LLVM vectors here: a block of 128, 64, ... 1 columns keeps its sums in registers, in 16 bits, while
the rows pass. The caller sees to it that ``count`` products fit 16 bits (``rows_at_once``) and that
all indices are in range. Nothing depends on the width of the machine's vectors.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCKS = (128, 64, 32, 16, 8, 1)  # columns summed together

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


def _sum_block(builder, matrix, column, lanes, rows, gains, span):
    """int16 sums of ``lanes`` columns over the rows of ``span`` = (begin, count, base)."""
    vector, (begin, count, base) = ir.VectorType(I16, lanes), span
    narrow = ir.VectorType(matrix.data.type.pointee, lanes).as_pointer()
    pitch = builder.extract_value(matrix.shape, 1)
    sums = cgutils.alloca_once_value(builder, ir.Constant(vector, None))
    with cgutils.for_range(builder, count) as loop:
        k = builder.add(begin, loop.index)
        row = builder.add(builder.sext(builder.load(builder.gep(rows, [k])), I64), base)
        at = builder.gep(matrix.data, [builder.add(builder.mul(row, pitch), column)])
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


def _emit(builder, acc, at, matrix, column, width, rows, gains, span, shift):
    """Blocks of columns, widest first, until all are done."""
    target = builder.gep(acc.data, [at])
    done = cgutils.alloca_once_value(builder, ir.Constant(I64, 0))
    for lanes in BLOCKS:
        test, body, after = (builder.append_basic_block(f"{name}{lanes}") for name in ("test", "body", "after"))
        builder.branch(test)
        builder.position_at_end(test)
        start = builder.load(done)
        stop = builder.add(start, ir.Constant(I64, lanes))
        builder.cbranch(builder.icmp_signed("<=", stop, width), body, after)
        builder.position_at_end(body)
        sums = _sum_block(builder, matrix, builder.add(column, start), lanes, rows, gains, span)
        _add_block(builder, target, start, sums, shift)
        builder.store(stop, done)
        builder.branch(test)
        builder.position_at_end(after)


def _unpack(context, builder, signature, args):
    """Array arguments as structures with ``data`` and ``shape``, numbers as they are."""
    for kind, value in zip(signature.args, args, strict=True):
        yield context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else value


I = types.int64


@intrinsic
def add_rows(typingctx, acc, at, weight, column, width, rows, begin, count, base, shift):
    """acc [n] int32 or int64, weight int8 [rows, columns], rows int32: see the module's text."""

    def generate(context, builder, signature, args):
        acc, at, weight, column, width, rows, *span, shift = _unpack(context, builder, signature, args)
        _emit(builder, acc, at, weight, column, width, rows.data, None, span, shift)
        return context.get_dummy_value()

    return types.void(acc, I, weight, I, I, rows, I, I, I, I), generate


@intrinsic
def add_scaled_rows(typingctx, acc, at, weight, column, width, rows, gains, begin, count, base, shift):
    """As ``add_rows``, with each row multiplied by its gain."""

    def generate(context, builder, signature, args):
        acc, at, weight, column, width, rows, gains, *span, shift = _unpack(context, builder, signature, args)
        _emit(builder, acc, at, weight, column, width, rows.data, gains.data, span, shift)
        return context.get_dummy_value()

    return types.void(acc, I, weight, I, I, rows, gains, I, I, I, I), generate

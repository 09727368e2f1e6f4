"""Sums of products for many small matrices side by side, one per lane of a vector register.

The direct solver factorizes tens of thousands of matrices of one size. `LANES` of them are laid side by side, so
that element (i, j) of all of them is one vector and every operation on them is a vector operation, whatever i and
j. What takes the time is one loop, ``x_r -= sum over k of a_rk b_k`` for four rows r at once, or for a square of
four rows by four columns, which loads half a number per product instead of five quarters; it is written here in
LLVM's own terms, because a compiler that has to prove four rows distinct from each other gives up and makes it
several times slower.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 8
"""Matrices side by side: one register of eight float32. With sixteen, two threads of a core want twice the cache that
there is."""

ROWS = 4
"""Rows of one call."""


def _subtraction(scalar_rows: bool) -> Any:
    """Make the intrinsic; with scalar_rows the a_rk are numbers common to all lanes."""

    def typing(
        typingctx: Any,
        x: Any,
        x_start: Any,
        a: Any,
        a_start: Any,
        row_step: Any,
        k_step: Any,
        b: Any,
        b_start: Any,
        terms: Any,
    ) -> Any:
        arrays = (x, a, b)
        if not all(
            isinstance(one, types.Array) and one.dtype == types.float32 and one.ndim == 1
            for one in arrays
        ):
            return None
        i = types.intp
        signature = types.void(x, i, a, i, i, i, b, i, i)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            index = ir.IntType(64)
            vector = ir.VectorType(ir.FloatType(), LANES)

            def data(number: int) -> Any:
                return context.make_array(sig.args[number])(context, builder, args[number]).data

            def constant(value: int) -> Any:
                return ir.Constant(index, value)

            def place(pointer: Any, offset: Any) -> Any:
                return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())

            def load(pointer: Any, offset: Any) -> Any:
                loaded = builder.load(place(pointer, offset))
                loaded.align = 4
                return loaded

            def spread(pointer: Any, offset: Any) -> Any:
                number = builder.load(builder.gep(pointer, [offset]))
                anything = ir.Constant(vector, ir.Undefined)
                first = builder.insert_element(anything, number, ir.Constant(ir.IntType(32), 0))
                everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
                return builder.shuffle_vector(first, anything, everywhere)

            x_data, a_data, b_data = data(0), data(2), data(6)
            x_start, a_start, row_step, k_step = args[1], args[3], args[4], args[5]
            b_start, terms = args[7], args[8]
            x_at = [builder.add(x_start, constant(r * LANES)) for r in range(ROWS)]
            a_at = [builder.add(a_start, builder.mul(row_step, constant(r))) for r in range(ROWS)]
            before = [load(x_data, at) for at in x_at]
            entry = builder.block
            loop, end = builder.append_basic_block("terms"), builder.append_basic_block("end")
            builder.cbranch(builder.icmp_signed(">", terms, constant(0)), loop, end)

            builder.position_at_end(loop)
            k = builder.phi(index)
            sums = [builder.phi(vector) for _ in range(ROWS)]
            b_k = load(b_data, builder.add(b_start, builder.mul(k, constant(LANES))))
            along = builder.mul(k, k_step)
            after = []
            for r in range(ROWS):
                at = builder.add(a_at[r], along)
                a_rk = spread(a_data, at) if scalar_rows else load(a_data, at)
                product = builder.fmul(a_rk, b_k, flags=("contract",))
                after.append(builder.fsub(sums[r], product, flags=("contract",)))
            following = builder.add(k, constant(1))
            k.add_incoming(constant(0), entry)
            k.add_incoming(following, loop)
            for r in range(ROWS):
                sums[r].add_incoming(before[r], entry)
                sums[r].add_incoming(after[r], loop)
            builder.cbranch(builder.icmp_signed("<", following, terms), loop, end)

            builder.position_at_end(end)
            results = [builder.phi(vector) for _ in range(ROWS)]
            for r in range(ROWS):
                results[r].add_incoming(before[r], entry)
                results[r].add_incoming(after[r], loop)
            for r in range(ROWS):
                builder.store(results[r], place(x_data, x_at[r])).align = 4
            return context.get_dummy_value()

        return signature, codegen

    return intrinsic(typing)


subtract_products = _subtraction(scalar_rows=False)
"""``x[r] -= sum over k < terms of a[r, k] b[k]`` for four rows r, lane by lane, on flat float32 arrays.

Arguments: x, x_start, a, a_start, row_step, k_step, b, b_start, terms. The vector x[r] begins at ``x_start + r
    LANES``, a[r, k] at ``a_start + r row_step + k k_step``, b[k] at ``b_start + k LANES``. Bounds are not checked.
"""

subtract_scaled = _subtraction(scalar_rows=True)
"""The same with numbers a[r, k] that are common to all lanes."""


def _tile() -> Any:
    """Make the intrinsic of a square of sums: every number that is loaded takes part in `ROWS` products."""

    def typing(
        typingctx: Any,
        x: Any,
        a: Any,
        a_start: Any,
        a_step: Any,
        b: Any,
        b_start: Any,
        b_step: Any,
        terms: Any,
    ) -> Any:
        if not all(
            isinstance(one, types.Array) and one.dtype == types.float32 and one.ndim == 1
            for one in (x, a, b)
        ):
            return None
        i = types.intp
        signature = types.void(x, a, i, i, b, i, i, i)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            index = ir.IntType(64)
            vector = ir.VectorType(ir.FloatType(), LANES)

            def data(number: int) -> Any:
                return context.make_array(sig.args[number])(context, builder, args[number]).data

            def constant(value: int) -> Any:
                return ir.Constant(index, value)

            def place(pointer: Any, offset: Any) -> Any:
                return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())

            def load(pointer: Any, offset: Any) -> Any:
                loaded = builder.load(place(pointer, offset))
                loaded.align = 4
                return loaded

            x_data, a_data, b_data = data(0), data(1), data(4)
            terms = args[7]
            a_at = [builder.add(args[2], builder.mul(args[3], constant(r))) for r in range(ROWS)]
            b_at = [builder.add(args[5], builder.mul(args[6], constant(q))) for q in range(ROWS)]
            tile = [(r, q) for r in range(ROWS) for q in range(ROWS)]
            x_at = [constant((r * ROWS + q) * LANES) for r, q in tile]
            before = [load(x_data, at) for at in x_at]
            entry = builder.block
            loop, end = builder.append_basic_block("terms"), builder.append_basic_block("end")
            builder.cbranch(builder.icmp_signed(">", terms, constant(0)), loop, end)

            builder.position_at_end(loop)
            k = builder.phi(index)
            sums = [builder.phi(vector) for _ in tile]
            along = builder.mul(k, constant(LANES))
            b_k = [load(b_data, builder.add(at, along)) for at in b_at]
            after = []
            for r in range(ROWS):
                a_rk = load(a_data, builder.add(a_at[r], along))
                for q in range(ROWS):
                    product = builder.fmul(a_rk, b_k[q], flags=("contract",))
                    after.append(builder.fsub(sums[r * ROWS + q], product, flags=("contract",)))
            following = builder.add(k, constant(1))
            k.add_incoming(constant(0), entry)
            k.add_incoming(following, loop)
            for one, first, last in zip(sums, before, after, strict=True):
                one.add_incoming(first, entry)
                one.add_incoming(last, loop)
            builder.cbranch(builder.icmp_signed("<", following, terms), loop, end)

            builder.position_at_end(end)
            results = [builder.phi(vector) for _ in tile]
            for result, first, last in zip(results, before, after, strict=True):
                result.add_incoming(first, entry)
                result.add_incoming(last, loop)
            for result, at in zip(results, x_at, strict=True):
                builder.store(result, place(x_data, at)).align = 4
            return context.get_dummy_value()

        return signature, codegen

    return intrinsic(typing)


subtract_tile = _tile()
"""``x[r, q] -= sum over k < terms of a[r, k] b[q, k]`` for `ROWS` rows r and as many q, lane by lane.

Arguments: x, a, a_start, a_step, b, b_start, b_step, terms, flat float32 arrays. The vector x[r, q] begins at ``(r
    ROWS + q) LANES``, a[r, k] at ``a_start + r a_step + k LANES``, b likewise. Bounds are not checked.
"""

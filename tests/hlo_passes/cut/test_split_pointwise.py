import numpy as np
import pytest
from jaxlib.mlir import ir

from hlo_passes.cut.rules import pointwise
from hlo_passes.cut.rules.catalogue import RULES, rule_of
from hlo_passes.cut.states import Cut, Spot, Sum
from hlo_passes.ir.stablehlo.module import Module, make_context
from tests.hlo_passes.cut.cases import CASES
from tests.hlo_passes.cut.splitting import assert_same, returning, run, split_one, variants
from tests.hlo_passes.cut.test_split_exchange import EXCHANGES

_CHLO = (
    "acos",
    "asin",
    "atan",
    "cosh",
    "digamma",
    "erf",
    "erf_inv",
    "erfc",
    "lgamma",
    "sinh",
    "square",
)
_INTS = ("and", "or", "xor", "not", "popcnt", "count_leading_zeros", "shift_left",
         "shift_right_arithmetic", "shift_right_logical")  # fmt: skip
_BINARY = ("add", "and", "atan2", "divide", "maximum", "minimum", "multiply", "or", "power",
           "remainder", "shift_left", "shift_right_arithmetic", "shift_right_logical", "subtract",
           "xor")  # fmt: skip
_ELSEWHERE = ("clamp", "select", "iota", "constant", "bitcast_convert")
_F, _I, _B, _C = (f"tensor<8x16x{e}>" for e in ("f32", "i32", "i1", "complex<f32>"))
_SPECIAL = {
    "compare": f"stablehlo.compare LT, %x, %y : ({_F}, {_F}) -> {_B}",
    "complex": f"stablehlo.complex %x, %y : {_C}",
    "real": f"stablehlo.real %z : ({_C}) -> {_F}",
    "imag": f"stablehlo.imag %z : ({_C}) -> {_F}",
    "is_finite": f"stablehlo.is_finite %x : ({_F}) -> {_B}",
    "convert": f"stablehlo.convert %x : ({_F}) -> {_I}",
    "reduce_precision": f"stablehlo.reduce_precision %x, format = e5m7 : {_F}",
}


def _line(kind: str) -> str:
    if kind in _SPECIAL:
        return _SPECIAL[kind]
    dialect = "chlo" if kind in _CHLO else "stablehlo"
    names, tensor = (("%i", "%j"), _I) if kind in _INTS else (("%x", "%y"), _F)
    operands = ", ".join(names[: 2 if kind in _BINARY else 1])
    arrow = f"{tensor} -> {tensor}" if dialect == "chlo" else tensor
    return f"{dialect}.{kind} {operands} : {arrow}"


def _module(kinds) -> Module:
    lines = "\n".join(f"%{n} = {_line(kind)}" for n, kind in enumerate(kinds))
    return Module.parse(f"""func.func @main(%x: {_F}, %y: {_F}, %i: {_I}, %j: {_I}) -> {_F} {{
      %z = stablehlo.complex %x, %y : {_C}
      {lines}
      return %x : {_F}
    }}""")


def test_every_pointwise_kind_makes_the_same_in_parts():
    kinds = [kind for kind in pointwise.RULES if kind not in _ELSEWHERE]
    module = _module(kinds)
    ops = [view.operation for view in module.body.operations]
    values, notes = [], []
    with module.ir.context, ir.Location.unknown():
        with ir.InsertionPoint(ops[-1]):
            for op in ops[:-1]:
                found = variants(op, ks=(2,), outers=(2,))
                assert {(v.spot.side, v.cut.dim) for v in found} == {
                    (side, dim) for side in ("operand", "result") for dim in (0, 1)
                }
                for variant in found:
                    values += [op.results[0], *split_one(op, variant)]
                    notes.append((op.name, variant))
        returning(module, values)
    module.verify()
    rng = np.random.default_rng(0)
    floats = [rng.uniform(0.1, 0.9, (8, 16)).astype(np.float32) for _ in range(2)]
    ints = [rng.integers(0, 8, (8, 16)).astype(np.int32) for _ in range(2)]
    made = run(module, [*floats, *ints])
    assert len(notes) > 200
    for note, whole, joined in zip(notes, made[::2], made[1::2], strict=True):
        assert_same(note[0], [whole], [joined], note, exact=whole.dtype != np.float32)


def test_every_kind_that_has_a_rule_is_tried():
    # XLA:CPU does not run `chlo.scan`; tests/aot compiles a cut one for CUDA.
    tried = {case.kind for case in (*CASES, *EXCHANGES)} | set(pointwise.RULES) | {"scan"}
    assert tried == set(RULES)


def test_every_rule_is_for_an_op_that_there_is():
    context = make_context()
    for kind in RULES:
        names = (f"stablehlo.{kind}", f"chlo.{kind}")
        assert any(context.is_registered_operation(name) for name in names), kind


def test_the_catalogue_cannot_be_changed():
    with pytest.raises(TypeError):
        RULES["add"] = RULES["abs"]  # pyrefly: ignore


@pytest.mark.parametrize(
    "line",
    [
        f'stablehlo.custom_call @f(%x) : ({_F}) -> {_F}',
        f"mhlo.add %x, %x : {_F}",
        f'"stablehlo.optimization_barrier"(%x) : ({_F}) -> {_F}',
    ],
)  # fmt: skip
def test_what_nobody_knows_has_no_rule(line):
    module = Module.parse(f"func.func @main(%x: {_F}) -> {_F} {{ %0 = {line}\n return %0 : {_F} }}")
    assert rule_of(module.body.operations[0].operation) is None


def test_random_bits_have_no_rule():
    assert not {"rng", "rng_bit_generator", "custom_call", "while", "case"} & set(RULES)


def test_scatters_say_how_they_are_chained():
    for merge, name in (("add", "add"), ("set", "set"), ("minimum", "min"), ("maximum", "max")):
        (case,) = [c for c in CASES if c.kind == "scatter" and c.name == name]
        module = case.module()
        op = module.body.operations[len(module.body.operations) - 2].operation
        split = rule_of(op).cut(op, Spot("operand", 1), Cut(0), 2)
        assert split.operands == (None, Cut(0), Cut(0))
        assert split.results == (Sum(merge),)

"""What may end the process that parses it ends a child, and the next file gets another."""

import pytest

from hlo_passes.errors import InputError
from hlo_passes.ir import guard
from hlo_passes.ir.files import parse
from tests.hlo_samples import PLAIN, SAMPLES

_BOUNDED = "tensor<?xf32, #stablehlo.bounds<8>>"
DEADLY = f"""func.func @main(%x: {_BOUNDED}) -> () {{
  %q = stablehlo.uniform_quantize %x : ({_BOUNDED}) -> {_BOUNDED.replace("f32", "!quant.uniform<i8:f32, 1.0:3>")}
  return
}}
"""
GOOD = "func.func @main(%x: tensor<8xf32>) -> tensor<8xf32> {\n  return %x : tensor<8xf32>\n}\n"


def child():
    return guard._parser().child


def test_a_parser_that_dies_is_an_error_and_not_the_end():
    with pytest.raises(InputError, match=r"^x\.mlir: .*parser of JAX's own library died of it"):
        parse(DEADLY.encode(), "x.mlir")
    assert child() is None
    assert len(parse(GOOD.encode(), "x.mlir").snapshot().ops) == 1
    assert child().poll() is None


def test_one_child_reads_many_files():
    parse(SAMPLES["short"].encode(), "x")
    first = child().pid
    parse(SAMPLES["wrapped"].encode(), "x")
    assert child().pid == first


def test_a_child_that_has_gone_is_followed_by_another():
    parse(SAMPLES["short"].encode(), "x")
    gone = child()
    gone.kill()
    gone.wait()
    assert parse(SAMPLES["short"].encode(), "x").name == "short"
    assert child().pid != gone.pid


def test_what_takes_too_long_is_given_up(monkeypatch):
    guard._parser().close()
    monkeypatch.setattr(guard, "_SECONDS", 0.01)
    with pytest.raises(InputError, match=r"still unread after 0.01 s"):
        guard.parsed_apart(PLAIN.encode(), "text", "x")
    assert child() is None


def test_refusals_name_their_line():
    with pytest.raises(InputError, match=r"^x:2: .*expects"):
        guard.parsed_apart(b"HloModule m\nENTRY e { ROOT 7 }", "text", "x")
    with pytest.raises(InputError, match=r"^x:1:1: "):
        guard.parsed_apart(b"?", "mlir", "x")

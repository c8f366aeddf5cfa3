"""Instructions that compute the same have one number; those that only look alike do not."""

from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.proofs.hlo_value_numbers import HloNumbering
from tests.hlo import scheduled

BODIES = """%f.1 (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  ROOT %r = f32[4]{0} tanh(%a)
}

%f.2 (b: f32[4]) -> f32[4] {
  %b = f32[4]{0} parameter(0)
  ROOT %s = f32[4]{0} tanh(%b)
}

%f.3 (b: f32[4]) -> f32[4] {
  %b.3 = f32[4]{0} parameter(0)
  ROOT %s.3 = f32[4]{0} cosine(%b.3)
}"""
ENTRY = """  %p = f32[4]{0} parameter(0)
  %c = f32[4]{0} copy(%p)
  %x = f32[4]{0} fusion(%p), kind=kLoop, calls=%f.1, metadata={op_name="first"}
  %y = f32[4]{0} fusion(%c), kind=kLoop, calls=%f.2, metadata={op_name="second"}
  %z = f32[4]{0} fusion(%p), kind=kLoop, calls=%f.3
  %k = f32[] constant(3)
  %l = f32[] constant(3)
  %t = f32[] add(%k, %l)
  %u = f32[4]{0} rng(%k, %l), distribution=rng_uniform
  %v = f32[4]{0} rng(%k, %l), distribution=rng_uniform
  ROOT %o = f32[4]{0} add(%x, %y)"""


def test_called_computations_count_by_what_they_do_and_copies_as_what_they_copy():
    module = ScheduledModule(scheduled(ENTRY, BODIES))
    names = [ins.name for ins in module.parsed.computations["main"].instructions]
    of = dict(zip(names, HloNumbering(module).of("main"), strict=True))
    assert of["c"] == of["p"] is not None
    assert of["x"] == of["y"]
    assert of["z"] != of["x"]
    assert of["t"] is None  # it follows from constants

"""XLA writes 0.01 us beside fusions that it gives to Triton: no price, for planner and judge alike."""

import pytest

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.files import parse
from lancet_jax.judge.listing import read_listing
from lancet_jax.judge.prices import Prices

TEXT = """HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[4096,4096]{1,0})->f32[4096,4096]{1,0}}

%fused (p: f32[4096,4096]) -> f32[4096,4096] {
  %p = f32[4096,4096]{1,0} parameter(0)
  ROOT %e = f32[4096,4096]{1,0} exponential(%p)
}

ENTRY %main (x: f32[4096,4096]) -> f32[4096,4096] {
  %x = f32[4096,4096]{1,0} parameter(0)
  ROOT %fusion = f32[4096,4096]{1,0} fusion(%x), kind=kCustom, calls=%fused, backend_config={"fusion_backend_config":{"kind":"__triton"},"reification_cost":[{"end_to_end_cycles":0,"exec_time_us":PRICE,"compute_time_us":0,"memory_access_time_us":0,"name":"sol"}]}
}
"""


@pytest.mark.parametrize(("price", "known"), [("0.01", None), ("40.5", 40.5), ("0.0075", 0.0075)])
def test_only_the_mark_is_no_price(price, known):
    text = TEXT.replace("PRICE", price)
    op = next(op for op in parse(text.encode(), "m").snapshot().ops if op.name.endswith("fusion"))
    assert op.xla_us == known
    listing = read_listing(text)
    line = listing.entry.root
    us, source = Prices(listing, TargetCosts(parse_target("h100:1x8"))).compute(line, listing.entry)
    if known is None:
        assert source == "roofline"
        assert us > 2 * 4096 * 4096 * 4 / 3.4e12 * 1e6, "what moving its bytes takes at least"
    else:
        assert (us, source) == (known, "xla")

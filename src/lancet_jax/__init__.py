"""lancet-jax hides Mixture-of-Experts all-to-alls behind the whole JAX training step.

step = lancet_jax.jit(train_step, donate_argnums=0)     # instead of jax.jit
state, loss = step(state, batch)                        # same trees, same bits
print(step.lower(state, batch).report())                # what is hidden, and what is not
"""

from importlib.metadata import version

from hlo_passes.ir.opaque import OpaqueExchange as OpaqueExchange
from lancet_jax import aot as aot
from lancet_jax.equivalence import Verification as Verification
from lancet_jax.equivalence import verify as verify
from lancet_jax.errors import InputError as InputError
from lancet_jax.errors import LancetError as LancetError
from lancet_jax.errors import LancetWarning as LancetWarning
from lancet_jax.errors import OptionError as OptionError
from lancet_jax.errors import PlanError as PlanError
from lancet_jax.errors import UnsupportedError as UnsupportedError
from lancet_jax.jit import jit as jit
from lancet_jax.report.report import Report as Report
from lancet_jax.stages import Compiled as Compiled
from lancet_jax.stages import Lowered as Lowered

__version__ = version("lancet-jax")

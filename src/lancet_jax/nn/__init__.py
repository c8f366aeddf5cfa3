"""Flax MoE GPT models: reference, example and test load for reordered all-to-alls.

    config = preset("tiny")
    mesh = jax.make_mesh((jax.device_count(),), ("expert",))
    optimizer = sgd_momentum()
    step = jax.jit(make_train_step(config, mesh, optimizer), donate_argnums=0)
    state = init_state(config, mesh, optimizer)
    for batch in batches(sample_text(), *batch_shape(config, mesh)):
        state, metrics = step(state, batch)

Needs the `demo` extra (flax and optax).
"""

from lancet_jax.nn.config import PRESETS as PRESETS
from lancet_jax.nn.config import MoEGPTConfig as MoEGPTConfig
from lancet_jax.nn.config import preset as preset
from lancet_jax.nn.data import batches as batches
from lancet_jax.nn.data import read_text as read_text
from lancet_jax.nn.data import sample_text as sample_text
from lancet_jax.nn.dispatch import DISPATCHERS as DISPATCHERS
from lancet_jax.nn.gates import GATES as GATES
from lancet_jax.nn.gates import Gate as Gate
from lancet_jax.nn.gates import TokenGate as TokenGate
from lancet_jax.nn.gates import gate_named as gate_named
from lancet_jax.nn.gpt import MoEGPT as MoEGPT
from lancet_jax.nn.layout import batch_shape as batch_shape
from lancet_jax.nn.moe import ExpertParam as ExpertParam
from lancet_jax.nn.moe import MoE as MoE
from lancet_jax.nn.routing import ExpertRouting as ExpertRouting
from lancet_jax.nn.routing import Routing as Routing
from lancet_jax.nn.state import TrainState as TrainState
from lancet_jax.nn.state import abstract_batch as abstract_batch
from lancet_jax.nn.state import abstract_state as abstract_state
from lancet_jax.nn.state import adamw as adamw
from lancet_jax.nn.state import init_state as init_state
from lancet_jax.nn.state import sgd_momentum as sgd_momentum
from lancet_jax.nn.train import Metrics as Metrics
from lancet_jax.nn.train import make_train_step as make_train_step

"""Copies of the module that jit lowered: jit keeps its own, which is never edited."""

import io
from hashlib import sha256

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.module import make_context

SALT = "lancet_salt"
"""Module attribute that marks a step as ours: part of the disk cache's key, and visible in HLO."""

_FRONTEND = "mhlo.frontend_attributes"


def copied(module: ir.Module) -> ir.Module:
    """Copy a module within its context."""
    buffer = io.BytesIO()
    module.operation.write_bytecode(buffer)
    with module.context:
        return ir.Module.parse(buffer.getvalue())


def copied_apart(module: ir.Module) -> ir.Module:
    """Copy a module into a context of its own, so that XLA may compile it in another thread.

    JAX's contexts know no threads: XLA interns types in them while it compiles.
    """
    buffer = io.BytesIO()
    module.operation.write_bytecode(buffer)
    with make_context():
        return ir.Module.parse(buffer.getvalue())


def fingerprint(module: ir.Module) -> str:
    """Return 16 hex digits over a module without locations."""
    return sha256(module.operation.get_asm(enable_debug_info=False).encode()).hexdigest()[:16]


def mark(module: ir.Module, salt: str) -> None:
    """Write `salt` on a module of our own, beside frontend attributes that it has already.

    XLA's post-scheduler stage is invisible to the persistent cache: without the mark, a hit would
    hand a rewritten executable to a plain jit, or a plain one to us.
    """
    with module.context:
        attributes = module.operation.attributes
        items = {}
        if _FRONTEND in attributes:
            items = {named.name: named.attr for named in ir.DictAttr(attributes[_FRONTEND])}
        items[SALT] = ir.StringAttr.get(salt)
        attributes[_FRONTEND] = ir.DictAttr.get(items)


def name_of(module: ir.Module) -> str:
    """Return a module's name, `jit_step` for a jitted `step`."""
    attributes = module.operation.attributes
    return ir.StringAttr(attributes["sym_name"]).value if "sym_name" in attributes else "module"

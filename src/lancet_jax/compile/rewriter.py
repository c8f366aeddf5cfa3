"""What happens to one step between lowering and running: once down, once back.

    job -> prepare (passes before XLA) -> choose (XLA's own modules decide) -> compiled -> Outcome

The order is enforced where it is exact: if XLA calls back after scheduling (CUDA and CPU, jax
0.12), the schedule itself is planned and edited there, on the ops that will run and at XLA's own
costs. Elsewhere the order is planned on StableHLO and pinned with barriers.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from jaxlib.mlir import ir
from msgspec import structs

from hlo_passes.errors import LancetError
from lancet_jax.audit.first_call import DUE, Audit, check_not_dropped
from lancet_jax.audit.step_facts import StepFacts
from lancet_jax.compile.before_xla import OnCandidate, Prepared, prepare
from lancet_jax.compile.choice import Choice, choose, compiled
from lancet_jax.compile.clock import Clock
from lancet_jax.compile.enact import Enacted, Enactment
from lancet_jax.compile.job import StepJob, question_of
from lancet_jax.compile.kept import recall, remember
from lancet_jax.compile.options import Options
from lancet_jax.compile.outcome import Outcome, Outcomes
from lancet_jax.compile.telling import outcome_of
from lancet_jax.errors import LancetWarning, PeerError, UnsupportedError
from lancet_jax.peers.agree import Peers, SharedPlans
from lancet_jax.peers.decided import Decided
from lancet_jax.seams import backends
from lancet_jax.seams.compiling import Request, Xla
from lancet_jax.seams.step_module import fingerprint, name_of
from lancet_jax.seams.xla_options import compile_only_options

DISABLE = "LANCET_JAX_DISABLE"
"""Environment variable that turns `lancet_jax.jit` into plain `jax.jit`; read at every call."""

_KEPT = 2
"""How many steps are kept as passes left them, from `lower` to `compile`."""


def is_disabled() -> bool:
    """Whether the user asked for plain jit."""
    return os.environ.get(DISABLE, "") not in ("", "0")


@dataclass(frozen=True)
class StepRewriter:
    """Compiles the modules of one wrapped function. Equal if it would do the same.

    Attributes:
        options: as the user gave them.
        outcomes: what became of every compile.
    """

    options: Options
    outcomes: Outcomes = field(default_factory=Outcomes, compare=False, repr=False)
    _prepared: dict[str, Prepared] = field(default_factory=dict, compare=False, repr=False)
    _decided: dict[str, Decided] = field(default_factory=dict, compare=False, repr=False)

    def compile(self, request: Request, xla: Xla) -> Any:
        """Return the executable that jit goes on with.

        Raises:
            PeerError: if another process would compile something else, or does not come.
            LancetError: if the step can only run as it is, and the user wants to know.
        """
        peers = Peers.of(request.module, request.devices, self.options.peer_timeout_s)
        if peers is not None:
            peers.agree("question", question_of(self.options, request.module))
        if why := self._left_alone(request):
            self.outcomes.add(Outcome(len(request.devices), notes=(why,)))
            return xla.compile(options=compile_only_options(request.devices))
        clock = Clock(name_of(request.module))
        shared = SharedPlans(peers, self.options.plan_on == "first")
        try:
            enactment, prepared, choice = self._down(request, xla, shared, clock)
        except PeerError:
            raise
        except Exception as error:
            return self._as_it_was(request, xla, shared, clock, error)
        made, choice = compiled(choice, enactment)
        self._keep(enactment, choice)
        outcome = outcome_of(enactment.job, prepared, choice, made, clock)
        at = self.outcomes.add(outcome)
        self._complain(outcome)
        if self._is_audited(outcome, request):
            xla.watch(made.executable, self._audit(at, enactment, made, shared.peers))
        return made.executable

    # ------------------------------------------------------------------ down

    def _down(
        self, request: Request, xla: Xla, shared: SharedPlans, clock: Clock
    ) -> tuple[Enactment, Prepared, Choice]:
        """Return what the step is to be compiled to, and how.

        Raises:
            PeerError: if another process decides otherwise, or does not come.
            UnsupportedError: if the first process decides for all, and could not.
        """
        job = StepJob.of(self.options, request.module, request.devices, shared.peers, xla.given)
        topic = _topic(self.options, request.module)
        theirs = shared.made(topic)
        prices = theirs.prices if theirs is not None else job.prices
        known = theirs or self._known(job, prices, shared)
        enactment = Enactment(job, xla, shared, prices, clock)

        def prepared_for(on_candidate: OnCandidate | None) -> Prepared:
            return self.prepared(job, xla.partitioned, clock, known, on_candidate)

        prepared, choice = choose(prepared_for, enactment, known)
        choice = self._with_orders(choice, enactment)
        shared.leave(topic, choice.decided)
        program = enactment.program(choice.ranked[0].candidate)
        if choice.ranked[0].candidate.is_cut:
            check_not_dropped(program.salt)
        if job.peers is not None:
            plans = ",".join(plan.hash for plan in choice.decided.plans) or "none"
            said = {"plans": plans, "program": program.salt, "why": ""}
            job.peers.agree("program", said)
        return enactment, prepared, choice

    def prepared(
        self,
        job: StepJob,
        partition: Callable[[], bytes],
        clock: Clock,
        known: Decided | None = None,
        on_candidate: OnCandidate | None = None,
    ) -> Prepared:
        """Return a step as the passes before XLA leave it, made once for `lower` and `compile`.

        Args:
            job: for whom.
            partition: has XLA partition the step, and returns the HloModuleProto.
            clock: where the time goes.
            known: which program it is to be, where that was decided before.
            on_candidate: told of every candidate as soon as it is there, if they are made anew.
        """
        if known is not None:
            return prepare(job, partition, clock, known)
        name = job.salt(job.prices)
        if name not in self._prepared:
            made = prepare(job, partition, clock, on_candidate=on_candidate)
            while len(self._prepared) >= _KEPT:
                self._prepared.pop(next(iter(self._prepared)))
            self._prepared[name] = made
        return self._prepared[name]

    def _known(self, job: StepJob, prices: str, shared: SharedPlans) -> Decided | None:
        """Return what was decided when this very step was compiled before; None if it was not.

        All processes that decide know the same, or nothing: those that do not would wait for the
        others to search.
        """
        if not job.is_judged:
            return None
        key = job.key(prices)
        if key in self._decided:
            return self._decided[key]
        known = recall(key)
        if shared.peers is not None and not shared.is_used:
            mine = known.to_bytes() if known is not None else b""
            said = shared.peers.gather_once(f"known/{job.salt(prices)}", mine)
            if any(theirs != mine for theirs in said):
                return None
        return known

    def _with_orders(self, choice: Choice, enactment: Enactment) -> Choice:
        """Return a choice with the orders that were made when this very program was compiled."""
        if choice.decided.orders:
            return choice
        kept = recall(enactment.job.key(enactment.prices))
        if kept is None or kept.plans != choice.decided.plans:
            return choice
        return replace(choice, decided=structs.replace(choice.decided, orders=kept.orders))

    def _left_alone(self, request: Request) -> str:
        """Say why a module is compiled as jit lowered it; "" if it is not."""
        if len(request.devices) == 1:
            return "one device: there is nothing to exchange"
        if not self.options.passes.passes:
            return "pipeline off: the module was left as it was"
        return ""

    # ------------------------------------------------------------------ back

    def _keep(self, enactment: Enactment, choice: Choice) -> None:
        """Keep what was decided, for the next start."""
        key = enactment.job.key(enactment.prices)
        self._decided[key] = choice.decided
        remember(choice.decided, key)

    def _as_it_was(
        self, request: Request, xla: Xla, shared: SharedPlans, clock: Clock, error: Exception
    ) -> Any:
        """Compile what jit lowered, because of an error, and tell other processes."""
        if shared.peers is not None:
            shared.leave(_topic(self.options, request.module), Decided(error=str(error)))
            said = {"plans": "none", "program": "as it was", "why": str(error)}
            shared.peers.agree("program", said)
        outcome = Outcome(len(request.devices), seconds=clock.ours, error=error,
                          notes=(f"left as it was: {error}",))  # fmt: skip
        self.outcomes.add(outcome)
        self._complain(outcome)
        return xla.compile(options=compile_only_options(request.devices))

    def _is_audited(self, outcome: Outcome, request: Request) -> bool:
        """Whether the first call is held against the uncut step."""
        is_there = not backends.is_compile_only(request.devices[0])
        wanted = bool(self.options.audit and outcome.cuts and outcome.error is None)
        return wanted and is_there

    def _audit(self, at: int, enactment: Enactment, made: Enacted, peers: Peers | None) -> Audit:
        """Return what makes the first call, and tells the outcome what came of it."""
        job, program = enactment.job, made.program
        facts = StepFacts.of(job.module)
        self.outcomes.update(at, lambda old: replace(old, notes=(*old.notes, DUE)))

        def tell(note: str, error: Exception | None) -> None:
            def told(old: Outcome) -> Outcome:
                notes = (*(n for n in old.notes if n != DUE), note)
                if error is None:
                    return replace(old, notes=notes)
                return Outcome(old.devices, salt=old.salt, seconds=old.seconds, notes=notes,
                               error=error)  # fmt: skip

            self.outcomes.update(at, told)

        plans = [*made.candidate.plans, *(made.scheduled.plans if made.scheduled else ())]
        options = job.question | {"program": program.salt}
        return Audit(facts, program.module, program.salt, tuple(plans), peers, options, tell)

    def _complain(self, outcome: Outcome) -> None:
        """Say why the step runs as it is, if something went wrong; raise if the user wants that."""
        error = outcome.error
        if error is None:
            return
        if self.options.on_unsupported == "raise":
            if isinstance(error, LancetError):
                raise error
            what = f"{type(error).__name__}: {error}"
            raise UnsupportedError("lancet_jax.jit", what, "report this") from error
        if self.options.on_unsupported == "warn":
            warnings.warn(f"lancet-jax runs this step as it is: {error}", LancetWarning, 2)


def _topic(options: Options, module: ir.Module) -> str:
    """Return where the first process leaves what it decides for all."""
    return f"plans/{options.passes.spec}/{options.target}/{fingerprint(module)}"

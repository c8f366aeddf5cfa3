"""Options are declared once: signature, documentation, what is compared and what is salted."""

import dataclasses
import inspect
import re

import jax
import jax.numpy as jnp
import pytest

import lancet_jax
from hlo_passes.ir.opaque import OpaqueExchange
from hlo_passes.pipelines import parse_pipeline
from lancet_jax.compile.job import StepJob, question_of
from lancet_jax.compile.options import OPTIONS, Options, declared
from lancet_jax.errors import LancetError, OptionError

FIELDS = {field.name: field for field in dataclasses.fields(Options)}
LOCAL = {"costs", "on_unsupported", "peer_timeout_s"}
SHARED = {"plan_on", "audit"}
OTHER = {
    "pipeline": "best",
    "target": "h100:1x8",
    "opaque": (OpaqueExchange("my_exchange"),),
    "memory_limit": "1GiB",
    "check_cuts": False,
    "search": "quick",
    "entrants": 3,
    "on_unsupported": "raise",
    "plan_on": "first",
    "peer_timeout_s": 1.0,
    "audit": False,
}
"""By option a value that is not its default."""


@pytest.fixture(scope="module")
def module():
    return jax.jit(lambda x: x + 1).lower(jnp.ones(8)).compiler_ir("stablehlo")


def job(module, xla_options=(), **options):
    devices = jax.devices()
    return StepJob.of(Options(**options), module, devices, xla_options=xla_options)


# ------------------------------------------------------------------------------------- declared


def test_jit_takes_every_option_by_name_and_says_what_it_is():
    signature, text = inspect.signature(lancet_jax.jit), lancet_jax.jit.__doc__
    assert signature.parameters.keys() == {"fun", *OPTIONS, "kwargs"}
    assert FIELDS.keys() == OPTIONS
    for name, field in FIELDS.items():
        parameter = signature.parameters[name]
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default == field.default
        assert re.search(rf"^ +{name}: \S", text, re.MULTILINE), name
    assert "{options}" not in text


def test_documentation_keeps_its_indentation():
    lines = lancet_jax.jit.__doc__.splitlines()
    (first,) = [line for line in lines if line.strip().startswith("pipeline: ")]
    (second,) = [line for line in lines if line.strip().startswith("target: ")]
    (own,) = [line for line in lines if line.strip().startswith("fun: ")]
    assert first.index("p") == second.index("t") == own.index("f")


def test_what_takes_options_shows_its_own_arguments_first():
    @declared
    def function(path, *, mode="fast", **options):
        """Do it.

        Args:
            {options}
        """

    names = list(inspect.signature(function).parameters)
    assert names[:2] == ["path", "mode"]
    assert names[2:-1] == list(FIELDS)
    assert names[-1] == "options"


# ---------------------------------------------------------------------------- compared and salted


def name_of(option):
    return option.replace("_", " ")


def test_marks_are_these_and_no_others():
    """An option that is marked is in no program: whoever marks one more has to say so here."""
    marks = {name: tuple(field.metadata) for name, field in FIELDS.items() if field.metadata}
    local, shared = (dict.fromkeys(LOCAL, ("is_local",)), dict.fromkeys(SHARED, ("is_shared",)))
    assert marks == local | shared


def test_every_option_is_compared_and_salted_unless_it_is_marked():
    options = Options()
    assert options.compared().keys() == {name_of(o) for o in FIELDS.keys() - LOCAL}
    assert options.salted().keys() == {name_of(o) for o in FIELDS.keys() - LOCAL - SHARED}


def test_a_new_option_is_compared_and_salted():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class More(Options):
        most_waves: int = 3

    assert More().compared()["most waves"] == "3"
    assert More(most_waves=4).salted()["most waves"] == "4"


def test_processes_are_asked_for_all_that_has_to_be_alike(module):
    options = Options()
    assert question_of(options, module).items() >= options.compared().items()
    assert job(module).question == question_of(options, module)


# ---------------------------------------------------------------------------------------- salts


def test_equal_options_give_equal_salts(module):
    one = job(module, pipeline="dw", memory_limit="1GiB")
    other = job(module, pipeline=parse_pipeline("schedule-dw"), memory_limit=2**30)
    assert one.salt("") == other.salt("")
    assert one.key("") == other.key("")


def test_there_is_another_value_for_every_option():
    assert OTHER.keys() == FIELDS.keys() - {"costs"}


@pytest.mark.parametrize("option", sorted(FIELDS.keys() - LOCAL - SHARED))
def test_every_salted_option_gives_another_program(module, option):
    one, other = job(module), job(module, **{option: OTHER[option]})
    assert one.salt("") != other.salt("")
    assert one.key("") != other.key("")


@pytest.mark.parametrize("option", sorted((LOCAL | SHARED) - {"costs"}))
def test_what_no_program_depends_on_is_in_no_salt(module, option):
    one, other = job(module), job(module, **{option: OTHER[option]})
    assert one.salt("") == other.salt("")
    assert one.key("") == other.key("")


def test_prices_the_module_and_xlas_options_count_too(module):
    one = job(module)
    assert one.salt("a") != one.salt("b")
    changed = jax.jit(lambda x: x + 2).lower(jnp.ones(8)).compiler_ir("stablehlo")
    assert one.salt("") != job(changed).salt("")
    mine = job(module, xla_options=("xla_gpu_autotune_level=0",))
    assert one.salt("") == mine.salt(""), "what processes compare holds no option of one of them"
    assert one.key("") != mine.key("")


# --------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("option", "value", "where", "remedy"),
    [
        ("audit", "always", "audit", "'first' or False"),
        ("plan_on", "last", "plan_on", "'every' or 'first'"),
        ("on_unsupported", "panic", "on_unsupported", "'warn', 'raise' or 'ignore'"),
        ("search", "slow", "search", "'quick' or 'thorough'"),
        ("search", -1.0, "search", "'quick' or 'thorough'"),
        ("entrants", 0, "entrants", "use 4"),
        ("pipeline", "fast", "pipeline 'fast'", "use a preset"),
        ("target", "h9000:1x8", "h9000", ""),
        ("memory_limit", "lots", "lots", "70GiB"),
        ("costs", "/nowhere/costs.json", "/nowhere/costs.json", ""),
    ],
)
def test_bad_values_name_the_place_and_a_remedy(option, value, where, remedy):
    with pytest.raises(LancetError) as raised:
        lancet_jax.jit(lambda x: x, **{option: value})
    assert where in str(raised.value).splitlines()[0]
    assert raised.value.remedy
    assert remedy in raised.value.remedy


def test_options_that_do_not_exist_are_jits_own_matter():
    with pytest.raises(TypeError, match="pipelin"):
        lancet_jax.jit(lambda x: x, pipelin="dw")
    with pytest.raises(OptionError, match="pipelin"):
        lancet_jax.jit(jax.jit(lambda x: x), pipelin="dw")


@pytest.mark.parametrize("search", ["quick", "thorough", 0, 0.0, 30])
def test_a_search_takes_a_word_or_seconds(search):
    assert Options(search=search).search == search


@pytest.mark.parametrize(("search", "most"), [("quick", 2), ("thorough", 4), (30.0, 4)])
def test_a_quick_search_is_the_likeliest_beside_the_step_as_it_is(module, search, most):
    assert job(module, search=search).entrants == most
    assert job(module, search=search, entrants=1).entrants == 1

"""What can be drawn, and that a draw can be repeated."""

import jax
import jax.numpy as jnp
import pytest

from tests.generator.compare import Difference, Verdict
from tests.generator.faults import FAULTS
from tests.generator.of_the_day import COUNT, recipe_of
from tests.generator.parts import PARTS
from tests.generator.recipe import draw, parse
from tests.generator.steps import Build
from tests.generator.tally import Tally

MANY = 4000


def text_of(recipe):
    build = Build(recipe, jnp.float32)
    return jax.jit(build.step).lower(*build.arguments()).as_text()


def test_a_seed_draws_the_same_again_and_another_one_another():
    assert draw(3) == draw(3)
    assert len({str(draw(seed)) for seed in range(100)}) == 100


def test_a_recipe_is_read_as_it_is_written():
    for seed in range(100):
        assert parse(str(draw(seed))) == draw(seed)


@pytest.mark.parametrize("text", ["counter=none_such", "colour=red", "back=back_over_turned_axes"])
def test_a_recipe_that_makes_no_sense_is_told(text):
    with pytest.raises(ValueError, match="no|needs"):
        parse(text)


def test_every_choice_of_every_part_is_drawn():
    drawn = {(part, name) for seed in range(MANY) for part, name in draw(seed).names.items()}
    every = {(part, name) for part, table in PARTS.items() for name in (*table.usual, *table.odd)}
    assert drawn == every


def test_parts_are_drawn_for_themselves():
    """Two odd choices meet, and a run has steps without any."""
    run = [recipe_of(number, "2026-01-01") for number in range(COUNT)]
    assert sum(not recipe.odd for recipe in run) >= 6
    assert sum(len(recipe.odd) > 1 for recipe in run) >= 10


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_of_old_can_be_drawn(name):
    fault = FAULTS[name]
    recipe = parse(fault.recipe)
    wanted = [choice.split("=") for choice in fault.choices]
    assert all(recipe[part] == chosen for part, chosen in wanted)
    for part, chosen in wanted:
        assert any(draw(seed)[part] == chosen for seed in range(MANY))
    assert fault.is_in(text_of(recipe))
    assert not fault.is_in(text_of(parse(_without(fault))))


def _without(fault):
    """Return a recipe's text with the idiom's choices left plain."""
    return " ".join(word for word in fault.recipe.split() if word not in fault.choices)


def test_a_run_in_which_little_is_cut_fails():
    assert Tally(steps=60, cut=24, windows=1).is_enough
    assert not Tally(steps=60, cut=23, windows=9).is_enough
    assert not Tally(steps=60, cut=60).is_enough
    assert not Tally(steps=60, cut=60, windows=60, doubtful=3).is_enough
    assert Tally(steps=1).is_enough


@pytest.mark.parametrize(
    ("wide", "integers", "right"),
    [(2.4e-11, (), True), (1.1e-2, (), False), (1e-6, (), False), (2.4e-11, ("slots",), False)],
)
def test_what_shrinks_as_rounding_does_is_rounding(wide, integers, right):
    first = Difference(1.1e-2, "wg", (), True, False, ())
    again = Difference(wide, "wg", integers, True, False, ())
    assert Verdict(parse("plain"), first, again).is_right == right

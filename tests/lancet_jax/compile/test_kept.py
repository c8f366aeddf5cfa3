"""Decisions are kept beside JAX's cache, and nothing that is wrong there does harm."""

import jax
import pytest

from hlo_passes.plans import Plan, Reorder
from lancet_jax.compile.kept import recall, remember
from lancet_jax.peers.decided import Decided, Entry
from tests.lancet_jax.compile.fakes import MERGED, plan

DECIDED = Decided(
    name="full k=2 (without dot-merger)",
    plans=(plan("full k=2", after_us=9.0, before_us=10.0),),
    options={**MERGED, "xla_gpu_enable_triton_gemm": False},
    left_out="without dot-merger",
    orders=(Plan(module="s", target="h100:1x8",
                 edits=(Reorder(by="schedule-dw", block="main", order=(1, 0)),)),),
    race=(Entry(name="full k=2", step_us=9.0), Entry(name="as it is", why="it is longer")),
    prices="h100:1x8 0f",
)  # fmt: skip


@pytest.fixture
def cache():
    """Return what sets JAX's cache folder, for one test."""
    before = jax.config.jax_compilation_cache_dir

    def beside(folder):
        jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))

    yield beside
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def folder(tmp_path, cache):
    cache(tmp_path)
    return tmp_path


def test_what_is_kept_is_recalled(folder):
    remember(DECIDED, "0f")
    assert recall("0f") == DECIDED
    assert recall("0f").to_bytes() == DECIDED.to_bytes()
    assert recall("0e") is None
    assert [path.name for path in folder.iterdir()] == ["lancet-decided-0f.json"]


def test_the_last_decision_counts(folder):
    remember(DECIDED, "0f")
    remember(Decided(name="as it is"), "0f")
    assert recall("0f") == Decided(name="as it is")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"plans": 3}'])
def test_a_damaged_file_is_as_good_as_none(folder, text):
    remember(DECIDED, "0f")
    (folder / "lancet-decided-0f.json").write_bytes(text)
    assert recall("0f") is None
    remember(DECIDED, "0f")
    assert recall("0f") == DECIDED


def test_half_a_file_is_as_good_as_none(folder):
    remember(DECIDED, "0f")
    path = folder / "lancet-decided-0f.json"
    path.write_bytes(path.read_bytes()[:-20])
    assert recall("0f") is None


@pytest.mark.parametrize("place", [None, "", "gs://bucket/cache", "/nowhere/at/all"])
def test_without_a_folder_nothing_is_kept(cache, place):
    cache(place)
    remember(DECIDED, "0f")
    assert recall("0f") is None


def test_a_folder_that_cannot_be_written_costs_a_search(folder, cache):
    """What stands in the way is a folder of that name: rights do not stop everybody."""
    (folder / "lancet-decided-0f.json").mkdir()
    remember(DECIDED, "0f")
    assert recall("0f") is None
    assert [path.name for path in folder.iterdir()] == ["lancet-decided-0f.json"]
    cache("/proc")
    remember(DECIDED, "0f")
    assert recall("0f") is None

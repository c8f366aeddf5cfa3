"""Texts are found as a C++ compiler sees them, and a reader that is wrong is told from a right one."""

from dataclasses import replace

from scripts.corpus_texts import hlo_texts, literals, mlir_texts
from scripts.hlo_facts import facts_of_jaxlib
from scripts.read_corpus import show
from tests.hlo_samples import PLAIN

CPP = r"""
// "HloModule in_a_comment"
constexpr absl::string_view kText = R"(
HloModule raw "quoted"
)";
auto joined = "HloModule \"joined\"\n"  // with the next
              /* and the next */ R"x(rest)" )x";
char c = '"', d = '\\''; int big = 1'000; f("HloModule alone");
"""


def test_literals_of_cpp_are_joined_as_a_compiler_does():
    found = [text for _, text in literals(CPP)]
    assert found == [
        '\nHloModule raw "quoted"\n', 'HloModule "joined"\nrest)" ', "HloModule alone",
    ]  # fmt: skip
    assert [line for line, _ in literals(CPP)] == [3, 6, 8]


def test_texts_of_a_checkout(tmp_path):
    (tmp_path / "a_test.cc").write_text(CPP)
    (tmp_path / "b.hlo").write_text("// RUN: x\nHloModule b\n// -----\nHloModule c\n")
    (tmp_path / "c.md").write_text("HloModule d")
    (tmp_path / "d.mlir").write_text("func.func @f()\n// -----\nfunc.func @g()\n")
    assert [t.place for t in hlo_texts(tmp_path)] == [
        "a_test.cc:3", "a_test.cc:6", "a_test.cc:8", "b.hlo:1", "b.hlo:3",
    ]  # fmt: skip
    assert [t.place for t in mlir_texts(tmp_path)] == ["d.mlir:1", "d.mlir:2"]


def test_every_kind_of_difference_is_told():
    right = facts_of_jaxlib(PLAIN)
    assert right.trips == {"loop": 12}
    assert right.order["test"] == ("seen", "j", "limit", "more")
    assert right.operands["main", "dot"] == ("out", "tokens")
    assert right.sizes["main", "kept"] == (("f32", (64, 64)),)
    assert right.groups["sum"] == ((0, 2, 4, 6), (1, 3, 5, 7))
    assert list(right.differences(right)) == []
    for what, key, value in [
        ("sizes", ("main", "few"), (("i8", (11,)),)),
        ("operands", ("main", "sum"), ()),
        ("order", "test", ("j", "seen", "limit", "more")),
        ("groups", "sum", ()),
        ("trips", "loop", 0),
    ]:
        wrong = replace(right, **{what: {**getattr(right, what), key: value}})
        assert [d.split(":")[0] for d in wrong.differences(right)] == [what]
    fewer = {k: v for k, v in right.sizes.items() if k != ("main", "few")}
    assert list(replace(right, sizes=fewer).differences(right)) == ["names: [('main', 'few')]"]
    assert list(replace(right, groups={}).differences(right)) == ["groups: ring is not there"]


def test_counts_are_of_what_jaxlib_reads():
    row = {"place": "x", "said": "", "jaxlib": True, "unlike": []}
    rows = [
        {**row, "ours": "read"},
        {**row, "ours": "read", "unlike": ["groups: a", "groups: b"]},
        {**row, "ours": "refused", "said": "error: no"},
        {**row, "ours": "read", "jaxlib": False},
        {**row, "ours": "died", "jaxlib": False},
    ]
    text = show(rows, is_mlir=False)
    assert "5 texts; 1 deaths, 0 tracebacks" in text
    assert "3 are read by jaxlib" in text
    assert "2 are read (66.67%)" in text
    assert "1 of them not as jaxlib does" in text
    assert "1 more are read that jaxlib refuses" in text
    assert "1 error: no" in text

"""Text as bytes, and windows of it."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from lancet_jax.nn import batches, read_text, sample_text


def test_a_file_becomes_its_bytes(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text("naïve", encoding="utf-8")
    assert bytes(read_text(path)) == "naïve".encode()
    assert read_text(str(path)).dtype == np.uint8


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no text file '.*absent\.txt'"):
        read_text(tmp_path / "absent.txt")


def test_an_empty_file_is_refused(tmp_path: Path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match="is empty"):
        read_text(tmp_path / "empty.txt")


def test_the_sample_is_much_english():
    text = sample_text()
    assert text.size > 200_000
    assert bytes(text).decode().count(" the ") > 2000


def test_targets_are_the_inputs_one_token_later():
    text = np.arange(1000)
    for inputs, targets in itertools.islice(batches(text, 4, 16, seed=3), 5):
        assert inputs.shape == targets.shape == (4, 16)
        assert inputs.dtype == targets.dtype == np.int32
        np.testing.assert_array_equal(targets, inputs + 1)


def test_the_seed_decides_the_windows():
    def first(seed: int) -> np.ndarray:
        return next(batches(sample_text(), 8, 32, seed))[0]

    np.testing.assert_array_equal(first(1), first(1))
    assert not np.array_equal(first(1), first(2))


def test_the_shortest_text_is_one_window_and_one_token():
    inputs, targets = next(batches(np.arange(9), 2, 8))
    np.testing.assert_array_equal(inputs, [np.arange(8)] * 2)
    np.testing.assert_array_equal(targets, [np.arange(1, 9)] * 2)
    with pytest.raises(ValueError, match="window of 9 tokens needs a text of 10, not 9"):
        batches(np.arange(9), 2, 9)


@pytest.mark.parametrize(("batch", "seq"), [(0, 8), (2, 0)])
def test_sizes_must_be_positive(batch: int, seq: int):
    with pytest.raises(ValueError, match="must be positive"):
        batches(np.arange(100), batch, seq)

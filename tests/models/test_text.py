"""The bag of words."""

import pytest
import torch

from vdiff_kernels.data.moving_digits import DIGITS, DIRECTIONS, VOCABULARY
from vdiff_kernels.models.text import EXCLUSIVE, WordEncoder

WORDS = ("a", "seven", "moving", "left", "up", "and")


@pytest.fixture
def encoder():
    return WordEncoder(WORDS, 8)


def test_words_are_counted_whatever_their_order_and_case(encoder):
    counts = encoder.count(["a seven moving up and left", "Left a left  AND"])
    assert counts.tolist() == [[1, 1, 1, 1, 1, 1], [1, 0, 0, 2, 0, 1]]
    embedding = encoder(["a seven moving up and left", "left and up moving seven a", "a seven moving left"])
    assert torch.equal(embedding[0], embedding[1])
    assert (embedding[0] - embedding[2]).abs().max() > 1e-3


def test_the_embedding_is_of_the_sum_of_the_words(encoder):
    expected = encoder.mlp(encoder.words.weight[[0, 1, 1]].sum(0))
    torch.testing.assert_close(encoder(["seven a seven"])[0], expected)
    assert encoder(["a", "seven"]).shape == (2, 8)
    assert encoder.double()(["a"]).dtype == torch.float64


@pytest.mark.parametrize(
    "caption, message",
    [
        ("a cat moving", "prompt 'a cat moving' has the word 'cat'; expected words of: a, seven, moving, left, up, and"),
        ("", "prompt '' is empty; expected words of: a, seven"),
        (" \n", "is empty"),
        ("a seven.", "has the word 'seven.'"),
    ],
)
def test_other_captions_are_named(encoder, caption, message):
    with pytest.raises(ValueError, match=message):
        encoder(["a", caption])


@pytest.mark.parametrize(
    "caption, message",
    [
        ("a seven moving left and right", "prompt 'a seven .*' has the words 'left', 'right', which .* one of: left, right"),
        ("Down a up", "has the words 'down', 'up', which contradict each other"),
        ("a seven and a three", "has the words 'seven', 'three', .* expected one of: zero, one, two, three"),
    ],
)
def test_words_that_contradict_each_other_are_named(caption, message):
    encoder = WordEncoder(VOCABULARY, 8)
    with pytest.raises(ValueError, match=message):
        encoder(["a two", caption])
    encoder(["a two moving up and left", "a seven and a seven", "right and down"])
    encoder.exclusive = ()
    assert encoder([caption]).shape == (1, 8)


def test_what_contradicts_is_of_the_data():
    """Every caption has at most one word of each group, and none of the data's is refused."""
    assert EXCLUSIVE[0] == DIGITS and {word for group in EXCLUSIVE[1:] for word in group} <= set(VOCABULARY)
    encoder = WordEncoder(VOCABULARY, 8)
    encoder([f"a {digit} moving {direction}" for digit in DIGITS for direction in DIRECTIONS])


def test_no_text_has_an_embedding_of_its_own(encoder):
    assert encoder.null.shape == (8,) and encoder.null.requires_grad
    assert set(encoder.state_dict()) >= {"null", "words.weight"}

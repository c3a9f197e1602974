"""The bag of words."""

import pytest
import torch

from vdiff_kernels.models.text import WordEncoder

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


def test_no_text_has_an_embedding_of_its_own(encoder):
    assert encoder.null.shape == (8,) and encoder.null.requires_grad
    assert set(encoder.state_dict()) >= {"null", "words.weight"}

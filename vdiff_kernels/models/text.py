"""The text condition: a bag of words."""

import torch
from torch import Tensor, nn

# Words of which a caption has at most one: one thing is shown, and it moves one way. A bag of words cannot mean two by them.
EXCLUSIVE = (
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("left", "right"),
    ("up", "down"),
)


class WordEncoder(nn.Module):
    """The embedding of a caption from its words, each embedded, summed, and passed through two linear layers.

    A known vocabulary and no word order: as much as captions like "a seven moving left" need. `null` is the learned embedding
    of no caption, for classifier-free guidance: Ho & Salimans 2022 (arXiv 2207.12598).
    """

    def __init__(
        self,
        vocabulary: tuple[str, ...],  # The words, lower case.
        dim: int,                     # E.
        exclusive: tuple[tuple[str, ...], ...] = EXCLUSIVE,  # Groups of words that contradict each other.
    ):  # fmt: skip
        super().__init__()
        self.vocabulary, self.exclusive = tuple(vocabulary), exclusive
        self.index = {word: place for place, word in enumerate(self.vocabulary)}
        self.words = nn.Embedding(len(self.vocabulary), dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.null = nn.Parameter(torch.zeros(dim))

    def count(self, captions: list[str]) -> Tensor:
        """How often each word stands in each caption: (B, words) float32.

        Raises ValueError for a word it does not know, and for words that contradict each other.
        """
        counts = torch.zeros(len(captions), len(self.vocabulary))
        for row, caption in enumerate(captions):
            words = caption.lower().split()
            unknown = [word for word in words if word not in self.index]
            if unknown or not words:
                given = f"has the word {unknown[0]!r}" if unknown else "is empty"
                raise ValueError(f"prompt {caption!r} {given}; expected words of: {', '.join(self.vocabulary)}")
            for group in self.exclusive:
                found = [word for word in dict.fromkeys(words) if word in group]
                if len(found) > 1:
                    given = f"has the words {', '.join(map(repr, found))}, which contradict each other"
                    raise ValueError(f"prompt {caption!r} {given}; expected one of: {', '.join(group)}")
            for word in words:
                counts[row, self.index[word]] += 1
        return counts

    def forward(self, captions: list[str]) -> Tensor:
        """Returns (B, E)."""
        weight = self.words.weight
        counts = self.count(captions).to(weight.device, weight.dtype)
        return self.mlp(counts @ weight)

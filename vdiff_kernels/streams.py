"""Random numbers that follow from what they are for."""

import hashlib
import operator

import torch


def random_stream(purpose: str, seed: int, index: int) -> torch.Generator:
    """A stream of random numbers of its own for each purpose, seed and index, whole numbers of any kind: a hash of the three, for
    torch's CPU generator looks at 32 bits of a seed only.
    """
    digest = hashlib.sha256(f"{purpose} {operator.index(seed)} {operator.index(index)}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))

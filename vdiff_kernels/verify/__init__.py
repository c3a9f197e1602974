"""Hostile named cases, input makers and the one derived error budget. Tests and benchmarks share them."""

from .budget import assert_within_budget, budget, poisoned_memory
from .cases import CASES
from .check import DTYPES, check, evaluate, functions, make_leaves, truth_and_eager
from .inputs import (
    AttentionCase,
    Case,
    ConvCase,
    GegluCase,
    LayerCase,
    LinearCase,
    NormCase,
    Pseudo3DCase,
    SpatialCase,
    StatsCase,
    TemporalCase,
)

__all__ = [
    "CASES", "DTYPES", "AttentionCase", "Case", "ConvCase", "GegluCase", "LayerCase", "LinearCase", "NormCase", "Pseudo3DCase",
    "SpatialCase", "StatsCase", "TemporalCase", "assert_within_budget", "budget", "check", "evaluate", "functions", "make_leaves",
    "poisoned_memory", "truth_and_eager",
]  # fmt: skip

"""Pytest's way to the simulator: `simulate` runs a kernel as a test wants it run. tests/conftest.py takes them in."""

import functools

import pytest

from .compile import TritonKernel, from_cuda
from .golden import Golden, figures
from .module import Module
from .report import Report

SEEDS = (0, 1)  # in order, and shuffled


@functools.cache
def compiled(path, arch: int = 80, include: tuple = (), flags: tuple[str, ...] = ()) -> Module:
    """The module of a .cu file, compiled once a session."""
    return from_cuda(path, arch=arch, include=include, flags=flags)


class Simulate:
    """simulate(kernel, grid, block, args, ...): the launch's report, once it is clean and no worse than the golden counts."""

    def __init__(self, request: pytest.FixtureRequest):
        module, _, case = request.node.nodeid.rpartition("/")[2].partition("::")
        self.golden = Golden(module.removesuffix(".py").removeprefix("test_"), request.config.getoption("--rewrite-golden"))
        self.case = case.removeprefix("test_")

    def __call__(self, kernel, grid, block, args, shared_bytes=0, *, case: str = "", seeds=SEEDS, **options) -> Report:
        """Arguments as those of Kernel.launch. case: where a test launches several, what this one is called.

        Asserts that there are no findings, that the bits of its results are the same for all seeds, and the golden counts.
        """
        report = kernel.launch(grid, block, args, shared_bytes, seed=seeds, **options).assert_clean()
        self.golden.compare(f"{self.case} {case}".strip(), figures(report, kernel.module.text, shared_bytes))
        return report

    def triton(self, kernel: TritonKernel, grid, args, **options) -> Report:
        """The same for what `from_triton` compiled: args are those of its signature."""
        return self(kernel.kernel, grid, kernel.threads, kernel.arguments(args), kernel.shared_bytes, **options)


@pytest.fixture
def simulate(request) -> Simulate:
    return Simulate(request)

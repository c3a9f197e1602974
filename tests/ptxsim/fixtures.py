"""Pytest's way to the simulator: `simulate` runs a kernel as a test wants it run. tests/conftest.py takes them in."""

import collections
import functools

import pytest

from .compile import TritonKernel, from_cuda
from .golden import Golden, figures
from .launcher import Launchers, plain_name
from .module import Module, tensors_of
from .registers import Resources, resources
from .report import Report

SEEDS = (0, 1, 2)  # in order, and shuffled twice


@functools.cache
def compiled(path, arch: int = 80, include: tuple = (), flags: tuple[str, ...] = ()) -> Module:
    """The module of a .cu file, compiled once a session."""
    return from_cuda(path, arch=arch, include=include, flags=flags)


@functools.cache
def compiled_launchers(*sources, include: tuple = ()) -> Launchers:
    """The launchers of .cu files, linked once a session."""
    return Launchers(sources, include=include)


class Simulate:
    """simulate(kernel, grid, block, args, ...): the launch's report, once it is clean and no worse than the golden counts."""

    def __init__(self, request: pytest.FixtureRequest):
        module, _, case = request.node.nodeid.rpartition("/")[2].partition("::")
        self.golden = Golden(module.removesuffix(".py").removeprefix("test_"), request.config.getoption("--rewrite-golden"))
        self.case = case.removeprefix("test_")
        self._launches = collections.Counter()

    def __call__(self, kernel, grid, block, args, shared_bytes=0, *, case: str = "", seeds=SEEDS, **options) -> Report:
        """Arguments as those of Kernel.launch. case: where a test launches several, what this one is called.

        Asserts that there are no findings, that the bits of its results are the same for all seeds, and the golden counts.
        """
        takes = resources(kernel.module.text)[kernel.name]
        return self._held(kernel, takes, grid, block, args, shared_bytes, case=case, seeds=seeds, **options)

    def _held(self, kernel, takes: Resources | None, grid, block, args, shared_bytes, *, case: str, seeds, **options) -> Report:
        report = kernel.launch(grid, block, args, shared_bytes, seed=seeds, **options).assert_clean()
        self._launches[case] += 1
        number = f"({self._launches[case]})" if self._launches[case] > 1 else ""  # each launch has counts of its own
        if takes:
            self.golden.compare(" ".join(filter(None, (self.case, case, number))), figures(report, takes, shared_bytes))
        return report

    def launcher(
        self, launchers: Launchers, function: str, *arguments, memory=(), case: str = "", seeds=SEEDS, blocks=None
    ) -> list[Report]:
        """Calls a C++ launcher; each kernel that it launches is held as by calling this. Returns their reports.

        arguments: as those of Launchers.call. memory: the tensors that pointers within them lie in, beside those of its Structs.
        blocks: of a kernel's number of blocks, the (first, number) to run, where that is to be a slice of them.
        """
        reports = []
        tensors = (*memory, *tensors_of(arguments))

        def run(kernel, grid, block, args, shared_bytes):
            name = plain_name(kernel.name)
            takes = launchers.kernel(kernel.name)[1]
            options = dict(memory=tensors, blocks=blocks(grid[0]) if blocks else None, seeds=seeds)
            reports.append(self._held(kernel, takes, grid, block, args, shared_bytes, case=f"{case} {name}".strip(), **options))

        with launchers.simulated(run):
            launchers.call(function, *arguments)
        return reports

    def triton(self, kernel: TritonKernel, grid, args, **options) -> Report:
        """The same for what `from_triton` compiled: args are those of its signature."""
        return self(kernel.kernel, grid, kernel.threads, kernel.arguments(args), kernel.shared_bytes, **options)


def clean_run(seeds=1, last_blocks: int | None = None):
    """As `Simulate.launcher`, in the orders of those seeds: held to have no findings, but to no golden counts.

    seeds: as those of Kernel.launch; of one, no memory is copied. last_blocks: runs so many of each launch, the last ones, alone.
    """

    def run(launchers: Launchers, function: str, *arguments, memory=()) -> list[Report]:
        reports = []

        def one(kernel, grid, block, args, shared_bytes):
            blocks = (max(0, grid[0] - last_blocks), min(grid[0], last_blocks)) if last_blocks else None
            options = dict(memory=(*memory, *tensors_of(arguments)), blocks=blocks, seed=seeds)
            reports.append(kernel.launch(grid, block, args, shared_bytes, **options).assert_clean())

        with launchers.simulated(one):
            launchers.call(function, *arguments)
        return reports

    return run


@pytest.fixture
def simulate(request) -> Simulate:
    return Simulate(request)

"""Pytest's plugin of the simulator: `simulate` runs a kernel as a test wants it run, --rewrite-golden accepts its counts."""

import collections
import functools

import pytest

from .compile import ARCH, TritonKernel, from_cuda, from_launch
from .golden import FOLDER, Golden, figures, name_of
from .launcher import COUNTED, Launchers, plain_name
from .module import Module, tensors_of
from .registers import Resources, resources
from .report import Report

SEEDS = (0, 1, 2)  # in order, and shuffled twice

_rewritten = pytest.StashKey[dict[str, dict[str, dict[str, int]]]]()  # by golden file and case, where --rewrite-golden was given


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
        name, self.test = name_of(request.node.nodeid)
        self.golden = Golden(name)
        self._rewritten = request.config.stash.get(_rewritten, {}).get(name)
        self._launches = collections.Counter()
        self._cases: set[str] = set()

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
            self._hold(" ".join(filter(None, (self.test, case, number))), figures(report, takes, shared_bytes))
        return report

    def _hold(self, case: str, found: dict[str, int]) -> None:
        self._cases.add(case)
        if self._rewritten is None:
            self.golden.compare(case, found)
        else:
            self._rewritten[case] = found

    def assert_none_stale(self) -> None:
        """After the test: the golden file has no counts of launches that it did not make."""
        if COUNTED and self._rewritten is None:
            self.golden.assert_none_stale(self.test, self._cases)

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

    def triton_launch(self, kernel, programs, arguments, constants, num_warps, num_stages) -> None:
        """A `runner` of backends/triton/launch.py: each launch is held as by calling this."""
        compiled, left = from_launch(kernel, arguments, constants, num_warps, num_stages)
        self.triton(compiled, programs, left, case=kernel.fn.__name__)


def clean_triton(seeds=1, arch: int = ARCH):
    """A `runner` of backends/triton/launch.py: simulates in the orders of those seeds, and holds launches to have no findings."""

    def run(kernel, programs, arguments, constants, num_warps, num_stages):
        compiled, left = from_launch(kernel, arguments, constants, num_warps, num_stages, arch=arch)
        compiled.launch(programs, *left, seed=seeds).assert_clean()

    return run


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


# ------------------------------------------------------------------------------------------------------------- golden counts


def pytest_addoption(parser):
    parser.addoption("--rewrite-golden", action="store_true", help="accept the counts of the simulated kernels as they are")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test that passes has launched all that there are golden counts of; one that fails says so itself."""
    result = yield
    if "simulate" in getattr(item, "funcargs", {}):
        item.funcargs["simulate"].assert_none_stale()
    return result


def pytest_configure(config):
    if not config.getoption("--rewrite-golden"):
        return
    options = config.option
    if getattr(options, "numprocesses", None) or hasattr(config, "workerinput"):
        raise pytest.UsageError("--rewrite-golden is given with -n; expected one process, which sees every case of a file")
    if options.keyword or any("::" in argument for argument in config.args):
        raise pytest.UsageError("--rewrite-golden is given with a part of a file's tests; expected whole files or folders")
    options.markexpr = ""  # slow ones too
    config.stash[_rewritten] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Only what has golden counts is run to rewrite them."""
    if _rewritten not in config.stash:
        return
    held = [item for item in items if "simulate" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in held])
    items[:] = held
    config.stash[_rewritten].update({name_of(item.nodeid)[0]: {} for item in items})


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session, exitstatus):
    """Writes the files of the modules that were run, whole, if every test passed; drops those of no module."""
    rewritten = session.config.stash.get(_rewritten, None)
    if rewritten is None or exitstatus != pytest.ExitCode.OK or session.config.option.collectonly:
        return
    for name, cases in rewritten.items():
        if cases:
            Golden(name).write(cases)
        else:
            Golden(name).path.unlink(missing_ok=True)
    for path in FOLDER.glob("*.json"):
        if not modules_of(path.stem, session.config.rootpath):
            path.unlink()


def modules_of(name: str, root) -> list:
    """The test files whose counts a golden file holds."""
    return sorted((root / "tests").rglob(f"test_{name}.py"))


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    if _rewritten in config.stash:
        names = ", ".join(sorted(config.stash[_rewritten]))
        words = f"rewritten {names}" if exitstatus == pytest.ExitCode.OK else "kept, as not every test passed"
        terminalreporter.write_line(f"golden counts: {words}")

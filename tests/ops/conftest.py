import pytest

from vdiff_kernels import library


@pytest.fixture
def instruction_set(request):
    """The one of its parameter, whose CPU kernels are in use; every other test runs by the processor's best."""
    best = library.instruction_set()
    library.use_instruction_set(request.param)
    yield request.param
    library.use_instruction_set(best)

import faulthandler
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch


@pytest.fixture(scope="module")
def interpreted():
    """interpreted(function, *arguments): what it returns, or raises, in a process whose kernels run in Triton's interpreter: a
    process has it from its import of Triton on, or not at all, and this one compiles kernels too.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def _begin():
    faulthandler.enable()
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)

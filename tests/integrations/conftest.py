"""The memory formats that every block is run in."""

import pytest


@pytest.fixture(params=["contiguous", "channels_last"])
def layout(request):
    return request.param

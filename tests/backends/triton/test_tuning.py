"""Which configuration a call takes: the first that fits, or the fastest on this GPU, whose times are given here."""

import json
import warnings

import pytest
import torch

from vdiff_kernels.backends import gpu
from vdiff_kernels.files import cached

pytest.importorskip("triton")

from vdiff_kernels.backends.triton import CACHE, tuning  # noqa: E402

FIRST, SECOND, THIRD = CONFIGS = tuple(tuning.config(4, stages, K_=32) for stages in (2, 3, 4))


@pytest.fixture
def on_gpu(monkeypatch, tmp_path):
    """on_gpu(times) is a new process on a machine with a GPU: times by configuration; what was timed is what it gives."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(gpu, "name", lambda index: "NVIDIA H100 (sm_90)")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)

    def process(times=None):
        tuning._warn_unwritable.cache_clear()
        monkeypatch.setattr(tuning, "_found", None)
        timed = []

        def seconds(run, one):
            timed.append(one)
            return times[one]

        monkeypatch.setattr(tuning, "_seconds", seconds)
        return timed

    return process


def chosen(configs=CONFIGS, key=("bf16", 320)):
    return tuning.chosen("product", key, configs, None, 0)


TIMES = {FIRST: 3.0, SECOND: 1.0, THIRD: 2.0}


def test_nothing_is_timed_unless_asked_for(on_gpu):
    timed = on_gpu()
    assert chosen() == FIRST and timed == [] and not cached(CACHE).exists()


def test_the_fastest_is_kept_for_later_runs(on_gpu, monkeypatch):
    timed = on_gpu(TIMES)
    monkeypatch.setenv("VDIFF_TUNE", "1")
    assert chosen() == SECOND and timed == list(CONFIGS)
    assert chosen() == SECOND and timed == list(CONFIGS)
    timed = on_gpu()
    monkeypatch.delenv("VDIFF_TUNE")
    assert chosen() == SECOND and chosen(key=("bf16", 640)) == FIRST and timed == []
    monkeypatch.setattr(gpu, "name", lambda index: "NVIDIA B200 (sm_100)")
    assert chosen() == FIRST


def test_deterministic_algorithms_take_the_first(on_gpu, monkeypatch):
    on_gpu(TIMES)
    monkeypatch.setenv("VDIFF_TUNE", "1")
    assert chosen() == SECOND
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert chosen() == FIRST


def test_nothing_is_timed_while_a_graph_is_captured(on_gpu, monkeypatch):
    timed = on_gpu()
    monkeypatch.setenv("VDIFF_TUNE", "1")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert chosen() == FIRST and timed == []


def test_what_is_kept_but_not_in_the_list_is_not_taken(on_gpu, monkeypatch):
    on_gpu(TIMES)
    monkeypatch.setenv("VDIFF_TUNE", "1")
    assert chosen() == SECOND
    monkeypatch.delenv("VDIFF_TUNE")
    assert chosen(configs=(FIRST, THIRD)) == FIRST


@pytest.mark.parametrize("text", ["{", "[]", '{"a": "b"}', '{"a": {"b": 3}}', "\x00"])
def test_a_corrupt_file_is_ignored_with_one_warning(on_gpu, text):
    on_gpu()
    cached(CACHE).parent.mkdir(parents=True, exist_ok=True)
    cached(CACHE).write_text(text)
    with pytest.warns(UserWarning, match="tuned.json is ignored, and defaults are taken"):
        assert chosen() == FIRST
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen() == FIRST


def test_a_file_that_cannot_be_written_is_one_warning(on_gpu, monkeypatch, tmp_path):
    on_gpu(TIMES)
    monkeypatch.setenv("VDIFF_TUNE", "1")
    (tmp_path / "vdiff_kernels").write_text("a file where the folder would be")
    with pytest.warns(UserWarning) as warned:
        assert chosen() == SECOND and chosen(key=("bf16", 640)) == SECOND
    said = [str(one.message) for one in warned]
    assert len([one for one in said if "what was tuned is kept for this process alone" in one]) == 1


def test_a_configuration_that_cannot_run_is_the_slowest(monkeypatch):
    class Event:
        def __init__(self, enable_timing):
            pass

        def record(self):
            pass

        synchronize = record

        def elapsed_time(self, other):
            return 2.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert tuning._seconds(lambda one: None, FIRST) == 2.0
    assert tuning._seconds(lambda one: torch.zeros(2).reshape(3), FIRST) == float("inf")


def test_what_is_taken_is_kept_in_the_users_cache(on_gpu, monkeypatch):
    on_gpu(TIMES)
    monkeypatch.setenv("VDIFF_TUNE", "1")
    chosen()
    ((place, own),) = json.loads(cached(CACHE).read_text()).items()
    assert place.startswith("NVIDIA H100 (sm_90) | Triton ") and own == {"product bf16 320": "K_=32 num_warps=4 num_stages=3"}

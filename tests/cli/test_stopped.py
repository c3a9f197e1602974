"""Real processes, interrupted or killed while they work: what stood before stays whole. And two that train together."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import vdiff_kernels
from vdiff_kernels.cli.train import digits
from vdiff_kernels.diffusion.trainer import STATE, WEIGHTS, Trainer, TrainSettings

VDIFF = (sys.executable, "-m", "vdiff_kernels.cli")
ROOT = Path(vdiff_kernels.__file__).parents[1]
ENVIRONMENT = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo", CUDA_VISIBLE_DEVICES="")
SETTINGS = TrainSettings(batch=2, num_frames=2, size=24, widths=(16,), head_dim=8, patch=4, blocks=1, warmup=2)
SMALL = (
    "--batch",
    "2",
    "--num-frames",
    "2",
    "--size",
    "24",
    "--widths",
    "16",
    "--head-dim",
    "8",
    "--patch",
    "4",
    "--blocks",
    "1",
    "--warmup",
    "2",
)
SECONDS = 120  # That a process may take, on a machine that is busy.
SIGNALS = (signal.SIGINT, signal.SIGKILL)


@pytest.fixture(autouse=True)
def interruptible():
    """A run in the background ignores SIGINT, and so would every process that these tests start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def start():
    """Starts a process, which does not outlive its test."""
    processes = []

    def start(*arguments, **options) -> subprocess.Popen:
        processes.append(subprocess.Popen([str(argument) for argument in arguments], text=True, env=ENVIRONMENT, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "command, delays", [("module", (0.3, 0.8, 1.4, 2.0, 3.0)), ("script", (0.5, 1.5, 2.5))], ids=["module", "script"]
)
def test_interrupted_at_any_moment_of_the_start(start, tmp_path, command, delays):
    """The imports take seconds: a line and status 130, whatever was being imported."""
    script = tmp_path / "vdiff"  # as pip makes it
    script.write_text("import sys\nfrom vdiff_kernels.cli import main\nsys.exit(main())\n")
    run = VDIFF if command == "module" else (sys.executable, script)
    arguments = ["sample", "a seven", "-o", tmp_path / "a.gif", "--steps", 1000, "--frames", 64]
    seen = []
    for delay in delays:
        process = start(*run, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 130 and output == "", (delay, errors)
        assert errors in ("vdiff: interrupted\n", "vdiff sample: interrupted\n"), (delay, errors)
        seen.append(errors)
    assert seen.count("vdiff: interrupted\n") >= len(delays) // 2
    assert os.listdir(tmp_path) == ["vdiff"]


def test_a_sigint_that_is_ignored_stays_so():
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from vdiff_kernels.interrupt import ending_quietly\n"
        "with ending_quietly(): signal.raise_signal(signal.SIGINT)\n"
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_library_leaves_ctrl_c_alone():
    code = "import signal, vdiff_kernels.cli; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sampling(start, weights, tmp_path):
    """On a terminal, which shows the bar."""
    out = tmp_path / "out.gif"
    out.write_bytes(b"old")
    arguments = ["sample", "a seven", "-o", out, "--weights", weights, "--steps", 1000, "--frames", 64]
    runs = []
    for _ in SIGNALS:
        terminal, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # a bar needs columns
        runs.append((terminal, start(*VDIFF, *arguments, stdout=subprocess.DEVNULL, stderr=end)))
        os.close(end)
    for (terminal, process), number in zip(runs, SIGNALS):
        text = b""  # a read may end within a character of the bar
        while b"/1000" not in text:
            text += os.read(terminal, 1000)
        assert b"sampling" in text
        process.send_signal(number)
        assert process.wait(SECONDS) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        if number == signal.SIGINT:
            assert os.read(terminal, 10_000).endswith(b"vdiff sample: interrupted\r\n")
        assert out.read_bytes() == b"old" and os.listdir(tmp_path) == ["out.gif"]
        os.close(terminal)


def test_training(start, tmp_path):
    arguments = [*SMALL, "--checkpoint-seconds", 0, "--sample-every", 0]
    folders = [tmp_path / number.name for number in SIGNALS]
    runs = [start(*VDIFF, "train", folder, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for folder in folders]
    for folder, process, number in zip(folders, runs, SIGNALS):
        while not (folder / STATE).exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=SECONDS)
        trainer = Trainer(SETTINGS, folder, digits(SETTINGS))  # reads the state
        assert trainer.step >= 1 and len(trainer.losses) == trainer.step
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert errors == f"vdiff train: interrupted; the same command goes on from step {trainer.step} in {folder}\n"
        else:
            assert process.returncode == -signal.SIGKILL


def test_two_processes_print_and_write_as_one(start, tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vdiff_kernels.cli")
    process = start(
        *torchrun, "train", tmp_path / "run", *SMALL, "--steps", 2, "--sample-every", 0,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    lines = output.splitlines()
    assert len(lines) == 3 and lines[0].startswith(f"{tmp_path}/run: step 0 of 2") and lines[1].startswith("step 2/2  loss ")
    settings = TrainSettings(**{**vars(SETTINGS), "steps": 2})
    alone = Trainer(settings, tmp_path / "alone", digits(settings))
    (tmp_path / "alone").mkdir()
    alone.run()
    together = Trainer(settings, tmp_path / "run", digits(settings))
    assert [loss for _, loss in together.losses] == pytest.approx([loss for _, loss in alone.losses], rel=1e-4)
    assert (tmp_path / "run" / WEIGHTS).exists()

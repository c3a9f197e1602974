"""Training runs in processes of their own, for test_trainer.py: `python train_processes.py killed|pair FOLDER`.

They are forked from this interpreter of one thread, which has imported everything already.
"""

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import distributed as dist

from vdiff_kernels.data import MovingDigits
from vdiff_kernels.diffusion import VideoDiffusion
from vdiff_kernels.diffusion.trainer import LOG, STATE, WEIGHTS, Trainer, TrainSettings

TINY = dict(num_frames=2, size=24, widths=(8, 16), blocks=1, patch=4, head_dim=8)
SETTINGS = TrainSettings(steps=3, batch=2, warmup=2, null_rate=0.5, seed=3, **TINY)


def trainer_of(settings: TrainSettings, folder: Path) -> Trainer:
    return Trainer(settings, folder, MovingDigits("train", settings.num_frames, settings.size, seed=settings.seed))


def forked(run, *arguments) -> int:
    """The process in which run(*arguments) runs."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        try:
            run(*arguments)
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    return process


def end_of(process: int) -> int:
    """Its exit status; below zero, the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def train(folder: Path) -> None:
    trainer_of(SETTINGS, folder).run(checkpoint_seconds=0)


def train_until(folder: Path, file: str, what: str) -> None:
    """Trains, and is killed at the checkpoint of the second step, when `file` is half written or just has been."""
    trainer, replace = trainer_of(SETTINGS, folder), os.replace

    def replace_and_die(draft, path):
        last = trainer.step == 2 and os.path.basename(path) == file
        if last and what == "half written":
            os.truncate(draft, os.path.getsize(draft) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(draft, path)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_and_die
    trainer.run(checkpoint_seconds=0)


def train_for(folder: Path, seconds: float) -> None:
    """Trains until the alarm, which ends the process wherever it is, as a kill does."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    train(folder)


def killed(folder: Path) -> dict:
    """How each process ended. In the folder: `whole` of an unbroken run, `writing` of one that was killed at every file of a
    checkpoint, `anywhere` of one that was killed now and then.
    """
    whole, writing, anywhere = (folder / name for name in ("whole", "writing", "anywhere"))
    for run in (whole, writing, anywhere):
        run.mkdir()
    start = time.monotonic()
    ends = {"whole": [end_of(forked(train, whole))], "writing": [], "anywhere": []}
    unbroken = time.monotonic() - start

    for file, what in itertools.product((WEIGHTS, LOG, STATE), ("half written", "written")):
        ends["writing"].append(end_of(forked(train_until, writing, file, what)))
        VideoDiffusion.load(writing / WEIGHTS)  # at no time is there half a file
    ends["writing"].append(end_of(forked(train, writing)))

    for attempt in itertools.count():
        ends["anywhere"].append(end_of(forked(train_for, anywhere, unbroken / 3 * 1.3**attempt)))  # in the end, time enough
        if ends["anywhere"][-1] != -signal.SIGALRM:
            return ends


def one_of_pair(folder: Path, rank: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    train(folder)
    dist.destroy_process_group()


def pair(folder: Path) -> dict:
    return {"pair": [end_of(process) for process in [forked(one_of_pair, folder, rank) for rank in range(2)]]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer_of(SETTINGS, Path(sys.argv[2]))  # imports the rest of what the processes need
    print(json.dumps({"killed": killed, "pair": pair}[sys.argv[1]](Path(sys.argv[2]))))

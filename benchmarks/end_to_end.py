"""One step of whole models at their published sizes, with random weights, patched and unpatched in turns.

Run: python -m benchmarks.end_to_end [model ...] [--rounds N] [--markdown FILE]. float32, without guidance, on this CPU.
"""

import argparse
import contextlib
import ctypes
import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import vdiff_kernels as vdiff
from vdiff_kernels import library
from vdiff_kernels.bench.counting import resident
from vdiff_kernels.bench.peers import video_diffusion_pytorch
from vdiff_kernels.bench.place import processor
from vdiff_kernels.files import written_whole


@dataclass(frozen=True)
class Model:
    """about: whose sizes, of the model and of what it is given. build() makes it; step(model) is one call."""

    about: str
    build: Callable[[], nn.Module]
    step: Callable[[nn.Module], Tensor]


WIDTHS = dict(block_out_channels=(320, 640, 1280, 1280), layers_per_block=2)


def clip(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def modelscope() -> nn.Module:
    import diffusers

    return diffusers.UNet3DConditionModel(sample_size=32, cross_attention_dim=1024, attention_head_dim=64, **WIDTHS)


def animatediff() -> nn.Module:
    import diffusers

    return diffusers.UNetMotionModel(
        sample_size=64, cross_attention_dim=768, num_attention_heads=8, motion_num_attention_heads=8, use_motion_mid_block=True,
        **WIDTHS,
    )  # fmt: skip


def svd() -> nn.Module:
    import diffusers

    return diffusers.UNetSpatioTemporalConditionModel(
        sample_size=96, cross_attention_dim=1024, num_attention_heads=(5, 10, 20, 20), **WIDTHS
    )


def svd_decoder() -> nn.Module:
    import diffusers

    return diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 4
    )


def i2vgen() -> nn.Module:
    import diffusers

    return diffusers.I2VGenXLUNet(sample_size=32, cross_attention_dim=1024, attention_head_dim=64, **WIDTHS)


def latte() -> nn.Module:
    import diffusers

    return diffusers.LatteTransformer3DModel(
        num_attention_heads=16, attention_head_dim=72, in_channels=4, out_channels=8, num_layers=28, cross_attention_dim=1152,
        attention_bias=True, sample_size=64, patch_size=2, activation_fn="gelu-approximate", norm_type="ada_norm_single",
        norm_elementwise_affine=False, caption_channels=4096, video_length=16,
    )  # fmt: skip


def lucidrains() -> nn.Module:
    return video_diffusion_pytorch().Unet3D(dim=64, dim_mults=(1, 2, 4, 8))


STEP = torch.tensor([500])
ADDED = torch.tensor([[6.0, 127.0, 0.02]])
MODELS = {
    "lucidrains": Model("Unet3D(dim=64), 16 frames of 64 x 64 pixels", lucidrains, lambda m: m(clip(1, 3, 16, 64, 64), STEP)),
    "modelscope": Model(
        "UNet3DConditionModel, 16 frames of 32 x 32 latents, 77 tokens",
        modelscope, lambda m: m(clip(1, 4, 16, 32, 32), STEP, clip(1, 77, 1024)).sample,
    ),
    "animatediff": Model(
        "UNetMotionModel on Stable Diffusion 1.5, 16 frames of 32 x 32 latents, 77 tokens",
        animatediff, lambda m: m(clip(1, 4, 16, 32, 32), STEP, clip(16, 77, 768)).sample,
    ),
    "svd": Model(
        "UNetSpatioTemporalConditionModel, 14 frames of 32 x 56 latents, one token",
        svd, lambda m: m(clip(1, 14, 8, 32, 56), STEP.float(), clip(1, 1, 1024), ADDED).sample,
    ),
    "svd-decoder": Model(
        "AutoencoderKLTemporalDecoder, 4 frames of 32 x 32 latents", svd_decoder, lambda m: m.decode(clip(4, 4, 32, 32), 4).sample
    ),
    "i2vgen": Model(
        "I2VGenXLUNet, 16 frames of 32 x 32 latents, 77 tokens",
        i2vgen,
        lambda m: m(
            clip(1, 4, 16, 32, 32), STEP, torch.tensor([16]), clip(1, 4, 16, 32, 32), clip(1, 1024), clip(1, 77, 1024)
        ).sample,
    ),
    "latte": Model(
        "LatteTransformer3DModel, 16 frames of 32 x 32 latents, 120 tokens",
        latte, lambda m: m(clip(1, 4, 16, 32, 32), STEP, clip(1, 120, 4096)).sample,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """seconds: of a step, unpatched and patched. bytes: what a step adds to the peak of resident memory. difference: the
    largest, over the largest value.
    """

    name: str
    parameters: int
    replaced: int
    left: int
    seconds: tuple[float, float]
    bytes: tuple[int, int]
    difference: float

    def cells(self) -> list[str]:
        before, after = self.seconds
        peak_before, peak_after = self.bytes
        return [
            self.name, f"{self.parameters / 1e6:,.0f} M", f"{self.replaced} / {self.left}", f"{before:.2f}", f"{after:.2f}",
            f"{before / after:.2f}x", f"{peak_before / 2**20:,.0f}", f"{peak_after / 2**20:,.0f}",
            f"{peak_after / peak_before:.2f}x", f"{self.difference:.1e}",
        ]  # fmt: skip


HEADERS = [
    "model", "parameters", "served / left", "unpatched, s", "patched, s", "faster", "peak, MiB", "patched, MiB", "of it",
    "difference",
]  # fmt: skip


@torch.no_grad()
def measure(name: str, rounds: int) -> Row:
    peaks = tuple(in_own_process(name, patched) for patched in (False, True))
    kind, model = MODELS[name], built(name)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    results = {}
    for i in range(rounds + 1):
        for patched in (False, True):
            with vdiff.patched(model) if patched else contextlib.nullcontext() as report:
                start = time.perf_counter()
                results[patched] = kind.step(model)
                if i:  # the first is for the caches
                    seconds[patched].append(time.perf_counter() - start)
    medians = tuple(statistics.median(seconds[patched]) for patched in (False, True))
    difference = (results[True] - results[False]).abs().max() / results[False].abs().max()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Row(name, parameters, len(report.replaced), len(report.left), medians, peaks, difference.item())


def built(name: str) -> nn.Module:
    """With weights of the size that they have after training: what starts as zero would hide what comes before it."""
    torch.manual_seed(0)
    model = MODELS[name].build().eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            parameter.normal_(std=parameter[0].numel() ** -0.5)
    return model


def in_own_process(name: str, patched: bool) -> int:
    context = multiprocessing.get_context("spawn")  # a forked process would begin at its parent's peak
    queue = context.SimpleQueue()
    process = context.Process(target=_growth, args=(name, patched, queue))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"the measured process of {name} ended with exit code {process.exitcode}")
    return queue.get()


def each_block_by_itself() -> None:
    """Of glibc's malloc: what is freed goes back to the system at once, so that resident memory is what is in use. Else a heap
    with holes is as large as chance will have it: the same step takes 0.7 to 2.1 GiB.
    """
    mmap_threshold = -3  # malloc.h
    ctypes.CDLL(None).mallopt(mmap_threshold, 1 << 18)


@torch.no_grad()
def _growth(name: str, patched: bool, queue) -> None:
    each_block_by_itself()
    model = built(name)
    if patched:
        vdiff.patch(model)
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    MODELS[name].step(model)
    queue.put(resident("VmHWM") - before)


def table(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [HEADERS, ["---"] * len(HEADERS), *rows])


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="model", help=", ".join(MODELS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", type=Path, help="write the table there")
    options = parser.parse_args()
    unknown = set(options.models) - set(MODELS)
    if unknown or options.rounds < 1:
        parser.error(f"expected models of {', '.join(MODELS)}, and at least one round")
    kernels = f"{library.instruction_set()} kernels" if vdiff.availability("cpu") else "no compiled kernels"
    place = f"{processor()}, {torch.get_num_threads()} threads, {kernels}, torch {torch.__version__}, float32"
    print(place, flush=True)
    rows = []
    for name in options.models or MODELS:
        print(f"{name}: {MODELS[name].about}", flush=True)
        rows.append(measure(name, options.rounds).cells())
        print("  " + ", ".join(f"{head} {cell}" for head, cell in zip(HEADERS[1:], rows[-1][1:])), flush=True)
        gc.collect()
    if options.markdown:
        with written_whole(options.markdown) as draft:
            draft.write_text(f"{place}.\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()

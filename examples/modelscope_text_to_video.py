"""ModelScope text-to-video with its fused layers: the usual script and one line more.

Run: python examples/modelscope_text_to_video.py "A cat playing with a ball, high quality, detailed" -o cat.mp4
Needs: pip install 'vdiff_kernels[integrations]'; downloads the weights (3.5 GB) once.
"""

import argparse

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import export_to_video

import vdiff_kernels


def load(name: str = "damo-vilab/text-to-video-ms-1.7b") -> DiffusionPipeline:
    if not torch.cuda.is_available():
        return DiffusionPipeline.from_pretrained(name)
    return DiffusionPipeline.from_pretrained(name, torch_dtype=torch.float16, variant="fp16")


def save_memory(pipe: DiffusionPipeline) -> None:
    if torch.cuda.is_available():  # diffusers refuses to offload from a CPU
        pipe.enable_model_cpu_offload()
    pipe.vae.enable_slicing()


def generate(
    pipe: DiffusionPipeline,
    prompt: str,
    path: str,                    # .mp4
    num_inference_steps: int = 25,
    num_frames: int = 16,         # T.
    size: int = 256,              # Height and width, in pixels.
    guidance_scale: float = 9.0,
    seed: int = 0,
) -> str:  # fmt: skip
    frames = pipe(
        prompt,
        num_inference_steps=num_inference_steps,
        num_frames=num_frames,
        height=size,
        width=size,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(seed),
    ).frames[0]
    return export_to_video(frames, output_video_path=path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt", nargs="?", default="A cat playing with a ball, high quality, detailed")
    parser.add_argument("-o", "--out", default="cat_playing.mp4")
    options = parser.parse_args()
    pipe = load()
    report = vdiff_kernels.patch(pipe)
    save_memory(pipe)
    print(f"written: {generate(pipe, options.prompt, options.out)}")
    print(report)


if __name__ == "__main__":
    main()

"""A step of the reference UNet, and a block of diffusers' AnimateDiff."""

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..integrations import animatediff
from ..models.video_unet import VideoUNet
from .contest import Contest, Setting, relative_error, with_gradients
from .presets import direction
from .rooflines import Work


def unet(size: tuple[int, int, int], setting: Setting, backward: bool) -> Contest:
    """The reference UNet, untrained, on two clips, as guidance has them: ours, and every fused part by its definition."""
    T, H, W = size
    first = VideoUNet().to(setting.device, setting.dtype)
    torch.nn.init.normal_(first.head.conv.weight, std=0.01)  # zeros would hide all that stands before
    z, logsnr = setting.randn(2, 1, T, H, W), torch.zeros(2, device=setting.device)
    condition = setting.randn(2, first.config["embedding"])
    grad_out = setting.randn(2, 1, T, H, W)
    models = {}
    for name, backend in {**setting.backends, "eager": "reference"}.items():
        models[name] = VideoUNet(backend=backend).to(setting.device, setting.dtype)
        models[name].load_state_dict(first.state_dict())
        models[name].requires_grad_(backward)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        expected = models["eager"](z, logsnr, condition).float()
    rivals = {}
    for name, model in models.items():
        parameters = [p for p in model.parameters() if p.requires_grad]
        call = lambda z, model=model: model(z, logsnr, condition)  # noqa: E731
        rivals[name] = with_gradients(call, [z.requires_grad_(backward)], parameters, grad_out, backward)
    return Contest(
        f"VideoUNet B2 T{T} H{H} W{W} {direction(backward)}", "VideoUNet", backward, rivals, 1,
        lambda rival, result: relative_error(result[0], expected),
        Work(2 * z.nbytes, counter.get_total_flops() * (3 if backward else 1)), "reference",
    )  # fmt: skip


def motion_module(size: tuple[int, int, int, int], setting: Setting) -> Contest:
    """AnimateDiff's motion module. Raises ImportError without diffusers."""
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

    channels, T, H, W = size
    module = AnimateDiffTransformer3D(
        8, channels // 8, channels, positional_embeddings="sinusoidal", num_positional_embeddings=32
    ).to(setting.device, setting.dtype)  # fmt: skip
    torch.nn.init.normal_(module.proj_out.weight, std=channels**-0.5)  # zeros would hide all that stands before
    module.requires_grad_(False)
    xs = [setting.randn(2 * T, channels, H, W) for _ in range(2)]
    with FlopCounterMode(display=False) as counter:
        expected = copy.deepcopy(module).float()(xs[0].float(), num_frames=T)
    rivals = {"vdiff": lambda i: animatediff.motion_module(module, xs[i], T), "diffusers": lambda i: module(xs[i], num_frames=T)}
    return Contest(
        f"AnimateDiffTransformer3D B2 T{T} H{H} W{W} C{channels} fwd", "AnimateDiffTransformer3D", False, rivals, len(xs),
        lambda rival, result: relative_error(result, expected), Work(2 * xs[0].nbytes, counter.get_total_flops()),
        "AnimateDiff",
    )  # fmt: skip

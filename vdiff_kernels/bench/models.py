"""A step of the reference UNet, and a block of diffusers' AnimateDiff."""

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..integrations import patch
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
    """AnimateDiff's motion module, patched. Raises ImportError without diffusers."""
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
    served = copy.deepcopy(module)
    patch(served)
    rivals = {"vdiff": lambda i: served(xs[i], num_frames=T), "diffusers": lambda i: module(xs[i], num_frames=T)}
    return Contest(
        f"AnimateDiffTransformer3D B2 T{T} H{H} W{W} C{channels} fwd", "AnimateDiffTransformer3D", False, rivals, len(xs),
        lambda rival, result: relative_error(result, expected), Work(2 * xs[0].nbytes, counter.get_total_flops()),
        "AnimateDiff",
    )  # fmt: skip


def patched_unet(size: tuple[tuple[int, ...], int, int, int], setting: Setting) -> Contest:
    """AnimateDiff's U-Net of these widths, patched. Raises ImportError without diffusers."""
    from diffusers import UNetMotionModel

    widths, T, H, W = size
    down = ("CrossAttnDownBlockMotion",) * (len(widths) - 1) + ("DownBlockMotion",)
    up = ("UpBlockMotion",) + ("CrossAttnUpBlockMotion",) * (len(widths) - 1)
    options = dict(cross_attention_dim=768, num_attention_heads=8, motion_num_attention_heads=8, use_motion_mid_block=True)
    unet = UNetMotionModel(block_out_channels=widths, down_block_types=down, up_block_types=up, **options)
    for parameter in unet.parameters():
        if parameter.dim() > 1 and not parameter.any():  # zeros would hide all that stands before
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    unet.to(setting.device, setting.dtype).eval().requires_grad_(False)
    served = copy.deepcopy(unet)
    patch(served)
    x, text = setting.randn(1, 4, T, H, W), setting.randn(T, 77, 768)
    time = torch.tensor([500], device=setting.device)
    with FlopCounterMode(display=False) as counter:
        expected = copy.deepcopy(unet).float()(x.float(), time, text.float(), return_dict=False)[0]
    rivals = {
        name: lambda i, model=model: model(x, time, text, return_dict=False)[0]
        for name, model in {"vdiff": served, "diffusers": unet}.items()
    }
    return Contest(
        f"UNetMotionModel {'-'.join(map(str, widths))} B1 T{T} H{H} W{W} fwd", "UNetMotionModel", False, rivals, 1,
        lambda rival, result: relative_error(result, expected), Work(2 * x.nbytes, counter.get_total_flops()), "AnimateDiff",
    )  # fmt: skip

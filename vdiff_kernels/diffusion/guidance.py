"""Denoisers: estimates of x from a model of v, with guidance by text and by known frames."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .sampler import Denoiser
from .schedule import alpha_sigma


def text_guided(
    model,                  # model(z, logsnr (B,), text (B, E)) -> v
    text: Tensor,           # (B, E)
    null: Tensor,           # (E,), the embedding of no text.
    *,
    guidance: float = 1.0,  # 1 for none.
    rescale: float = 0.0,   # From 0, none, to 1: gives v back the deviation that it had before guidance.
) -> Denoiser:  # fmt: skip
    """Classifier-free guidance, v = v_null + guidance * (v_text - v_null): Ho & Salimans 2022 (arXiv 2207.12598).

    rescale: Lin et al. 2023 (arXiv 2305.08891), equations 15 and 16. Both predictions come from one batch of 2B.
    """

    def denoise(z: Tensor, logsnr: Tensor) -> Tensor:
        alpha, sigma = alpha_sigma(logsnr, z)
        levels = logsnr.to(torch.promote_types(z.dtype, torch.float32)).expand(len(z))
        if guidance == 1.0:
            return alpha * z - sigma * model(z, levels, text)
        both = torch.cat((text, null.expand_as(text)))
        v_text, v_null = model(torch.cat((z, z)), torch.cat((levels, levels)), both).chunk(2)
        v = v_null + guidance * (v_text - v_null)
        if rescale > 0.0:
            dims = tuple(range(1, v.dim()))
            ratio = v_text.std(dims, keepdim=True) / v.std(dims, keepdim=True)
            v = v * (1 + rescale * (ratio - 1))
        return alpha * z - sigma * v

    return denoise


def frame_guided(
    denoise: Denoiser,
    known: Tensor,         # (B, C, T, H, W); only the frames of `frames` are looked at.
    frames: Tensor,        # (T,) bool: which are known.
    *,
    weight: float = 1.0,   # w_r of the paper.
) -> Denoiser:  # fmt: skip
    """Reconstruction guidance to frames x_a that are known: Ho et al. 2022 (arXiv 2204.03458), section 3.1, equation 7.

    The others follow x_b - weight * alpha / 2 * grad_{z_b} |x_a - x_a(z)|^2, through the model; the known ones are x_a itself, so
    that a sampler keeps theirs of z at x_a with its noise. It works under torch.inference_mode(), too, if the model that denoise
    calls is of `outside_inference_mode`.
    """

    def denoise_known(z: Tensor, logsnr: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            z = (z.clone() if z.is_inference() else z.detach()).requires_grad_()
            x = denoise(z, logsnr)
            error = (known - x)[:, :, frames].square().sum()
            (gradient,) = torch.autograd.grad(error, z)
        alpha, _ = alpha_sigma(logsnr, z)
        guided = x.detach() - weight * alpha / 2 * gradient
        return torch.where(frames[:, None, None], known, guided)

    return denoise_known


def outside_inference_mode(module: nn.Module) -> Callable[..., Tensor]:
    """The module itself; or, of one that was made, loaded or moved under torch.inference_mode(), a call of it with copies of such
    parameters and buffers, through which gradients of its inputs can flow.
    """
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    if not any(tensor.is_inference() for tensor in state.values()):
        return module
    with torch.inference_mode(False), torch.no_grad():
        copies = {name: tensor.clone() if tensor.is_inference() else tensor for name, tensor in state.items()}
    return lambda *arguments: torch.func.functional_call(module, copies, arguments)

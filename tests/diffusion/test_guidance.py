"""Guidance by text against its equation, and by known frames on correlated Gaussian frames whose every answer is known."""

import pytest
import torch

from vdiff_kernels.diffusion.guidance import frame_guided, text_guided
from vdiff_kernels.diffusion.sampler import SAMPLERS, sample
from vdiff_kernels.diffusion.schedule import CosineSchedule

from .gaussian import levels

LOGSNR = torch.tensor(0.8, dtype=torch.float64)
NULL = torch.tensor([0.5, -2.0], dtype=torch.float64)


class TextModel:
    """v that is not linear in z, nor in the text; remembers what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, z, logsnr, text):
        self.calls.append((z, logsnr, text))
        a, b, level = (value[:, None, None, None, None] for value in (text[:, 0], text[:, 1], logsnr))
        return torch.sin(z * a + level) + b * z**2


@pytest.fixture
def inputs():
    return torch.randn(3, 1, 4, 2, 2).double(), torch.randn(3, 2).double()


def predictions(z, text):
    """v with the text and without, and the two factors of x = alpha z - sigma v."""
    model, level = TextModel(), LOGSNR.expand(len(z))
    return model(z, level, text), model(z, level, NULL.expand(len(z), 2)), *levels(LOGSNR.item())


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.0, -0.5])
def test_text_guidance_extrapolates_from_the_null_prediction(inputs, guidance):
    z, text = inputs
    v_text, v_null, alpha, sigma = predictions(z, text)
    x = text_guided(TextModel(), text, NULL, guidance=guidance)(z, LOGSNR)
    # Linear in the guidance; 0 gives the prediction without text and 1 the one with it. float64 rounding of a handful of terms.
    expected = alpha * z - sigma * ((1 - guidance) * v_null + guidance * v_text)
    torch.testing.assert_close(x, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("guidance, batch", [(1.0, 3), (2.0, 6)])
def test_one_batch_for_both_predictions_in_the_dtype_of_z(inputs, guidance, batch):
    z, text = (tensor.float() for tensor in inputs)
    model = TextModel()
    x = text_guided(model, text, NULL.float(), guidance=guidance)(z, LOGSNR)
    ((seen, logsnr, _),) = model.calls
    assert len(seen) == len(logsnr) == batch and logsnr.dtype == x.dtype == torch.float32


def test_rescale_gives_the_deviation_back_clip_by_clip(inputs):
    z, text = inputs
    v_text, _, alpha, sigma = predictions(z, text)

    def v(rescale):
        x = text_guided(TextModel(), text, NULL, guidance=5.0, rescale=rescale)(z, LOGSNR)
        return (alpha * z - x) / sigma

    def deviation(v):
        return v.flatten(1).std(1)

    assert (deviation(v(0.0)) > 1.2 * deviation(v_text)).all()  # or there would be nothing to give back
    torch.testing.assert_close(deviation(v(1.0)), deviation(v_text))
    torch.testing.assert_close(v(0.3), 0.7 * v(0.0) + 0.3 * v(1.0))
    ratio = (v(1.0) / v(0.0)).flatten(1)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))  # one factor a clip, no shift


class Frames:
    """T frames of one pixel, standard normal with correlation rho^|i - j|, and their exact joint denoiser."""

    def __init__(self, T: int, rho: float):
        offset = torch.arange(T) - torch.arange(T)[:, None]
        self.covariance = rho ** offset.abs().double()  # (T, T)

    def jacobian(self, logsnr) -> torch.Tensor:
        alpha, sigma = levels(float(logsnr))
        noisy = alpha**2 * self.covariance + sigma**2 * torch.eye(len(self.covariance))
        return alpha * self.covariance @ torch.linalg.inv(noisy)  # (T, T), symmetric

    def denoise(self, z, logsnr):
        return torch.einsum("ij,bcjhw->bcihw", self.jacobian(logsnr), z)

    def given(self, frames, values):
        """Mean and covariance of all frames given those of `frames`."""
        gain = self.covariance[:, frames] @ torch.linalg.inv(self.covariance[frames][:, frames])
        return gain @ values, self.covariance - gain @ self.covariance[frames]


KNOWN_FRAMES = torch.tensor([True, False, False, False, True, False])
DATA = Frames(6, rho=0.9)


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.5])
def test_frame_guidance_is_equation_7(weight):
    z, known = torch.randn(2, 3, 1, 6, 2, 1).double()
    known[:, :, ~KNOWN_FRAMES] = torch.nan  # no one looks there
    guided = frame_guided(DATA.denoise, known, KNOWN_FRAMES, weight=weight)(z, LOGSNR)
    # |x_a - J_a z|^2 has the gradient -2 J_a^T (x_a - J_a z).
    alpha, _ = levels(LOGSNR.item())
    x, jacobian = DATA.denoise(z, LOGSNR), DATA.jacobian(LOGSNR)
    error = (known - x)[:, :, KNOWN_FRAMES]
    expected = x + weight * alpha * torch.einsum("ab,ncahw->ncbhw", jacobian[KNOWN_FRAMES], error)
    torch.testing.assert_close(guided[:, :, ~KNOWN_FRAMES], expected[:, :, ~KNOWN_FRAMES], rtol=1e-12, atol=1e-12)
    assert torch.equal(guided[:, :, KNOWN_FRAMES], known[:, :, KNOWN_FRAMES])
    assert not guided.requires_grad and not z.requires_grad


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_guided_sampler_ends_at_the_known_frames(name):
    known = torch.randn(1, 2, 6, 3, 1)  # one for the whole batch
    denoise = frame_guided(lambda z, logsnr: DATA.denoise(z.double(), logsnr).to(z), known, KNOWN_FRAMES)
    with torch.no_grad():  # as the pipeline samples
        x = sample(denoise, torch.randn(4, 2, 6, 3, 1), CosineSchedule().steps(5), sampler=name)
    assert torch.equal(x[:, :, KNOWN_FRAMES], known[:, :, KNOWN_FRAMES].expand(4, -1, -1, -1, -1))
    assert x.isfinite().all() and not torch.equal(x[0], x[1])


def test_unknown_frames_move_to_their_mean_given_the_known():
    """Replacement alone, weight 0, leaves frames that do not fit the known ones; guidance brings them near: section 3.1."""
    known = torch.zeros(1, 1, 6, 1, 1, dtype=torch.float64)
    known[0, 0, KNOWN_FRAMES, 0, 0] = values = torch.tensor([2.0, -1.5], dtype=torch.float64)
    mean, covariance = DATA.given(KNOWN_FRAMES, values)
    z = torch.randn(2000, 1, 6, 1, 1, dtype=torch.float64)
    errors = []
    for weight in (0.0, 1.0, 2.0, 4.0):
        x = sample(frame_guided(DATA.denoise, known, KNOWN_FRAMES, weight=weight), z, CosineSchedule().steps(25), sampler="ddim")
        x = x.flatten(1)[:, ~KNOWN_FRAMES]  # (2000, 4)
        errors.append((x.mean(0) - mean[~KNOWN_FRAMES]).square().mean().sqrt().item())
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.3 * errors[0], errors
    assert (x.var(0) < 2 * covariance.diagonal()[~KNOWN_FRAMES]).all()  # a clip's frames agree with each other, too

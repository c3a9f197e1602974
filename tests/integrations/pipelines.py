"""Small pipelines with random weights, as diffusers builds them, tokenizer and text encoder too; made offline."""

import json
from pathlib import Path

import diffusers
import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)  # fmt: skip

from .compare import randomize
from .models import TEXT, autoencoder, motion, svd, unet3d

LAYERS = dict(num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Of single letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=8)


def text_encoder() -> CLIPTextModel:
    torch.manual_seed(0)
    config = CLIPTextConfig(vocab_size=54, hidden_size=TEXT, max_position_embeddings=8, eos_token_id=53, **LAYERS)
    return CLIPTextModel(config).eval()


def image_autoencoder() -> diffusers.AutoencoderKL:
    blocks = dict(down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    return randomize(diffusers.AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=4, latent_channels=4, **blocks))


def modelscope(folder: Path) -> diffusers.TextToVideoSDPipeline:
    scheduler = diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False)
    return diffusers.TextToVideoSDPipeline(
        vae=image_autoencoder(), text_encoder=text_encoder(), tokenizer=tokenizer(folder), unet=unet3d(), scheduler=scheduler
    )


def animatediff(folder: Path) -> diffusers.AnimateDiffPipeline:
    adapter = diffusers.MotionAdapter(block_out_channels=(16, 32), motion_num_attention_heads=2, motion_norm_num_groups=4)
    return diffusers.AnimateDiffPipeline(
        vae=image_autoencoder(), text_encoder=text_encoder(), tokenizer=tokenizer(folder), unet=motion(), motion_adapter=adapter,
        scheduler=diffusers.DDIMScheduler(beta_schedule="linear", clip_sample=False),
    )  # fmt: skip


def stable_video_diffusion(folder: Path) -> diffusers.StableVideoDiffusionPipeline:
    torch.manual_seed(0)
    config = CLIPVisionConfig(hidden_size=16, projection_dim=TEXT, image_size=224, patch_size=112, **LAYERS)
    return diffusers.StableVideoDiffusionPipeline(
        vae=autoencoder(), image_encoder=CLIPVisionModelWithProjection(config).eval(), unet=svd(),
        scheduler=diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", use_karras_sigmas=True),
        feature_extractor=CLIPImageProcessorPil(),
    )  # fmt: skip

"""Which class is served by which adapter: the tables of the families, and what is left alone by design."""

from torch import nn

from . import animatediff, diffusers_resnets, diffusers_transformers, latte, lucidrains, modelscope, svd
from .adapter import Adapter
from .guards import class_of, identity, key_of

# By the package that a class comes from.
TABLES = {
    "diffusers": (diffusers_transformers, diffusers_resnets, modelscope, animatediff, svd, latte),
    "video_diffusion_pytorch": (lucidrains,),
}
ADAPTERS = {
    f"{package}.{name}": adapter
    for package, families in TABLES.items() for family in families for name, adapter in family.ADAPTERS.items()
}  # fmt: skip

# Candidates without an adapter.
LEFT = {
    "diffusers.Downsample2D": "a strided convolution, which PyTorch's library computes",
    "diffusers.FreeNoiseTransformerBlock": "its windows of frames are its own; its attention and feed-forward layers are served",
}
# Attention over all pixels of all frames at once, which is not factorized into space and time.
UNFACTORIZED = (
    "AllegroTransformer3DModel", "CogVideoXTransformer3DModel", "ConsisIDTransformer3DModel", "CosmosTransformer3DModel",
    "EasyAnimateTransformer3DModel", "HunyuanVideoTransformer3DModel", "LTXVideoTransformer3DModel", "MochiTransformer3DModel",
    "SkyReelsV2Transformer3DModel", "WanTransformer3DModel",
)  # fmt: skip


def adapter_of(module: nn.Module) -> tuple[Adapter | None, str]:
    """(the adapter of a module's class, or None; why it has none, or "" where it is no candidate)."""
    name = key_of(class_of(module))
    if name in ADAPTERS:
        if identity(class_of(module)) is not None:
            return ADAPTERS[name], ""
        return None, f"the code of {name} is of a version that was not tested"
    return None, LEFT.get(name, "")

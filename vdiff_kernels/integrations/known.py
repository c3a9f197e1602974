"""The classes whose forward is replaced or passed over, and the digest (`guards.digest`) of each that was read and tested:
diffusers 0.35 to 0.42, and video-diffusion-pytorch 0.7.0.

A class that reads otherwise is left alone. After reading what changed in a new version, add its digest here.
"""

KNOWN = {
    "diffusers.AlphaBlender": ("5c432b69",),
    "diffusers.AnimateDiffTransformer3D": ("c083ea52",),
    "diffusers.Attention": ("2c09e441",),
    "diffusers.AttnProcessor": ("200a221b",),
    "diffusers.AttnProcessor2_0": ("c93d8cdc",),
    "diffusers.BasicTransformerBlock": ("b70d124d",),
    "diffusers.FeedForward": ("f2758cc9",),
    "diffusers.GEGLU": ("d4cf1a6d",),
    "diffusers.LatteTransformer3DModel": ("e98d410d",),
    "diffusers.ResnetBlock2D": ("73b81097", "007a9856"),  # until 0.36, since 0.37
    "diffusers.SinusoidalPositionalEmbedding": ("0825da25",),
    "diffusers.SlicedAttnProcessor": ("5c0b2460",),
    "diffusers.SpatioTemporalResBlock": ("9fc683d1",),
    "diffusers.TemporalBasicTransformerBlock": ("7ab616b2",),
    "diffusers.TemporalConvLayer": ("8bce5f2b",),
    "diffusers.TemporalResnetBlock": ("f91a9acc",),
    "diffusers.Transformer2DModel": ("6a808d04",),
    "diffusers.TransformerSpatioTemporalModel": ("f35dfa90",),
    "diffusers.TransformerTemporalModel": ("c7d1e0dd",),
    "diffusers.Upsample2D": ("cd9e6af1",),
    "diffusers.XFormersAttnProcessor": ("f63df146",),
    "video_diffusion_pytorch.Attention": ("f7dc0269",),
    "video_diffusion_pytorch.Block": ("d7ec52df",),
    "video_diffusion_pytorch.EinopsToAndFrom": ("1a8de26e",),
    "video_diffusion_pytorch.LayerNorm": ("07b18344",),
    "video_diffusion_pytorch.PreNorm": ("bc098918",),
    "video_diffusion_pytorch.RMSNorm": ("0e57d64c",),
    "video_diffusion_pytorch.Residual": ("5b2b664f",),
    "video_diffusion_pytorch.ResnetBlock": ("51762caa",),
    "video_diffusion_pytorch.SpatialLinearAttention": ("51348649",),
}

"""The blocks that nn.TemporalAttention and nn.Pseudo3DBlock replace, as their source prints them: the eager baseline."""

import torch
from torch import nn


class TemporalAttention(nn.Module):
    def __init__(self, dim, num_heads=8):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.to_qkv = nn.Linear(dim, dim * 3)
        self.proj_out = nn.Linear(dim, dim)
        self.rel_pos_emb = nn.Parameter(torch.randn(1, num_heads, 32, 32))

    def forward(self, x):
        B, T, H, W, C = x.shape
        x = x.permute(0, 2, 3, 1, 4).reshape(B * H * W, T, C)
        qkv = self.to_qkv(x).chunk(3, dim=-1)
        q, k, v = map(lambda t: t.view(-1, T, self.num_heads, self.head_dim).transpose(1, 2), qkv)
        attn = (q @ k.transpose(-2, -1)) * self.scale
        attn = attn + self.rel_pos_emb[:, :, :T, :T]
        attn = attn.softmax(dim=-1)
        out = (attn @ v).transpose(1, 2).reshape(B * H * W, T, C)
        out = self.proj_out(out)
        return out.reshape(B, H, W, T, C).permute(0, 3, 1, 2, 4)


class Pseudo3DBlock(nn.Module):
    def __init__(self, in_channels, out_channels, num_heads=8):
        super().__init__()
        self.spatial_conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.GroupNorm(8, out_channels), nn.SiLU()
        )
        self.temporal_attn = TemporalAttention(out_channels, num_heads)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x):
        B, T, C, H, W = x.shape
        x = x.view(B * T, C, H, W)
        x = self.spatial_conv(x)
        _, C_out, H, W = x.shape
        x = x.view(B, T, C_out, H, W)
        x = x.permute(0, 1, 3, 4, 2)
        x = x + self.temporal_attn(self.norm(x))
        return x.permute(0, 1, 4, 2, 3)

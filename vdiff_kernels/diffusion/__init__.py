"""Diffusion of video: schedule, loss, samplers, guidance, and the pipeline that puts them together."""

from .pipeline import VideoDiffusion

__all__ = ["VideoDiffusion"]

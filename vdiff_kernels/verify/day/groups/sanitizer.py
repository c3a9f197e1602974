"""Group of tools.py."""

from .tools import run_sanitizer as run

__all__ = ["run"]

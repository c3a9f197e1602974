"""Group of tools.py."""

from .tools import run_counters as run

__all__ = ["run"]

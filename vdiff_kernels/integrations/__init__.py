"""The layers of published video models, expressed by this package's operators on the layers' own parameters.

`patch` puts them into a model as it is.
"""

from .adapter import Adapter
from .guards import Unserved
from .patching import patch, patched, unpatch
from .report import Report

__all__ = ["Adapter", "Report", "Unserved", "patch", "patched", "unpatch"]

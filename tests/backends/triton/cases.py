"""The hostile cases that Triton's interpreter has the time for."""

from vdiff_kernels import verify
from vdiff_kernels.backends import registry

SERVED = registry.BACKENDS["triton"].kernels

# At the edges of the CPU kernels' blocks, of hundreds of rows, which take the interpreter 10 to 60 s each; Triton's tiles have
# their own cases.
TOO_LONG = {"temporal_attention-many-blocks", "spatial_attention-whole-lines", "spatial_attention-several-tasks"}
TOO_LONG |= {"temporal_layer-many-blocks", "temporal_layer-many-batches", "spatial_layer-many-frames"}

# NumPy adds the terms of a product in another order where its matrices have another shape, so that what should be the same bits
# is not: backward's scores of 5e4 and forward's, or dp and delta of frames that see themselves alone. The simulator's are.
NOT_NUMPYS = {"spatial_attention-float16-limit", "temporal_attention-long-image-frames"}


def is_served(operator: str) -> bool:
    """Whole, or its core."""
    return operator in SERVED or any(part in SERVED for part in registry.OPERATORS[operator].parts[:1])


def cases_of(is_wanted) -> list[verify.Case]:
    """Those of operators that Triton serves and is_wanted(operator) of."""
    cases = [case for case in verify.CASES if is_served(case.operator) and is_wanted(case.operator)]
    return [case for case in cases if str(case) not in TOO_LONG | NOT_NUMPYS]

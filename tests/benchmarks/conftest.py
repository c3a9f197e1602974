import pytest
import torch

from benchmarks import digit_metrics


@pytest.fixture(scope="session")
def small_classifier():
    """Trained for seconds: right about most digits."""
    state = torch.get_rng_state()
    classifier = digit_metrics.DigitClassifier("test", networks=1, variants=3, epochs=2)
    assert torch.equal(state, torch.get_rng_state())
    return classifier

"""Options of torch's DataLoader that are given to a Loader: the error names their counterpart, the signature stays."""

import inspect

import pytest

import calotype
from calotype.errors import ConfigError


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ({"num_workers": 2}, "num_workers: an option of torch's DataLoader, not of Loader; .*threads=…"),
        ({"drop_last": True}, 'drop_last: .*remainder="drop"'),
        ({"pin_memory": True}, "pin_memory: .*leave it out"),
        ({"sampler": None}, "sampler: .*seed and shuffle"),
        ({"num_worker": 2}, "unexpected keyword argument 'num_worker'"),
    ],
)
def test_the_counterpart_is_named(square, option, instead):
    with pytest.raises(TypeError, match=instead):
        calotype.Loader(square, 2, **option)


def test_the_signature_is_that_of_the_constructor():
    parameters = inspect.signature(calotype.Loader).parameters
    assert {"dataset", "batch_size", "threads", "remainder"} <= set(parameters)
    assert all(one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL) for one in parameters.values())


@pytest.mark.parametrize("prefetch", [0, 1001])
def test_batches_ahead_have_bounds(square, prefetch):
    with pytest.raises(ConfigError, match=f"prefetch: found {prefetch}, expected 1 to 1000"):
        calotype.Loader(square, 2, prefetch=prefetch)

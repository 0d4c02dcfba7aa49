"""The loader: a plan of batches, a loader process with N threads, shared-memory slots, the copy to the device."""

from calotype.loader.batch_sampler import BatchSampler
from calotype.loader.loader import Loader

__all__ = ["BatchSampler", "Loader"]

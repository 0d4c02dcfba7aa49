"""The loader: a plan of batches, one loader process of N threads, a ring of slots, the device."""

from calotype.loader.loader import Loader

__all__ = ["Loader"]

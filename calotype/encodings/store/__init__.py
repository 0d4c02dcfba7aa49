"""The store of encodings: a folder of safetensors shards that is read by key. docs/store.md describes the format.

No module here imports the job that fills the store or the dataset that reads it.
"""

from calotype.encodings.store.encoding_store import EncodingStore, Verify
from calotype.encodings.store.export import export_store, unpack_store
from calotype.encodings.store.layout import Field
from calotype.encodings.store.pruning import prune_store
from calotype.encodings.store.stored_tensor import RecordCache, StoredTensor
from calotype.encodings.store.summary import summarise_store
from calotype.encodings.store.verification import verify_store
from calotype.encodings.store.writer import ShardWriter

__all__ = [
    "EncodingStore",
    "Field",
    "RecordCache",
    "ShardWriter",
    "StoredTensor",
    "Verify",
    "export_store",
    "prune_store",
    "summarise_store",
    "unpack_store",
    "verify_store",
]

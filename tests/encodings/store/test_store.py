"""The store as its users see it: what was put comes back bit for bit, from wherever the folder is."""

import json
import os
import pickle
import shutil
import threading

import numpy as np
import pytest
import torch
from safetensors import safe_open
from store_helpers import is_right, key, keys, put, record

from calotype.encodings.store import EncodingStore
from calotype.encodings.store.layout import DTYPES
from calotype.errors import ConfigError, StoreError


def bits(tensor):
    return tensor.reshape(-1).view(torch.uint8)


def shards(store):
    return sorted((store.path / "shards").glob("*.safetensors"))


@pytest.fixture
def store(tmp_path):
    return EncodingStore(tmp_path / "store", create=True)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
def test_every_dtype_comes_back_bit_for_bit(store, dtype):
    """Random bytes, so that floats are NaN, infinite and subnormal too; odd sizes, so that alignment matters."""
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (5, 3, 7 * dtype.itemsize), dtype=torch.uint8)
    stacked = raw.view(dtype)
    with store.writer() as writer:
        writer.put(keys(range(5)), {"x": stacked, "flag": torch.arange(5, dtype=torch.uint8)}, kind="picture")
    for other in (store, EncodingStore(store.path)):
        for number, row in enumerate(other.find(keys(range(5))).tolist()):
            found = other.get(row)
            assert found["x"].dtype == dtype and found["x"].shape == (3, 7)
            assert torch.equal(bits(found["x"]), bits(stacked[number])) and found["flag"] == number
    with safe_open(shards(store)[0], "pt") as file:
        assert torch.equal(bits(file.get_tensor("00000.picture.x")), bits(stacked))


def test_records_of_different_shapes_in_one_put(store):
    names = keys(range(100))
    with store.writer() as writer:
        put(writer, names)
        assert all(is_right(store, name) for name in names), "a writer's own store knows its puts at once"
    reopened = EncodingStore(store.path)
    assert len(reopened) == 100 and all(is_right(reopened, name) for name in names)
    row = int(reopened.find([names[7]])[0])
    described = {field.name: (field.dtype, field.shape) for field in reopened.layout(row)}
    assert described == {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in record(names[7]).items()}
    assert reopened.kind(row) == "text" and reopened.keys(np.array([row]))[0].tobytes() == names[7]


def test_scalars_empty_tensors_and_strided_ones(store):
    whole = torch.arange(24.0).reshape(4, 6)
    given = {
        "scale": torch.tensor(0.3611),
        "none": torch.empty(0, 4),
        "turned": whole.T,
        "grad": whole.requires_grad_(),
    }
    with store.writer() as writer:
        writer.put([key(0)], [given], kind="scaling")
    found = store.get(int(store.find([key(0)])[0]))
    assert all(torch.equal(found[name], given[name]) for name in given)
    assert EncodingStore(store.path).get(0)["scale"].shape == ()


def test_find_says_missing_and_takes_arrays(store):
    with store.writer() as writer:
        put(writer, keys(range(10)))
    asked = np.frombuffer(b"".join(keys([3, 99, 3, 0])), np.uint8).reshape(-1, 16)
    rows = store.find(asked)
    assert rows[0] == rows[2] >= 0 and rows[1] == -1 and rows[3] >= 0
    assert store.has(key(3)) and not store.has(key(99))
    assert store.find([]).tolist() == []
    with pytest.raises(StoreError, match="one of 3 bytes, expected 16"):
        store.find([b"abc"])


def test_keys_that_begin_alike_and_end_in_zeros_are_told_apart(store):
    names = [bytes(15 - n) + b"\x01" + bytes(n) for n in range(16)] + [bytes(16)]
    with store.writer() as writer:
        writer.put(names, {"n": torch.arange(17)}, kind="text")
    for other in (store, EncodingStore(store.path)):
        assert [int(other.get(row)["n"]) for row in other.find(names).tolist()] == list(range(17))


def test_equal_keys_written_twice_count_for_one(store):
    for _ in range(2):
        with store.writer() as writer:
            put(writer, keys(range(5)))
    reopened = EncodingStore(store.path)
    assert all(is_right(reopened, name) for name in keys(range(5)))


def test_shards_are_finished_at_their_size_and_when_their_header_is_full(store):
    with store.writer(shard_bytes=100_000) as writer:
        for start in range(0, 60, 6):
            writer.put(keys(range(start, start + 6)), {"x": torch.ones(6, 1000)}, kind="picture")
        assert writer.finished == 2
    sizes = [path.stat().st_size for path in shards(store)]
    assert len(sizes) == 3 and all(size < 100_000 + (256 << 10) for size in sizes)
    with store.writer(header_bytes=4096) as writer:
        for number in range(100, 150):
            put(writer, [key(number)])
        assert writer.finished >= 4
        put(writer, keys(range(200, 400)))  # more text than such a header holds: this shard gets a larger one
    reopened = EncodingStore(store.path)
    assert all(is_right(reopened, name) for name in keys([*range(100, 150), *range(200, 400)]))
    for path in shards(store):
        with safe_open(path, "pt") as file:
            assert all(file.get_tensor(name) is not None for name in file.keys())  # noqa: SIM118


def test_a_writer_without_puts_leaves_nothing(store):
    with store.writer() as writer:
        writer.put([], [], kind="text")
    assert shards(store) == [] and os.listdir(store.path / "shards") == []


def test_reading_into_memory_that_is_there(store):
    pictures = torch.randn(4, 32, 8, 8).bfloat16()
    with store.writer() as writer:
        writer.put(keys(range(4)), {"moments": pictures}, kind="picture")
    slot = torch.zeros(4, 32, 8, 8, dtype=torch.bfloat16)
    for number, row in enumerate(store.find(keys(range(4))).tolist()):
        store.read_into(row, "moments", slot[number])
        place = store.locate(row, "moments")
        raw = os.pread(place.file.fd, place.nbytes, place.offset)
        assert raw == bits(pictures[number]).numpy().tobytes() and place.field.shape == (32, 8, 8)
    assert torch.equal(slot, pictures)
    row = int(store.find([key(0)])[0])
    for wrong in (
        torch.empty(32, 8, 8),
        torch.empty(8, 32, 8).bfloat16(),
        torch.empty(8, 8, 32).bfloat16().permute(2, 0, 1),
    ):
        with pytest.raises(StoreError, match=r"moments: found a tensor of .* expected torch.bfloat16"):
            store.read_into(row, "moments", wrong)
    with pytest.raises(StoreError, match=r"latents: a record of kind 'picture' has no such tensor \(it has moments\)"):
        store.read_into(row, "latents", slot[0])
    with pytest.raises(IndexError):
        store.get(-1)


def test_threads_read_one_store_with_few_descriptors(store):
    names = keys(range(200))
    with store.writer(shard_bytes=10_000) as writer:
        for start in range(0, 200, 2):
            put(writer, names[start : start + 2])
    shared = EncodingStore(store.path)
    shared._files._most = 3
    assert len(shards(store)) > 20
    wrong = []

    def read(order):
        wrong.extend(name for name in order if not is_right(shared, name))

    rng = np.random.default_rng(0)
    threads = [threading.Thread(target=read, args=([names[i] for i in rng.permutation(200)],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(shared._files._files) <= 3


def test_refresh_learns_of_others_and_rows_keep_their_meaning(store):
    reader = EncodingStore(store.path)
    assert len(reader) == 0
    with store.writer() as writer:
        put(writer, keys(range(10)))
        assert reader.find(keys(range(10))).tolist() == [-1] * 10
        reader.refresh()
        rows = reader.find(keys(range(10))).tolist()
        put(writer, keys(range(10, 20)))
        reader.refresh()
        assert all(is_right(reader, name) for name in keys(range(20)))
    reader.refresh()
    assert reader.find(keys(range(10))).tolist() == rows and len(reader) == 20


def test_the_folder_moves_and_a_pickled_store_opens_where_it_arrives(store, tmp_path):
    with store.writer() as writer:
        put(writer, keys(range(10)))
    EncodingStore(store.path)
    moved = tmp_path / "elsewhere" / "store"
    shutil.copytree(store.path, moved)
    shutil.rmtree(store.path)
    reopened = pickle.loads(pickle.dumps(EncodingStore(moved, verify="always")))
    assert reopened.verify == "always" and all(is_right(reopened, name) for name in keys(range(10)))
    for path in moved.rglob("*"):
        assert path.is_dir() or str(store.path).encode() not in path.read_bytes()


def test_a_folder_that_cannot_be_written_can_be_read(store, tmp_path, monkeypatch):
    with store.writer() as writer:
        put(writer, keys(range(10)))
        left = tmp_path / "left"
        shutil.copytree(store.path, left)  # with an open shard, as a writer that died leaves it

    def refuse(*_, **__):
        raise PermissionError(30, "Read-only file system")

    for name in ("mkdir", "rename", "replace", "unlink"):
        monkeypatch.setattr(os, name, refuse)
    for folder in (store.path, left):
        reader = EncodingStore(folder)
        assert not (folder / "index.safetensors").exists()
        assert all(is_right(reader, name) for name in keys(range(10)))
        with pytest.raises(StoreError, match="can't be written: Read-only file system"):
            reader.drop([0])
    with pytest.raises(StoreError, match="can't be written"), EncodingStore(left).writer() as writer:
        put(writer, [key(50)])


def test_no_store_and_stores_of_the_future(tmp_path, store):
    with pytest.raises(StoreError, match="there is no store of encodings here"):
        EncodingStore(tmp_path / "nothing")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(StoreError, match=r"not a store and not empty \(it holds a.jpg\)"):
        EncodingStore(tmp_path / "photos", create=True)
    with pytest.raises(ConfigError, match="verify: found 'sometimes'"):
        EncodingStore(store.path, verify="sometimes")
    (store.path / "format.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(StoreError, match=r"this store has format 2, .* knows formats up to 1: update calotype"):
        EncodingStore(store.path, create=True)
    (store.path / "format.json").write_text("{")
    with pytest.raises(StoreError, match=r"format\.json: can't be read"):
        EncodingStore(store.path)


@pytest.mark.parametrize(
    ("names", "records", "message"),
    [
        (keys([0]), [], "0 records for 1 keys"),
        (keys([0]), {"x": torch.ones(2, 3)}, r"x: found shape \(2, 3\) for 1 keys"),
        ([b"short"], [{"x": torch.ones(1)}], "one of 5 bytes, expected 16"),
        (keys([0]), [{"keys": torch.ones(1)}], "name of a tensor: found 'keys'"),
        (keys([0]), [{"x": torch.ones(1, dtype=torch.complex64)}], "torch.complex64, which no shard can hold"),
        (keys([0]), [{}], "0 tensors; expected 1"),
    ],
)
def test_what_cannot_be_a_record_is_refused(store, names, records, message):
    with store.writer() as writer:
        with pytest.raises(StoreError, match=message):
            writer.put(names, records, kind="text")
        put(writer, [key(5)])
    assert len(EncodingStore(store.path)) == 1


def test_a_closed_writer_says_so(store):
    writer = store.writer()
    writer.close()
    with pytest.raises(StoreError, match="this writer is closed"):
        put(writer, [key(0)])


def many(store, *, shard_count=20, groups=25, records=100):
    """50,000 small records in many groups and shards; the keys in the order of writing."""
    rng = np.random.default_rng(0)
    names = rng.integers(0, 256, (shard_count, groups, records, 16), dtype=np.uint8)
    for shard in names:
        with store.writer() as writer:
            for group in shard:
                writer.put(group, {"n": torch.from_numpy(group[:, :4].copy())}, kind="text")
    return names.reshape(-1, 16)


def test_an_index_of_fifty_thousand_and_what_happens_when_it_is_wrong(store, tmp_path):
    names = many(store)
    index = store.path / "index.safetensors"
    index.unlink(missing_ok=True)

    def check(folder, expected=names):
        opened = EncodingStore(folder)
        rows = opened.find(expected)
        assert (rows >= 0).all() and (opened.keys(rows) == expected).all()
        for number in range(0, len(expected), 5001):
            assert (opened.get(int(rows[number]))["n"].numpy() == expected[number, :4]).all()
        return opened

    assert len(check(store.path)) == 50_000 and index.exists()
    whole = index.read_bytes()
    with safe_open(index, "pt") as file:
        assert file.get_tensor("keys").shape == (50_000, 16)
    check(store.path)
    assert index.read_bytes() == whole, "an index that holds is left alone"

    # Damaged, cut, foreign: not used, and made anew.
    foreign = EncodingStore(tmp_path / "foreign", create=True)
    with foreign.writer() as writer:
        put(writer, keys(range(5)))
    EncodingStore(foreign.path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for wrong in (bytes(flipped), whole[:-100], b"", b"rubbish", (foreign.path / "index.safetensors").read_bytes()):
        index.write_bytes(wrong)
        assert len(check(store.path)) == 50_000
        assert index.read_bytes() == whole

    # Stale: shards have come, shards have gone.
    with store.writer() as writer:
        put(writer, keys(range(5)))
    assert len(check(store.path)) == 50_005
    shards(store)[0].unlink()
    assert len(check(store.path, names[2500:])) == 47_505


def test_one_key_is_found_like_many(store):
    """Among sorted records and those that came later; dropped ones, doubled ones, keys that end in zeros."""
    ending = [number.to_bytes(2, "big") + bytes(14) for number in range(8)]
    with store.writer() as writer:
        put(writer, keys(range(40)))
        writer.put(ending, [{"x": torch.zeros(1)}] * 8, kind="picture")
    other = EncodingStore(store.path)
    with other.writer() as writer:
        put(writer, keys(range(30, 50)))
    other.drop(other.find(keys([3, 35, 45])))
    for asked in (store, other):
        wanted = [key(number) for number in range(60)] + ending
        one, many = [asked.find_one(name) for name in wanted], asked.find(wanted).tolist()
        assert [row < 0 for row in one] == [row < 0 for row in many]
        found = [(name, row) for name, row in zip(wanted, one, strict=True) if row >= 0]
        assert [asked.keys(np.array([row]))[0].tobytes() for _, row in found] == [name for name, _ in found]

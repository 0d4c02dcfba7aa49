"""Damage and how it is met; verify, drop, prune and export: as functions, and as `calotype cache` runs them."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from store_helpers import is_right, key, keys, put, record
from typer.testing import CliRunner

from calotype.cli import app
from calotype.encodings.store import EncodingStore
from calotype.encodings.store.export import export_store, unpack_store
from calotype.encodings.store.pruning import prune_store
from calotype.encodings.store.verification import verify_store
from calotype.errors import StoreError

COMMAND = Path(sys.executable).parent / "calotype"


def array(names):
    return np.frombuffer(b"".join(names), np.uint8).reshape(-1, 16)


def shards(folder):
    return sorted((folder / "shards").glob("*.safetensors"))


@pytest.fixture
def folder(tmp_path):
    """A store of three shards of ten records, with its index."""
    folder = tmp_path / "store"
    store = EncodingStore(folder, create=True)
    for start in (0, 10, 20):
        with store.writer() as writer:
            put(writer, keys(range(start, start + 10)))
    EncodingStore(folder)
    return folder


def flip(folder, name, field="prompt_embeds"):
    """Damages one bit of a record; returns its shard's file."""
    store = EncodingStore(folder)
    (row,) = store.find([name]).tolist()
    place = store.locate(row, field)
    path = folder / "shards" / f"{store.shard(row)}.safetensors"
    with path.open("r+b") as file:
        file.seek(place.offset + place.nbytes // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    return path


def encode_again(folder, names):
    """What the job does: find, and put what is missing."""
    store = EncodingStore(folder, create=True)
    missing = [name for name, row in zip(names, store.find(names).tolist(), strict=True) if row < 0]
    with store.writer() as writer:
        put(writer, missing)
    return missing


def test_a_flipped_bit_is_named_dropped_and_encoded_again(folder):
    path = flip(folder, key(13))
    store = EncodingStore(folder)
    (row,) = store.find([key(13)]).tolist()
    with pytest.raises(StoreError, match=f"{path.name}: record {key(13).hex()}: its prompt_embeds is not") as caught:
        store.get(row)
    assert caught.value.key == key(13) and f"{caught.value.shard}.safetensors" == path.name
    assert "'calotype cache verify --drop" in str(caught.value)
    assert all(is_right(store, key(n)) for n in range(30) if n != 13)
    other = EncodingStore(folder)
    store.drop([row])
    for reader in (store, EncodingStore(folder)):
        assert not reader.has(key(13)) and len(reader) == 29
    other.refresh()
    assert not other.has(key(13))
    assert encode_again(folder, keys(range(30))) == [key(13)]
    for reader in (EncodingStore(folder), other, store):
        reader.refresh()
        assert all(is_right(reader, name) for name in keys(range(30)))


def test_checksums_are_held_once_always_or_never(folder):
    counts = {}
    for verify in ("first", "always", "never"):
        store = EncodingStore(folder, verify=verify)
        row = int(store.find([key(4)])[0])
        store.get(row)
        flip(folder, key(4))
        counts[verify] = 0
        try:
            store.get(row)
        except StoreError:
            counts[verify] = 1
        flip(folder, key(4))
    assert counts == {"first": 0, "always": 1, "never": 0}
    flip(folder, key(4))
    EncodingStore(folder, verify="never").get(int(EncodingStore(folder).find([key(4)])[0]))
    with pytest.raises(StoreError, match="checksum differs"):
        EncodingStore(folder).get(int(EncodingStore(folder).find([key(4)])[0]))


@pytest.mark.parametrize("field", ["pooled_prompt_embeds", "prompt_attention_mask"])
def test_every_tensor_of_a_record_is_guarded(folder, field):
    flip(folder, key(4), field)
    with pytest.raises(StoreError, match=f"its {field} is not what was written"):
        is_right(EncodingStore(folder), key(4))


def test_a_flipped_name_or_shape_in_a_header_is_noticed(folder):
    """Whole JSON, whole data, wrong meaning: the checksum covers what the header says about a tensor."""
    (folder / "index.safetensors").unlink()
    path = shards(folder)[0]
    path.write_bytes(path.read_bytes().replace(b"pooled_prompt_embeds", b"fooled_prompt_embeds"))
    store = EncodingStore(folder)
    with pytest.raises(StoreError, match=f"{path.name}.*its fooled_prompt_embeds is not what was written"):
        store.get(int(store.find([key(0)])[0]))


def test_a_shard_truncated_under_a_reader(folder):
    store = EncodingStore(folder)
    rows = store.find(keys(range(30))).tolist()
    path = shards(folder)[1]
    os.truncate(path, path.stat().st_size // 2 + (100 << 10))
    errors = []
    for row in rows:
        try:
            store.get(row)
        except StoreError as error:
            errors.append(str(error))
    assert errors and all(path.name in error and "its shard is truncated" in error for error in errors)


def test_a_truncated_shard_keeps_what_is_whole(folder, caplog):
    path = shards(folder)[1]
    os.truncate(path, path.stat().st_size - 200)
    for _ in range(2):  # read from the shards, then from the index
        with caplog.at_level(logging.WARNING):
            store = EncodingStore(folder)
        assert list(store.damaged) == [path.stem] and "is truncated, 1 of its records are lost" in caplog.text
        assert len(store) == 29
        caplog.clear()
    assert len(encode_again(folder, keys(range(30)))) == 1
    found = verify_store(EncodingStore(folder))
    assert [damage.shard for damage in found.damage] == [path.stem] and found.damage[0].key is None
    prune_store(EncodingStore(folder), None)
    assert not verify_store(EncodingStore(folder)).damage and not EncodingStore(folder).damaged
    assert all(is_right(EncodingStore(folder), name) for name in keys(range(30)))


@pytest.mark.parametrize(
    "rubbish",
    [b"", b"\xff" * 5000, bytes(5000), (300).to_bytes(8, "little") + b"{}" * 150, b"\x40\0\0\0\0\0\0\0{", "text"],
    ids=["empty", "ones", "zeros", "braces", "short", "another"],
)
def test_a_shard_with_a_header_of_rubbish_takes_nothing_else_along(folder, rubbish, tmp_path):
    path = shards(folder)[1]
    if rubbish == "text":  # a whole safetensors file, but nobody's shard
        from safetensors.torch import save

        rubbish = save({"weight": torch.ones(3)})
    path.write_bytes(rubbish)
    (folder / "index.safetensors").unlink()
    store = EncodingStore(folder)
    assert f"{path}: the header of this shard is damaged" in store.damaged[path.stem]
    assert all(is_right(store, key(n)) for n in (*range(10), *range(20, 30)))
    assert encode_again(folder, keys(range(30))) == keys(range(10, 20))
    assert [damage.shard for damage in verify_store(EncodingStore(folder)).damage] == [path.stem]
    pruned = prune_store(EncodingStore(folder), None)
    assert pruned.set_aside == [f"{path.stem}.broken"] and pruned.records == 0
    assert not EncodingStore(folder).damaged and not verify_store(EncodingStore(folder)).damage


def test_a_shard_of_a_newer_format_says_so_and_is_left_alone(folder):
    path = shards(folder)[0]
    newer = path.read_bytes().replace(b'"calotype.encodings":"1"', b'"calotype.encodings":"2"')
    path.write_bytes(newer)
    (folder / "index.safetensors").unlink()
    store = EncodingStore(folder)
    assert "this shard has format 2, and this calotype knows formats up to 1" in store.damaged[path.stem]
    prune_store(store, array(keys(range(20, 30))))
    assert path.read_bytes() == newer and len(EncodingStore(folder)) == 10


def test_prune_keeps_what_is_asked_for_and_nothing_else(folder):
    before = shards(folder)
    store = EncodingStore(folder)
    kept = [*keys(range(10)), key(15), key(99)]
    dry = prune_store(store, array(kept), dry_run=True)
    assert (dry.records, dry.shards) == (19, 2) and shards(folder) == before and len(store) == 30
    done = prune_store(store, array(kept))
    assert (done.records, done.bytes, done.shards) == (19, dry.bytes, 2)
    assert before[0] in shards(folder), "a shard that loses nothing is left alone"
    assert len(shards(folder)) == 2
    for reader in (store, EncodingStore(folder)):
        assert len(reader) == 11 and all(is_right(reader, name) for name in kept[:-1])
    assert prune_store(store, array(kept)).shards == 0


def test_prune_takes_out_what_is_dropped_doubled_or_damaged(folder):
    with EncodingStore(folder).writer() as writer:
        put(writer, keys(range(5)))
    store = EncodingStore(folder)
    store.drop(store.find([key(22)]))
    flip(folder, key(21))  # in the shard that is written anew
    done = prune_store(EncodingStore(folder), None)
    assert done.records == 6 and len(done.damaged) == 1 and key(21).hex() in done.damaged[0]
    assert os.listdir(folder / "dropped") == []
    assert encode_again(folder, keys(range(30))) == keys([21, 22])
    assert not verify_store(EncodingStore(folder)).damage


def test_prune_leaves_open_shards_alone(folder):
    store = EncodingStore(folder)
    with store.writer() as writer:
        put(writer, keys(range(40, 45)))
        prune_store(EncodingStore(folder), array(keys([0])))
        put(writer, keys(range(45, 50)))
    store = EncodingStore(folder)
    assert len(store) == 11 and all(is_right(store, name) for name in keys([0, *range(40, 50)]))


def test_export_of_a_part_is_a_store_and_runs_again(folder, tmp_path):
    store = EncodingStore(folder)
    flip(folder, key(3))
    target = tmp_path / "part"
    copied = export_store(store, target, store.find(keys(range(8))))
    assert copied.records == 7 and len(copied.damaged) == 1 and key(3).hex() in copied.damaged[0]
    assert copied.bytes == sum(t.nbytes for n in range(8) if n != 3 for t in record(key(n)).values())
    assert export_store(store, target, store.find(keys(range(20)))).records == 12
    other = EncodingStore(target)
    assert len(other) == 19 and all(is_right(other, key(n)) for n in range(20) if n != 3)
    assert not verify_store(other).damage


def test_unpacked_records_are_plain_safetensors(folder, tmp_path):
    store = EncodingStore(folder)
    assert unpack_store(store, tmp_path / "files", store.rows("text")).records == 30
    assert unpack_store(store, tmp_path / "none", store.rows("picture")).records == 0
    assert len(list((tmp_path / "files").iterdir())) == 30
    with safe_open(tmp_path / "files" / f"{key(11).hex()}.safetensors", "pt") as file:
        assert file.metadata() == {"kind": "text", "key": key(11).hex()}
        expected = record(key(11))
        assert set(file.keys()) == expected.keys()
        assert all(torch.equal(file.get_tensor(name), expected[name]) for name in expected)


def command(*arguments, code=0):
    """The command in a process of its own, as people run it."""
    done = subprocess.run([COMMAND, "cache", *map(str, arguments)], capture_output=True, text=True, timeout=100)
    assert done.returncode == code, done.stderr + done.stdout
    return done


def answer(*arguments, code=0, run=command):
    return json.loads(run(*arguments, "--json", code=code).stdout.splitlines()[-1])


def quick(*arguments, code=0):
    """The same without a new process."""
    done = CliRunner().invoke(app, ["cache", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def test_the_command_ls(folder):
    with EncodingStore(folder).writer() as writer:
        writer.put([key(50)], [{"moments": torch.ones(8, 4, 4)}], kind="picture")
    found = answer("ls", folder)
    size = sum(tensor.nbytes for n in range(30) for tensor in record(key(n)).values())
    assert found["records"] == 31 and found["bytes"] == size + 512
    assert found["kinds"] == {"picture": {"records": 1, "bytes": 512}, "text": {"records": 30, "bytes": size}}
    assert found["shards"] == 4 and found["open_shards"] == found["dropped"] == 0 and found["damaged"] == {}
    assert found["disk_bytes"] == sum(path.stat().st_size for path in shards(folder))
    assert "31 records" in quick("ls", folder).stdout
    done = command("ls", folder / "nothing", code=2)
    assert "there is no store of encodings here" in done.stderr and "Traceback" not in done.stderr


def test_the_command_verify(folder):
    size = sum(path.stat().st_size for path in shards(folder))
    assert answer("verify", folder, run=quick) == {"records": 30, "bytes": size, "damaged": [], "dropped": 0}
    path = flip(folder, key(13))
    done = quick("verify", folder, code=1)
    assert path.name in done.stdout and key(13).hex() in done.stdout and "--drop marks" in done.stdout
    found = answer("verify", folder, "--drop", code=1)
    assert [(one["shard"], one["key"]) for one in found["damaged"]] == [(path.stem, key(13).hex())]
    assert found["dropped"] == 1 and answer("verify", folder, run=quick)["damaged"] == []
    assert "1 records dropped" in quick("ls", folder).stdout


def test_the_commands_prune_and_export(folder, tmp_path):
    listed = tmp_path / "keys.txt"
    listed.write_text("\n".join(name.hex() for name in keys([*range(10), 99])) + "\n")
    copied = answer("export", folder, tmp_path / "part", "--keys", listed, code=1)
    assert copied["records"] == 10 and copied["missing"] == 1 and len(EncodingStore(tmp_path / "part")) == 10
    assert answer("export", folder, tmp_path / "files", "--unpacked", "--kind", "text", run=quick)["records"] == 30
    assert answer("prune", folder, "--keep", listed, "--dry-run", run=quick)["records"] == 20
    assert answer("prune", folder, "--keep", listed)["records"] == 20
    assert len(EncodingStore(folder)) == 10
    listed.write_text("not hex\n")
    assert "32 hex digits a line" in command("prune", folder, "--keep", listed, code=2).stderr

"""The tokenizers give the ids that diffusers' pipelines would, from every form their files come in."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import pytest

from calotype.errors import ConfigError, MissingTokenizerError
from calotype.models import load_tokenizer
from calotype.models.spiece import read_spiece

sys.path.insert(0, str(Path(__file__).parent))

from make_golden import CAPTIONS, GOLDEN, TOKENIZERS, shortened

FORMS = [
    ("clip_l", ""),
    ("clip_l", "merges.txt"),
    ("sdxl_clip_g", ""),
    ("sdxl_clip_g", "merges.txt"),
    ("sd3_clip_g", ""),
    ("t5", ""),
    ("t5", "tokenizer.json"),
    ("t5", "spiece.model"),
]
TABLE = json.loads(GOLDEN.read_text(encoding="utf-8"))


def unpadded(ids, tokenizer):
    """The ids without what padding adds at the end (CLIP-L pads with its end token, so that stays once)."""
    end = len(ids) - 1 - ids[::-1].index(tokenizer.eos_id)
    while tokenizer.pad_id == tokenizer.eos_id and end > 1 and ids[end - 1] == tokenizer.eos_id:
        end -= 1
    assert all(id == tokenizer.pad_id for id in ids[end + 1 :])
    return ids[: end + 1]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_golden_ids(folder, name, form):
    kind, length = TOKENIZERS[name]
    tokenizer = load_tokenizer(folder(name) / form, kind=kind)
    for title, text in CAPTIONS.items():
        ids = tokenizer(text, length)
        assert len(ids) == length
        assert shortened(unpadded(ids, tokenizer)) == TABLE[title][name], title


def test_the_table_covers_every_caption():
    assert set(TABLE) == {*CAPTIONS, "made with"}


@pytest.fixture(scope="module")
def transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers", exc_type=ImportError)


@pytest.mark.parametrize("name", ["clip_l", "sdxl_clip_l", "sd15_clip_l", "sd3_clip_l", "sdxl_clip_g", "sd3_clip_g"])
def test_clip_is_transformers_clip(folder, transformers, name, tmp_path):
    theirs = transformers.CLIPTokenizer.from_pretrained(str(folder(name)))
    theirs.save_pretrained(tmp_path / "saved")
    assert sorted(os.listdir(tmp_path / "saved")) == ["tokenizer.json", "tokenizer_config.json"]
    for path in (folder(name), folder(name) / "merges.txt", tmp_path / "saved", tmp_path / "saved" / "tokenizer.json"):
        ours = load_tokenizer(path, kind="clip")
        assert (ours.pad_id, ours.eos_id) == (theirs.pad_token_id, theirs.eos_token_id)
        for text in [*CAPTIONS.values(), *pieces()]:
            expected = theirs(text, padding="max_length", max_length=77, truncation=True).input_ids
            assert ours(text, 77) == expected, (path, text)


@pytest.mark.parametrize("name", ["t5", "sd3_t5"])
def test_t5_is_transformers_t5(folder, transformers, name):
    theirs = transformers.T5TokenizerFast.from_pretrained(str(folder(name)))
    for form in ("", "tokenizer.json", "spiece.model"):
        ours = load_tokenizer(folder(name) / form, kind="t5")
        assert (ours.pad_id, ours.eos_id, ours.vocab_size) == (0, 1, len(theirs))
        for text in [*CAPTIONS.values(), *pieces()]:
            expected = theirs(text, padding="max_length", max_length=256, truncation=True).input_ids
            assert ours(text, 256) == expected, (form, text)


def pieces():
    """Characters that normalisers treat in their own way, alone, inside a word and between words."""
    characters = [chr(code) for code in [*range(0x100), *range(0x300, 0x330), *range(0x2000, 0x2070), 0xFEFF, 0x1F3FD]]
    for character in characters:
        yield from (character, f"a{character}b", f"a {character} b")


def test_files_alone_need_no_neighbours(folder, tmp_path):
    """A file copied away from its folder still gives the same ids; only then who pads must be said."""
    shutil.copy(folder("clip_l") / "merges.txt", tmp_path / "bpe.txt")
    shutil.copy(folder("t5") / "spiece.model", tmp_path / "t5.model")
    clip, clip_g = (load_tokenizer(tmp_path / "bpe.txt", kind="clip", pad_token=pad) for pad in (None, "!"))
    t5 = load_tokenizer(tmp_path / "t5.model", kind="t5")
    for ours, name, length in ((clip, "clip_l", 77), (clip_g, "sd3_clip_g", 77), (t5, "t5", 256)):
        real = load_tokenizer(folder(name), kind=TOKENIZERS[name][0])
        for title, text in CAPTIONS.items():
            assert ours(text, length) == real(text, length), (name, title)


def test_what_the_files_say_of_padding_wins_over_the_default(folder):
    assert load_tokenizer(folder("sd3_clip_g"), kind="clip").pad_id == 0
    assert load_tokenizer(folder("sd3_clip_g") / "merges.txt", kind="clip").pad_id == 0
    assert load_tokenizer(folder("clip_l"), kind="clip", pad_token="!").pad_id == 49407


def test_a_cut_keeps_the_end_token_and_a_short_text_is_padded(folder):
    clip, t5 = load_tokenizer(folder("clip_l"), kind="clip"), load_tokenizer(folder("t5"), kind="t5")
    cats = clip("cat " * 100, 77)
    assert cats == [49406, *[2368] * 75, 49407]
    assert clip("cat", 5) == [49406, 2368, 49407, 49407, 49407]
    assert t5("cat", 5) == [1712, 1, 0, 0, 0]
    assert t5("cat " * 9, 3) == [1712, 1712, 1]
    assert clip("cat", 2) == [49406, 49407]
    with pytest.raises(ConfigError, match="max_length 1 is too short: 2 tokens frame every text"):
        clip("cat", 1)


def test_count_is_the_whole_text(folder):
    clip, t5 = load_tokenizer(folder("clip_l"), kind="clip"), load_tokenizer(folder("t5"), kind="t5")
    assert (clip.count(""), t5.count("")) == (2, 1)
    assert (clip.count("cat " * 100), t5.count("cat " * 600)) == (102, 601)
    assert clip.encode("cat") == [49406, 2368, 49407]


@pytest.mark.parametrize(("name", "kind"), [("clip_l", "clip"), ("t5", "t5")])
def test_cut_is_where_the_model_stops_seeing(folder, name, kind):
    tokenizer = load_tokenizer(folder(name), kind=kind)
    frame = tokenizer.count("")
    assert tokenizer.cut("one two three", 3 + frame) is None
    cut = tokenizer.cut("one two three", 2 + frame)
    assert "one two three"[cut:].strip() == "three"
    for title, text in CAPTIONS.items():
        fits = tokenizer.count(text)
        assert tokenizer.cut(text, fits) is None, title
        for length in {frame, frame + 1, min(fits - 1, 20), fits - 1}:
            if not frame <= length < fits:
                continue
            cut = tokenizer.cut(text, length)
            assert cut is not None and text[cut:].strip(), (title, length)
            # What is kept is what the ids say, up to a character or word that the cut goes through.
            kept = tokenizer.encode(text[:cut])[: -1 or None]
            assert len(kept) <= length, (title, length)


def test_pickles_with_its_vocabulary_under_spawn_and_cloudpickle(folder, tmp_path):
    copy = tmp_path / "t5"
    shutil.copytree(folder("t5"), copy)
    for tokenizer in (load_tokenizer(copy, kind="t5"), load_tokenizer(folder("sd3_clip_g"), kind="clip")):
        expected = tokenizer(CAPTIONS["emoji"], 77)
        shutil.rmtree(copy, ignore_errors=True)
        for dumps in (pickle.dumps, cloudpickle.dumps):
            assert pickle.loads(dumps(tokenizer))(CAPTIONS["emoji"], 77) == expected
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(tokenizer, (CAPTIONS["emoji"], 77)) == expected


def test_threads_share_one(folder):
    tokenizer = load_tokenizer(folder("t5"), kind="t5")
    texts = [f"{text} {i}" for text in CAPTIONS.values() for i in range(10)]
    expected = [tokenizer(text, 128) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda text: tokenizer(text, 128), texts * 3)) == expected * 3


def test_a_fork_after_use_says_nothing(folder):
    """The Rust library warns on forks after it has used its own threads; encoding one text at a time never does."""
    program = (
        "import os, sys\n"
        "from calotype.models import load_tokenizer\n"
        "tokenizer = load_tokenizer(sys.argv[1], kind='clip')\n"
        "here = tokenizer('a cat', 77)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if tokenizer('a cat', 77) == here else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder("clip_l"))], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_loads_without_transformers_or_torch(folder):
    program = (
        "import sys\n"
        "from calotype.models import get_spec, load_tokenizer\n"
        "load_tokenizer(sys.argv[1], kind='t5')('a cat', 77)\n"
        "print([name for name in ('transformers', 'torch', 'sentencepiece', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder("t5"))], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


class TestAddedTokens:
    """Tokens that a person added (textual inversion) have ids after the vocabulary's."""

    def test_saved_by_transformers(self, folder, transformers, tmp_path):
        theirs = transformers.CLIPTokenizer.from_pretrained(str(folder("clip_l")))
        theirs.add_tokens(["<my-cat>", "sks"])
        theirs.save_pretrained(tmp_path)
        ours = load_tokenizer(tmp_path, kind="clip")
        for text in ("a photo of <my-cat> and sks", "SKS <MY-CAT>", "tasks"):
            assert ours(text, 77) == theirs(text, padding="max_length", max_length=77).input_ids, text
        assert ours("<my-cat>", 4)[1] == 49408

    def test_in_the_oldest_form(self, folder, transformers, tmp_path):
        for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
            shutil.copy(folder("clip_l") / name, tmp_path)
        (tmp_path / "added_tokens.json").write_text('{"<my-cat>": 49408}')
        theirs = transformers.CLIPTokenizer.from_pretrained(str(tmp_path))
        ours = load_tokenizer(tmp_path, kind="clip")
        for text in ("a photo of <my-cat>", "<MY-CAT>"):
            assert ours(text, 77) == theirs(text, padding="max_length", max_length=77).input_ids, text
        assert ours("<my-cat>", 4)[1] == 49408

    def test_an_id_that_can_not_be_is_refused(self, folder, tmp_path):
        shutil.copy(folder("clip_l") / "merges.txt", tmp_path)
        (tmp_path / "added_tokens.json").write_text('{"<my-cat>": 50000}')
        with pytest.raises(ConfigError, match=r"'<my-cat>' the id 50000, and its place .* is 49408"):
            load_tokenizer(tmp_path, kind="clip")


class TestWhatIsNotATokenizer:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(
            MissingTokenizerError, match=r"nowhere/tok: no such file or folder; expected .*spiece\.model"
        ):
            load_tokenizer(tmp_path / "nowhere/tok", kind="t5")
        with pytest.raises(MissingTokenizerError, match=r"no tokenizer there \(it is empty\)"):
            load_tokenizer(tmp_path, kind="t5")
        (tmp_path / "model.safetensors").touch()
        with pytest.raises(MissingTokenizerError, match=r"it holds model\.safetensors"):
            load_tokenizer(tmp_path, kind="t5")
        with pytest.raises(
            MissingTokenizerError, match=r"tokenizer_2: no tokenizer there \(the folder does not exist\)"
        ):
            load_tokenizer(tmp_path, kind="t5", subfolder="tokenizer_2")

    def test_subfolder_of_a_local_folder(self, folder):
        parent = folder("clip_l").parent
        assert load_tokenizer(parent, kind="clip", subfolder="clip_l")("cat", 4) == [49406, 2368, 49407, 49407]

    def test_unknown_kind(self, folder):
        with pytest.raises(ConfigError, match="kind of tokenizer: unknown option 'clipp'; did you mean 'clip'"):
            load_tokenizer(folder("clip_l"), kind="clipp")

    def test_the_other_model_s(self, folder):
        with pytest.raises(ConfigError, match="whose model is BPE was expected, found 'Unigram'"):
            load_tokenizer(folder("t5"), kind="clip")
        with pytest.raises(
            ConfigError, match=r"T5 tokenizer needs tokenizer\.json or spiece\.model; found vocab\.json"
        ):
            load_tokenizer(folder("clip_l"), kind="t5")

    def test_the_truncated_one_that_a_wheel_carries(self, folder):
        """Its merges end in the middle of a line (transformers 4 loads it all the same)."""
        with pytest.raises(ConfigError, match="not a list of merges"):
            load_tokenizer(folder("sdxl_clip_g_broken"), kind="clip")

    def test_merges_that_end_at_a_line(self, folder, tmp_path):
        """transformers loads these, and gives other ids for the rarer words."""
        lines = (folder("clip_l") / "merges.txt").read_text("utf-8").splitlines(keepends=True)
        (tmp_path / "merges.txt").write_text("".join(lines[:40000]), "utf-8")
        shutil.copy(folder("clip_l") / "vocab.json", tmp_path)
        with pytest.raises(ConfigError, match=r"8895 of the vocabulary's 49408 tokens .* the merges are cut short"):
            load_tokenizer(tmp_path, kind="clip")

    @pytest.mark.parametrize("length", [0, 1, 1000, 500_000, 791_000])
    def test_a_sentencepiece_model_cut_short(self, folder, tmp_path, length):
        data = (folder("t5") / "spiece.model").read_bytes()
        (tmp_path / "spiece.model").write_bytes(data[:length])
        with pytest.raises(ConfigError, match=r"spiece\.model: .*copy or download it again"):
            load_tokenizer(tmp_path / "spiece.model", kind="t5")

    def test_json_cut_short(self, folder, tmp_path):
        data = (folder("t5") / "tokenizer.json").read_bytes()
        (tmp_path / "tokenizer.json").write_bytes(data[: len(data) // 2])
        with pytest.raises(ConfigError, match=r"tokenizer\.json: not JSON"):
            load_tokenizer(tmp_path, kind="t5")


def test_read_spiece_is_what_sentencepiece_reads(folder):
    sentencepiece = pytest.importorskip("sentencepiece")
    path = folder("t5") / "spiece.model"
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces, charsmap = read_spiece(path.read_bytes(), name="t5")
    assert pieces == [(theirs.id_to_piece(id), theirs.get_score(id)) for id in range(theirs.get_piece_size())]
    assert len(charsmap) > 100_000

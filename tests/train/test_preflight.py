"""What can be known of a run is checked before any weight is read and before anything is written."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from tiny_pipelines import tiny_pipeline
from train_helpers import config, make_folder

from calotype import encodings, train
from calotype.bench.run import bench_config
from calotype.encodings import dataset as encoded_dataset
from calotype.encodings import fingerprint
from calotype.encodings.frozen import FrozenModels
from calotype.errors import CalotypeError, ConfigError, MissingDependencyError, StoreError
from calotype.train import loop as recipe
from calotype.train import networks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(autouse=True)
def nothing_heavy(monkeypatch):
    """Fails where weights are read, hashed or loaded."""

    def fail(*args, **options):
        raise AssertionError("weights were read")

    monkeypatch.setattr(FrozenModels, "_load", fail)
    monkeypatch.setattr(recipe, "load_network", fail)
    monkeypatch.setattr(networks, "load_network", fail)
    monkeypatch.setattr(fingerprint, "_digest", fail)
    monkeypatch.setattr(encoded_dataset, "Fingerprints", fail)


def refused(made, tmp_path, message, kind=ConfigError):
    with pytest.raises(kind, match=message):
        train.run(made)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_prompts": ["a"], "sample_size": [64, 100]}, r"train.sample_size: 64x100 .*multiples of 16"),
        ({"lora_targets": ["to_quarry"]}, r"train.lora_targets: no layer's name ends in one of \['to_quarry'\]; the"),
        ({"lr_scheduler": "cosin"}, r"train.lr_scheduler: found 'cosin', expected one of"),
        ({"lr_scheduler": "piecewise_constant"}, r"piecewise_constant needs arguments that are no options here"),
        ({"trackers": ["tensorbored"]}, r"train.trackers: found 'tensorbored'"),
        ({"sample_prompts": ["a {trigger}"]}, r"train.sample_prompts: found 'a {trigger}'"),
        ({"dataset": {"resolution": 100}}, r"100x100 .*multiples of 16"),
        ({"dataset": {"validation": 1e-9}}, r"validation=1e-09 of 4 images leaves none for split='validation'"),
        ({"dataset": {"path": "./nowhere"}}, r"/nowhere: there is no such"),
        ({"encodings": {"dtype": "float8"}}, r"encodings.dtype: found 'float8'"),
        ({"encodings": {"max_sequence_length": 4096}}, r"max_sequence_length: 4096 does not fit"),
        ({"loader": {"batchsize": 2}}, r"loader \(calotype.Loader\): .*batchsize"),
        ({"mixed_precision": "fp16"}, r"train.mixed_precision: found 'fp16'"),
        ({"model": "z-image"}, r"it trains the families flux\.1"),
        ({"model": "sd-1.5", "guidance": 2.0, "encodings": {"max_sequence_length": None}}, r"train.guidance: has no"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_do_not_fit(folder, tmp_path, options, message):
    refused(config(folder, output_dir=str(tmp_path / "out"), **options), tmp_path, message, CalotypeError)


@pytest.mark.parametrize("where", ["train.sample_size", "dataset.resolution: the bucket"])
def test_sd3_has_so_many_positions(folder, tmp_path, where):
    large = {"sample_prompts": ["a"], "sample_size": [64, 8192]} if "train" in where else {}
    made = config(
        folder,
        model="sd3-medium",
        output_dir=str(tmp_path / "out"),
        dataset={"resolution": 64 if large else 8192},
        **large,
    )
    refused(made, tmp_path, f"{where}.* is too large for sd3-medium, whose transformer has positions for")


@pytest.mark.parametrize("package", ["peft", "diffusers"])
def test_packages(folder, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    refused(config(folder, output_dir=str(tmp_path / "out")), tmp_path, package, MissingDependencyError)


@pytest.fixture
def model(tmp_path):
    return Path(shutil.copytree(tiny_pipeline("flux.1-dev"), tmp_path / "model"))


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def index(folder, **changes):
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"

DAMAGE = {
    "transformer": (lambda m: shutil.rmtree(m / "transformer"), "has no transformer"),
    "null": (lambda m: index(m, transformer=[None, None]), "has no transformer"),
    "scheduler": (lambda m: shutil.rmtree(m / "scheduler"), "has no scheduler"),
    "vae": (lambda m: shutil.rmtree(m / "vae"), "no folder vae"),
    "tokenizer": (lambda m: shutil.rmtree(m / "tokenizer_2"), "no folder tokenizer_2"),
    "no weights": (lambda m: (m / WEIGHTS).unlink(), "transformer: has no weights that diffusers loads"),
    "cut short": (lambda m: cut(m / WEIGHTS), r"safetensors: has [\d,]+ bytes and should have"),
    "text encoder": (lambda m: cut(m / "text_encoder_2" / "model.safetensors"), r"text_encoder_2.* and should have"),
    "no header": (lambda m: (m / WEIGHTS).write_bytes(b"\xff" * 99), "is not a whole safetensors file"),
    "pointer": (lambda m: (m / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "config": (lambda m: (m / "transformer" / "config.json").unlink(), "could not load its transformer"),
    "damaged": (lambda m: (m / "transformer" / "config.json").write_text("{"), r"config.json: not JSON .*again"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_the_pipeline_s_folder(folder, tmp_path, model, what):
    damage, message = DAMAGE[what]
    damage(model)
    made = config(folder, output_dir=str(tmp_path / "out"), encodings={"store": str(tmp_path / "store")})
    made["model"] = str(model)
    refused(made, tmp_path, message)
    assert not (tmp_path / "store").exists()
    if what in ("vae", "tokenizer", "text encoder"):
        with pytest.raises(ConfigError, match=message):
            encodings.run({key: made[key] for key in ("model", "dataset", "encodings")}, device="cpu")
    with pytest.raises(ConfigError, match=message):
        bench_config(made, strategies=["none"])


def test_a_shard_that_is_missing(folder, tmp_path, model):
    part = model / "transformer"
    weights = part / "diffusion_pytorch_model.safetensors"
    names = [f"diffusion_pytorch_model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for name in names[:2]:
        shutil.copy(weights, part / name)
    weights.unlink()
    table = {f"layer{i}": name for i, name in enumerate(names)}
    (part / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    made = config(folder, output_dir=str(tmp_path / "out"))
    refused(made | {"model": str(model)}, tmp_path, f"{names[2]} of diffusion_pytorch_model.safetensors.index.json is")


def test_nothing_encoded_and_nothing_to_encode_on_the_fly(folder, tmp_path):
    made = config(
        folder, output_dir=str(tmp_path / "out"), encodings={"on_the_fly": False, "store": str(tmp_path / "s")}
    )
    refused(made, tmp_path, r"there is no store|no store|calotype encode", StoreError)

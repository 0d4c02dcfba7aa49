"""Families of other packages: the one of docs/families.md is installed, tokenised, encoded and trained."""

from __future__ import annotations

import ast
import json
import pickle
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("diffusers", exc_type=ImportError)

from tiny_pipelines import copy_of
from train_helpers import config, make_folder

from calotype import check, train
from calotype.encodings.frozen import FrozenModels
from calotype.errors import ConfigError
from calotype.models import (
    SD3Transform,
    SD15Transform,
    SDXLTransform,
    TokenTransform,
    Truncation,
    build_model_transform,
    check_model_transform,
    get_family,
    get_spec,
    list_families,
    list_specs,
    register,
    registry,
)
from calotype.models.pipeline_folder import which_model

DOCS = Path(__file__).parents[2] / "docs" / "families.md"


def code_of_the_docs() -> str:
    """The whole file of a family that docs/families.md shows."""
    (code,) = re.findall(r'```python\n("""Stable Diffusion 2\.1.*?)```', DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return code


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Installs packages into a folder on `sys.path`: a module, and the entry point that names what is in it."""
    site = tmp_path / "site-packages"

    def install(module: str, code: str, *, name: str = "FAMILY") -> None:
        about = site / f"{module.replace('_', '-')}-1.0.dist-info"
        about.mkdir(parents=True)
        (site / f"{module}.py").write_text(code, encoding="utf-8")
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\n{module} = {module}:{name}\n")
        monkeypatch.syspath_prepend(site)

    yield from clean(monkeypatch, install)


@pytest.fixture
def no_others(monkeypatch):
    yield from clean(monkeypatch, None)


def clean(monkeypatch, value):
    """A registry as a new process has it."""
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_not_loaded", [])
    registry._load_packages.cache_clear()
    yield value
    registry._load_packages.cache_clear()


@pytest.fixture
def pipeline(tmp_path):
    """A pipeline's folder of the model that the docs add."""
    folder = copy_of("sd-1.5", tmp_path / "pipeline")
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_name_or_path": "stabilityai/stable-diffusion-2-1"}))
    return folder


def test_nothing_else_knows_a_family_by_name():
    """Outside of `models/` no string is the name of a model, a family or a pipeline's class: none needs an edit."""
    names = {name for family in list_families() for name in (family.name, *family.pipelines)}
    names |= {name for spec in list_specs() for name in (spec.name, *spec.hub)}
    package = Path(registry.__file__).parents[1]
    found = {
        f"{file.relative_to(package)}:{node.lineno}: {node.value}"
        for file in package.rglob("*.py")
        if not file.is_relative_to(package / "models")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert found == set()


class TestAFamilyOfAnotherPackage:
    """All of it is the one file that the docs show."""

    @pytest.fixture(autouse=True)
    def _installed(self, packages):
        packages("other_models_sd2", code_of_the_docs())

    def test_its_model_is_one_of_the_models(self):
        spec = get_spec("stabilityai/Stable-Diffusion-2-1")
        assert spec in list_specs() and spec in get_family("sd-2").models
        assert (spec.name, spec.resolution, spec.tokenizers[0].option) == ("sd-2.1", 768, "clip_tokenizer_path")
        assert list_families()[-1].identity == "other_models_sd2.SD2"

    def test_it_tokenises(self, folder):
        transform = build_model_transform("sd-2.1", tokenizers={"clip_tokenizer_path": folder("sdxl_clip_g")})
        assert type(transform) is TokenTransform
        found = transform.prepare({"image": torch.zeros((3, 8, 8), dtype=torch.uint8), "text": "cat"})
        assert found["clip_text_tokens"].tolist() == [49406, 2368, 49407, *[0] * 74]
        (cut,) = transform.truncated("cat " * 80).values()
        assert (cut.tokenizer, cut.tokens, cut.limit) == ("clip_tokenizer_path", 82, 77)
        check_model_transform("sd-2.1", transform)
        with pytest.raises(ConfigError, match=r"model_transform: sd-1\.5 takes SD15Transform, found TokenTransform"):
            check_model_transform("sd-1.5", transform)

    def test_it_encodes_and_trains_a_step(self, pipeline, tmp_path):
        models = FrozenModels(pipeline, dtype=torch.float32)
        assert models.spec.name == "sd-2.1"
        (record,) = pickle.loads(pickle.dumps(models)).encode_texts(["a cat"])
        assert record["prompt_embeds"].shape[0] == 77
        made = config(
            make_folder(tmp_path / "photos"),
            model="sd-1.5",
            encodings={"max_sequence_length": None},
            output_dir=str(tmp_path / "output"),
            max_steps=1,
        )
        report = train.run({**made, "model": str(pipeline)})
        assert report.steps == 1
        assert (tmp_path / "output" / "pytorch_lora_weights.safetensors").is_file()

    def test_a_pipeline_that_does_not_say_stays_what_it_was(self, pipeline):
        """`StableDiffusionPipeline` is SD 1.5's too, and calotype's own families come first."""
        index = json.loads((pipeline / "model_index.json").read_text())
        (pipeline / "model_index.json").write_text(json.dumps({**index, "_name_or_path": None}))
        assert FrozenModels(pipeline).spec.name == "sd-1.5"
        assert FrozenModels(pipeline, spec="sd-2.1").spec.name == "sd-2.1"

    def test_its_keys_are_not_those_of_calotype_s_own_class_of_that_name(self, pipeline):
        assert FrozenModels(pipeline).text_fingerprint != FrozenModels(pipeline, spec="sd-1.5").text_fingerprint


class TestPackagesThatDoNotFit:
    def test_a_broken_one_is_named_and_harms_no_other(self, packages, caplog, tmp_path):
        packages("other_models_broken", "raise RuntimeError('no such device')\n")
        assert get_spec("sdxl").name == "sdxl" and len(list_families()) == 10
        reason = "other-models-broken announces the model family other_models_broken:FAMILY, which can't be loaded"
        assert reason in caplog.text and "no such device" in caplog.text
        with pytest.raises(ConfigError, match=f"no model 'mine'.*; {reason}"):
            get_spec("mine")
        with pytest.raises(ConfigError, match=f"no family 'mine'.*; {reason}"):
            get_family("mine")
        with pytest.raises(ConfigError, match=f"MinePipeline, a pipeline without a model family.*; {reason}"):
            which_model({"_class_name": "MinePipeline"}, tmp_path, asked_for=tmp_path, spec=None)

    def test_check_reports_it(self, packages, tmp_path):
        Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
        (tmp_path / "a.txt").write_text("a square")
        config = {"dataset": {"path": str(tmp_path), "resolution": 64}}
        packages("other_models_broken", "raise RuntimeError('no such device')\n")
        for _ in range(2):  # such a report is not cached: nothing would show that the package was fixed
            found = [one for one in check.run(config).findings if one.kind == "broken_package"]
            assert [one.level for one in found] == ["warning"] and "no such device" in found[0].detail

    def test_something_else_than_a_family(self, packages, caplog):
        packages("other_models_class", code_of_the_docs(), name="SD2")
        assert len(list_families()) == 10
        assert "a ModelFamily was expected, found ABCMeta" in caplog.text

    def test_a_name_that_is_taken(self, packages, caplog):
        packages("other_models_taken", code_of_the_docs().replace('"sd-2.1"', '"SDXL"'))
        assert [type(family).__module__ for family in list_families()][-1].startswith("calotype.")
        assert "sdxl is taken by the family 'sdxl' of calotype.models.sdxl" in caplog.text


class TestRegister:
    @pytest.fixture
    def family(self, no_others):
        space = {"__name__": "a_notebook"}
        exec(code_of_the_docs(), space)
        return space["FAMILY"]

    def test_a_cell_that_runs_twice(self, family):
        register(family)
        other = type(family)(name="sd-2", models=family.models, pipelines=family.pipelines, version=2)
        register(other)
        assert [one for one in list_families() if one.name == "sd-2"] == [other]

    @pytest.mark.parametrize("taken", [{"name": "sdxl"}, {"hub": ("StabilityAI/stable-diffusion-xl-base-1.0",)}])
    def test_a_name_of_another_family(self, family, taken):
        spec = replace(family.models[0], **taken)
        with pytest.raises(ConfigError, match=r"model family 'sd-2': \S+ is taken by the family 'sdxl'"):
            register(replace(family, models=(spec,)))
        assert len(list_families()) == 10

    def test_a_record_that_is_not_whole(self, family):
        kind, spec = type(family), family.models[0]
        with pytest.raises(ConfigError, match=r"'sd-3': its model 'sd-2\.1' names the family 'sd-2'"):
            kind(name="sd-3", models=(spec,), pipelines=("P",))
        with pytest.raises(ConfigError, match="at least one model and one pipeline were expected"):
            kind(name="sd-2", models=(spec,), pipelines=())
        with pytest.raises(ConfigError, match="without tokenizers in its specs, it needs token_counts"):
            kind(name="sd-2", models=(replace(spec, tokenizers=()),), pipelines=("P",))
        with pytest.raises(TypeError, match=r"abstract method '?encode_prompt"):
            type("Misspelt", (kind.__base__,), {"encode_prompts": kind.encode_prompt})(
                name="sd-2", models=(spec,), pipelines=("P",)
            )


class TestFormerNames:
    """Options that were renamed work for one version, with a warning; whatever was given by place works as before."""

    def test_constructors(self, folder):
        with pytest.warns(DeprecationWarning, match="tokenizer_path of sd-1.5 is called clip_tokenizer_path"):
            old = SD15Transform(tokenizer_path=folder("sd15_clip_l"))
        new = SD15Transform(clip_tokenizer_path=folder("sd15_clip_l"))
        assert old.fields[0].tokenizer("a cat", 77) == new.fields[0].tokenizer("a cat", 77)
        with pytest.warns(DeprecationWarning, match="tokenizer_2_path of sdxl is called clip_g_tokenizer_path"):
            SDXLTransform(folder("sdxl_clip_l"), tokenizer_2_path=folder("sdxl_clip_g"))
        with pytest.warns(DeprecationWarning, match="tokenizer_3_path of sd3.5-large is called t5_tokenizer_path"):
            SD3Transform(folder("sd3_clip_l"), folder("sd3_clip_g"), tokenizer_3_path=folder("sd3_t5"))

    def test_a_mapping_of_tokenizers(self, folder):
        with pytest.warns(DeprecationWarning, match="is called clip_tokenizer_path"):
            found = build_model_transform("sd-1.5", tokenizers={"tokenizer_path": folder("sd15_clip_l")})
        assert isinstance(found, SD15Transform)

    def test_none_is_given(self, folder):
        with pytest.raises(ConfigError, match="SDXLTransform: clip_g_tokenizer_path not given"):
            SDXLTransform(folder("sdxl_clip_l"))

    def test_both_names(self, folder):
        with pytest.raises(ConfigError, match="clip_tokenizer_path and tokenizer_path are both given"):
            SD15Transform(folder("sd15_clip_l"), tokenizer_path=folder("sd15_clip_l"))

    def test_the_class_of_cut_texts(self):
        with pytest.warns(DeprecationWarning, match="TextCut is called"):
            from calotype.encodings.frozen import TextCut
        assert TextCut is Truncation

    def test_a_truncation_s_option(self, folder):
        (cut,) = SD15Transform(folder("sd15_clip_l")).truncated("cat " * 80).values()
        with pytest.warns(DeprecationWarning, match="Truncation.option is called `tokenizer`"):
            assert cut.option == cut.tokenizer == "clip_tokenizer_path"

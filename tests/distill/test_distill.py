"""A tiny captioner really learns from its teacher: held-out scores, the folder that comes out, resumes, refusals."""

import json
import os
import shutil
import signal

import pytest
import tiny_captioners
import torch
from accelerate.state import AcceleratorState
from distill_helpers import TEACHER, config, make_crops, run
from safetensors.torch import load_file, save_file

from calotype import captioning, distill
from calotype.captioning.backend import CaptionRequest, open_backend
from calotype.captioning.prepare_image import prepare_image
from calotype.captioning.transformers_backend import TransformersBackend
from calotype.config.distill import DistillConfig
from calotype.errors import CalotypeError, ConfigError, NotFiniteError
from calotype.manifest import load_manifest
from calotype.train.interrupt import Interrupted, exit_status


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    return make_crops(tmp_path_factory.mktemp("data") / "crops")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return make_crops(tmp_path_factory.mktemp("data") / "few", each=2)


@pytest.fixture(scope="module")
def distilled(crops, captioner, tmp_path_factory):
    """One run that learns: its report, its output folder, what it said."""
    output, said = tmp_path_factory.mktemp("distilled"), []
    report = run(
        crops,
        captioner,
        output,
        validation=0.3,
        max_steps=40,
        batch_size=8,
        gradient_accumulation_steps=1,
        lora_rank=32,
        log_every=10,
        validation_every=20,
        checkpoint_every=20,
        show=lambda progress: said.append(str(progress)),
        tell=said.append,
    )
    return report, output, said


def trained_weights(output, step):
    return load_file(output / "checkpoints" / f"step-{step:08d}" / "trained.safetensors")


def test_on_held_out_pictures_it_comes_far_nearer_to_its_teacher(distilled):
    report, _, said = distilled
    assert report.held_out > 10
    assert report.after.bleu > report.before.bleu + 40
    assert report.after.chrf > report.before.chrf + 25
    assert report.after.loss < 0.5 * report.before.loss
    assert report.after.without == 0 and "nrefs:1" in report.after.signatures[0]
    assert report.losses[-1][1] < 0.5 * report.losses[0][1]
    (on_the_way,) = report.validation
    assert on_the_way[0] == 20 and report.after.loss < on_the_way[1] < report.before.loss
    scores = [number for number, line in enumerate(said) if line.startswith(("before: BLEU", "after:  BLEU"))]
    assert scores == [said.index("Loading the student …") - 1, len(said) - 1]
    assert any("images/s" in line and "left" in line for line in said)


def test_what_comes_out_is_a_captioner_that_says_what_was_scored(distilled, crops, captioner):
    report, output, _ = distilled
    student = output / f"{captioner.name}-distilled"
    assert report.result == str(student)
    assert {"config.json", "generation_config.json", "chat_template.jinja", "tokenizer.json"} <= {
        file.name for file in student.iterdir()
    }
    assert not list(student.glob("*adapter*"))
    scored = json.loads((output / "scores" / "after.json").read_text())["answers"]
    backend = open_backend("transformers", model=str(student), device="cpu", max_tokens=16)
    requests = [CaptionRequest(image=prepare_image(crops / one["id"]), prompt=one["prompt"]) for one in scored]
    assert [answer.text for answer in backend.caption(requests)] == [one["student"] for one in scored]
    backend.close()


def test_held_out_pictures_are_those_of_the_manifests_split(distilled, crops):
    report, output, _ = distilled
    rows = load_manifest(crops, validation=0.3, split="validation")
    for name in ("before", "after"):
        answers = json.loads((output / "scores" / f"{name}.json").read_text())["answers"]
        assert [(one["id"], one["teacher"]) for one in answers] == [(row.id, list(row.captions)) for row in rows]
    assert report.examples + report.held_out == len(load_manifest(crops))


def test_the_report_says_who_learnt_what_from_whom(distilled, captioner):
    report, output, _ = distilled
    found = json.loads((output / "report.json").read_text())
    assert found == json.loads(json.dumps(report.to_json()))
    assert found["teacher"] == {"backend": "dataset"} and found["student"].startswith(f"{captioner.name}@")
    assert found["options"]["lora_rank"] == 32 and found["steps"] == 40 and found["left_out"] == {}
    assert "BLEU" in str(report) and "→" in str(report)


def test_weights_that_blow_up_end_the_run_with_what_was_good_before(few, captioner, tmp_path):
    said = []
    with pytest.raises(
        NotFiniteError, match=r"in each of the steps \d to \d; no weight changed. There is no checkpoint"
    ):
        run(
            few, captioner, tmp_path, max_steps=8, learning_rate=1e37, log_every=1, checkpoint_every=0, tell=said.append
        )
    assert sum("was skipped, no weight changed" in line for line in said) == 5


class EndEarly(Exception):
    pass


def test_an_interrupted_and_resumed_run_ends_with_the_very_same_weights(few, captioner, tmp_path):
    def stop(progress):
        if progress.step == 3:
            raise EndEarly

    options = {"checkpoint_every": 2, "lr_scheduler": "cosine"}
    with pytest.raises(EndEarly):
        run(few, captioner, tmp_path / "resumed", show=stop, **options)
    with pytest.raises(ConfigError, match="of an earlier run; --resume continues it"):
        run(few, captioner, tmp_path / "resumed", **options)
    with pytest.raises(ConfigError, match="other options: lora_rank was 16, is 8"):
        run(few, captioner, tmp_path / "resumed", resume=True, lora_rank=8, **options)
    said = []
    rest = run(few, captioner, tmp_path / "resumed", resume=True, tell=said.append, **options)
    whole = run(few, captioner, tmp_path / "whole", **options)
    assert said[said.index("Training from step 3 of 4 …") - 1].startswith("Resuming from step 2")
    assert rest.losses == whole.losses[2:]
    resumed, uninterrupted = (trained_weights(tmp_path / name, 4) for name in ("resumed", "whole"))
    assert resumed.keys() == uninterrupted.keys() and len(resumed) > 20
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in resumed)
    saved = [load_file(f"{report.result}/model.safetensors") for report in (rest, whole)]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])

    # Batches that are put together to one step are one batch.
    at_once = run(few, captioner, tmp_path / "once", **options, batch_size=4, gradient_accumulation_steps=1)
    assert dict(at_once.losses) == pytest.approx(dict(whole.losses), rel=1e-4)


def test_a_teacher_is_asked_once_and_its_words_are_learnt(captioner, tmp_path, monkeypatch):
    folder = make_crops(tmp_path / "crops", each=2, captions=False)
    (folder / "broken.jpg").write_bytes(b"no image")
    teacher = {"backend": "transformers", "model": str(captioner), "max_tokens": 16}
    asked = []
    caption = TransformersBackend.caption
    monkeypatch.setattr(
        TransformersBackend, "caption", lambda self, requests: asked.extend(requests) or caption(self, requests)
    )
    report = run(folder, captioner, tmp_path / "first", teacher=teacher, method="full", max_steps=2)
    assert len(asked) == 12 == report.examples
    assert {row.captions for row in load_manifest(folder, missing_captions="empty")} == {("",)}  # only learnt
    assert report.teacher["backend"] == "transformers" and report.teacher["model"].startswith(captioner.name)
    assert report.teacher["parameters"]["max_tokens"] == 16
    assert report.left_out == {"not_an_image": 1}

    # The whole student has learnt, not adapters beside it.
    before, after = (load_file(f"{place}/model.safetensors") for place in (captioner, report.result))
    assert before.keys() == after.keys()
    assert sum(not torch.equal(before[name], after[name]) for name in before) > 0.9 * len(before)

    again = run(folder, captioner, tmp_path / "second", teacher=teacher, method="full", max_steps=2)
    assert again.losses == report.losses
    captioned = captioning.run(config(folder, captioner, tmp_path), **teacher, presets=[folder.parent / "describe.txt"])
    assert len(asked) == 12 == captioned.reused == captioned.written
    with pytest.raises(ConfigError, match=r"distill.n: 2 captions of 1 presets at temperature 0 would be the same"):
        run(folder, captioner, tmp_path / "third", teacher=teacher, n=2)


@pytest.fixture
def first_run():
    """As in a new process: accelerate keeps the precision of a process's first run."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_in_bf16_what_cant_be_read_or_is_too_long_is_noted(captioner, tmp_path, first_run):
    folder = make_crops(tmp_path / "crops", each=1)
    (folder / "chelsea-0.jpg").write_bytes(b"no image")
    before = torch.random.get_rng_state()
    report = run(folder, captioner, tmp_path / "out", max_steps=2, max_tokens=7, mixed_precision="bf16")
    assert report.left_out == {"not_an_image": 1, "too_long": 2}
    assert report.examples == 4
    assert torch.equal(torch.random.get_rng_state(), before)  # nothing global is left changed
    assert {tensor.dtype for tensor in load_file(f"{report.result}/model.safetensors").values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in trained_weights(tmp_path / "out", 2).values()} == {torch.float32}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"lerning_rate": 1e-4}, "distill: unknown option 'lerning_rate'; did you mean 'learning_rate'"),
        ({"learning_rate": "1e-4"}, r"distill.learning_rate: found '1e-4'.*write 1.0e-4"),
        ({"student": None}, "distill.student: the model that is to learn was expected"),
        ({"max_steps": 0}, "distill.max_steps: found 0, expected a whole number, 1 or more"),
        ({"method": "lokr"}, "distill.method: found 'lokr', expected lora or full"),
        ({"teacher": "llama"}, "distill.teacher: found 'llama', expected 'dataset', or a mapping such as"),
        ({"teacher": {"model": "llama"}}, "expected 'dataset', or a mapping such as {backend: http"),
        ({"preset": []}, "distill.preset: found"),
        ({"n": 0}, "distill.n: found 0"),
        ({"device": "tpu"}, "distill.device: found 'tpu', expected cpu"),
        ({"mixed_precision": "fp8"}, "expected bf16 or no"),
        ({"lora_targets": "q_proj"}, "distill.lora_targets: found 'q_proj', expected a list of texts"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_options_are_errors_that_name_the_right_ones(option, message):
    with pytest.raises(ConfigError, match=message):
        DistillConfig.of({"student": "somebody/small"} | option)


def test_options_that_do_not_fit_the_student_are_errors_before_anything_is_learnt(few, captioner, tmp_path):
    with pytest.raises(ConfigError, match=r"no layer's name ends in one of \['to_q'\]; the layers are .*q_proj"):
        run(few, captioner, tmp_path, lora_targets=["to_q"])
    with pytest.raises(ConfigError, match=r"distill.lr_scheduler: found .cosin., expected one of linear, cosine"):
        run(few, captioner, tmp_path, lr_scheduler="cosin")
    with pytest.raises(ConfigError, match=r"distill.max_tokens: every caption has more than 2 tokens"):
        run(few, captioner, tmp_path, max_tokens=2)
    with pytest.raises(ConfigError, match="there is no caption to learn from"):
        run(make_crops(tmp_path / "bare", each=1, captions=False), captioner, tmp_path / "out")
    florence = tiny_captioners.florence2(tmp_path / "florence")
    with pytest.raises(ConfigError, match=r"is an encoder-decoder .* a decoder-only model was expected, such as"):
        run(few, florence, tmp_path / "out", validation=0.3)
    with pytest.raises(ConfigError, match="'distill' must be a mapping"):
        distill.run(config(few, captioner, tmp_path) | {"distill": "fast"})
    assert set(TEACHER.values()) == {caption for row in load_manifest(few) for caption in row.captions}


def test_sigterm_saves_a_checkpoint_and_only_the_same_student_resumes(few, captioner, tmp_path):
    student = shutil.copytree(captioner, tmp_path / "student")

    def terminate(progress):
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as ended:
        run(few, student, tmp_path / "out", show=terminate)
    assert (ended.value.step, exit_status(ended.value)) == (2, 143)
    assert ended.value.checkpoint == tmp_path / "out" / "checkpoints" / "step-00000002"
    weights = load_file(student / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, student / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"step-00000002: was written with .*: distill.student was 'student@.*, is '"):
        run(few, student, tmp_path / "out", resume=True)
    save_file(weights, student / "model.safetensors", {"format": "pt"})
    assert run(few, student, tmp_path / "out", resume=True).steps == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_targets": ["to_q"]}, r"distill.lora_targets: no layer's name ends in one of"),
        ({"lr_scheduler": "cosin"}, "distill.lr_scheduler: found 'cosin'"),
        ({"preset": "descriptve"}, "descriptve"),
        ({"validation_images": 3}, "distill.validation_images: has no effect with dataset.validation: 0"),
        ({"revision": "main"}, "revision: has no effect with a student that is a local folder"),
        ({"student": "weightless"}, "weightless: has no weights"),
        ({"output_dir": "used"}, r"used/checkpoints/step-00000009: is of an earlier run"),
        ({"output_dir": "full"}, r"full: the run needs [\d,]+ bytes on the disk .* 9 bytes are free"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_can_be_known_is_checked_before_the_teacher_is_asked(
    few, captioner, tmp_path, monkeypatch, options, message
):
    monkeypatch.setattr("calotype.captioning.backend.open_backend", lambda *_, **__: pytest.fail("asked"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "used" / "checkpoints" / "step-00000009").mkdir(parents=True)
    if "student" in options:
        shutil.copytree(captioner, tmp_path / "weightless", ignore=shutil.ignore_patterns("*.safetensors"))
    if options.get("output_dir") == "full":
        monkeypatch.setattr("calotype.train.room.free_bytes", lambda path: 9)
    teacher = {"backend": "http", "url": "http://127.0.0.1:9/v1", "model": "none"}
    made = config(few, captioner, tmp_path / "out", teacher=teacher)
    made["distill"] |= options
    with pytest.raises(CalotypeError, match=message):
        distill.run(made)


def test_asking_again_has_no_effect_on_a_dataset_s_captions(few, captioner, tmp_path):
    with pytest.raises(ConfigError, match="retry_failed: has no effect with teacher: dataset"):
        distill.run(config(few, captioner, tmp_path), retry_failed=True)

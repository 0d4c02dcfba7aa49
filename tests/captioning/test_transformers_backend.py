"""The backend for models of this machine, on real classes built tiny."""

import json
import shutil
from dataclasses import replace

import pytest
import real_tokenizers
import tiny_captioners
import torch
from PIL import Image
from transformers import Qwen2VLForConditionalGeneration

from calotype.captioning import transformers_backend
from calotype.captioning.backend import CaptionRequest, open_backend
from calotype.captioning.logits_processor import GumbelMaxSampler
from calotype.errors import CaptionError, ConfigError

CAPTIONS = list(tiny_captioners.CAPTIONS.values())


@pytest.fixture(scope="module")
def backend(captioner):
    """The tiny captioner on the CPU, with the usual options."""
    backend = open_backend("transformers", model=str(captioner), device="cpu")
    yield backend
    backend.close()


@pytest.fixture
def opened(captioner):
    """Opens it with others."""
    backends = []

    def open_it(**options):
        backends.append(open_backend("transformers", model=str(captioner), device="cpu", **options))
        return backends[-1]

    yield open_it
    for backend in backends:
        backend.close()


def texts(answers):
    return [answer.text for answer in answers]


def test_a_captioner_says_what_it_has_learnt(backend, requests):
    answers = backend.caption(requests)
    assert texts(answers) == CAPTIONS
    assert {answer.finish_reason for answer in answers} == {"stop"}
    assert backend.parameters == {"max_tokens": 512, "temperature": 0.0, "dtype": "float32"}


def test_prompts_of_different_lengths_share_a_batch(backend, requests):
    longer = [replace(one, prompt=one.prompt + " Please." * i) for i, one in enumerate(requests)]
    assert texts(backend.caption(longer)) == [backend.caption([one])[0].text for one in longer]


def test_a_batch_that_does_not_fit_is_halved_and_stays_so(opened, requests, monkeypatch):
    backend = opened(batch_size=6)
    sizes = []
    generate = Qwen2VLForConditionalGeneration.generate

    def generate_up_to_two(self, *args, **inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return generate(self, *args, **inputs)

    monkeypatch.setattr(Qwen2VLForConditionalGeneration, "generate", generate_up_to_two)
    assert texts(backend.caption(requests)) == CAPTIONS
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    assert texts(backend.caption(requests[:2])) == CAPTIONS[:2]
    assert sizes[8:] == [1, 1]


def test_one_picture_that_does_not_fit_is_its_own_error(backend, requests, monkeypatch):
    generate = Qwen2VLForConditionalGeneration.generate

    def generate_all_but_cats(self, *args, **inputs):
        if (inputs["image_grid_thw"] == cat).all(dim=1).any():
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return generate(self, *args, **inputs)

    wide = replace(requests[1], image=requests[1].image.resize((400, 60)))
    cat = backend._inputs([wide])["image_grid_thw"]
    monkeypatch.setattr(Qwen2VLForConditionalGeneration, "generate", generate_all_but_cats)
    answers = backend.caption([requests[0], wide, requests[2]])
    assert texts(answers) == [CAPTIONS[0], None, CAPTIONS[2]]
    assert answers[1].kind == "out_of_memory"
    assert "does not fit" not in answers[1].error and "memory of cpu" in answers[1].error


def test_a_model_that_fails_at_every_picture_ends_the_run(opened, requests, monkeypatch):
    def generate(self, *args, **inputs):
        raise ValueError("shapes don't match")

    monkeypatch.setattr(Qwen2VLForConditionalGeneration, "generate", generate)
    backend = opened()
    answers = backend.caption(requests)
    assert {answer.kind for answer in answers} == {"failed"}
    with pytest.raises(CaptionError, match=r"the first 10 images all failed; .*shapes don't match"):
        backend.caption(requests)


def test_a_cut_off_answer_is_asked_for_again_with_more_tokens(opened, requests):
    answers = opened(max_tokens=3).caption(requests)  # twelve the second time
    lengths = [len(caption.split()) for caption in CAPTIONS]
    assert answers[1].text == CAPTIONS[1]
    assert lengths[2] > 10
    assert (answers[2].text, answers[2].kind, answers[2].finish_reason) == (None, "cut_off", "length")
    assert answers[2].error.startswith("the answer was cut off: 'a cup of coffee on a")


def test_draws_follow_from_the_seed_and_not_from_the_batch(opened, requests):
    backend = opened(temperature=2.0, max_tokens=2)
    card = Image.new("RGB", (64, 64), (120, 60, 200))  # it knows nothing of cards, and so can't be certain
    asked = [CaptionRequest(image=card, prompt="What is it?", seed=seed) for seed in range(6)]
    together = backend.caption(asked)
    drawn = [answer.text or answer.error for answer in together]
    assert len(set(drawn)) > 1
    assert [answer.text or answer.error for answer in backend.caption(asked[::-1])] == drawn[::-1]
    assert [answer.text or answer.error for one in asked[:2] for answer in backend.caption([one])] == drawn[:2]


def test_draws_have_the_probabilities_of_the_model():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    expected = torch.softmax(logits[0] / 0.7, dim=0)
    rows = 20_000
    scores = logits.expand(rows, -1)
    drawn = GumbelMaxSampler(range(rows), temperature=0.7, top_p=None)(torch.empty(0), scores).argmax(dim=1)
    found = torch.bincount(drawn, minlength=4) / rows
    assert torch.allclose(found, expected, atol=0.012)
    # 0.77 and 0.18 together have 0.9: the others are never drawn.
    drawn = GumbelMaxSampler(range(2000), temperature=0.7, top_p=0.9)(torch.empty(0), scores[:2000]).argmax(dim=1)
    assert set(drawn.tolist()) == {0, 1}


def test_the_identity_is_that_of_what_is_in_the_folder(captioner, backend, tmp_path):
    model = backend.model
    assert model.startswith("tiny-qwen2-vl@")
    copy = shutil.copytree(captioner, tmp_path / "tiny-qwen2-vl")
    (copy / "README.md").write_text("A page of text changes nothing.")

    assert transformers_backend.captioner_identity(copy, None) == model
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "Assistant"))
    assert transformers_backend.captioner_identity(copy, None) != model


def test_closed(opened, requests):
    backend = opened()
    backend.close()
    backend.close()
    with pytest.raises(CaptionError, match="closed"):
        backend.caption(requests[:1])


STRINGS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "IMAGE{{ message['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A template of a language model: of parts it would print the list."""


def test_a_template_that_wants_strings_gets_them(captioner, tmp_path, requests):
    folder = shutil.copytree(captioner, tmp_path / "strings")
    picture = "{% if message['role'] == 'user' %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}"
    (folder / "chat_template.jinja").write_text(STRINGS.replace("IMAGE", picture))
    backend = open_backend("transformers", model=str(folder), device="cpu")
    assert texts(backend.caption(requests)) == CAPTIONS  # to the model it is what it has learnt
    backend.close()


def test_a_template_without_a_place_for_the_picture_gets_one(captioner, tmp_path, requests):
    folder = shutil.copytree(captioner, tmp_path / "strings")
    (folder / "chat_template.jinja").write_text(STRINGS.replace("IMAGE", ""))
    backend = open_backend("transformers", model=str(folder), device="cpu")
    tokens = backend._inputs([replace(requests[0], system="You caption.")])["input_ids"][0]
    said = backend._processor.tokenizer.decode(tokens).replace("<|image_pad|>", "")
    assert said == (
        "<|im_start|>system\nYou caption.<|im_end|>\n<|im_start|>user\n\nDescribe this image.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert (tokens == backend._processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum() > 3
    backend.close()


def test_a_system_prompt_is_part_of_the_conversation(backend, requests):
    inputs = backend._inputs([replace(requests[0], system="You caption.")])
    said = backend._processor.tokenizer.decode(inputs["input_ids"][0])
    assert said.startswith("<|im_start|>system\nYou caption.<|im_end|>\n<|im_start|>user\n<|vision_start|>")


def test_a_hub_that_refuses_is_asked_once(monkeypatch):
    """transformers retries each file for a minute."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CaptionError, match=r"no such folder; the Hugging Face hub can't be reached, .*lacks it"):
        open_backend("transformers", model="owner/no-such", device="cpu")


def test_models_that_can_not_be_had(captioner, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CaptionError, match=r"'owner/no-such' could not be loaded .*hf download owner/no-such"):
        open_backend("transformers", model="owner/no-such", device="cpu")
    text_only = tmp_path / "gpt2"
    text_only.mkdir()
    (text_only / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(CaptionError, match="Expected a vision-language model"):
        open_backend("transformers", model=str(text_only), device="cpu")
    base = shutil.copytree(captioner, tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(CaptionError, match=r"has no chat template.*-Instruct"):
        open_backend("transformers", model=str(base), device="cpu")
    foreign = shutil.copytree(captioner, tmp_path / "foreign")
    config = json.loads((foreign / "config.json").read_text())
    config |= {"model_type": "odd_vl", "auto_map": {"AutoConfig": "odd.OddConfig"}}
    (foreign / "config.json").write_text(json.dumps(config))
    (foreign / "odd.py").write_text("raise SystemExit('code of the folder has run')")
    with pytest.raises(CaptionError, match="without code from the hub"):
        open_backend("transformers", model=str(foreign), device="cpu")


def test_options_out_of_range():
    for options, message in [
        ({"batch_size": 0}, "batch_size: found 0, expected a whole number above 0"),
        ({"dtype": "int8"}, "dtype: found 'int8', expected one of float32, bfloat16, float16"),
        ({"temperature": -1}, "temperature: a number from 0 to 2"),
        ({"batchsize": 4}, "did you mean 'batch_size'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            open_backend("transformers", **options)


def test_auto_says_what_it_took_and_why(captioner, monkeypatch):
    picked = transformers_backend.pick_captioner("cpu", free=64 << 30)
    here = replace(picked, captioner=replace(picked.captioner, hub=str(captioner)))
    monkeypatch.setattr(transformers_backend, "pick_captioner", lambda device: here)
    backend = open_backend("transformers", device="cpu")
    assert backend.why == picked.why
    assert backend.model.startswith("tiny-qwen2-vl@")
    backend.close()


def test_florence_2_has_tasks_in_the_place_of_prompts(tmp_path, requests):
    folder = tiny_captioners.florence2(tmp_path / "tiny-florence-2")
    backend = open_backend("transformers", model=str(folder), device="cpu", max_tokens=4)
    described = [replace(one, task="<MORE_DETAILED_CAPTION>") for one in requests[:2]]
    own = replace(requests[2], prompt="<CAPTION>")
    answers = backend.caption([*described, own])
    assert {answer.kind for answer in answers} <= {"cut_off", "empty", None}  # it has learnt nothing, and says it
    asked = [backend._processor.tokenizer.decode(row) for row in backend._inputs([*described, own])["input_ids"]]
    assert "describe with a paragraph what is shown in the image" in asked[0]
    assert "what does the image describe" in asked[2]
    with pytest.raises(CaptionError, match="no prompts"):
        backend.caption(requests[:1])
    backend.close()


@pytest.mark.parametrize("family", ["smolvlm", "llava", "gemma3", "mllama"])
def test_other_families_go_the_same_way(family, tmp_path, requests):
    """Untrained ones: what they say is nonsense, and the same in a batch, prompts padded, as alone."""
    folder = getattr(tiny_captioners, family)(tmp_path / family)
    backend = open_backend("transformers", model=str(folder), device="cpu", max_tokens=4)
    wide = replace(requests[0], image=requests[0].image.resize((200, 40)), prompt="Describe this image. Please.")
    asked = [*requests[:2], wide]
    answers = backend.caption(asked)
    assert {answer.kind for answer in answers} <= {"cut_off", "empty", None}
    assert [backend.caption([one])[0] for one in asked] == answers
    backend.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu(captioner, requests):
    assert real_tokenizers.tokenizer("qwen_image").is_dir()
    exact = open_backend("transformers", model=str(captioner), dtype="float32")
    assert exact.device.type == "cuda"
    assert texts(exact.caption(requests)) == CAPTIONS
    exact.close()
    usual = open_backend("transformers", model=str(captioner))
    assert usual.parameters["dtype"] == "bfloat16"
    assert all(answer.kind in (None, "cut_off") for answer in usual.caption(requests))
    # A batch that really does not fit: the limit is what the model has now, and a little more.
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (48 << 20)) / total)
    try:
        answers = usual.caption(requests * 64)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(answers) == 64 * len(requests)
    assert all(answer.kind != "failed" for answer in answers)
    usual.close()

"""What is learnt from: the answer's tokens and no others, whatever else is in the batch."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny_captioners
import torch
from distill_helpers import TEACHER, make_crops
from transformers import AutoProcessor

from calotype.captioning.backend import CaptionRequest
from calotype.captioning.prepare_image import prepare_image
from calotype.captioning.presets import CaptionPreset
from calotype.config.distill import DistillConfig
from calotype.distill.chat import IGNORED, answer_tokens, collate, loss_sum
from calotype.distill.lessons import Batches
from calotype.distill.student import end_tokens, load_student
from calotype.distill.teacher import from_dataset
from calotype.errors import ConfigError
from calotype.images import ImageReader
from calotype.ledger import Ledger
from calotype.manifest import load_manifest

CAPTIONS = list(TEACHER.values())


@pytest.fixture(scope="module", params=["qwen2_vl", "smolvlm"])
def student(request, captioner, tmp_path_factory):
    """(processor, model, tokens that end an answer) of two families."""
    folder = captioner if request.param == "qwen2_vl" else tiny_captioners.smolvlm(tmp_path_factory.mktemp("smolvlm"))
    options = DistillConfig(student=str(folder))
    processor, model = load_student(options, dtype=torch.float32, device=torch.device("cpu"))
    return processor, model, end_tokens(processor, model)


@pytest.fixture
def asked():
    """Six photos of as many sizes, with prompts of as many lengths, one of them behind a system's."""
    photos = [prepare_image(photo) for photo in tiny_captioners.photos()]
    longer = [CaptionRequest(image=one, prompt=tiny_captioners.PROMPT + " Please." * i) for i, one in enumerate(photos)]
    return [replace(longer[0], system="Be brief."), *longer[1:]]


def answers_of(student):
    processor, _, ends = student
    return [answer_tokens(processor, ends, caption) for caption in CAPTIONS]


def test_only_the_answers_tokens_carry_loss(student, asked):
    processor, _, ends = student
    batch = collate(processor, asked, answers_of(student))
    tokens, labels = batch["input_ids"], batch["labels"]
    for row, (request, caption) in enumerate(zip(asked, CAPTIONS, strict=True)):
        learnt = labels[row] != IGNORED
        assert torch.equal(labels[row][learnt], tokens[row][learnt])
        assert processor.decode(labels[row][learnt][:-1]) == caption and int(labels[row][learnt][-1]) in ends
        # All before the answer is the prompt that a captioner is asked with, all behind it is padding.
        (alone,) = collate(processor, [request], [[]])["input_ids"].tolist()
        first, last = int(learnt.nonzero()[0]), int(learnt.nonzero()[-1])
        assert tokens[row, :first].tolist() == alone and learnt[first : last + 1].all()
        assert batch["attention_mask"][row].tolist() == [1] * (last + 1) + [0] * (len(labels[row]) - last - 1)
        assert (labels[row][tokens[row] == processor.image_token_id] == IGNORED).all()
        assert (tokens[row] == processor.image_token_id).sum() > 1


def test_the_loss_is_that_of_transformers_and_no_row_sees_another(student, asked):
    processor, model, _ = student
    answers = answers_of(student)
    batch = collate(processor, asked, answers)
    with torch.no_grad():
        together = loss_sum(model, batch)
        theirs = model(**batch).loss * sum(map(len, answers))
        alone = sum(
            loss_sum(model, collate(processor, [request], [answer]))
            for request, answer in zip(asked, answers, strict=True)
        )
    torch.testing.assert_close(together, theirs, rtol=1e-4, atol=0)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=0)


def test_logits_are_made_where_answers_are(student, asked):
    processor, model, _ = student
    answers = answers_of(student)
    shapes = []
    hook = model.get_output_embeddings().register_forward_hook(lambda _, given, logits: shapes.append(logits.shape))
    batch = collate(processor, asked[:1], answers[:1])
    with torch.no_grad():
        loss_sum(model, batch)
    hook.remove()
    assert shapes == [(1, len(answers[0]), model.config.get_text_config().vocab_size)]
    assert batch["labels"].shape[1] > 2 * len(answers[0])


def test_a_template_that_opens_reasoning_for_answers_to_come_is_no_part_of_the_answer(captioner):
    processor = AutoProcessor.from_pretrained(captioner)
    processor.chat_template = processor.chat_template.replace("assistant\n{%", "assistant\n<think>\n{%")
    ends = frozenset([processor.tokenizer.convert_tokens_to_ids("<|im_end|>")])
    tokens = answer_tokens(processor, ends, "a cat, ginger")
    assert processor.decode(tokens) == "a cat, ginger" + processor.tokenizer.eos_token


def lessons(folder):
    preset = CaptionPreset(name="plain", template="Describe {stem}.")
    return from_dataset(load_manifest(folder), [preset], None, ledger=Ledger())


def test_batches_are_a_function_of_their_number_and_ranks_share_them(student, tmp_path):
    processor, _, ends = student
    told = lessons(make_crops(tmp_path / "crops", each=1))

    def batches(*, size, rank=0, world=1, told=told):
        options = DistillConfig(student="any", batch_size=size, seed=3)
        place = SimpleNamespace(process_index=rank, num_processes=world)
        return Batches(
            told, processor, ends=ends, reader=ImageReader(), options=options, accelerator=place, ledger=Ledger()
        )

    def rows(batch):
        return [tuple(row[row != IGNORED].tolist()) for row in batch["labels"]]

    whole = batches(size=4)
    assert whole.examples == 6
    endless = [row for number in range(3) for row in rows(whole.batch(number))]
    assert len(set(endless[:6])) == 6 and set(endless[6:]) == set(endless[:6]) and endless[6:] != endless[:6]
    ahead = whole.endless(1)
    assert [rows(next(ahead)) for _ in range(2)] == [rows(whole.batch(1)), rows(whole.batch(2))]
    ahead.close()
    halves = [batches(size=2, rank=rank, world=2) for rank in (0, 1)]
    assert rows(halves[0].batch(1)) + rows(halves[1].batch(1)) == rows(whole.batch(1))
    halves[0].load_state_dict(halves[1].state_dict())
    with pytest.raises(ConfigError, match="the number of processes changed since the checkpoint was written"):
        whole.load_state_dict(halves[0].state_dict())
    other = [replace(one, captions=(f"{one.captions[0]}.",)) for one in told]
    with pytest.raises(ConfigError, match="the captions changed since the checkpoint was written"):
        batches(size=4, told=other).load_state_dict(whole.state_dict())
    once = [row for half in halves for batch in half.once() for row in rows(batch)]
    assert sorted(once) == sorted(endless[:6])


def test_a_preset_that_quotes_the_caption_does_not_give_the_answer_away(tmp_path):
    folder = make_crops(tmp_path / "crops", each=1)
    preset = CaptionPreset(name="better", template="Improve: {caption}", defaults={"caption": "nothing yet"})
    told = from_dataset(load_manifest(folder), [preset], None, ledger=Ledger())
    assert {one.prompt for one in told} == {"Improve: nothing yet"}
    ledger = Ledger()
    assert not from_dataset(
        load_manifest(folder), [CaptionPreset(name="better", template="{caption}")], None, ledger=ledger
    )
    assert ledger.counts() == {"no_value": 6}

"""From images with captions to what a vision-language model learns from: only the answer's tokens carry loss.

The prompt's tokens are those of `TransformersBackend`: the same `chat_inputs`. The answer's are set behind them one row
at a time, as generating would:

    input_ids   <user> <image>… Describe this image. <assistant>  a red circle on grey <end>  <pad>…
    labels        -100   -100      -100                -100       a red circle on grey <end>   -100
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from calotype.captioning.backend import CaptionRequest
from calotype.captioning.transformers_backend import chat_inputs

__all__ = ["IGNORED", "answer_tokens", "collate", "loss_sum"]

IGNORED: Final = -100
"""The label of a token without loss, as everywhere in transformers."""


def answer_tokens(processor: Any, ends: frozenset[int], caption: str) -> list[int]:
    """The tokens that the student should answer with, the one that ends the answer included.

    Args:
        processor: The student's.
        ends: The tokens at which generating stops.
        caption: What to say.
    """
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    told = [*asked, {"role": "assistant", "content": [{"type": "text", "text": caption}]}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    whole = processor.apply_chat_template(told, add_generation_prompt=False, tokenize=False)
    # A template may open something more for an answer to come (reasoning, say) than it writes of one that was given.
    answer = whole.removeprefix(prompt) if whole.startswith(prompt) else caption
    tokens: list[int] = processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    end = next((place for place, token in enumerate(tokens) if token in ends), None)
    return [*tokens, processor.tokenizer.eos_token_id] if end is None else tokens[: end + 1]


def collate(processor: Any, requests: Sequence[CaptionRequest], answers: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """One batch as the model's `forward` takes it, with `labels` (B, L) that are `IGNORED` but for the answers.

    Args:
        processor: The student's, with a tokenizer that pads on the left.
        requests: The images and what is asked about them.
        answers: Of each, its tokens, from `answer_tokens`.
    """
    batch = dict(chat_inputs(processor, requests))
    prompts = batch["input_ids"]  # (B, L of the prompts), padded on the left: the last column is nowhere padding
    pads = (batch["attention_mask"] == 0).sum(dim=1).tolist()
    longest = max(map(len, answers))
    # What there is for each token (its mask, its kind, the images it may look at) is for an answer's tokens what it
    # is for the last of the prompt, as in `generate`.
    for name, value in batch.items():
        if value.shape[:2] == prompts.shape and not value.is_floating_point():
            batch[name] = torch.cat([value, value[:, -1:].expand(-1, longest, *value.shape[2:])], dim=1)
    batch["labels"] = torch.full_like(batch["input_ids"], IGNORED)
    for row, answer in enumerate(answers):
        here = slice(prompts.shape[1], prompts.shape[1] + len(answer))
        batch["input_ids"][row, here] = batch["labels"][row, here] = torch.tensor(answer)
        batch["input_ids"][row, here.stop :] = processor.tokenizer.pad_token_id
        batch["attention_mask"][row, here.stop :] = 0
    # All padding to the right, where no token that counts can see it.
    for name, value in batch.items():
        if value.shape[:2] == batch["labels"].shape and not value.is_floating_point():
            batch[name] = torch.stack([row.roll(-pad, dims=0) for row, pad in zip(value, pads, strict=True)])
    return batch


def loss_sum(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """The cross-entropy of the answers' tokens, summed over the batch, in float32.

    Logits, a hundred thousand numbers for every token, are made only at the places of answers, where the model's
    `forward` can be told so: the tokens of an image, a thousand perhaps, have none.

    Args:
        model: The student, perhaps wrapped by accelerate or peft.
        batch: From `collate`.
    """
    labels = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    targets = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORED)], dim=1)  # each place's next token
    if _keeps_logits(model):
        places = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)
        logits, targets = model(**inputs, use_cache=False, logits_to_keep=places).logits, targets[:, places]
    else:
        logits = model(**inputs, use_cache=False).logits
    learnt = targets != IGNORED
    return cross_entropy(logits[learnt].float(), targets[learnt], reduction="sum")


def _keeps_logits(model: Any) -> bool:
    while not isinstance(model, PreTrainedModel):
        model = model.module if hasattr(model, "module") else model.get_base_model()
    return "logits_to_keep" in inspect.signature(model.forward).parameters

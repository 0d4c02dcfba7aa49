"""Make training inputs of a vision-language model from images and captions: only the caption's tokens have a loss.

The prompt is tokenized by `chat_inputs`, as in `TransformersBackend`. In each row the caption's tokens follow it, as in
generation:

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
"""The label of a token without loss, as in transformers."""


def answer_tokens(processor: Any, ends: frozenset[int], caption: str) -> list[int]:
    """Return the tokens of a caption as the student's answer, with its end token.

    Args:
        processor: The student's processor.
        ends: Ids of the tokens at which generation stops.
        caption: The text.
    """
    request = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    dialogue = [*request, {"role": "assistant", "content": [{"type": "text", "text": caption}]}]
    prompt = processor.apply_chat_template(request, add_generation_prompt=True, tokenize=False)
    whole = processor.apply_chat_template(dialogue, add_generation_prompt=False, tokenize=False)
    # With add_generation_prompt a template may open a reasoning block that it omits around a complete answer.
    answer = whole.removeprefix(prompt) if whole.startswith(prompt) else caption
    tokens: list[int] = processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    end = next((position for position, token in enumerate(tokens) if token in ends), None)
    return [*tokens, processor.tokenizer.eos_token_id] if end is None else tokens[: end + 1]


def collate(processor: Any, requests: Sequence[CaptionRequest], answers: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Make a batch for the model's `forward`, with `labels` (B, L) that are `IGNORED` except for the answers.

    Args:
        processor: The student's processor, whose tokenizer pads on the left.
        requests: The images with their prompts.
        answers: The tokens of each answer, from `answer_tokens`.
    """
    batch = dict(chat_inputs(processor, requests))
    prompts = batch["input_ids"]  # (B, prompt length), padded on the left: the last column has no padding
    pads = (batch["attention_mask"] == 0).sum(dim=1).tolist()
    longest = max(map(len, answers))
    # Per-token inputs (mask, token type, image index) of the answer repeat those of the prompt's last token, as in
    # `generate`. (B, prompt length) → (B, prompt length + answer length)
    for name, value in batch.items():
        if value.shape[:2] == prompts.shape and not value.is_floating_point():
            batch[name] = torch.cat([value, value[:, -1:].expand(-1, longest, *value.shape[2:])], dim=1)
    batch["labels"] = torch.full_like(batch["input_ids"], IGNORED)
    for row, answer in enumerate(answers):
        here = slice(prompts.shape[1], prompts.shape[1] + len(answer))
        batch["input_ids"][row, here] = batch["labels"][row, here] = torch.tensor(answer)
        batch["input_ids"][row, here.stop :] = processor.tokenizer.pad_token_id
        batch["attention_mask"][row, here.stop :] = 0
    # Move all padding to the right, where causal attention hides it.
    for name, value in batch.items():
        if value.shape[:2] == batch["labels"].shape and not value.is_floating_point():
            batch[name] = torch.stack([row.roll(-pad, dims=0) for row, pad in zip(value, pads, strict=True)])
    return batch


def loss_sum(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the cross-entropy of the answers' tokens, summed over the batch (), float32.

    Logits, about 100,000 numbers for each token, are computed only at the answers' positions, where the model's
    `forward` has `logits_to_keep`: an image's tokens, up to a thousand, need none.

    Args:
        model: The student, possibly wrapped by accelerate or peft.
        batch: From `collate`.
    """
    labels = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    targets = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORED)], dim=1)  # (B, L), shifted by one
    if _keeps_logits(model):
        positions = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)  # (kept,)
        logits, targets = model(**inputs, use_cache=False, logits_to_keep=positions).logits, targets[:, positions]
    else:
        logits = model(**inputs, use_cache=False).logits  # (B, L, vocabulary)
    learnt = targets != IGNORED  # (B, L) or (B, kept)
    return cross_entropy(logits[learnt].float(), targets[learnt], reduction="sum")


def _keeps_logits(model: Any) -> bool:
    """Return whether the unwrapped model's `forward` has `logits_to_keep`."""
    while not isinstance(model, PreTrainedModel):
        model = model.module if hasattr(model, "module") else model.get_base_model()
    return "logits_to_keep" in inspect.signature(model.forward).parameters

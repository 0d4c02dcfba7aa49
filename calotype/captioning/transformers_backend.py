"""`TransformersBackend`: captions from a vision-language model on this machine, in batches, through transformers."""

from __future__ import annotations

import gc
import importlib
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from calotype.captioning.answers import parse_answer
from calotype.captioning.backend import CaptionAnswer, CaptionRequest
from calotype.captioning.captioners import default_device, pick_captioner
from calotype.captioning.chat_templates import accept_content_parts
from calotype.captioning.failure_limit import FailureLimit
from calotype.captioning.logits_processor import GumbelMaxSampler
from calotype.captioning.sampling import Sampling
from calotype.encodings.fingerprint import files_fingerprint
from calotype.errors import CaptionError, ConfigError, MissingDependencyError
from calotype.models.component_files import files_that_count

__all__ = ["TransformersBackend", "captioner_identity", "chat_inputs", "load_captioner"]

_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_TEXT_FILES: Final = (".json", ".txt", ".jinja", ".model")
"""Of a saved model, beside its weights: configuration, tokenizer, processor, chat template."""

_TASK: Final = re.compile(r"<[A-Z_]+>")

_BROKEN: Final[tuple[type[Exception], ...]] = (
    (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()  # since PyTorch 2.8
)
"""The device itself has failed: nothing can be computed on it any more."""


class TransformersBackend:
    """Runs a captioner of this machine: Qwen-VL, SmolVLM, Gemma 3, Llama 3.2 Vision, LLaVA and JoyCaption, Florence-2,
    and whatever else `AutoModelForImageTextToText` loads without code from the hub.

    Prompts go through the model's own chat template, padded on the left. A batch that does not fit into memory is
    halved, and so are those after it. While one batch is computed, the next is prepared in another thread. What a
    request is answered with does not depend on the batch that it is in, rounding aside: each draws from its own seed.

    Args:
        model: A folder (`save_pretrained`), a name on the hub, or `auto`: the largest of `CAPTIONERS` that fits.
        revision: Of a name on the hub.
        device: `cuda`, `cuda:1`, `mps`, `cpu`; None is the first of these that there is.
        dtype: `bfloat16`, `float16` or `float32`; None is bfloat16 on a GPU that computes in it, else float16, and
            float32 on a CPU.
        batch_size: Images at a time.
        max_tokens: Of an answer. One that is cut off is asked for once more with four times as many.
        temperature: 0 always takes the likeliest token.
        top_p: Draws only among the likeliest tokens that together have this probability; None among all.

    Raises:
        ConfigError: An option is out of its range.
        CaptionError: The model can't be had, or is none that answers about images.
        MissingDependencyError: transformers is not installed.
    """

    name = "transformers"
    concurrency = 2
    """One call computes while the other prepares."""

    def __init__(
        self,
        *,
        model: str | Path = "auto",
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 8,
        max_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float | None = None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size: a whole number above 0 was expected, found {batch_size!r}")
        if dtype is not None and dtype not in _DTYPES:
            raise ConfigError(f"dtype: {', '.join(_DTYPES)} was expected, found {dtype!r}")
        self._sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p)
        self.device = torch.device(device or default_device())
        self.batch_size = batch_size
        self.why: str | None = None
        """With `model="auto"`, the sentence that says which it is and why."""
        if str(model) == "auto":
            picked = pick_captioner(self.device)
            model, self.why = picked.captioner.hub, picked.why
        self._dtype = _DTYPES[dtype] if dtype else _usual_dtype(self.device)
        self._processor, self._model = load_captioner(model, revision=revision, dtype=self._dtype, device=self.device)
        _decide_greedily(self._processor, self._model)
        self.model = captioner_identity(model, self._model)
        ends = self._model.generation_config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])
        self._fixed_tasks = self._model.config.model_type == "florence2"
        self._first = FailureLimit(self.model)
        self._at_once = batch_size  # what has fitted into memory so far
        self._preparing = threading.Lock()  # a tokenizer serves one thread at a time
        self._computing = threading.Lock()

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {**self._sampling.parameters, "dtype": str(self._dtype).removeprefix("torch.")}

    @property
    def loaded(self) -> tuple[Any, Any]:
        """(processor, model), as they are asked."""
        return self._processor, self._model

    def caption(self, requests: Sequence[CaptionRequest], /) -> list[CaptionAnswer]:
        """One answer for each request, in their order.

        Raises:
            CaptionError: The device has failed, the model fails at every image, or it takes no prompts and a request
                names no task.
        """
        answers = self._answers(requests, self._sampling.max_tokens)
        again: dict[int, list[int]] = {}  # tokens → which requests
        asked = list(requests)
        for i, answer in enumerate(answers):
            once_more = self._sampling.second_try(answer, requests[i].seed)
            if once_more is not None:
                tokens, seed = once_more
                again.setdefault(tokens, []).append(i)
                asked[i] = replace(requests[i], seed=seed)
        for tokens, places in again.items():
            for i, answer in zip(places, self._answers([asked[i] for i in places], tokens), strict=True):
                answers[i] = answer
        for answer in answers:
            if answer.kind == "failed":
                self._first.count_failure(answer.error or "")
            else:
                self._first.answered = True
        return answers

    def close(self) -> None:
        """Gives the model's memory back."""
        with self._computing:
            self._model = None
        _free_memory(self.device)

    def _answers(self, requests: Sequence[CaptionRequest], max_tokens: int) -> list[CaptionAnswer]:
        """In batches of as many as fit into memory."""
        answers: list[CaptionAnswer] = []
        while len(answers) < len(requests):
            part = requests[len(answers) : len(answers) + self._at_once]
            done = self._batch(part, max_tokens)
            if done is not None:
                answers += done
                continue
            _free_memory(self.device)  # here, where no traceback holds what the failed batch had computed
            if len(part) == 1:
                reason = f"one image with up to {max_tokens} tokens is more than fits into the memory of {self.device}"
                answers.append(CaptionAnswer(error=reason, kind="out_of_memory"))
            self._at_once = min(self._at_once, max(1, len(part) // 2))
        return answers

    def _batch(self, requests: Sequence[CaptionRequest], max_tokens: int) -> list[CaptionAnswer] | None:
        """The answers to one batch; None where memory does not suffice."""
        try:
            return self._generate(requests, max_tokens)
        except CaptionError:
            raise
        except _BROKEN as error:
            raise CaptionError(f"{self.device} has failed: {_first_line(error)}; start again") from error
        except Exception as error:
            if _out_of_memory(error):
                return None
            if len(requests) == 1:
                reason = f"the model failed on it: {type(error).__name__}: {_first_line(error)}"
                return [CaptionAnswer(error=reason, kind="failed")]
        # One image that the model can't take (a side of one pixel, say) must not cost the others their captions.
        singly = [self._batch([request], max_tokens) for request in requests]
        return None if None in singly else [answer for part in singly if part for answer in part]

    def _generate(self, requests: Sequence[CaptionRequest], max_tokens: int) -> list[CaptionAnswer]:
        from transformers import LogitsProcessorList

        with self._preparing:
            inputs = self._inputs(requests)
        with self._computing, torch.inference_mode():
            if self._model is None:
                raise CaptionError(f"{self.model}: closed")
            inputs = inputs.to(self.device, dtype=self._dtype)  # of what is floating; tokens stay whole numbers
            draws = []
            if self._sampling.temperature > 0:
                seeds = [request.seed for request in requests]
                draws = [GumbelMaxSampler(seeds, temperature=self._sampling.temperature, top_p=self._sampling.top_p)]
            output = self._model.generate(
                **inputs, max_new_tokens=max_tokens, logits_processor=LogitsProcessorList(draws)
            )
            # (B, tokens) without the prompt, or without the token that starts a decoder of its own.
            start = 1 if self._model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
            output = output[:, start:].tolist()
        with self._preparing:
            return [self._answer(tokens) for tokens in output]

    def _inputs(self, requests: Sequence[CaptionRequest]) -> Any:
        """The model's inputs for one batch, on the CPU. Raises whatever the processor does."""
        if self._fixed_tasks:
            tasks = [self._task(request) for request in requests]
            images = [request.image for request in requests]
            return self._processor(images=images, text=tasks, padding=True, return_tensors="pt")
        return chat_inputs(self._processor, requests)

    def _task(self, request: CaptionRequest) -> str:
        if _TASK.fullmatch(request.prompt.strip()):
            return request.prompt.strip()
        if request.task is None:
            raise CaptionError(
                f"{self.model} takes no prompts, only tasks such as <DETAILED_CAPTION>, and this preset names none: "
                "use the preset 'descriptive' or 'short', one of your own whose prompt is a task, or another model"
            )
        return request.task

    def _answer(self, tokens: list[int]) -> CaptionAnswer:
        end = next((i for i, token in enumerate(tokens) if token in self._ends), None)
        # Special tokens are decoded too: in some models they are what sets reasoning apart from the answer.
        text = self._processor.decode(tokens[:end], skip_special_tokens=False)
        special = self._processor.tokenizer.all_special_tokens
        return parse_answer(text, finish_reason="length" if end is None else "stop", special=special)

    def __repr__(self) -> str:
        return f"TransformersBackend(model={self.model!r}, device={str(self.device)!r})"


def chat_inputs(processor: Any, requests: Sequence[CaptionRequest]) -> Any:
    """What a chat template makes of requests: tokens, masks and pixels, for the model's `forward` or `generate`."""
    return processor.apply_chat_template(
        [_conversation(request) for request in requests],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )


def _conversation(request: CaptionRequest) -> list[dict[str, Any]]:
    """A request as chat templates take it."""
    # The image comes first: some models (Llama 3.2 Vision) look only from the words that follow it.
    content = [{"type": "image", "image": request.image}, {"type": "text", "text": request.prompt}]
    turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if request.system is not None:
        turns.insert(0, {"role": "system", "content": [{"type": "text", "text": request.system}]})
    return turns


def load_captioner(
    name: str | Path, *, revision: str | None = None, dtype: torch.dtype, device: torch.device
) -> tuple[Any, Any]:
    """(processor, model) on the device, in evaluation mode, padding on the left.

    Raises:
        CaptionError: The model can't be had, or has no chat template.
        MissingDependencyError: transformers is not installed.
    """
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingDependencyError("transformers", extra="caption", purpose="to caption on this machine") from error
    where = Path(name).expanduser()
    source = str(where) if where.is_dir() else str(name)
    try:
        processor = transformers.AutoProcessor.from_pretrained(source, revision=revision, trust_remote_code=False)
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            source, revision=revision, dtype=dtype, trust_remote_code=False
        )
        model = model.to(device).eval()
    except Exception as error:
        if _out_of_memory(error):
            raise CaptionError(
                f"model: {name} does not fit into the memory of {device}; `--model auto` takes one that does, and "
                "`--backend http` one that runs elsewhere"
            ) from error
        raise CaptionError(
            f"model: {name!r} could not be loaded ({type(error).__name__}: {_first_line(error)}). A vision-language "
            "model was expected that transformers knows without code from the hub: its folder, or its name on the hub "
            f"(`hf download {name} --local-dir FOLDER` gets it beforehand; for a gated one accept the terms on its "
            "page and run `hf auth login`)"
        ) from error
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or not (accept_content_parts(processor) or model.config.model_type == "florence2"):
        raise CaptionError(
            f"model: {name} has no chat template, so there is no telling how it wants to be asked about an image; use "
            "an instruction-tuned model (its name often ends in -it or -Instruct), or Florence-2"
        )
    tokenizer.padding_side = "left"  # an answer goes on from the last token of its prompt
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor, model


def _decide_greedily(processor: Any, model: Any) -> None:
    """Leaves no chance of its own to `generate`."""
    # What a checkpoint would have drawn with is of no use here: `GumbelMaxSampler` draws, by each request's own seed.
    settings = model.generation_config
    settings.do_sample, settings.num_beams = False, 1
    settings.temperature = settings.top_p = settings.top_k = None
    settings.max_length = None
    settings.pad_token_id = processor.tokenizer.pad_token_id
    if settings.eos_token_id is None:
        settings.eos_token_id = processor.tokenizer.eos_token_id


def captioner_identity(name: str | Path, model: Any) -> str:
    """`name@revision` of a model on the hub, `folder@fingerprint` of one on disk, wherever the folder lies."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        revision = getattr(model.config, "_commit_hash", None)
        return f"{name}@{revision[:12]}" if revision else str(name)
    there = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    around = {file for file in there if file.endswith(_TEXT_FILES) and not file.startswith(".")}
    names = sorted(around | set(files_that_count(there)))
    return f"{folder.resolve().name}@{files_fingerprint(folder, names).hex()[:12]}"


def _usual_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(sign in str(error) for sign in ("can't allocate memory", "not enough memory", "out of memory"))
    )


def _free_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

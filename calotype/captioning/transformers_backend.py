"""`TransformersBackend`: captions from a local vision-language model, in batches, with transformers."""

from __future__ import annotations

import gc
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
from calotype.captioning.pretrained_source import PretrainedSource
from calotype.captioning.sampling import Sampling
from calotype.encodings.fingerprint import files_fingerprint
from calotype.errors import CaptionError, ConfigError
from calotype.models.component_files import files_that_count

__all__ = ["TransformersBackend", "captioner_identity", "chat_inputs", "load_captioner", "load_processor"]

_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_TEXT_FILES: Final = (".json", ".txt", ".jinja", ".model")
"""Suffixes of a saved model's files beside its weights: configuration, tokenizer, processor, chat template."""

_TASK: Final = re.compile(r"<[A-Z_]+>")

_BROKEN: Final[tuple[type[Exception], ...]] = (
    (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()  # since PyTorch 2.8
)
"""Errors after which the device is unusable."""


class TransformersBackend:
    """Runs a local captioner: Qwen-VL, SmolVLM, Gemma 3, Llama 3.2 Vision, LLaVA and JoyCaption, Florence-2, and every
    model that `AutoModelForImageTextToText` loads without code from the hub.

    Prompts use the model's own chat template, with padding on the left. A batch that does not fit into memory is
    halved, and so are later ones. While one batch is computed, another thread prepares the next. Up to rounding, an
    answer does not depend on the rest of the batch: each request samples with its own seed.

    Args:
        model: A folder (`save_pretrained`), a name on the hub, or `auto`: the largest of `CAPTIONERS` that fits.
        revision: Revision of a model on the hub.
        device: `cuda`, `cuda:1`, `mps` or `cpu`. Default: the first that is available.
        dtype: `bfloat16`, `float16` or `float32`; None is bfloat16 on a GPU that supports it, else float16, and float32
            on a CPU.
        batch_size: Images per batch.
        max_tokens: Maximum tokens of an answer. One that is cut off is retried once with four times as many.
        temperature: 0 is greedy decoding.
        top_p: Samples only from the most likely tokens that together have this probability. None: from all.

    Raises:
        ConfigError: An option is out of its range.
        CaptionError: The model can't be loaded, or is not a vision-language model.
        MissingDependencyError: transformers is not installed.
    """

    name = "transformers"
    concurrency = 2
    """One call computes while another prepares its inputs."""

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
            raise ConfigError(f"batch_size: found {batch_size!r}, expected a whole number above 0")
        if dtype is not None and dtype not in _DTYPES:
            raise ConfigError(f"dtype: found {dtype!r}, expected one of {', '.join(_DTYPES)}")
        self._sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p)
        self.device = torch.device(device or default_device())
        self.batch_size = batch_size
        self.why: str | None = None
        """The picked model and the reason, with `model="auto"`."""
        if str(model) == "auto":
            picked = pick_captioner(self.device)
            model, self.why = picked.captioner.hub, picked.why
        self._dtype = _DTYPES[dtype] if dtype else _default_dtype(self.device)
        self._processor, self._model = load_captioner(model, revision=revision, dtype=self._dtype, device=self.device)
        _decode_greedily(self._processor, self._model)
        self.model = captioner_identity(model, self._model)
        ends = self._model.generation_config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])
        self._fixed_tasks = self._model.config.model_type == "florence2"
        self._failures = FailureLimit(self.model)
        self._max_batch = batch_size  # shrinks when a batch does not fit into memory
        self._preparing = threading.Lock()  # tokenizers are not thread-safe
        self._computing = threading.Lock()

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {**self._sampling.parameters, "dtype": str(self._dtype).removeprefix("torch.")}

    @property
    def loaded(self) -> tuple[Any, Any]:
        """(processor, model)."""
        return self._processor, self._model

    def caption(self, requests: Sequence[CaptionRequest], /) -> list[CaptionAnswer]:
        """Return one answer per request, in their order.

        Raises:
            CaptionError: The device has failed, the model fails at every image, or it has fixed tasks and a request has
                none.
        """
        answers = self._answers(requests, self._sampling.max_tokens)
        retries: dict[int, list[int]] = {}  # max_tokens → indices of requests
        retried = list(requests)
        for i, answer in enumerate(answers):
            retry = self._sampling.retry(answer, requests[i].seed)
            if retry is not None:
                tokens, seed = retry
                retries.setdefault(tokens, []).append(i)
                retried[i] = replace(requests[i], seed=seed)
        for tokens, indices in retries.items():
            for i, answer in zip(indices, self._answers([retried[i] for i in indices], tokens), strict=True):
                answers[i] = answer
        for answer in answers:
            if answer.kind == "failed":
                self._failures.count_failure(answer.error or "")
            else:
                self._failures.succeeded = True
        return answers

    def close(self) -> None:
        """Release the model's memory."""
        with self._computing:
            self._model = None
        _free_memory(self.device)

    def _answers(self, requests: Sequence[CaptionRequest], max_tokens: int) -> list[CaptionAnswer]:
        """Answer the requests in batches that fit into memory."""
        answers: list[CaptionAnswer] = []
        while len(answers) < len(requests):
            part = requests[len(answers) : len(answers) + self._max_batch]
            done = self._batch(part, max_tokens)
            if done is not None:
                answers += done
                continue
            _free_memory(self.device)  # outside of `except`: a traceback would keep the failed batch's tensors alive
            if len(part) == 1:
                reason = f"one image with up to {max_tokens} tokens needs more than the memory of {self.device}"
                answers.append(CaptionAnswer(error=reason, kind="out_of_memory"))
            self._max_batch = min(self._max_batch, max(1, len(part) // 2))
        return answers

    def _batch(self, requests: Sequence[CaptionRequest], max_tokens: int) -> list[CaptionAnswer] | None:
        """Answer one batch; None if it does not fit into memory."""
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
        # An image that the model can't process (for example with a side of one pixel) must not fail the others.
        singly = [self._batch([request], max_tokens) for request in requests]
        return None if None in singly else [answer for part in singly if part for answer in part]

    def _generate(self, requests: Sequence[CaptionRequest], max_tokens: int) -> list[CaptionAnswer]:
        from transformers import LogitsProcessorList

        with self._preparing:
            inputs = self._inputs(requests)
        with self._computing, torch.inference_mode():
            if self._model is None:
                raise CaptionError(f"{self.model}: closed")
            inputs = inputs.to(self.device, dtype=self._dtype)  # casts floating tensors only
            processors = []
            if self._sampling.temperature > 0:
                seeds = [request.seed for request in requests]
                processors = [
                    GumbelMaxSampler(seeds, temperature=self._sampling.temperature, top_p=self._sampling.top_p)
                ]
            output = self._model.generate(
                **inputs, max_new_tokens=max_tokens, logits_processor=LogitsProcessorList(processors)
            )
            # (B, prompt + tokens) -> (B, tokens); an encoder-decoder has one start token instead of the prompt
            start = 1 if self._model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
            output = output[:, start:].tolist()
        with self._preparing:
            return [self._answer(tokens) for tokens in output]

    def _inputs(self, requests: Sequence[CaptionRequest]) -> Any:
        """Return the model's inputs for one batch, on the CPU. Raises what the processor raises."""
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
                f"{self.model} has fixed tasks such as <DETAILED_CAPTION>, no prompts, and this preset has none; "
                "use the preset 'descriptive' or 'short', a preset of your own with a task, or another model"
            )
        return request.task

    def _answer(self, tokens: list[int]) -> CaptionAnswer:
        end = next((i for i, token in enumerate(tokens) if token in self._ends), None)
        # Special tokens are decoded, too: in some models they mark reasoning.
        text = self._processor.decode(tokens[:end], skip_special_tokens=False)
        special = self._processor.tokenizer.all_special_tokens
        return parse_answer(text, finish_reason="length" if end is None else "stop", special=special)

    def __repr__(self) -> str:
        return f"TransformersBackend(model={self.model!r}, device={str(self.device)!r})"


def chat_inputs(processor: Any, requests: Sequence[CaptionRequest]) -> Any:
    """Return tokens, masks and pixels of requests, from the chat template, for `forward` or `generate`."""
    return processor.apply_chat_template(
        [_conversation(request) for request in requests],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )


def _conversation(request: CaptionRequest) -> list[dict[str, Any]]:
    """Return a request as the messages of a chat template."""
    # The image comes first: some models (Llama 3.2 Vision) attend to it only from later tokens.
    content = [{"type": "image", "image": request.image}, {"type": "text", "text": request.prompt}]
    turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if request.system is not None:
        turns.insert(0, {"role": "system", "content": [{"type": "text", "text": request.system}]})
    return turns


def load_captioner(
    name: str | Path, *, revision: str | None = None, dtype: torch.dtype, device: torch.device
) -> tuple[Any, Any]:
    """Return (processor, model) on the device, in evaluation mode, with padding on the left.

    Args:
        name: A folder (`save_pretrained`), or a name on the hub.
        revision: Revision of a model on the hub.
        dtype: Data type of the weights.
        device: Device of the weights.

    Raises:
        CaptionError: The model can't be loaded, or has no chat template.
        MissingDependencyError: transformers is not installed.
    """
    source = PretrainedSource.find(name, revision)
    processor, _ = _load_processor(source)
    try:
        model = source.load("AutoModelForImageTextToText", dtype=dtype)
        model = model.to(device).eval()
    except Exception as error:
        if _out_of_memory(error):
            raise CaptionError(
                f"model: {name} does not fit into the memory of {device}; `--model auto` picks one that does, and "
                "`--backend http` uses a server"
            ) from error
        raise source.not_loaded(error) from error
    return processor, model


def load_processor(name: str | Path, *, revision: str | None = None) -> tuple[Any, Any]:
    """Return (processor, config), with padding on the left, without reading the weights.

    Args:
        name: A folder (`save_pretrained`), or a name on the hub.
        revision: Revision of a model on the hub.

    Raises:
        CaptionError: The model can't be loaded, or has no chat template.
        MissingDependencyError: transformers is not installed.
    """
    return _load_processor(PretrainedSource.find(name, revision))


def _load_processor(source: PretrainedSource) -> tuple[Any, Any]:
    try:
        processor, config = source.load("AutoProcessor"), source.load("AutoConfig")
    except Exception as error:
        raise source.not_loaded(error) from error
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise source.not_loaded(ValueError(f"{config.model_type} takes no images"))
    if not (accept_content_parts(processor) or config.model_type == "florence2"):
        raise CaptionError(
            f"model: {source.name} has no chat template, so its prompt format is unknown; use an instruction-tuned "
            "model (its name often ends in -it or -Instruct), or Florence-2"
        )
    tokenizer.padding_side = "left"  # generation continues from the last token of the prompt
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor, config


def _decode_greedily(processor: Any, model: Any) -> None:
    """Turn off `generate`'s own sampling."""
    # `GumbelMaxSampler` samples with one seed per request, so the checkpoint's sampling settings don't apply.
    settings = model.generation_config
    settings.do_sample, settings.num_beams = False, 1
    settings.temperature = settings.top_p = settings.top_k = None
    settings.max_length = None
    settings.pad_token_id = processor.tokenizer.pad_token_id
    if settings.eos_token_id is None:
        settings.eos_token_id = processor.tokenizer.eos_token_id


def captioner_identity(name: str | Path, model: Any) -> str:
    """Return `name@revision` of a model on the hub, or `folder@fingerprint` of a local one, without its path."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        revision = getattr(model.config, "_commit_hash", None)
        return f"{name}@{revision[:12]}" if revision else str(name)
    there = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    around = {file for file in there if file.endswith(_TEXT_FILES) and not file.startswith(".")}
    names = sorted(around | set(files_that_count(there)))
    return f"{folder.resolve().name}@{files_fingerprint(folder, names).hex()[:12]}"


def _default_dtype(device: torch.device) -> torch.dtype:
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

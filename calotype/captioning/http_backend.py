"""`HttpBackend`: captions from any server with an OpenAI-compatible chat completions API that accepts images."""

from __future__ import annotations

import base64
import io
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from PIL import Image

from calotype.captioning.answers import parse_answer
from calotype.captioning.api_client import ADDRESSES, ApiClient, NotFoundError, RequestFailedError
from calotype.captioning.backend import CaptionAnswer, CaptionRequest
from calotype.captioning.failure_limit import FailureLimit
from calotype.captioning.sampling import Sampling
from calotype.errors import CaptionError, ConfigError

__all__ = ["API_KEY", "HttpBackend"]

API_KEY: Final = "CALOTYPE_API_KEY"
"""Default environment variable with the server's key. Not OPENAI_API_KEY, which would be sent to any configured URL."""


class HttpBackend:
    """A client of an OpenAI-compatible server: vLLM, Ollama, LM Studio, llama.cpp, `transformers serve`, a service.

    Args:
        url: Base URL of the API: `http://localhost:8000/v1`.
        model: The server's name for the model; None or `auto` takes the one model that the server lists.
        max_tokens: Maximum tokens of an answer. One that is cut off is retried once with four times as many.
        temperature: 0 is greedy decoding; above 0 the request's seed is sent.
        top_p: Samples only from the most likely tokens that together have this probability; None: the server's.
        concurrency: Concurrent requests. The attribute `concurrency` is a quarter higher: the additional calls of
            `caption` encode their images in the meantime.
        timeout: Maximum seconds per attempt, including generation.
        retries: Attempts after the first, for errors of the server or the network.
        patience: Maximum seconds that one request waits for a busy server (429, 503).
        image_format: `jpeg` (quality 95) or `png` (lossless, several times as large).
        api_key_env: The environment variable with the server's key. Default: CALOTYPE_API_KEY, if it is set.
        extra: Additional fields of each request (`{"chat_template_kwargs": {"enable_thinking": false}}`); None removes
            a field.

    Raises:
        ConfigError: An option is out of its range, or the environment variable is not set.
        CaptionError: The server can't be reached or requires a key, or lists several models.
    """

    name = "http"
    batch_size = 1

    def __init__(
        self,
        *,
        url: str,
        model: str | None = None,
        max_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float | None = None,
        concurrency: int = 16,
        timeout: float = 120.0,
        retries: int = 3,
        patience: float = 300.0,
        image_format: Literal["jpeg", "png"] = "jpeg",
        api_key_env: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if image_format not in ("jpeg", "png"):
            raise ConfigError(f"image_format: found {image_format!r}, expected 'jpeg' or 'png'")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise ConfigError(f"concurrency: found {concurrency!r}, expected a whole number above 0")
        self.concurrency = concurrency + max(2, concurrency // 4)
        self._slots = threading.BoundedSemaphore(concurrency)
        self._client = ApiClient(
            url,
            key=_key(api_key_env),
            key_from=f"the environment variable {api_key_env or API_KEY}",
            timeout=timeout,
            retries=retries,
            patience=patience,
            connections=concurrency,
        )
        self._image_format: Literal["jpeg", "png"] = image_format
        self._sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p)
        self._extra = dict(extra or {})
        self._failures = FailureLimit(self._client.url)
        try:
            self.model = self._resolve_model(None if model == "auto" else model)
        except BaseException:
            self.close()
            raise

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {**self._sampling.parameters, "image_format": self._image_format, **self._extra}

    def caption(self, requests: Sequence[CaptionRequest], /) -> list[CaptionAnswer]:
        """Return one answer per request, in their order. Raises as `CaptionBackend.caption` does."""
        return [self._caption(request) for request in requests]

    def close(self) -> None:
        self._client.close()

    def _caption(self, request: CaptionRequest) -> CaptionAnswer:
        image = _data_url(request.image, self._image_format)
        try:
            with self._slots:
                answer = self._ask(request, image, self._sampling.max_tokens, request.seed)
                again = self._sampling.retry(answer, request.seed)
                if again is not None:
                    answer = self._ask(request, image, *again)
        except RequestFailedError as error:
            if error.kind == "refused" and self.model in str(error) and not self._failures.succeeded:
                raise CaptionError(f"{self._client.url}: {error}{self._offered()}") from error
            self._failures.count_failure(str(error))
            return CaptionAnswer(error=str(error), kind=error.kind)
        except NotFoundError as error:
            raise CaptionError(f"{self._client.url}: {error}{self._offered()}") from error
        self._failures.succeeded = True
        return answer

    def _ask(self, request: CaptionRequest, image: str, max_tokens: int, seed: int) -> CaptionAnswer:
        # The image comes first: some models (Llama 3.2 Vision) attend to it only from later tokens.
        content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": request.prompt}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if request.system is not None:
            messages.insert(0, {"role": "system", "content": request.system})
        body = {"model": self.model, "messages": messages, **self._sampling.parameters, "max_tokens": max_tokens}
        if self._sampling.temperature > 0:
            body["seed"] = seed
        body |= self._extra
        body = {key: value for key, value in body.items() if value is not None}
        return self._client.post("chat/completions", body, _read_completion)

    def _resolve_model(self, model: str | None) -> str:
        """Return the model of the requests. Calls the server in any case, so that an unreachable one fails at once."""
        try:
            offered = self._client.get("models", _read_models)
        except (NotFoundError, RequestFailedError) as error:
            if model is None:
                raise CaptionError(
                    f"{self._client.url}: listing its models failed: {error}. If this is the URL of an "
                    f"OpenAI-compatible API, set model. {ADDRESSES}"
                ) from error
            offered = []  # some servers can't list; a wrong name or URL fails at the first image
        if model is not None:
            return model  # even if it is not listed: a server may list only what it has downloaded
        if len(offered) == 1:
            return offered[0]
        if not offered:
            raise CaptionError(f"{self._client.url}: the server lists no model; start it with one, or set model")
        raise CaptionError(
            f"{self._client.url}: the server lists {len(offered)} models; set model to one of them: "
            f"{', '.join(sorted(offered))}"
        )

    def _offered(self) -> str:
        """Return the end of the error for an unknown model: those that the server lists."""
        try:
            offered = self._client.get("models", _read_models)
        except (CaptionError, RequestFailedError):
            return f"; the requested model is {self.model!r}, and the server does not list its models. {ADDRESSES}"
        return f"; the requested model is {self.model!r}, and the server lists {', '.join(sorted(offered)) or 'none'}"

    def __repr__(self) -> str:
        return f"HttpBackend(url={self._client.url!r}, model={self.model!r})"


def _key(name: str | None) -> str | None:
    found = os.environ.get(name or API_KEY, "").strip()
    if name is not None and not found:
        raise ConfigError(f"api_key_env: the environment variable {name} is not set; set it to the server's key")
    if not found.isascii() or not found.isprintable():
        raise ConfigError(f"the environment variable {name or API_KEY} holds characters that no key has; set it again")
    return found or None


def _data_url(image: Image.Image, format: Literal["jpeg", "png"]) -> str:
    file = io.BytesIO()
    if format == "jpeg":
        image.save(file, "JPEG", quality=95, subsampling=0)
    else:
        image.save(file, "PNG", compress_level=1)
    return f"data:image/{format};base64,{base64.b64encode(file.getvalue()).decode()}"


def _read_models(found: Any) -> list[str]:
    try:
        return [str(model["id"]) for model in found["data"] or ()]
    except (KeyError, TypeError) as error:
        raise ValueError("expected a list of models") from error


def _read_completion(found: Any) -> CaptionAnswer:
    """Parse a chat completion. Raises a ValueError if it is not one."""
    try:
        choice = found["choices"][0]
        message, finish_reason = choice["message"], choice.get("finish_reason")
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(part.get("text", "") for part in content)
        refusal = message.get("refusal")
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        said = found.get("error") if isinstance(found, dict) else None
        raise ValueError(f"expected a chat completion with one choice{f', found {said}' if said else ''}") from error
    if refusal and not content:
        return CaptionAnswer(error=f"the model refused: {refusal}", kind="refused", finish_reason=finish_reason)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"expected text in the message, found {type(content).__name__}")
    reasoned = bool(message.get("reasoning_content") or message.get("reasoning"))
    return parse_answer(content, finish_reason=finish_reason, reasoned=reasoned)

"""`HttpBackend`: captions from any server that speaks OpenAI's chat completions and takes images."""

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
"""The environment variable that a server's key is taken from unless another is named. Not OPENAI_API_KEY: that one
would go to whatever address is typed."""


class HttpBackend:
    """Asks an OpenAI-compatible server: vLLM, Ollama, LM Studio, llama.cpp, `transformers serve`, a service.

    Args:
        url: Where its API begins: `http://localhost:8000/v1`.
        model: The server's name for the model; None (or `auto`) asks the server, which must offer exactly one.
        max_tokens: Of an answer. One that is cut off is asked for once more with four times as many.
        temperature: 0 always takes the likeliest word; above 0 a request's seed is sent along.
        top_p: Draws only from the likeliest words that together have this probability; None leaves it to the server.
        concurrency: Requests under way at a time. So that each is followed by the next at once, a quarter more calls of
            `caption` are welcome, which encode their images meanwhile.
        timeout: Seconds that one try may take in all.
        retries: Tries after the first, for what may be the server's or the network's fault.
        patience: Seconds that one request waits for a busy server (429, 503) at most.
        image_format: `jpeg` (quality 95) or `png` (exact, several times as large).
        api_key_env: The environment variable that holds the server's key; None takes CALOTYPE_API_KEY where it is set.
        extra: Further fields of each request (`{"chat_template_kwargs": {"enable_thinking": false}}`); one that is
            None is left out of it.

    Raises:
        ConfigError: An option is out of its range, or the environment variable is not set.
        CaptionError: The server can't be reached or wants a key, or which model is meant is not clear.
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
            raise ConfigError(f"image_format: 'jpeg' or 'png' was expected, found {image_format!r}")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise ConfigError(f"concurrency: a whole number above 0 was expected, found {concurrency!r}")
        self.concurrency = concurrency + max(2, concurrency // 4)
        self._under_way = threading.BoundedSemaphore(concurrency)
        self._server = ApiClient(
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
        self._first = FailureLimit(self._server.url)
        try:
            self.model = self._which_model(None if model == "auto" else model)
        except BaseException:
            self.close()
            raise

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {**self._sampling.parameters, "image_format": self._image_format, **self._extra}

    def caption(self, requests: Sequence[CaptionRequest], /) -> list[CaptionAnswer]:
        """One answer for each request, in their order. Raises as the protocol says."""
        return [self._caption(request) for request in requests]

    def close(self) -> None:
        self._server.close()

    def _caption(self, request: CaptionRequest) -> CaptionAnswer:
        image = _data_url(request.image, self._image_format)
        try:
            with self._under_way:
                answer = self._ask(request, image, self._sampling.max_tokens, request.seed)
                again = self._sampling.second_try(answer, request.seed)
                if again is not None:
                    answer = self._ask(request, image, *again)
        except RequestFailedError as error:
            if error.kind == "refused" and self.model in str(error) and not self._first.answered:
                raise CaptionError(f"{self._server.url}: {error}{self._offered()}") from error
            self._first.count_failure(str(error))
            return CaptionAnswer(error=str(error), kind=error.kind)
        except NotFoundError as error:
            raise CaptionError(f"{self._server.url}: {error}{self._offered()}") from error
        self._first.answered = True
        return answer

    def _ask(self, request: CaptionRequest, image: str, max_tokens: int, seed: int) -> CaptionAnswer:
        # The image comes first: some models (Llama 3.2 Vision) look only from the words that follow it.
        content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": request.prompt}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if request.system is not None:
            messages.insert(0, {"role": "system", "content": request.system})
        body = {"model": self.model, "messages": messages, **self._sampling.parameters, "max_tokens": max_tokens}
        if self._sampling.temperature > 0:
            body["seed"] = seed
        body |= self._extra
        body = {key: value for key, value in body.items() if value is not None}
        return self._server.post("chat/completions", body, _read_completion)

    def _which_model(self, asked_for: str | None) -> str:
        """The model to name in requests. Asks the server in any case, to hear at once when it can't be reached."""
        try:
            offered = self._server.get("models", _read_models)
        except (NotFoundError, RequestFailedError) as error:
            if asked_for is None:
                raise CaptionError(
                    f"{self._server.url}: asked which models it has, {error}. If this is the address of an "
                    f"OpenAI-compatible API, say which to use. {ADDRESSES}"
                ) from error
            offered = []  # some servers can't say; a wrong name or address shows with the first image
        if asked_for is not None:
            return asked_for  # if it is not among them too: a server may list only what it has downloaded
        if len(offered) == 1:
            return offered[0]
        if not offered:
            raise CaptionError(
                f"{self._server.url}: the server offers no model; start it with one, or say which to use"
            )
        raise CaptionError(
            f"{self._server.url}: the server offers {len(offered)} models; say which of them to use: "
            f"{', '.join(sorted(offered))}"
        )

    def _offered(self) -> str:
        """What there is in place of a model that there is not, as an error's last words."""
        try:
            offered = self._server.get("models", _read_models)
        except (CaptionError, RequestFailedError):
            return f"; model {self.model!r} was asked for, and the server does not say which it has. {ADDRESSES}"
        return f"; model {self.model!r} was asked for, and the server offers {', '.join(sorted(offered)) or 'none'}"

    def __repr__(self) -> str:
        return f"HttpBackend(url={self._server.url!r}, model={self.model!r})"


def _key(name: str | None) -> str | None:
    found = os.environ.get(name or API_KEY, "").strip()
    if name is not None and not found:
        raise ConfigError(f"api_key_env: the environment variable {name} is not set; put the server's key into it")
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
        raise ValueError("a list of models was expected") from error


def _read_completion(found: Any) -> CaptionAnswer:
    """The answer in a chat completion. Raises a ValueError where it is none."""
    try:
        choice = found["choices"][0]
        message, finish_reason = choice["message"], choice.get("finish_reason")
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(part.get("text", "") for part in content)
        refusal = message.get("refusal")
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        said = found.get("error") if isinstance(found, dict) else None
        raise ValueError(f"a chat completion with one choice was expected{f', not {said}' if said else ''}") from error
    if refusal and not content:
        return CaptionAnswer(error=f"the model refused: {refusal}", kind="refused", finish_reason=finish_reason)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"text was expected in the message, not {type(content).__name__}")
    reasoned = bool(message.get("reasoning_content") or message.get("reasoning"))
    return parse_answer(content, finish_reason=finish_reason, reasoned=reasoned)

"""`accept_content_parts`: make a chat template that expects plain strings accept an image and a text as parts."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["accept_content_parts"]

_PROBE: Final = "zxq probe of the template qxz"

_FLATTEN: Final = """\
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set flat.text = '' -%}
{%- if message['content'] is string -%}
{%- set flat.text = message['content'] -%}
{%- else -%}
{%- for part in message['content'] -%}
{%- set flat.text = flat.text + (IMAGE if part['type'] == 'image' else part['text']) -%}
{%- endfor -%}
{%- endif -%}
{%- set flat.messages = flat.messages + [{'role': message['role'], 'content': flat.text}] -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""
"""Goes before a template that wants strings. `IMAGE` is what stands in them for an image."""


def accept_content_parts(processor: Any) -> bool:
    """Makes sure that the processor's chat template takes messages whose content is a list of parts.

    Most templates of vision-language models do. Some are still those of their language model, and would print the list
    into the prompt without a word. Those get a few lines in front that make strings of parts.

    Args:
        processor: Is changed where that is needed; one without a template gets its tokenizer's.

    Returns:
        Whether it has a template now.
    """
    if processor.chat_template is None:
        processor.chat_template = processor.tokenizer.chat_template
    if processor.chat_template is None:
        return False
    parts = [{"type": "image"}, {"type": "text", "text": _PROBE}]
    if _takes(processor, parts):
        return True
    rendered = _rendered(processor, _PROBE)
    token = getattr(processor, "image_token", None)
    if rendered is None or not isinstance(processor.chat_template, str) or token is None:
        return True  # a template of its own kind: what is wrong with it shows when it is used
    image = "" if token in rendered else f"{token}\n"  # some put the image before the question by themselves
    processor.chat_template = _FLATTEN.replace("IMAGE", json.dumps(image)) + processor.chat_template
    return True


def _takes(processor: Any, content: Any) -> bool:
    rendered = _rendered(processor, content)
    return rendered is not None and _PROBE in rendered and "'type'" not in rendered and '"type"' not in rendered


def _rendered(processor: Any, content: Any) -> str | None:
    """A question with this content as the model would get it; None where the template can't make anything of it."""
    try:
        rendered: str = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    except Exception:  # Jinja's, or whatever the template's own code raises
        return None
    return rendered

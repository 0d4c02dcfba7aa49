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
"""Prefix for a template that expects strings. `IMAGE` is replaced by the image token."""


def accept_content_parts(processor: Any) -> bool:
    """Make the processor's chat template accept messages whose content is a list of parts.

    Most templates of vision-language models do. Some models have the template of their language model, which would
    print the list into the prompt without an error. Such a template gets a prefix that joins the parts.

    Args:
        processor: Changed in place if needed; without a template it gets its tokenizer's.

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
        return True  # an unknown kind of template: errors show when it is used
    image = "" if token in rendered else f"{token}\n"  # some templates add the image token
    processor.chat_template = _FLATTEN.replace("IMAGE", json.dumps(image)) + processor.chat_template
    return True


def _takes(processor: Any, content: Any) -> bool:
    rendered = _rendered(processor, content)
    return rendered is not None and _PROBE in rendered and "'type'" not in rendered and '"type"' not in rendered


def _rendered(processor: Any, content: Any) -> str | None:
    """Return the rendered prompt of one message; None if the template raises."""
    try:
        rendered: str = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    except Exception:  # Jinja's errors, or any that the template raises
        return None
    return rendered

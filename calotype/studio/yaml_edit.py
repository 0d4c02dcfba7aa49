"""`edit_yaml`: changes single values in a YAML text, and preserves comments, order, quotes and references.

PyYAML reports the position of each value (`Node.start_mark`), and only those characters are replaced. The result is
parsed again to verify it: a change that is not possible this way, as of a value shared through an anchor, is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from calotype.errors import ConfigError

__all__ = ["edit_yaml", "lost_comments"]

Path = tuple[str, ...]

_COMMENT = re.compile(r"(?:^|(?<=\s))#.*", re.MULTILINE)


def edit_yaml(text: str, changes: Mapping[Path, tuple[Any, Any]]) -> str:
    """Return the text with changed values.

    Args:
        text: YAML whose top level is a mapping.
        changes: Path (keys from the top) → (current value with `${…}` resolved, new value). Of two mappings only the
            differences are written; a key that is not in the new one is removed.

    Raises:
        ConfigError: The text can't be changed this way; the message has the YAML to write by hand.
    """
    try:
        expected = _apart(yaml.safe_load(text)) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"the file is not valid YAML: {' '.join(str(error).split())}") from None
    made = text
    try:
        for prefix, (before, after) in changes.items():
            for path, value in _differences(before, after, prefix):
                made = _removed(made, path) if value is _REMOVED else _set(made, path, value)
                _apply(expected, path, value)
        same = (yaml.safe_load(made) or {}) == expected
    except yaml.YAMLError:
        same = False
    if not same:
        wanted = {".".join(prefix): after for prefix, (_, after) in changes.items()}
        raise ConfigError(
            "the file can't be changed here without side effects (an anchor, a merge key or a nested "
            f"style); write it by hand: {yaml.safe_dump(wanted, default_flow_style=None, sort_keys=False).strip()}"
        )
    return made


def lost_comments(before: str, after: str) -> list[str]:
    """Return the comments that are in `before` and not in `after`."""
    lost = Counter(_COMMENT.findall(before)) - Counter(_COMMENT.findall(after))
    return list(lost.elements())


class _Removed:
    """Marks a value that is removed."""


_REMOVED = _Removed()


def _differences(before: Any, after: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield the smallest changes: (path, new value or `_REMOVED`)."""
    if before == after and isinstance(before, bool) == isinstance(after, bool):
        return  # 1 and 1.0 are equal, 1 and true are not
    if not (isinstance(before, Mapping) and isinstance(after, Mapping) and before and after):
        yield path, after
        return
    for key in [*before, *(key for key in after if key not in before)]:
        if key not in after:
            yield (*path, key), _REMOVED
        elif key not in before:
            yield (*path, key), after[key]
        else:
            yield from _differences(before[key], after[key], (*path, key))


def _apart(value: Any) -> Any:
    """Return a deep copy in which values shared through an anchor are separate objects."""
    if isinstance(value, dict):
        return {key: _apart(one) for key, one in value.items()}
    return [_apart(one) for one in value] if isinstance(value, list) else value


def _apply(document: Any, path: Path, value: Any) -> None:
    for key in path[:-1]:
        if not isinstance(document.get(key), dict):
            document[key] = {}
        document = document[key]
    if value is _REMOVED:
        document.pop(path[-1], None)
    else:
        document[path[-1]] = value


def _set(text: str, path: Path, value: Any) -> str:
    node, name = _compose(text), None
    for depth, key in enumerate(path):
        pair = _pair(node, key)
        if pair is None:
            for inner in reversed(path[depth + 1 :]):
                value = {inner: value}
            return _inserted(text, node, key, value)
        name, node = pair
    start, end = node.start_mark.index, _end(text, node)
    if start == end:  # `key:` without a value
        return f"{text[:start].rstrip(' ')} {_flow(value)}{text[end:]}"
    if name is not None and isinstance(node, yaml.CollectionNode) and not node.flow_style:
        # A block list may start in its key's column, where no other value is valid: write after the colon instead.
        colon = text.index(":", name.end_mark.index) + 1
        return f"{text[:colon]} {_flow(value)}{text[colon:start].rstrip()}{text[end:]}"
    return text[:start] + _flow(value) + text[end:]


def _inserted(text: str, node: yaml.Node, key: str, value: Any) -> str:
    entry = f"{_flow(key)}: {_flow(value)}"
    if not isinstance(node, yaml.MappingNode):  # null instead of a mapping
        return _over(text, node, f" {{{entry}}}" if node.start_mark.index == _end(text, node) else f"{{{entry}}}")
    if node.flow_style:
        behind = _end(text, node.value[-1][1]) if node.value else text.index("{", node.start_mark.index) + 1
        return f"{text[:behind]}{', ' if node.value else ''}{entry}{text[behind:]}"
    line_end = text.find("\n", _end(text, node))
    line_end = len(text) if line_end < 0 else line_end
    if line_end and text[line_end - 1 : line_end] == "\r":
        line_end -= 1
    newline = "\r\n" if "\r\n" in text else "\n"
    return f"{text[:line_end]}{newline}{' ' * node.value[0][0].start_mark.column}{entry}{text[line_end:]}"


def _removed(text: str, path: Path) -> str:
    node = _compose(text)
    for key in path[:-1]:
        pair = _pair(node, key)
        if pair is None:
            return text
        node = pair[1]
    pair = _pair(node, path[-1])
    if pair is None:
        return text
    assert isinstance(node, yaml.MappingNode)
    start, end = pair[0].start_mark.index, _end(text, pair[1])
    if len(node.value) == 1:
        return _over(text, node, "{}")
    if node.flow_style:
        index = node.value.index(pair)
        if index + 1 < len(node.value):
            return text[:start] + text[node.value[index + 1][0].start_mark.index :]
        return text[: _end(text, node.value[index - 1][1])] + text[end:]
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    return text[:line_start] + (text[line_end + 1 :] if line_end >= 0 else "")


def _over(text: str, node: yaml.Node, new: str) -> str:
    return text[: node.start_mark.index] + new + text[_end(text, node) :]


class _Places(yaml.SafeLoader):
    """Loads nodes with their positions. An alias has its own position, not that of its anchor."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            return yaml.ScalarNode("alias", event.anchor, event.start_mark, event.end_mark)
        return super().compose_node(parent, index)


def _compose(text: str) -> yaml.Node:
    node = yaml.compose(text, Loader=_Places)
    if node is None:
        raise ConfigError("the file is empty, or nothing but comments")
    return node


def _pair(node: yaml.Node, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                return name, value
    return None


def _end(text: str, node: yaml.Node) -> int:
    """Return the index after a node's last character: the end mark of a block is after the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, Sequence) else last)
    end: int = node.end_mark.index
    return len(text[:end].rstrip()) if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">") else end


def _flow(value: Any) -> str:
    """Return a value as YAML on one line, valid in any context."""
    # Dumped as the only item of a list, so that commas and brackets in it are quoted.
    dumped: str = yaml.safe_dump([value], default_flow_style=True, width=1 << 30, allow_unicode=True, sort_keys=False)
    return dumped.strip()[1:-1]

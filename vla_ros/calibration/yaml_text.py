"""Values put into a YAML file's text, so that its comments and its order stay."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from vla_ros.config import parse_yaml, plain
from vla_ros.errors import ConfigError

Path = tuple[str, ...]


def set_values(text: str, values: Mapping[Path, Any], where: str) -> str:
    """The text with some values replaced, or added where their keys are missing.

    Args:
        text: YAML with a mapping.
        values: keys from the outermost in -> number, text, list or mapping of these.
        where: the text comes from, for the error text.

    Raises:
        ConfigError: for a text that isn't a mapping, or that says something else afterwards (as with anchors).
    """
    # Without what anchors share: a change of one is a change of that one.
    wanted = plain(parse_yaml(text, where))
    for path, value in values.items():
        text = _set_value(text, path, value, where)
        _put(wanted, path, value, where)
    if plain(parse_yaml(text, where)) != wanted:
        mend = "write the values in by hand: " + "; ".join(f"{'.'.join(k)}: {_flow(v)}" for k, v in values.items())
        raise ConfigError(where, "its form can't be edited without a change of its meaning", mend)
    return text


def difference(before: str, after: str, name_before: str, name_after: str) -> str:
    """A unified diff."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, name_before, name_after, n=1))


def _put(data: Any, path: Path, value: Any, where: str) -> None:
    for key in path[:-1]:
        if not isinstance(data, dict) or not isinstance(data.setdefault(key, {}), dict):
            raise ConfigError(where, f"{'.'.join(path)} leads through what isn't a mapping", "mend the file")
        data = data[key]
    data[path[-1]] = value


def _set_value(text: str, path: Path, value: Any, where: str) -> str:
    node = yaml.compose(text, yaml.SafeLoader)
    for depth, key in enumerate(path):
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(where, f"{'.'.join(path[:depth])} isn't a mapping", "mend the file")
        entry = next(((name, item) for name, item in node.value if name.value == key), None)
        if entry is None:
            for inner in reversed(path[depth + 1 :]):
                value = {inner: value}
            return _insert(text, node, key, value)
        name, node = entry
        if depth == len(path) - 1:
            return _replace(text, name, node, value)
    raise ConfigError(where, "no key is given", "name one")


def _replace(text: str, name: yaml.Node, node: yaml.Node, value: Any) -> str:
    begin, end = node.start_mark.index, _end(node)
    if begin == end:  # Nothing stands there, as in `key:`.
        begin = end = text.index(":", name.end_mark.index) + 1
    space = "" if text[begin - 1] in " \n" else " "
    if "\n" in text[name.end_mark.index : begin]:  # A block below its key moves up beside it.
        begin = text.index(":", name.end_mark.index) + 1
        space = " "
    return text[:begin] + space + _flow(value) + text[end:]


def _insert(text: str, node: yaml.MappingNode, key: str, value: Any) -> str:
    entry = f"{key}: {_flow(value)}"
    if node.flow_style:
        close = node.end_mark.index - 1
        return text[:close].rstrip() + (", " if node.value else "") + entry + text[close:]
    last = node.value[-1][1]
    end = max(_end(last), node.value[-1][0].end_mark.index)
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    indent = " " * node.value[0][0].start_mark.column
    return f"{text[:line_end]}\n{indent}{entry}{text[line_end:]}"


def _end(node: yaml.Node) -> int:
    """Where its text ends; marks of blocks are behind the comments that follow them."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()

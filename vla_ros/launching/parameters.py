"""Values of `<param>`: from an XML string to the type that ROS gives it, and on to a parameter file.

Without `type` a value is read as YAML: 5 is an int, 5.0 a float, true a bool, [a, b] a list, all else a string; what a
substitution yields is read the same way once more. `type` fixes it. A quoted value ('5') is a string.

Source: `launch.utilities.type_utils` and `launch_ros.parameter_descriptions`, Humble to Kilted. Refused beyond them:
empty and nested lists and 1 or 0 for `type="bool"`, which ROS or one of these distributions rejects later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import yaml

from vla_ros.errors import ConfigError, did_you_mean
from vla_ros.launching import templates
from vla_ros.launching.graph import NodeAction, Parameter, ParameterFile, ParameterValue

_SCALARS: dict[str, type] = {"str": str, "bool": bool, "int": int, "float": float}
_TYPES = ("yaml", *_SCALARS, *(f"list_of_{name}" for name in _SCALARS))


def typed_value(
    text: str, type_name: str | None, substitute: Callable[[templates.Template], str], where: str
) -> ParameterValue:
    """The value of a `<param>`.

    Args:
        text: the attribute `value` as written.
        type_name: the attribute `type`, if any.
        substitute: what evaluates a template.
        where: file and line, for the error text.

    Raises:
        ConfigError: if the text doesn't have the type asked for or ROS has no type for it.
    """
    type_name = type_name or "yaml"
    if type_name not in _TYPES:
        raise ConfigError(where, f"unknown type {type_name!r} of <param>", did_you_mean(type_name, _TYPES))

    def fill(piece: str, wanted: str) -> Any:
        template = templates.parse(piece, where)
        if templates.is_plain(template):
            plain = "".join(part for part in template if isinstance(part, str))
            return plain if wanted in ("yaml", "str") else _coerce(plain, wanted, where)
        return _coerce(substitute(template), wanted, where)

    if type_name in _SCALARS:
        return _checked(fill(text, type_name), text, where)
    read = _as_yaml(text)
    if isinstance(read, list):
        item_type = type_name.removeprefix("list_of_")
        items = [fill(item, item_type) if isinstance(item, str) else item for item in read]
        value: Any = items
        if item_type in _SCALARS and any(type(item) is not _SCALARS[item_type] for item in items):
            raise ConfigError(where, f"{text!r} isn't a {type_name}", "write every item in that type")
    elif type_name != "yaml":
        raise ConfigError(where, f"{text!r} isn't a list", "write [a, b], or leave 'type' out")
    else:
        value = fill(read, "yaml") if isinstance(read, str) else read
    return _checked(value, text, where)


def _as_yaml(text: str) -> Any:
    """What YAML makes of it; an empty text and one that isn't YAML stay texts."""
    try:
        return yaml.safe_load(text) if text else text
    except yaml.YAMLError:
        return text


def _coerce(text: str, wanted: str, where: str) -> Any:
    if wanted == "str" or (wanted == "yaml" and not text):
        return text
    try:
        if wanted in ("int", "float"):
            return _SCALARS[wanted](text)
        value = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        if wanted == "yaml":
            raise ConfigError(where, f"{text!r} isn't YAML", 'write type="str" if it is a text') from error
        raise ConfigError(where, f"{text!r} isn't of type {wanted}", "mend the value or the type") from error
    if wanted == "bool" and not isinstance(value, bool):
        raise ConfigError(where, f"{text!r} isn't of type bool", "write true or false")
    return value


def _checked(value: Any, text: str, where: str) -> ParameterValue:
    if type(value) in (bool, int, float, str):
        return value
    if not isinstance(value, list):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise ConfigError(where, f"{text!r} is {found}, which no ROS parameter can be", 'quote it or write type="str"')
    kinds = {type(item) for item in value}
    if len(kinds) != 1 or not kinds <= {bool, int, float, str}:
        raise ConfigError(where, f"the list {text!r} doesn't hold one kind of scalar", "write [1.0, 2.0], not [1, 2.0]")
    return value


def parameter_steps(node: NodeAction) -> list[ParameterFile | str]:
    """A node's parameters in order: its files, and between them the text of the files to write for single values.

    Single values are keyed by the node's full name where the launch file gives it, else by `/**`, as launch_ros does;
    rcl lets a full name outrank a wildcard whatever the order.
    """
    steps: list[ParameterFile | str] = []
    values: dict[str, ParameterValue] = {}
    for item in node.parameters:
        if isinstance(item, Parameter):
            values[item.name] = item.value
        else:
            steps += [_file_text(node, values)] if values else []
            steps.append(item)
            values = {}
    return steps + ([_file_text(node, values)] if values else [])


def _file_text(node: NodeAction, values: dict[str, ParameterValue]) -> str:
    return yaml.safe_dump({node.full_name or "/**": {"ros__parameters": values}}, default_flow_style=False)


def command_line(node: NodeAction, program: Sequence[str], params_files: Sequence[str]) -> list[str]:
    """The words that start a node.

    Args:
        node: the node.
        program: the words that start its program.
        params_files: one path for each of `parameter_steps(node)`.
    """
    words = [*program, *node.arguments, "--ros-args"]
    if node.name is not None:
        words += ["-r", f"__node:={node.name}"]
    if node.namespace is not None:
        words += ["-r", f"__ns:={node.namespace}"]
    for path in params_files:
        words += ["--params-file", path]
    for source, target in node.remaps:
        words += ["-r", f"{source}:={target}"]
    return words

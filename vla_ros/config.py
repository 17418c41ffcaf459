"""YAML files to frozen dataclasses: unknown keys refused, types and choices checked, errors with file and key."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from vla_ros.errors import ConfigError, UnknownNameError, did_you_mean

T = TypeVar("T")


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, but `1e-3` is a number, as YAML 1.2 and people have it, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key isn't a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def package_share() -> Path:
    """The folder that holds `config/`, `launch/` and `urdf/`.

    That is the checkout when the package is run from one, else `share/vla_ros` of the prefix it is installed in.
    """
    package = Path(__file__).resolve().parent
    if (package.parent / "package.xml").is_file():
        return package.parent
    for prefix in package.parents:
        if (prefix / "share" / "vla_ros" / "package.xml").is_file():
            return prefix / "share" / "vla_ros"
    raise ConfigError(
        str(package), "no share/vla_ros in any folder above it", "install with pip or colcon, not by copying"
    )


def config_names(folder: str) -> list[str]:
    """Names of the YAML files in `config/<folder>`, without their ending."""
    return sorted(path.stem for path in (package_share() / "config" / folder).glob("*.yaml"))


def find_config(folder: str, name: str) -> Path:
    """The file that a name or a path stands for.

    Args:
        folder: `robots`, `rigs`, `contracts` or `policies`.
        name: a name from `config_names(folder)`, or the path of a YAML file.

    Raises:
        UnknownNameError: if it is neither.
    """
    if name.endswith((".yaml", ".yml")):
        path, mend = expand_home(name), f"give a path that exists or one of: {', '.join(config_names(folder))}"
        try:
            if path.is_file():
                return path
        except OSError as error:
            raise ConfigError(name, f"can't be looked up ({error.strerror})", mend) from error
        raise ConfigError(name, "no such file", mend)
    if name in config_names(folder):
        return package_share() / "config" / folder / f"{name}.yaml"
    raise UnknownNameError(folder.removesuffix("s") if folder != "policies" else "policy", name, config_names(folder))


def expand_home(path: str) -> Path:
    """The path with the home folder in the place of a `~` or `~user` that it begins with.

    Raises:
        ConfigError: if there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(path, "begins with the home folder of nobody", "write the path out") from error


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: if the file can't be read, isn't YAML or doesn't hold a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            str(path), f"can't be read ({error.strerror})", "check the path and its permissions"
        ) from error
    except ValueError as error:
        raise ConfigError(str(path), f"isn't YAML ({error})", "write it in UTF-8") from error
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(str(path), f"holds {type(data).__name__}", "it has to be a mapping of keys to values")
    return data


def parse_yaml(text: str, where: str) -> Any:
    """What a text in YAML says.

    Args:
        text: the YAML.
        where: it comes from, for the error text.

    Raises:
        ConfigError: if it isn't YAML.
    """
    try:
        return yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: what looks like a number or a date and is none.
        raise ConfigError(where, f"isn't YAML ({' '.join(str(error).split())})", "mend the line it names") from error


def plain(item: Any) -> Any:
    """Mappings to dicts and sequences to lists, as YAML and JSON have them."""
    if isinstance(item, Mapping):
        return {str(key): plain(value) for key, value in item.items()}
    return [plain(entry) for entry in item] if isinstance(item, list | tuple) else item


def load(cls: type[T], path: Path) -> T:
    """Reads a YAML file into a dataclass. See `build`."""
    return build(cls, load_yaml(path), str(path))


def build(cls: type[T], data: Any, where: str) -> T:
    """Turns plain YAML data into a (nested) dataclass.

    Sequences become tuples. A whole number is taken where a float is asked for, nothing else is converted.

    Args:
        cls: the dataclass.
        data: what the YAML holds.
        where: file and key, for the error text.

    Raises:
        ConfigError: for an unknown or missing key, a wrong type, or what `cls.__post_init__` refuses with ValueError.
    """
    if not isinstance(data, dict):
        raise ConfigError(where, f"expected a mapping, found {data!r}", f"its keys are: {', '.join(_field_names(cls))}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ConfigError(where, f"unknown key {key!r}", did_you_mean(str(key), fields))
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(where, f"key {name!r} is missing", "add it")
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(where, str(error), "mend the value") from error


def _field_names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (inner,) = [arg for arg in args if arg is not type(None)]
        return _convert(inner, value, where)
    if origin is typing.Literal:
        # true equals 1, and isn't meant by it.
        for choice in args:
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return choice
        raise ConfigError(where, f"{value!r} isn't a choice", "choose from: " + ", ".join(map(str, args)))
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple:
        return _convert_tuple(args, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(where, f"expected a mapping, found {value!r}", "write `name: value` lines")
        return {str(key): _convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(where, "is too large for a float", "mend the value") from error
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(where, f"expected {hint.__name__}, found {value!r}", "mend the value")
    return value


def _convert_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ConfigError(where, f"expected a list, found {value!r}", "write [a, b, ...]")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(args):
        raise ConfigError(where, f"has {len(value)} items, needs {len(args)}", "mend the list")
    return tuple(_convert(arg, item, f"{where}[{i}]") for i, (arg, item) in enumerate(zip(args, value, strict=True)))

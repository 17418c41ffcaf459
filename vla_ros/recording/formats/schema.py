"""A schema as JSON, where two of them differ, and a format's options: what every format says in the same words."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from vla_ros.config import build, plain
from vla_ros.contract import find_differences
from vla_ros.errors import ConfigError, DatasetError
from vla_ros.recording.dataset import Schema

T = TypeVar("T")


def schema_to_json(schema: Schema) -> str:
    """One line, the contract whole; its hash is written for who reads it without this package."""
    values = plain(dataclasses.asdict(schema))
    hashed = None if schema.contract is None else schema.contract.interface_hash
    return json.dumps({**values, "interface_hash": hashed})


def schema_from_json(text: str, where: str) -> Schema:
    """Reads what `schema_to_json` wrote.

    Args:
        text: the JSON.
        where: for errors.

    Raises:
        DatasetError: if it isn't that.
    """
    try:
        values = json.loads(text)
        if isinstance(values, dict):
            values.pop("interface_hash", None)
        return build(Schema, values, where)
    except (ValueError, ConfigError) as error:
        raise DatasetError(
            f"{where}: isn't a schema of vla_ros ({error}); another version may have written it"
        ) from error


def find_schema_differences(a: Schema, b: Schema) -> list[str]:
    """Where two schemas differ: `what: value in a != value in b`; empty where one dataset may hold both."""
    found = [
        f"{name}: {of_a} != {of_b}"
        for name, of_a, of_b in (("fps", a.fps, b.fps), ("robot", a.robot or "unnamed", b.robot or "unnamed"))
        if of_a != of_b
    ]
    for kind in ("columns", "images"):
        by_name_a, by_name_b = ({item.name: item for item in getattr(schema, kind)} for schema in (a, b))
        found += [
            f"{name}: {by_name_a.get(name, 'absent')} != {by_name_b.get(name, 'absent')}"
            for name in dict.fromkeys([*by_name_a, *by_name_b])
            if by_name_a.get(name) != by_name_b.get(name)
        ]
        if not found and getattr(a, kind) != getattr(b, kind):
            found.append(f"order of the {kind}: {', '.join(by_name_a)} != {', '.join(by_name_b)}")
    if a.contract is not None and b.contract is not None:
        found += [f"contract, {line}" for line in find_differences(a.contract, b.contract)]
    elif a.contract is not b.contract:
        found.append("contract: " + " != ".join(s.contract.name if s.contract else "none" for s in (a, b)))
    return found


def check_same_schema(where: str, there: Schema, wanted: Schema) -> None:
    """Refuses to go on with a dataset of another schema.

    Raises:
        DatasetError: naming where they differ.
    """
    differences = find_schema_differences(there, wanted)
    if differences:
        raise DatasetError(
            f"{where}: holds another dataset ({'; '.join(differences)}); give another folder, or export as that one was"
        )


def read_options(cls: type[T], options: Mapping[str, Any], form: str) -> T:
    """A format's options as its dataclass.

    Raises:
        DatasetError: for one that isn't understood.
    """
    try:
        return build(cls, dict(options), f"options of {form}")
    except ConfigError as error:
        raise DatasetError(str(error)) from error

"""What the formats in files of others' making keep of ours: the schema as a text, and options."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from vla_ros.config import build
from vla_ros.errors import ConfigError, DatasetError
from vla_ros.recording.dataset import EpisodeFrames, Schema
from vla_ros.recording.schema import ImageCheck, schema_from_json, schema_to_json
from vla_ros.types import ImageArray

T = TypeVar("T")


def schema_to_text(schema: Schema) -> str:
    """One line of JSON."""
    return json.dumps(schema_to_json(schema))


def schema_from_text(text: str, where: str) -> Schema:
    """Reads what `schema_to_text` wrote.

    Raises:
        DatasetError: if it isn't that.
    """
    try:
        return schema_from_json(json.loads(text), where)
    except (ValueError, ConfigError) as error:
        raise DatasetError(
            f"{where}: isn't a schema of vla_ros ({error}); another version may have written it"
        ) from error


def read_options(cls: type[T], options: Mapping[str, Any], form: str) -> T:
    """A format's options as its dataclass.

    Raises:
        DatasetError: for one that isn't understood.
    """
    try:
        return build(cls, dict(options), f"options of {form}")
    except ConfigError as error:
        raise DatasetError(str(error)) from error


def checked_images(schema: Schema, episode: EpisodeFrames) -> Iterator[tuple[str, int, ImageArray]]:
    """What `read_images` gives, each looked at.

    Raises:
        DatasetError: naming episode, column and frame, at the latest when the images are at their end.
    """
    check = ImageCheck(schema, episode)
    for name, frame, image in episode.read_images():
        check(name, frame, image)
        yield name, frame, image
    check.end()

"""Whether an episode is what its schema says: looked at before a byte of it is written, and image by image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import Column, EpisodeFrames, Schema
from vla_ros.types import ImageArray


def check_fits(schema: Schema, episode: EpisodeFrames) -> None:
    """Looks at everything but the images.

    Raises:
        DatasetError: naming episode and column.
    """
    frames = len(episode)
    if frames == 0:
        raise DatasetError(f"{episode.name}: has no frames; leave it out")
    wanted = {column.name for column in schema.columns}
    for name in sorted(wanted ^ set(episode.columns)):
        has = "lacks" if name in wanted else "has"
        raise DatasetError(
            f"{episode.name}: {has} column {name!r}, against the schema; make it under the same contract"
        )
    for column in schema.columns:
        _check_column(column, episode, frames)
    try:
        json.dumps(dict(episode.attributes))
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{episode.name}: its attributes aren't what JSON can hold ({error})") from error


def _check_column(column: Column, episode: EpisodeFrames, frames: int) -> None:
    values = episode.columns[column.name]
    where = f"{episode.name}: column {column.name!r}"
    if values.shape != (frames, *column.shape):
        raise DatasetError(f"{where} is of shape {values.shape}, the schema says {(frames, *column.shape)}")
    if column.dtype == "string":
        frame = next((i for i, item in enumerate(values.reshape(frames, -1)) if not _are_texts(item)), None)
        if frame is not None:
            raise DatasetError(f"{where}, frame {frame}: isn't text ({values[frame]!r})")
    elif values.dtype != np.dtype(column.dtype):
        raise DatasetError(f"{where} is {values.dtype}, the schema says {column.dtype}")


def _are_texts(items: NDArray[Any]) -> bool:
    return all(isinstance(item, str) for item in items)


def fitting_images(schema: Schema, episode: EpisodeFrames) -> Iterator[tuple[str, int, ImageArray]]:
    """What `read_images` gives, checked: sizes, each column's frames in order, none left out and none too many.

    Raises:
        DatasetError: naming episode, column and frame, at the latest when the images are at their end.
    """
    columns = {image.name: image for image in schema.images}
    following = dict.fromkeys(columns, 0)
    for name, frame, image in episode.read_images():
        where = f"{episode.name}: image {name!r}, frame {frame}"
        if name not in columns:
            raise DatasetError(f"{where}: isn't in the schema, which has {', '.join(columns) or 'no images'}")
        if frame != following[name] or frame >= len(episode):
            raise DatasetError(f"{where}: frame {following[name]} of {len(episode)} was to come; an image was lost")
        shape = (columns[name].height, columns[name].width, 3)
        if image.shape != shape or image.dtype != np.uint8:
            raise DatasetError(f"{where}: is {image.dtype} {image.shape}, the schema says uint8 {shape}")
        following[name] += 1
        yield name, frame, image
    for name, count in following.items():
        if count != len(episode):
            raise DatasetError(f"{episode.name}: image {name!r}: ends after {count} of {len(episode)} frames")

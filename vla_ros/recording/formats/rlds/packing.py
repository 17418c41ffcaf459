"""An episode's values as the lists of a tf.train.Example, and back."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import Column, EpisodeFrames, Schema
from vla_ros.recording.formats.rlds import example
from vla_ros.recording.formats.rlds.features import ATTRIBUTES, INSTRUCTION, METADATA, NAME, STEPS, Leaf, path_of


def pack_episode(schema: Schema, episode: EpisodeFrames) -> dict[str, tuple[int, bytes]]:
    """All of an episode but its images: by path in the record, which list a feature is and its content."""
    frames, outcome = len(episode), episode.attributes.get("outcome")
    last = np.arange(frames) == frames - 1
    steps = {
        "is_first": np.arange(frames) == 0,
        "is_last": last,
        # Whether the task came to an end there; an unlabelled episode was only cut.
        "is_terminal": last & (outcome in ("success", "failure")),
        "reward": (last & (outcome == "success")).astype(np.float32),
        "discount": np.ones(frames, np.float32),
    }
    contents = {STEPS + name: _packed(values) for name, values in steps.items()}
    for column in schema.columns:
        contents[STEPS + path_of(column.name)] = _packed_column(column, episode)
    words = {NAME: [episode.name], ATTRIBUTES: [json.dumps(dict(episode.attributes))]}
    for name, texts in words.items():
        contents[METADATA + name] = _packed_texts(texts)
    contents[STEPS + INSTRUCTION] = _packed_texts(episode.tasks)
    return contents


def _packed_column(column: Column, episode: EpisodeFrames) -> tuple[int, bytes]:
    values = episode.columns[column.name]
    if column.dtype == "string":
        return _packed_texts(values.reshape(-1).tolist())
    if column.dtype == "float64":
        # One item a frame: TFDS's `bytes` encoding, which keeps all eight.
        return example.BYTES, example.pack_bytes([frame.astype("<f8").tobytes() for frame in values])
    return _packed(values)


def _packed(values: NDArray[Any]) -> tuple[int, bytes]:
    if values.dtype == np.float32:
        return example.FLOATS, example.pack_floats(values)
    return example.INTEGERS, example.pack_integers(values.astype(np.int64))


def _packed_texts(texts: Any) -> tuple[int, bytes]:
    return example.BYTES, example.pack_bytes([text.encode() for text in texts])


def unpack(feature: example.Feature, leaf: Leaf, where: str) -> NDArray[Any]:
    """A feature's values, one behind the other: (entries, *shape) in the leaf's dtype, texts as objects.

    Raises:
        DatasetError: if they aren't what the leaf says.
    """
    try:
        if leaf.dtype == "string":
            texts = [str(item, "utf-8", "replace") for item in feature.items()]
            return np.array(texts, object).reshape(-1, *leaf.shape)
        if leaf.encoding in ("bytes", "zlib"):
            items = [zlib.decompress(item) if leaf.encoding == "zlib" else bytes(item) for item in feature.items()]
            return np.frombuffer(b"".join(items), leaf.dtype).reshape(len(items), *leaf.shape)
        return feature.numbers().astype(leaf.dtype).reshape(-1, *leaf.shape)
    except (ValueError, TypeError, zlib.error) as error:
        raise DatasetError(f"{where}: isn't {leaf.dtype} {leaf.shape} as features.json says ({error})") from error

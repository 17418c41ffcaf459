"""features.json: what the features in a record are, as TFDS says it, and which of our columns each is.

Source: `tensorflow_datasets/core/features/` and its `proto/feature.proto`. A nested feature stands in the record under
its path, `steps/observation/state`; of a step's value all frames' entries one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import ACTION, IMAGES, JOINT_POSITIONS, STATE, TCP_POSE, Column, Schema

STEPS, METADATA = "steps/", "episode_metadata/"
INSTRUCTION = "language_instruction"
NAME, ATTRIBUTES = "file_path", "attributes"
"""In the metadata: the episode's name, as Open X-Embodiment calls it, and its attributes as JSON."""
OBSERVATION = "observation."
RLDS_STEP = ("is_first", "is_last", "is_terminal", "reward", "discount")
"""What RLDS asks of every step; written from the outcome unless the schema has a column of that name."""

_CLASSES = "tensorflow_datasets.core.features."
_PATHS = {
    ACTION: "action",
    STATE: "observation/state",
    TCP_POSE: "observation/tcp_pose",
    JOINT_POSITIONS: "observation/joint_positions",
}


@dataclass(frozen=True)
class Leaf:
    """A feature that isn't a group of others.

    Attributes:
        kind: `tensor`, `text`, `image`, or another of TFDS's by its own name.
        dtype: as NumPy calls it, or `string`.
        shape: of one frame's; -1 for what differs, () for a number.
        encoding: of a tensor: none, bytes or zlib; of an image: png, jpeg or empty.
    """

    kind: str
    dtype: str = "string"
    shape: tuple[int, ...] = ()
    encoding: str = ""


def path_of(name: str) -> str:
    """Where a column or an image stands in a step."""
    if name in _PATHS:
        return _PATHS[name]
    if name.startswith(IMAGES):
        return f"observation/{name.removeprefix(IMAGES)}"
    return f"observation/{name.removeprefix(OBSERVATION)}" if name.startswith(OBSERVATION) else name


def name_of(path: str, is_image: bool) -> str:
    """Which column a public dataset's feature of a step is."""
    inside = path.removeprefix("observation/").replace("/", ".")
    if is_image:
        return IMAGES + inside
    return OBSERVATION + inside if path.startswith("observation/") else path.replace("/", ".")


def leaves_of(schema: Schema, image_encoding: str) -> dict[str, Leaf]:
    """All features of a dataset of ours, by path in the record.

    Raises:
        DatasetError: if two columns would stand in one place.
    """
    leaves = {METADATA + NAME: Leaf("text"), METADATA + ATTRIBUTES: Leaf("text"), STEPS + INSTRUCTION: Leaf("text")}
    for image in schema.images:
        _put(leaves, image.name, Leaf("image", "uint8", (image.height, image.width, 3), image_encoding))
    for column in schema.columns:
        _put(leaves, column.name, _leaf_of(column))
    for name in RLDS_STEP:
        leaves.setdefault(STEPS + name, Leaf("tensor", "bool" if name.startswith("is_") else "float32", (), "none"))
    return leaves


def _leaf_of(column: Column) -> Leaf:
    shape = () if column.shape == (1,) else column.shape
    if column.dtype == "string" and not shape:
        return Leaf("text")
    # An Example's floats have four bytes.
    return Leaf("tensor", column.dtype, shape, "bytes" if column.dtype == "float64" else "none")


def _put(leaves: dict[str, Leaf], name: str, leaf: Leaf) -> None:
    path = STEPS + path_of(name)
    is_inside = any(f"{path}/".startswith(f"{other}/") or other.startswith(f"{path}/") for other in leaves)
    if is_inside or not all(path.split("/")):
        raise DatasetError(f"column {name!r} would stand in {path}, which is taken or no name; rename it")
    leaves[path] = leaf


def to_json(leaves: dict[str, Leaf]) -> str:
    """The content of features.json."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, last = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    top = _group(tree)
    steps = top["featuresDict"]["features"]["steps"]
    top["featuresDict"]["features"]["steps"] = {
        "pythonClassName": f"{_CLASSES}dataset_feature.Dataset",
        "sequence": {"feature": steps, "length": "-1"},
    }
    return json.dumps(top, indent=4, sort_keys=True)


def _group(tree: dict[str, Any]) -> dict[str, Any]:
    features = {name: _single(item) if isinstance(item, Leaf) else _group(item) for name, item in tree.items()}
    return {"pythonClassName": f"{_CLASSES}features_dict.FeaturesDict", "featuresDict": {"features": features}}


def _single(leaf: Leaf) -> dict[str, Any]:
    shape = {"dimensions": [str(size) for size in leaf.shape]} if leaf.shape else {}
    if leaf.kind == "text":
        return {"pythonClassName": f"{_CLASSES}text_feature.Text", "text": {}}
    if leaf.kind == "image":
        content = {"dtype": leaf.dtype, "encodingFormat": leaf.encoding, "shape": shape}
        return {"pythonClassName": f"{_CLASSES}image_feature.Image", "image": content}
    name = "tensor_feature.Tensor" if leaf.shape else "scalar.Scalar"
    content = {"dtype": leaf.dtype, "encoding": leaf.encoding, "shape": shape}
    return {"pythonClassName": f"{_CLASSES}{name}", "tensor": content}


def from_json(text: str, where: str) -> dict[str, Leaf]:
    """All features of anybody's dataset, by path in the record.

    Raises:
        DatasetError: if it isn't a features.json, or its dataset isn't one of episodes of steps.
    """
    try:
        leaves = dict(_walk(json.loads(text), ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{where}: isn't a features.json of TFDS 4 ({error!r}); convert it with a newer TFDS"
        ) from error
    if not any(path.startswith(STEPS) for path in leaves):
        raise DatasetError(f"{where}: has no feature `steps`, so it isn't RLDS; it has {', '.join(sorted(leaves))}")
    return leaves


def _walk(node: dict[str, Any], path: str) -> Iterator[tuple[str, Leaf]]:
    if "featuresDict" in node:
        for name, item in node["featuresDict"]["features"].items():
            yield from _walk(item, f"{path}/{name}" if path else name)
    elif path == "steps":
        yield from _walk(node["sequence"]["feature"], path)
    else:
        yield path, _read_leaf(node)


def _read_leaf(node: dict[str, Any]) -> Leaf:
    kind = next((name for name in ("tensor", "text", "image") if name in node), None)
    if kind is None or kind == "text":
        return Leaf(kind or str(node.get("pythonClassName", "?")).rsplit(".", 1)[-1])
    content = node[kind]
    shape = tuple(int(size) for size in content.get("shape", {}).get("dimensions", []))
    dtype, encoding = (
        content.get("dtype", "uint8"),
        content.get("encodingFormat" if kind == "image" else "encoding", ""),
    )
    return Leaf(kind, dtype, shape, encoding or ("none" if kind == "tensor" else ""))

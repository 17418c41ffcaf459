"""What a RLDS dataset of others (Open X-Embodiment's, DROID's) says without a schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vla_ros.recording.dataset import Column, DType, ImageColumn, Schema
from vla_ros.recording.formats.rlds import pictures
from vla_ros.recording.formats.rlds.example import Feature
from vla_ros.recording.formats.rlds.features import METADATA, STEPS, Leaf, name_of

MAX_RANK = 3
"""A step's value of as many dimensions is an image of a kind, not a column."""
_INSTRUCTIONS = (
    f"{STEPS}language_instruction",
    f"{STEPS}observation/natural_language_instruction",
    f"{STEPS}observation/language_instruction",
    f"{STEPS}natural_language_instruction",
    f"{METADATA}language_instruction",
)
_DTYPES: dict[str, DType] = {
    "float16": "float32",
    "float32": "float32",
    "float64": "float64",
    "bool": "bool",
    "string": "string",
    **dict.fromkeys(("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"), "int64"),
}


class Found(NamedTuple):
    """What was made of a features.json.

    Attributes:
        schema: frames a second are 0 and the robot empty, since RLDS knows neither.
        paths: in the record, by column and image.
        task_path: of the instruction, None where there is none.
        left_out: what has no place in a column, and why.
    """

    schema: Schema
    paths: dict[str, str]
    task_path: str | None
    left_out: list[str]


def is_readable(leaf: Leaf) -> bool:
    """Whether its values are numbers or texts of one shape."""
    return leaf.kind in ("tensor", "text") and leaf.dtype in _DTYPES and -1 not in leaf.shape


def _is_text(leaf: Leaf) -> bool:
    return is_readable(leaf) and leaf.dtype == "string" and leaf.shape == ()


def find_schema(leaves: dict[str, Leaf], read_first: Callable[[], dict[str, Feature]], where: str) -> Found:
    """Columns and images of a public dataset.

    Args:
        leaves: by path.
        read_first: reads the first episode; asked where features.json doesn't say how large images are.
        where: for errors.
    """
    task_path = next((path for path in _INSTRUCTIONS if path in leaves and _is_text(leaves[path])), None)
    columns, images, paths, left_out = [], [], {}, []
    for path, leaf in leaves.items():
        if not path.startswith(STEPS) or path == task_path:
            continue
        is_image = leaf.kind == "image" and leaf.dtype == "uint8" and leaf.shape[-1:] in ((3,), ())
        name = name_of(path.removeprefix(STEPS), is_image)
        if is_image:
            size = leaf.shape[:2] if leaf.shape and -1 not in leaf.shape else _size(read_first(), path, where)
            if size is None:
                left_out.append(f"{path}: image of a size that nothing tells")
                continue
            images.append(ImageColumn(name, size[0], size[1]))
        elif is_readable(leaf) and len(leaf.shape) < MAX_RANK:
            columns.append(Column(name, _DTYPES[leaf.dtype], leaf.shape or (1,)))
        else:
            left_out.append(f"{path}: {leaf.kind} {leaf.dtype} {leaf.shape}")
            continue
        paths[name] = path
    return Found(Schema(0.0, "", tuple(columns), tuple(images)), paths, task_path, left_out)


def _size(first: dict[str, Feature], path: str, where: str) -> tuple[int, int] | None:
    items = first[path].items() if path in first else []
    if not items:
        return None
    height, width, _ = pictures.decode(items[0], f"{where}, {path}, frame 0").shape
    return height, width

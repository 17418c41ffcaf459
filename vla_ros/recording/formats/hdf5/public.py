"""What a HDF5 dataset of others says without a schema: robomimic's own, robosuite's, MimicGen's, LIBERO's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import ACTION, IMAGES, Column, DType, ImageColumn, Schema
from vla_ros.recording.formats.hdf5 import layout
from vla_ros.recording.formats.schema import find_schema_differences

MAX_RANK = 3
"""A frame's value of more dimensions is an image of a kind, not a column."""
_DERIVED = "next_obs/"


def find_schema(data: Any, where: str) -> Schema:
    """From the first demo. Frames a second and the robot where `env_args` tells them, else 0 and nothing.

    Raises:
        DatasetError: if the demo doesn't say how long it is.
    """
    demo_name = min(data, key=lambda name: int(name.split("_")[-1]))
    demo = data[demo_name]
    if "num_samples" not in demo.attrs:
        raise DatasetError(
            f"{where}: data/{demo_name} has no attribute `num_samples`, so it isn't of robomimic's layout"
        )
    columns, images = [], []
    for path, dataset in _datasets(demo):
        if _is_image(path, dataset):
            images.append(ImageColumn(_image_name(demo, path), int(dataset.shape[1]), int(dataset.shape[2])))
        elif (dtype := _column_dtype(path, dataset, demo)) is not None:
            columns.append(Column(layout.name_of(path), dtype, tuple(map(int, dataset.shape[1:])) or (1,)))
    settings = _json(data.attrs.get("env_args")).get("env_kwargs", {})
    robots = settings.get("robots", "")
    robot = robots if isinstance(robots, str) else ",".join(map(str, robots))
    return Schema(float(settings.get("control_freq", 0.0)), robot, tuple(columns), tuple(images))


def common_schema(schemas: Mapping[str, Schema], is_ours: bool) -> Schema:
    """What several files have in common.

    Args:
        schemas: by path.
        is_ours: then they have to be the same. LIBERO's simulator states are of another width in each scene, and such a
            column is left out; actions and images never are.

    Raises:
        DatasetError: if they can't be one dataset, naming where they differ.
    """
    (first, schema), *others = schemas.items()
    shared = tuple(column for column in schema.columns if all(column in other.columns for _, other in others))
    is_strict = is_ours or (schema.column(ACTION) is not None and schema.column(ACTION) not in shared)
    for path, other in others:
        pair = (schema, other) if is_strict else (dataclasses.replace(each, columns=shared) for each in (schema, other))
        differences = find_schema_differences(*pair)
        if differences:
            raise DatasetError(f"{first} and {path} aren't one dataset ({'; '.join(differences)}); open one of them")
    return dataclasses.replace(schema, columns=shared)


def find_path(demo: Any, name: str, is_ours: bool) -> str:
    """Where a column or image of the schema stands in a demo."""
    if is_ours:
        return layout.path_of(name)
    for path, dataset in _datasets(demo):
        if name == (_image_name(demo, path) if _is_image(path, dataset) else layout.name_of(path)):
            return path
    return layout.path_of(name)


def find_task(data: Any, demo: Any) -> str:
    """The instruction: the demo's (RoboCasa) or the file's (LIBERO); empty where nobody says."""
    for known in (
        _json(demo.attrs.get("ep_meta")).get("lang"),
        _json(data.attrs.get("problem_info")).get("language_instruction"),
        _json(data.attrs.get("env_args")).get("env_lang"),
    ):
        text = "".join(known) if isinstance(known, list) else known
        if isinstance(text, str) and text:
            return text.strip().strip('"')
    return ""


def find_attributes(file: Any, demo_name: str, schema: Schema) -> dict[str, Any]:
    """The demo's attributes, the filter keys that it is in, and what of it isn't read."""
    demo = file[layout.DATA][demo_name]
    attributes: dict[str, Any] = {}
    left_out = [f"attribute {name}" for name in ("model_file",) if name in demo.attrs]
    for name, value in demo.attrs.items():
        if name not in ("model_file", "num_samples"):
            plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
            attributes[name] = plain if isinstance(plain, str | int | float | list) else str(plain)
    keys = file.get(layout.MASK, {})
    attributes["filter_keys"] = sorted(key for key in keys if demo_name.encode() in np.asarray(keys[key]).tolist())
    known = {column.name for column in schema.columns} | {image.name for image in schema.images}
    for path, dataset in _datasets(demo, with_derived=True):
        name = _image_name(demo, path) if _is_image(path, dataset) else layout.name_of(path)
        if name not in known:
            left_out.append(f"{path}: {dataset.dtype} {dataset.shape}")
    attributes["left_out"] = left_out
    return attributes


def _datasets(demo: Any, with_derived: bool = False) -> Iterator[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    demo.visititems(lambda path, item: found.append((path, item)) if isinstance(item, h5py.Dataset) else None)
    # The next frame's observation is the next frame.
    yield from ((path, item) for path, item in found if with_derived or not path.startswith(_DERIVED))


def _is_image(path: str, dataset: Any) -> bool:
    return path.startswith("obs/") and dataset.dtype == np.uint8 and dataset.ndim == 4 and dataset.shape[3] == 3


def _image_name(demo: Any, path: str) -> str:
    stem = path.removesuffix(layout.IMAGE_ENDING)
    # Without the ending, as the writer puts it on, unless that is another's name.
    is_free = stem != "obs/" and stem not in demo
    return IMAGES + (stem if is_free else path).removeprefix("obs/").replace("/", ".")


def _column_dtype(path: str, dataset: Any, demo: Any) -> DType | None:
    """None for what isn't a value a frame, or has no place in a column."""
    if dataset.ndim == 0 or len(dataset) != int(demo.attrs["num_samples"]) or dataset.ndim - 1 >= MAX_RANK:
        return None
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return "string"
    kind, size = dataset.dtype.kind, dataset.dtype.itemsize
    if kind == "f":
        return "float64" if size > 4 else "float32"
    if kind == "b":
        return "bool"
    return "int64" if kind == "i" or (kind == "u" and size < 8) else None


def _json(text: Any) -> Mapping[str, Any]:
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    try:
        values = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}

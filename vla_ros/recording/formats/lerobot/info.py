"""meta/info.json: what a LeRobot dataset says of itself, from a schema and back.

What LeRobot has no words for is under the key `vla_ros`, which it carries along: the contract, the exact period, the
cameras.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from vla_ros.config import build, plain
from vla_ros.contract import Contract
from vla_ros.errors import ConfigError, DatasetError
from vla_ros.recording.dataset import Column, DType, ImageColumn, Schema

INFO_PATH = "meta/info.json"
VERSION = "v3.0"
OWN_KEY = "vla_ros"
INDEX_COLUMNS: dict[str, DType] = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
"""What LeRobot adds to every frame. Its `timestamp` is the frame's number over fps, in float32."""
IMAGE_DTYPES = ("video", "image")
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH, VIDEO_PATH = f"data/{_FILE}.parquet", "videos/{video_key}/" + f"{_FILE}.mp4"
# LeRobot's own limits.
FILES_A_CHUNK, DATA_FILE_MB, VIDEO_FILE_MB = 1000, 100, 200
_WIDER: dict[str, DType] = {
    **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16", "uint32"), "int64"),
    **{name: name for name in ("float32", "float64", "int64", "bool", "string")},
    "float16": "float32",
}


def make_info(schema: Schema) -> dict[str, Any]:
    """info.json of a dataset without episodes.

    Raises:
        DatasetError: for a column that LeRobot can't have.
    """
    features: dict[str, Any] = {}
    for column in schema.columns:
        _check_name(column.name)
        if column.dtype == "string" and column.shape != (1,):
            raise DatasetError(f"column {column.name}: text of shape {column.shape}, LeRobot has one text a frame")
        names = list(column.names) or None
        features[column.name] = {"dtype": column.dtype, "shape": list(column.shape), "names": names}
    for image in schema.images:
        _check_name(image.name)
        shape = [image.height, image.width, 3]
        features[image.name] = {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"]}
    features |= {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in INDEX_COLUMNS.items()}
    fps = round(schema.fps) if math.isclose(schema.fps, round(schema.fps), rel_tol=1e-9) else schema.fps
    own: dict[str, Any] = {"fps": schema.fps, "cameras": {image.name: image.camera for image in schema.images}}
    if schema.contract is not None:
        own["contract"] = plain(dataclasses.asdict(schema.contract))
        own["interface_hash"] = schema.contract.interface_hash
    return {
        "codebase_version": VERSION,
        "robot_type": schema.robot or None,
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 0,
        "chunks_size": FILES_A_CHUNK,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": fps,
        "splits": {},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if schema.images else None,
        "features": features,
        OWN_KEY: own,
    }


def read_info(folder: Path) -> dict[str, Any]:
    """info.json of the dataset in a folder.

    Raises:
        DatasetError: if there is none, or it isn't one.
    """
    path = folder / INFO_PATH
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{folder} isn't a LeRobot dataset: {INFO_PATH} can't be read ({error})") from error
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        raise DatasetError(f"{path}: no features; it isn't a LeRobot dataset's")
    return info


def schema_of(info: dict[str, Any], where: str) -> Schema:
    """The schema that info.json tells, ours or anybody's.

    Raises:
        DatasetError: if it holds what we can't read, naming the feature.
    """
    own = info.get(OWN_KEY)
    own = own if isinstance(own, dict) else {}
    cameras = own.get("cameras") or {}
    columns, images = [], []
    for name, feature in info["features"].items():
        if name in INDEX_COLUMNS:
            continue
        try:
            dtype, shape = str(feature["dtype"]), tuple(int(size) for size in feature["shape"])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{where}: feature {name} has no dtype and shape ({error!r})") from error
        if dtype in IMAGE_DTYPES:
            height, width = _image_size(name, shape, feature.get("names"), where)
            images.append(ImageColumn(name, height, width, str(cameras.get(name, ""))))
        elif dtype in _WIDER:
            names = tuple(_flat_names(feature.get("names")))
            columns.append(Column(name, _WIDER[dtype], shape or (1,), names if len(names) == math.prod(shape) else ()))
        else:
            raise DatasetError(f"{where}: feature {name} has dtype {dtype!r}, which isn't understood")
    contract = own.get("contract")
    try:
        fps = float(own.get("fps") or info["fps"])
        known = build(Contract, contract, f"{where}: {OWN_KEY}.contract") if contract is not None else None
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise DatasetError(f"{where}: {error}") from error
    return Schema(fps, str(info.get("robot_type") or ""), tuple(columns), tuple(images), known)


def _check_name(name: str) -> None:
    if "/" in name or name in INDEX_COLUMNS or name == "task":
        raise DatasetError(f"column {name!r}: LeRobot keeps that name for itself, or it has a slash; rename it")


def _image_size(name: str, shape: tuple[int, ...], names: Any, where: str) -> tuple[int, int]:
    words = [str(word) for word in _flat_names(names)]
    if len(shape) == 3 and words[:1] == ["channels"] and shape[0] == 3:
        return shape[1], shape[2]
    if len(shape) == 3 and shape[2] == 3:
        return shape[0], shape[1]
    if len(shape) == 3 and shape[0] == 3:
        return shape[1], shape[2]
    raise DatasetError(f"{where}: image {name} has shape {shape}, needs three channels")


def _flat_names(names: Any) -> list[Any]:
    """LeRobot's names are a list, a mapping of lists, or nothing."""
    if isinstance(names, dict):
        return [item for part in names.values() for item in (_flat_names(part) if part else [])]
    if isinstance(names, list):
        return [str(item) for item in names]
    return []

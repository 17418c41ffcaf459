"""Run by a Python that has lerobot: what lerobot itself reads from our dataset, and a dataset that it writes.

    python read_dataset.py OURS THEIRS OUT

OURS has been written by us; its original images lie in OUT/images.npz, by column and episode. Leaves in OUT
`frames.npz` (every frame's columns and images), `frames.json` (texts, windows, decoder) and `statistics.json` (by
lerobot's functions from what it read), and in THEIRS a dataset of lerobot's own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.policies.torchvision_operators import import_torchvision

import_torchvision()

import torch
from lerobot.datasets import lerobot_dataset
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats, get_feature_stats, sample_indices
from lerobot.datasets.lerobot_dataset import LeRobotDataset

BASE, PERIOD_S = "observation.images.base", 0.1
WINDOW = {"action": [-PERIOD_S, 0.0, PERIOD_S, 2 * PERIOD_S], BASE: [-PERIOD_S, 0.0]}


def settle_decoder() -> str:
    """lerobot's own decoder where it runs; else PyAV by the same rule, the nearest time within the tolerance."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        lerobot_dataset.decode_video_frames = decode_with_av
        return "av"
    return "torchcodec"


def decode_with_av(path: Any, timestamps: list[float], tolerance_s: float, backend: str | None = None) -> torch.Tensor:
    import av

    with av.open(str(path)) as container:
        found = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    chosen = []
    for wanted in timestamps:
        time, image = min(found, key=lambda item: abs(item[0] - wanted))
        assert abs(time - wanted) < tolerance_s, (path, wanted, time)
        chosen.append(torch.from_numpy(image).permute(2, 0, 1))
    return torch.stack(chosen).to(torch.float32) / 255


def read(ours: Path, out: Path) -> None:
    decoder = settle_decoder()
    dataset = LeRobotDataset("local/ours", root=ours)
    texts: dict[str, list[str]] = {"task": [], "source": []}
    arrays: dict[str, list[np.ndarray]] = {}
    for index in range(len(dataset)):
        for key, value in dataset[index].items():
            (texts if isinstance(value, str) else arrays).setdefault(key, []).append(
                value if isinstance(value, str) else value.numpy()
            )
    stacked = {key: np.stack(values) for key, values in arrays.items() if not key.startswith("observation.images.")}
    images = {
        f"{key}/{index}": image for key in arrays if key not in stacked for index, image in enumerate(arrays[key])
    }
    windows = LeRobotDataset("local/ours", root=ours, delta_timestamps=WINDOW)
    window = {f"window/action/{index}": windows[index]["action"].numpy() for index in range(len(windows))}
    window |= {f"window/pad/{index}": windows[index]["action_is_pad"].numpy() for index in range(len(windows))}
    window |= {f"window/base/{index}": windows[index][BASE].numpy() for index in range(len(windows))}
    np.savez(out / "frames.npz", **stacked, **images, **window)
    info = {"decoder": decoder, "episodes": dataset.num_episodes, "robot": dataset.meta.robot_type, "fps": dataset.fps}
    (out / "frames.json").write_text(json.dumps({**info, **texts}))
    (out / "statistics.json").write_text(json.dumps(statistics(dataset, np.load(out / "images.npz"))))


def statistics(dataset: LeRobotDataset, originals: Any) -> dict[str, Any]:
    """Of a dataset, by lerobot's functions: columns as lerobot reads them, images as they were before encoding."""
    episodes = []
    for index in range(dataset.num_episodes):
        row = dataset.meta.episodes[index]
        rows = dataset.hf_dataset.with_format("numpy")[row["dataset_from_index"] : row["dataset_to_index"]]
        keys = ("observation.state", "action", "stamp_ns", "timestamp", "index", "task_index")
        data = {key: np.stack(rows[key]) for key in keys}
        found = compute_episode_stats(data, {key: dataset.features[key] for key in data})
        for key in ("observation.images.base", "observation.images.wrist"):
            # As numbers: lerobot 0.4.4 squares the bytes themselves, which run over, and its deviations are wrong.
            images = originals[f"{key}/{index}"].transpose(0, 3, 1, 2).astype(np.float64)
            sampled = images[sample_indices(len(images))]
            stats = get_feature_stats(sampled, axis=(0, 2, 3), keepdims=True)
            found[key] = {
                name: value if name == "count" else np.squeeze(value / 255.0, axis=0) for name, value in stats.items()
            }
        episodes.append(found)
    combined = aggregate_stats(episodes)
    read = dataset.meta.stats
    return {
        key: {name: [np.ravel(value).tolist(), np.ravel(read[key][name]).tolist()] for name, value in values.items()}
        for key, values in combined.items()
    }


def write(theirs: Path) -> None:
    """Two episodes of smooth images, as videos with lerobot's own h264 and as images, with texts and flags."""
    features = {
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
        "action": {"dtype": "float32", "shape": (1,), "names": None},
        "next.done": {"dtype": "bool", "shape": (1,), "names": None},
        "observation.images.top": {"dtype": "video", "shape": (32, 48, 3), "names": ["height", "width", "channels"]},
        "observation.images.still": {"dtype": "image", "shape": (16, 24, 3), "names": ["height", "width", "channels"]},
    }
    dataset = LeRobotDataset.create("local/theirs", 20, features, root=theirs, robot_type="so100", vcodec="h264")
    for episode, frames in enumerate((7, 4)):
        for frame in range(frames):
            value = 10 * frame + 100 * episode
            dataset.add_frame(
                {
                    "observation.state": np.array([frame, episode], dtype=np.float32),
                    "action": np.array([frame + 0.5], dtype=np.float32),
                    "next.done": np.array([frame == frames - 1]),
                    "observation.images.top": np.full((32, 48, 3), value, dtype=np.uint8),
                    "observation.images.still": np.full((16, 24, 3), value, dtype=np.uint8),
                    "task": f"task {episode}",
                }
            )
        dataset.save_episode()
    dataset.finalize()


if __name__ == "__main__":
    read(Path(sys.argv[1]), Path(sys.argv[3]))
    write(Path(sys.argv[2]))

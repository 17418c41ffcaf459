"""Writes the small dataset `arm_demos` beside this file with TFDS itself, in the manner of Open X-Embodiment.

Run where tensorflow and tensorflow-datasets are (docs/formats.md): python test/data/rlds/write_with_tfds.py [FOLDER]
"""

import pathlib
import sys

import numpy as np
import tensorflow_datasets as tfds

features = tfds.features.FeaturesDict(
    {
        "steps": tfds.features.Dataset(
            {
                "observation": {
                    "image": tfds.features.Image(shape=(16, 24, 3), encoding_format="jpeg"),
                    "wrist": {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="png")},
                    "depth": tfds.features.Image(shape=(4, 6, 1), dtype=np.uint16, encoding_format="png"),
                    "state": tfds.features.Tensor(shape=(3,), dtype=np.float32),
                    "velocity": tfds.features.Tensor(shape=(2, 2), dtype=np.float64, encoding="zlib"),
                    "natural_language_instruction": tfds.features.Text(),
                },
                "action": {
                    "world_vector": tfds.features.Tensor(shape=(3,), dtype=np.float32),
                    "terminate": tfds.features.Tensor(shape=(3,), dtype=np.int32),
                },
                "is_first": tfds.features.Scalar(dtype=np.bool_),
                "is_last": tfds.features.Scalar(dtype=np.bool_),
                "reward": tfds.features.Scalar(dtype=np.float32),
            }
        ),
        "episode_metadata": {"file_path": tfds.features.Text(), "number": tfds.features.Scalar(dtype=np.int64)},
    }
)


def episode(number: int) -> dict:
    count = 2 + number
    steps = [
        {
            "observation": {
                "image": np.full((16, 24, 3), (200, 40 * number, 10 * i), np.uint8),
                "wrist": {"image": np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3) + np.uint8(i)},
                "depth": np.full((4, 6, 1), 1000 + i, np.uint16),
                "state": np.array([number, i, 0.1], np.float32),
                "velocity": np.array([[i, 0.1], [-1e-9, np.pi]]),
                "natural_language_instruction": f"pick n° {number}",
            },
            "action": {
                "world_vector": np.array([i, -i, 0.5], np.float32),
                "terminate": np.array([-1, 300, i], np.int32),
            },
            "is_first": i == 0,
            "is_last": i == count - 1,
            "reward": float(i == count - 1),
        }
        for i in range(count)
    ]
    return {"steps": steps, "episode_metadata": {"file_path": f"/raw/{number}.npy", "number": number}}


class ArmDemos(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = pathlib.Path(__file__).parent

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, download_manager):
        return {"train": self._generate_examples((0, 1, 2)), "val": self._generate_examples((3,))}

    def _generate_examples(self, numbers):
        for number in numbers:
            yield number, episode(number)


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    ArmDemos(data_dir=str(folder)).download_and_prepare()

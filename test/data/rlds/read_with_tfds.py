"""Reads a dataset's folder with TFDS itself: python read_with_tfds.py FOLDER RESULT.npz

The result has `EPISODE/PATH` for every feature, in the order of the files; a step's value has the steps first.
"""

import sys

import numpy as np
import tensorflow_datasets as tfds


def flatten(tree, prefix=""):
    if not isinstance(tree, dict):
        return {prefix: np.asarray(tree)}
    return {path: leaf for name, item in tree.items() for path, leaf in flatten(item, f"{prefix}/{name}").items()}


builder = tfds.builder_from_directory(sys.argv[1])
values = {"total": np.array(builder.info.splits["train"].num_examples)}
config = tfds.ReadConfig(interleave_cycle_length=1)
for number, episode in enumerate(builder.as_dataset(split="train", shuffle_files=False, read_config=config)):
    steps = [flatten(step) for step in tfds.as_numpy(episode.pop("steps"))]
    for path in steps[0]:
        values[f"{number}/steps{path}"] = np.array([step[path] for step in steps])
    values.update({f"{number}{path}": leaf for path, leaf in flatten(tfds.as_numpy(episode)).items()})
texts = {name: value.astype(np.bytes_) if value.dtype == object else value for name, value in values.items()}
np.savez(sys.argv[2], **texts)

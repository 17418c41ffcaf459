"""FAST's tokens beside bins, on chunks as smooth as an arm's motion."""

from __future__ import annotations

import numpy as np

from vla_ros.benchmarks.options import Options, Result
from vla_ros.errors import MissingDependencyError
from vla_ros.types import FloatArray

_STEPS, _WIDTH = 50, 7
# Sines in a chunk, and the most periods of one: at 50 Hz, 2 Hz, faster than an arm that carries something.
_WAVES, _PERIODS = 3, 2.0
_SCALES = (10.0, 30.0, 60.0)


def run(options: Options) -> Result:
    """Measures `fast_compression` and `fast_rmse`, on chunks that the tokenizer wasn't trained on."""
    try:
        from vla_ros.policies.representations.fast import FastTokenizer, compare_with_bins
    except ImportError as error:
        mend = "python -m pip install 'vla_ros[learn]'"
        raise MissingDependencyError("tokenizers", "fast_compression", mend) from error
    chunks = smooth_chunks(options.count(200, 2000), options.seed)
    trained, judged = chunks[::2], chunks[1::2]
    found = {}
    for number, scale in enumerate(_SCALES):
        options.progress("tokens", number / len(_SCALES))
        found[scale] = compare_with_bins(list(judged), FastTokenizer.train(trained, scale))
    published = found[_SCALES[0]]
    figures = {"fast_compression": published["compression"], "fast_rmse": published["fast_rmse"]}
    return Result(figures, {f"scale_{scale:g}": values for scale, values in found.items()})


def smooth_chunks(count: int, seed: int) -> FloatArray:
    """(count, 50, 7) sums of slow sines in [-1, 1]; the last column is a gripper that closes or opens once."""
    rng = np.random.default_rng(seed)
    phase = np.linspace(0.0, 2.0 * np.pi, _STEPS)[:, None, None]
    shape = (count, 1, _WIDTH, _WAVES)
    waves = rng.uniform(0.0, 1.0, shape) * np.sin(
        rng.uniform(0.0, _PERIODS, shape) * phase + rng.uniform(0.0, 2.0 * np.pi, shape)
    )
    chunks = np.asarray(waves.sum(axis=-1) / _WAVES, dtype=np.float64)
    turns = rng.integers(0, _STEPS, count)
    chunks[:, :, -1] = np.where(np.arange(_STEPS) < turns[:, None], 1.0, -1.0) * rng.choice((-1.0, 1.0), (count, 1))
    return chunks

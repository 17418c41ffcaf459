"""FAST: a chunk of actions as a few tokens. Cosine transform over time, rounding, and byte pairs over what is left.

Actions come in normalised, the 1st and 99th percentile to -1 and 1 (a `quantile` Normaliser). A tokenizer is a folder
in the layout of `physical-intelligence/fast` on the hub, `processor_config.json` and `tokenizer.json`; its Python file
is never run.

Source: Pertsch et al., "FAST: Efficient Action Tokenization for Vision-Language-Action Models", arXiv 2501.09747,
section V-B and algorithm 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import dct, idct

from vla_ros.errors import ChunkError, ConfigError, MissingDependencyError
from vla_ros.policies.representations.bins import BIN_COUNT, UniformBins
from vla_ros.types import FloatArray

try:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
except ImportError as error:
    raise MissingDependencyError("tokenizers", "FAST action tokens", "python -m pip install tokenizers") from error

_CONFIG_FILE, _BYTE_PAIRS_FILE = "processor_config.json", "tokenizer.json"
# The last character below the surrogates, which can't be written as bytes.
_LAST_CHARACTER = 0xD7FF


class FastTokenizer:
    """Chunks to tokens and back.

    Args:
        byte_pairs: from the coefficients' characters to ids.
        scale: coefficients are multiplied by it before they are rounded: more is finer and longer.
        min_token: the smallest coefficient there is a character for; smaller ones are raised to it.
        time_horizon: steps of a chunk, where it is always the same.
        action_dim: likewise its dimensions.
    """

    def __init__(
        self,
        byte_pairs: Tokenizer,
        scale: float = 10.0,
        min_token: int = 0,
        time_horizon: int | None = None,
        action_dim: int | None = None,
    ) -> None:
        if not 0.0 < scale < np.inf:
            raise ValueError(f"scale {scale} isn't positive")
        self._byte_pairs, self.scale, self.min_token = byte_pairs, scale, min_token
        self.time_horizon, self.action_dim = time_horizon, action_dim

    @classmethod
    def train(
        cls,
        chunks: Iterable[ArrayLike],
        scale: float = 10.0,
        vocabulary_size: int = 1024,
        time_horizon: int | None = None,
        action_dim: int | None = None,
    ) -> FastTokenizer:
        """Finds the byte pairs of some chunks, which may differ in length.

        Args:
            chunks: (h, d) normalised actions each.
            scale: see the class.
            vocabulary_size: most ids there may be; 256 are taken by the bytes.
            time_horizon: see the class.
            action_dim: see the class.

        Raises:
            ChunkError: for chunks of another shape, that aren't finite, or none.
        """
        found = [_quantise(_as_chunk(chunk), scale) for chunk in chunks]
        if not found:
            raise ChunkError("no chunk to train a FAST tokenizer on")
        min_token = min(int(levels.min()) for levels in found)
        byte_pairs = Tokenizer(models.BPE())
        # As one word: GPT's way of splitting sentences would cut between letters and digits, which mean nothing here.
        byte_pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        byte_pairs.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            min_frequency=2,
            show_progress=False,
            special_tokens=[],
            # All bytes, so that a coefficient that was never seen can be written, too.
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            max_token_length=10000,
        )
        byte_pairs.train_from_iterator((_write(levels, min_token) for levels in found), trainer=trainer)
        return cls(byte_pairs, scale, min_token, time_horizon, action_dim)

    @property
    def vocabulary_size(self) -> int:
        """Ids are below it."""
        return int(self._byte_pairs.get_vocab_size())

    def encode(self, chunk: ArrayLike) -> list[int]:
        """(h, d) normalised actions to ids.

        Raises:
            ChunkError: for another shape, what isn't finite, or a coefficient that this tokenizer can't write.
        """
        text = _write(_quantise(_as_chunk(chunk), self.scale), self.min_token)
        ids: list[int] = self._byte_pairs.encode(text, add_special_tokens=False).ids
        if self._byte_pairs.decode(ids, skip_special_tokens=False) != text:
            raise ChunkError(
                "a coefficient of the chunk was not in what the FAST tokenizer was trained on, and it has no bytes to "
                "write it with; are the actions normalised by quantiles?"
            )
        return ids

    def decode(self, ids: Sequence[int], time_horizon: int | None = None, action_dim: int | None = None) -> FloatArray:
        """Ids to (h, d) normalised actions.

        Args:
            ids: as many as stand for a whole chunk.
            time_horizon: steps; the tokenizer's own if None.
            action_dim: dimensions; the tokenizer's own if None.

        Raises:
            ChunkError: for unknown ids, or another number of coefficients than a chunk has. (The published decoder
                gives zeros then, which is a motion like any other.)
        """
        steps, width = time_horizon or self.time_horizon, action_dim or self.action_dim
        if not steps or not width:
            raise ChunkError(
                "FAST tokens don't say how many steps and dimensions they hold: give time_horizon, action_dim"
            )
        size = self.vocabulary_size
        wrong = [token for token in ids if not (isinstance(token, int | np.integer) and 0 <= token < size)]
        if wrong:
            raise ChunkError(f"FAST tokens {wrong[:4]} aren't in the vocabulary of {size}")
        text = self._byte_pairs.decode([int(token) for token in ids], skip_special_tokens=False)
        codes = np.array([ord(character) for character in text], dtype=np.int64)
        if len(codes) != steps * width or (codes > _LAST_CHARACTER).any():
            raise ChunkError(
                f"{len(ids)} FAST tokens make {len(codes)} coefficients, {steps} steps of {width} dimensions have "
                f"{steps * width}, all of them whole characters; was the answer cut short?"
            )
        levels = (codes + self.min_token).reshape(steps, width)
        return np.asarray(idct(levels / self.scale, axis=0, norm="ortho"), dtype=np.float64)

    def save(self, folder: Path) -> None:
        """Writes the folder, JSON only."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "action_dim": self.action_dim,
            "min_token": self.min_token,
            "processor_class": "UniversalActionProcessor",
            "scale": self.scale,
            "time_horizon": self.time_horizon,
            "vocab_size": self.vocabulary_size,
        }
        (folder / _CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        self._byte_pairs.save(str(folder / _BYTE_PAIRS_FILE))

    @classmethod
    def load(cls, folder: Path) -> FastTokenizer:
        """Reads such a folder.

        Raises:
            ConfigError: if a file is missing or isn't what it should be.
        """
        path = folder / _CONFIG_FILE
        try:
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            scale, min_token = float(config["scale"]), int(config["min_token"])
            steps, width = config.get("time_horizon"), config.get("action_dim")
            path = folder / _BYTE_PAIRS_FILE
            byte_pairs = Tokenizer.from_str(path.read_text(encoding="utf-8"))
            return cls(byte_pairs, scale, min_token, steps and int(steps), width and int(width))
        except Exception as error:  # tokenizers raises plain Exceptions.
            mend = f"a FAST tokenizer is a folder with {_CONFIG_FILE} (scale, min_token) and {_BYTE_PAIRS_FILE}"
            raise ConfigError(str(path), f"{type(error).__name__}: {error}", mend) from error


def compare_with_bins(chunks: Sequence[ArrayLike], tokenizer: FastTokenizer | None = None) -> dict[str, float]:
    """Length and error of FAST tokens beside those of 256 bins a dimension and step.

    Args:
        chunks: (h, d) normalised actions each.
        tokenizer: to be judged on all of them; None to train one on every second chunk and judge it on the others.

    Returns:
        `fast_tokens` and `bin_tokens` a chunk (means), `compression` (their ratio), `fast_rmse` and `bin_rmse` in
        normalised units, over what lies in [-1, 1]: bins end there.

    Raises:
        ChunkError: for fewer than two chunks without a tokenizer, or none.
    """
    judged = [_as_chunk(chunk) for chunk in chunks]
    if len(judged) < (2 if tokenizer is None else 1):
        raise ChunkError(f"{len(judged)} chunks are too few to compare tokens on")
    if tokenizer is None:
        tokenizer, judged = FastTokenizer.train(judged[::2]), judged[1::2]
    fast_count, fast_errors, bin_errors = 0, [], []
    for chunk in judged:
        ids = tokenizer.encode(chunk)
        fast_count += len(ids)
        width = chunk.shape[1]
        bins = UniformBins((-1.0,) * width, (1.0,) * width, BIN_COUNT)
        is_inside = np.abs(chunk) <= 1.0
        fast_errors.append((tokenizer.decode(ids, *chunk.shape) - chunk)[is_inside])
        bin_errors.append((bins.decode(bins.encode(chunk)) - chunk)[is_inside])
    bin_count = sum(chunk.size for chunk in judged)
    return {
        "fast_tokens": fast_count / len(judged),
        "bin_tokens": bin_count / len(judged),
        "compression": bin_count / fast_count,
        "fast_rmse": _rms(fast_errors),
        "bin_rmse": _rms(bin_errors),
    }


def _rms(errors: list[FloatArray]) -> float:
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def _as_chunk(chunk: ArrayLike) -> FloatArray:
    actions = np.asarray(chunk, dtype=np.float64)
    if actions.ndim != 2 or actions.size == 0 or not np.isfinite(actions).all():
        raise ChunkError(f"chunk of shape {actions.shape}: FAST needs (steps, dimensions), finite")
    return actions


def _quantise(chunk: FloatArray, scale: float) -> FloatArray:
    """(h * d,) rounded coefficients, low frequencies first and the dimensions of each side by side."""
    return np.asarray(np.around(scale * dct(chunk, axis=0, norm="ortho")), dtype=np.float64).ravel()


def _write(levels: FloatArray, min_token: int) -> str:
    codes = np.clip(levels - min_token, 0, _LAST_CHARACTER).astype(np.int64)
    return "".join(map(chr, codes.tolist()))

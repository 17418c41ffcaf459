"""FAST tokens against the published way of making them, written out once more, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers: pip install tokenizers")

from vla_ros.errors import ChunkError, ConfigError
from vla_ros.policies.representations.bins import UniformBins
from vla_ros.policies.representations.fast import FastTokenizer, compare_with_bins

STEPS, WIDTH = 50, 7
Chunks = NDArray[np.float64]


def smooth_chunks(count: int, seed: int = 0, steps: int = STEPS, width: int = WIDTH) -> Chunks:
    """Sums of a few slow waves, the 1st and 99th percentile at -1 and 1."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0.0, 1.0, steps)[:, None]
    sizes = rng.normal(0.0, [[[1.0]], [[0.5]], [[0.2]]], (3, count, width))
    phases = rng.uniform(0.0, 2 * np.pi, (3, count, width))
    waves = sum(sizes[k][:, None] * np.sin(np.pi * (k + 1) * t + phases[k][:, None]) for k in range(3))
    low, high = np.quantile(waves.reshape(-1, width), [0.01, 0.99], axis=0)
    return np.asarray(2.0 * (waves - low) / (high - low) - 1.0)


def cosine_matrix(n: int) -> Chunks:
    """Orthonormal DCT-II from its definition: row k is cos(pi (i + 1/2) k / n), of unit length."""
    k, i = np.mgrid[:n, :n]
    matrix = np.cos(np.pi * (i + 0.5) * k / n) * np.sqrt(2.0 / n)
    matrix[0] /= np.sqrt(2.0)
    return np.asarray(matrix)


@pytest.fixture(scope="module")
def tokenizer() -> FastTokenizer:
    return FastTokenizer.train(smooth_chunks(200), time_horizon=STEPS, action_dim=WIDTH)


def test_decoded_chunk_is_the_rounded_spectrum_and_nothing_else(tokenizer: FastTokenizer) -> None:
    D = cosine_matrix(STEPS)
    for chunk in smooth_chunks(20, seed=1):
        expected = D.T @ (np.round(10.0 * D @ chunk) / 10.0)
        np.testing.assert_allclose(tokenizer.decode(tokenizer.encode(chunk)), expected, rtol=0, atol=1e-12)
        # Coefficients are off by at most 0.05, and the transform keeps lengths.
        assert np.linalg.norm(expected - chunk) <= 0.05 * np.sqrt(chunk.size) + 1e-9


def published_ids(chunk: Chunks, scale: float, min_token: int, file: Path) -> list[int]:
    """As the hub's processor does it, with its own tools: coefficients row by row, chr(c - min), byte pairs."""
    transformers = pytest.importorskip("transformers")
    levels = np.around(cosine_matrix(len(chunk)) @ chunk * scale)
    text = "".join(chr(max(0, int(level) - min_token)) for row in levels for level in row)
    byte_pairs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(file), clean_up_tokenization_spaces=False)
    return list(byte_pairs(text)["input_ids"])


def test_saved_tokenizer_says_the_same_to_the_published_way_of_encoding(
    tokenizer: FastTokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "processor_config.json").read_text(encoding="utf-8"))
    assert config["processor_class"] == "UniversalActionProcessor"
    for chunk in smooth_chunks(5, seed=2):
        assert tokenizer.encode(chunk) == published_ids(
            chunk, config["scale"], config["min_token"], tmp_path / "tokenizer.json"
        )


def hub_folder(folder: Path, chunks: Chunks, min_token: int) -> Path:
    """A folder as the hub has it: GPT's byte-level tokenizer with a `processor_config.json` beside it."""
    texts = []
    for chunk in chunks:
        levels = np.around(10.0 * cosine_matrix(len(chunk)) @ chunk).ravel()
        texts.append("".join(chr(int(level) - min_token) for level in levels))
    byte_pairs = tokenizers.ByteLevelBPETokenizer()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=512, min_frequency=2, show_progress=False, special_tokens=[], max_token_length=10000,
        initial_alphabet=[chr(i) for i in range(200)],
    )  # fmt: skip
    byte_pairs._tokenizer.train_from_iterator(texts, trainer=trainer)
    byte_pairs.save(str(folder / "tokenizer.json"))
    config = {
        "action_dim": None, "time_horizon": None, "min_token": min_token, "scale": 10, "vocab_size": 512,
        "processor_class": "UniversalActionProcessor",
        "auto_map": {"AutoProcessor": "processing_action_tokenizer.UniversalActionProcessor"},
    }  # fmt: skip
    (folder / "processor_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "processing_action_tokenizer.py").write_text("raise SystemExit('was run')", encoding="utf-8")
    return folder


def test_folder_of_the_hub_loads_without_its_python_and_encodes_as_published(tmp_path: Path) -> None:
    chunks = smooth_chunks(60, seed=3)
    loaded = FastTokenizer.load(hub_folder(tmp_path, chunks, -200))
    assert (loaded.scale, loaded.min_token) == (10.0, -200)
    for chunk in chunks[:5]:
        ids = loaded.encode(chunk)
        assert ids == published_ids(chunk, 10.0, -200, tmp_path / "tokenizer.json")
        expected = cosine_matrix(STEPS).T @ (np.round(10.0 * cosine_matrix(STEPS) @ chunk) / 10.0)
        np.testing.assert_allclose(loaded.decode(ids, STEPS, WIDTH), expected, rtol=0, atol=1e-12)


def test_coefficient_that_a_tokenizer_cannot_write_is_refused_and_not_left_out(tmp_path: Path) -> None:
    """The published tokenizer knows only the bytes that it was trained on, and leaves others out of the text."""
    loaded = FastTokenizer.load(hub_folder(tmp_path, smooth_chunks(60, seed=3), -200))
    with pytest.raises(ChunkError, match="no bytes to write it with"):
        loaded.encode(smooth_chunks(1, seed=4)[0] * 1e3)


def test_own_tokenizer_writes_coefficients_that_it_never_saw(tokenizer: FastTokenizer) -> None:
    chunk = smooth_chunks(1, seed=4)[0]
    chunk[:, 0] += 40.0
    assert np.abs(tokenizer.decode(tokenizer.encode(chunk)) - chunk).max() < 0.3


def test_saved_and_loaded_tokenizer_is_the_same(tokenizer: FastTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "fast")
    loaded = FastTokenizer.load(tmp_path / "fast")
    assert {path.suffix for path in (tmp_path / "fast").iterdir()} == {".json"}
    for chunk in smooth_chunks(10, seed=5):
        ids = tokenizer.encode(chunk)
        assert loaded.encode(chunk) == ids
        np.testing.assert_array_equal(loaded.decode(ids), tokenizer.decode(ids))


def test_training_twice_gives_the_same_tokens(tokenizer: FastTokenizer) -> None:
    again = FastTokenizer.train(smooth_chunks(200), time_horizon=STEPS, action_dim=WIDTH)
    for chunk in smooth_chunks(10, seed=6):
        assert again.encode(chunk) == tokenizer.encode(chunk)


def test_chunks_of_other_lengths_and_widths_go_through_one_tokenizer(tokenizer: FastTokenizer) -> None:
    chunk = smooth_chunks(1, seed=7, steps=16, width=3)[0]
    assert np.abs(tokenizer.decode(tokenizer.encode(chunk), 16, 3) - chunk).max() < 0.2


def test_failed_decode_is_refused_and_never_zeros(tokenizer: FastTokenizer) -> None:
    ids = tokenizer.encode(smooth_chunks(1, seed=8)[0])
    size = tokenizer.vocabulary_size
    for wrong in (ids[:-1], [*ids, ids[0]], [], ids[:3]):
        with pytest.raises(ChunkError, match="coefficients"):
            tokenizer.decode(wrong)
    for wrong in ([*ids[:-1], size], [*ids[:-1], -1], [*ids[:-1], 2**40], [*ids[:-1], 1.5], [*ids[:-1], None]):
        with pytest.raises(ChunkError, match="vocabulary"):
            tokenizer.decode(wrong)  # type: ignore[arg-type]
    with pytest.raises(ChunkError, match="coefficients"):
        tokenizer.decode(ids, STEPS, WIDTH - 1)


def test_bytes_that_are_no_character_are_refused(tokenizer: FastTokenizer) -> None:
    """A lone continuation byte is read as U+FFFD, which would be a coefficient of 6,000."""
    single = [token for token in range(256) if "�" in tokenizer._byte_pairs.decode([token])]
    assert single
    with pytest.raises(ChunkError, match="whole characters"):
        tokenizer.decode([single[0]], 1, 1)


def test_decoding_needs_steps_and_dimensions(tokenizer: FastTokenizer) -> None:
    free = FastTokenizer.train(smooth_chunks(20))
    ids = free.encode(smooth_chunks(1)[0])
    with pytest.raises(ChunkError, match="time_horizon"):
        free.decode(ids)
    assert free.decode(ids, STEPS, WIDTH).shape == (STEPS, WIDTH)


@pytest.mark.parametrize("chunk", [np.full((50, 7), np.nan), np.zeros(7), np.zeros((0, 7))])
def test_chunks_of_another_form_are_refused(tokenizer: FastTokenizer, chunk: Chunks) -> None:
    with pytest.raises(ChunkError, match="finite"):
        tokenizer.encode(chunk)
    with pytest.raises(ChunkError, match="finite"):
        FastTokenizer.train([chunk])


def test_broken_folders_are_named(tmp_path: Path, tokenizer: FastTokenizer) -> None:
    with pytest.raises(ConfigError, match="processor_config"):
        FastTokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        FastTokenizer.load(tmp_path)


def test_comparison_counts_and_errs_as_worked_out_directly(tokenizer: FastTokenizer) -> None:
    chunks = 0.9 * np.tanh(smooth_chunks(10, seed=9))  # all inside [-1, 1]
    found = compare_with_bins(list(chunks), tokenizer)
    lengths = [len(tokenizer.encode(chunk)) for chunk in chunks]
    assert found["fast_tokens"] == pytest.approx(np.mean(lengths))
    assert found["bin_tokens"] == STEPS * WIDTH
    assert found["compression"] == pytest.approx(STEPS * WIDTH / np.mean(lengths))
    decoded = np.array([tokenizer.decode(tokenizer.encode(chunk)) for chunk in chunks])
    assert found["fast_rmse"] == pytest.approx(np.sqrt(np.mean((decoded - chunks) ** 2)))
    bins = UniformBins((-1.0,) * WIDTH, (1.0,) * WIDTH)
    assert found["bin_rmse"] == pytest.approx(np.sqrt(np.mean((bins.decode(bins.encode(chunks)) - chunks) ** 2)))


def test_smooth_chunks_take_a_fifth_of_the_tokens_of_bins() -> None:
    """The paper reports 2 to 13 times fewer, the more the smoother; on half of the chunks, trained on the others."""
    found = compare_with_bins(list(smooth_chunks(200, seed=10)))
    assert found["compression"] > 5.0
    assert found["fast_rmse"] < 0.03

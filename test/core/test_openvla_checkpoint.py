"""A checkpoint folder is loaded whole or refused with the tensor's name; nothing in it is run."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytest.importorskip("tokenizers")

from PIL import Image

from vla_ros.errors import ConfigError, InstructionError, MissingDependencyError
from vla_ros.policies.openvla.checkpoint import load_model, read_checkpoint
from vla_ros.policies.openvla.preprocessing import PromptEncoder, build_prompt, parse_preprocessor
from vla_ros.policies.openvla.small import SMALL, hub_preprocessor, make_small_checkpoint

QKV = "vision_backbone.featurizer.blocks.1.attn.qkv.weight"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_checkpoint(tmp_path_factory.mktemp("openvla"), seed=5)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "checkpoint"))


def edit_tensors(folder: Path, change: Any, is_indexed: bool = True) -> None:
    """Rewrites the shard that holds QKV, and the index with it."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    file = index["weight_map"][QKV]
    tensors = safetensors_torch.load_file(folder / file)
    change(tensors)
    safetensors_torch.save_file(tensors, folder / file)
    if is_indexed:
        others = {name: at for name, at in index["weight_map"].items() if at != file}
        index["weight_map"] = others | dict.fromkeys(tensors, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_tensor_is_used(whole: Path) -> None:
    """Each stored number is in the model once: sums and squares of what was stored and what is there agree."""
    stored = {name: t for file in SHARDS for name, t in safetensors_torch.load_file(whole / file).items()}
    parameters = load_model(read_checkpoint(whole)).state_dict().values()
    for power in (1, 2):
        wanted = sum(float((t.double() ** power).sum()) for t in stored.values())
        assert sum(float((p.double() ** power).sum()) for p in parameters) == pytest.approx(wanted, rel=1e-12)


def test_missing_tensor_is_named(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop(QKV))
    with pytest.raises(ConfigError, match=f"1 tensors missing: {QKV}"):
        read_checkpoint(folder)


def test_unknown_tensor_is_named(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"action_head.weight": torch.zeros(2)}))
    with pytest.raises(ConfigError, match=r"1 tensors unknown: action_head\.weight"):
        read_checkpoint(folder)


def test_misshapen_tensor_is_named_with_both_shapes(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({QKV: tensors[QKV][:64].clone()}))
    with pytest.raises(ConfigError, match=rf"{QKV} \(64, 32\) instead of \(96, 32\)"):
        read_checkpoint(folder)


def test_integer_tensor_is_refused(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({QKV: tensors[QKV].to(torch.int8)}))
    with pytest.raises(ConfigError, match=QKV):
        read_checkpoint(folder)


def test_index_that_disagrees_with_the_shards_is_refused(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop(QKV), is_indexed=False)
    with pytest.raises(ConfigError, match=f"differ on where {QKV}"):
        read_checkpoint(folder)


@pytest.mark.parametrize("file", ["../elsewhere.safetensors", "/etc/passwd", "weights.bin"])
def test_index_cannot_name_what_isnt_a_shard_beside_it(folder: Path, file: str) -> None:
    edit_json(folder / "model.safetensors.index.json", weight_map={QKV: file})
    with pytest.raises(ConfigError, match="names"):
        read_checkpoint(folder)


def test_lacking_shard_is_named(folder: Path) -> None:
    (folder / SHARDS[1]).unlink()
    with pytest.raises(ConfigError, match=SHARDS[1]):
        read_checkpoint(folder)


def test_truncated_shard_is_refused(folder: Path) -> None:
    content = (folder / SHARDS[0]).read_bytes()
    (folder / SHARDS[0]).write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match=SHARDS[0]):
        read_checkpoint(folder)


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "checkpoint.pth"])
def test_pickled_weights_are_refused_and_not_opened(folder: Path, tmp_path: Path, file: str) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / file).write_bytes(pickle.dumps(Bomb(tmp_path / "run")))
    with pytest.raises(ConfigError, match=rf"pickled weights only \({file}\).*safe_serialization"):
        read_checkpoint(folder)
    assert not (tmp_path / "run").exists()
    pickle.loads((folder / file).read_bytes())
    assert (tmp_path / "run").exists(), "the bomb works, so that its silence means something"


def test_single_file_and_other_dtypes_load(folder: Path) -> None:
    pixels, ids = torch.randn(1, 6, 56, 56), torch.tensor([[1, 500, 29871]])
    before = load_model(read_checkpoint(folder))(pixels, ids)
    tensors = {name: t for file in SHARDS for name, t in safetensors_torch.load_file(folder / file).items()}
    for path in folder.glob("model*"):
        path.unlink()
    safetensors_torch.save_file(tensors, folder / "model.safetensors")
    progress: list[float] = []
    checkpoint = read_checkpoint(folder)
    assert torch.equal(load_model(checkpoint, on_progress=progress.append)(pixels, ids), before)
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    half = load_model(checkpoint, dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    # bfloat16 has 8 bits of a number; through three blocks some of them go.
    assert torch.corrcoef(torch.stack([half(pixels, ids).flatten().float(), before.flatten()]))[0, 1] > 0.99
    with pytest.raises(ConfigError, match="float8"):
        load_model(checkpoint, dtype="float8")


def test_statistics_of_the_run_come_before_the_configs(folder: Path) -> None:
    assert list(read_checkpoint(folder).norm_stats) == ["bridge_orig"]
    (folder / "dataset_statistics.json").write_text(json.dumps({"mine": {"action": {}}}))
    assert list(read_checkpoint(folder).norm_stats) == ["mine"]


def test_transformers_with_other_names_is_said_to_be_missing(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla_ros.policies.openvla.checkpoint.build_empty", lambda *_: torch.nn.Linear(1, 1))
    with pytest.raises(MissingDependencyError, match="transformers>="):
        load_model(read_checkpoint(whole))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_damaged_description_is_named(folder: Path, file: str) -> None:
    (folder / file).write_text("{")
    read = read_checkpoint if file == "config.json" else lambda at: PromptEncoder(at / "tokenizer.json")
    with pytest.raises(ConfigError, match=file):
        read(folder)


def test_prompt_is_the_published_one_in_lower_case(whole: Path) -> None:
    assert build_prompt("Pick up the Red block") == (
        "In: What action should the robot take to pick up the red block?\nOut:"
    )
    encoder = PromptEncoder(whole / "tokenizer.json")
    ids = encoder.encode("Pick up the Red block", 100)
    assert ids[0] == 1
    # Llama's ids of ":" and of "▁" alone, which isn't there by itself.
    assert ids[-2:] == [29901, 29871]
    assert ids.count(1) == 1
    with pytest.raises(InstructionError):
        encoder.encode("  ", 100)
    with pytest.raises(InstructionError, match="room for 20"):
        encoder.encode("Pick up the Red block", 20)


def test_preprocessing_normalises_each_half_as_the_checkpoint_says() -> None:
    """Numbers by hand: a grey of 128 is 128 / 255 = 0.50196."""
    preprocess = parse_preprocessor(hub_preprocessor(SMALL), (56, 56), "file")
    values = preprocess(np.full((90, 120, 3), 128, np.uint8))
    assert values.shape == (6, 56, 56)
    assert values.dtype == np.float32
    expected = [
        (0.50196 - mean) / std
        for mean, std in ((0.484375, 0.228515625), (0.455078125, 0.2236328125), (0.40625, 0.224609375))
    ]
    np.testing.assert_allclose(values[:, 20, 30], [*expected, *[(0.50196 - 0.5) / 0.5] * 3], atol=1e-4)


def test_resize_naive_squashes_and_keeps_channels_apart() -> None:
    preprocess = parse_preprocessor(hub_preprocessor(SMALL), (56, 56), "file")
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, :100, 0] = 255
    image[50:, :, 2] = 255
    values = preprocess(image)[3:] > 0
    assert values[0, 28, 5]
    assert not values[0, 28, 50]
    assert values[2, 50, 28]
    assert not values[2, 5, 28]
    assert not values[1].any()
    # Twice the size is the mean of four pixels in the middle of an even picture, whatever the filter.
    assert np.array_equal(values[0].sum(axis=1), np.full(56, 28))


def test_letterbox_pads_with_the_fill_and_crop_cuts_the_sides() -> None:
    data = hub_preprocessor(SMALL)
    image = np.full((56, 112, 3), 255, np.uint8)
    padded = parse_preprocessor(
        data | {"image_resize_strategy": "letterbox", "tvf_do_letterbox": True, "tvf_letterbox_fill": [0, 0, 0]},
        (56, 56),
        "file",
    )(image)
    assert np.allclose(padded[3:, :10], -1.0)
    assert np.allclose(padded[3:, 20:36], 1.0)
    image[:, 28:84] = 0
    shorter = [{"size": 56, "interpolation": 3, "max_size": None, "antialias": True}] * 2
    cut = parse_preprocessor(
        data | {"image_resize_strategy": "resize-crop", "tvf_resize_params": shorter}, (56, 56), "file"
    )
    assert np.allclose(cut(image)[3:], -1.0)


def test_centre_area_keeps_the_middle() -> None:
    """Of 113 pixels, a quarter of the area is those from 28 to 84, ends included: the middle half of 112 steps."""
    image = np.zeros((113, 113, 3), np.uint8)
    image[28:85, 28:85] = 255
    preprocess = parse_preprocessor(hub_preprocessor(SMALL), (56, 56), "file", centre_area=0.25)
    assert np.allclose(preprocess(image)[3:], 1.0)
    assert preprocess(np.roll(image, -1, axis=0))[3:, -1].min() < 0.9
    # A ramp stays one, with half the slope: values from 28 to 84.
    ramp = np.repeat(np.arange(113, dtype=np.uint8)[:, None, None], 113, axis=1).repeat(3, axis=2)
    seen = (preprocess(ramp)[3, :, 28] * 0.5 + 0.5) * 255
    np.testing.assert_allclose(seen[5:-5], 28 + 56 * (np.arange(5, 51) + 0.5) / 56, atol=1.0)


def test_resampling_is_pillows_bicubic_with_antialiasing() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    wanted = np.asarray(Image.fromarray(image).resize((56, 56), Image.Resampling.BICUBIC), float) / 255
    found = parse_preprocessor(hub_preprocessor(SMALL), (56, 56), "file")(image)[3:].transpose(1, 2, 0) * 0.5 + 0.5
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_resize_strategy", "stretch"),
        ("tvf_resize_params", []),
        ("tvf_crop_params", [{"output_size": [224, 224]}] * 2),
        ("tvf_normalize_params", [{"mean": [0.5] * 3, "std": [0.0] * 3}] * 2),
    ],
)
def test_preprocessing_that_doesnt_fit_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match="file"):
        parse_preprocessor(hub_preprocessor(SMALL) | {key: value}, (56, 56), "file")

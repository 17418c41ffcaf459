"""LoRA adapters: switched by name, the base untouched, and merged into a checkpoint that says the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytest.importorskip("tokenizers")

from torch import Tensor

from vla_ros.errors import ConfigError, UnknownNameError
from vla_ros.policies.openvla.adapters import Adapters
from vla_ros.policies.openvla.checkpoint import Checkpoint, load_model, read_checkpoint
from vla_ros.policies.openvla.lora import read_adapter
from vla_ros.policies.openvla.merging import merge_adapter
from vla_ros.policies.openvla.model import OpenVLA
from vla_ros.policies.openvla.small import SMALL, make_small_adapter, make_small_checkpoint

PIXELS = torch.randn(2, 6, 56, 56, generator=torch.Generator().manual_seed(2))
IDS = torch.tensor([[1, 29871, 500, 31000, 29871]] * 2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return read_checkpoint(make_small_checkpoint(tmp_path_factory.mktemp("base"), seed=7))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_small_adapter(tmp_path_factory.mktemp(name), seed) for name, seed in (("sort", 1), ("stack", 2))}


def logits(model: OpenVLA) -> Tensor:
    with torch.no_grad():
        return model(PIXELS, IDS)


def test_adapters_switch_by_name_and_leave_the_base_alone(checkpoint: Checkpoint, folders: dict[str, Path]) -> None:
    model = load_model(checkpoint)
    base, weights = logits(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapters = Adapters(model)
    for name, folder in folders.items():
        adapters.load(name, folder)
    assert torch.equal(logits(model), base), "loading isn't using"
    said = {}
    for name in ("sort", "stack", "sort"):
        adapters.use(name)
        actions = model.generate(PIXELS, IDS, 7)
        assert torch.equal(said.setdefault(name, actions), actions)
    assert not torch.equal(said["sort"], said["stack"])
    adapters.use(None)
    assert torch.equal(logits(model), base)
    after = {name.replace(".base_layer", ""): tensor for name, tensor in model.state_dict().items()}
    assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_use_loads_nothing(checkpoint: Checkpoint, folders: dict[str, Path], tmp_path: Path) -> None:
    adapters = Adapters(load_model(checkpoint))
    copy = Path(shutil.copytree(folders["sort"], tmp_path / "copy"))
    adapters.load("sort", copy)
    shutil.rmtree(copy)
    adapters.use("sort")
    assert adapters.active == "sort"
    with pytest.raises(UnknownNameError, match="known: sort"):
        adapters.use("stack")


def test_merged_checkpoint_says_what_the_adapter_says(
    checkpoint: Checkpoint, folders: dict[str, Path], tmp_path: Path
) -> None:
    model = load_model(checkpoint)
    adapters = Adapters(model)
    adapters.load("sort", folders["sort"])
    adapters.use("sort")
    with_adapter = logits(model)
    (checkpoint.folder / "modeling_prismatic.py").write_text("raise SystemExit")
    merged = read_checkpoint(merge_adapter(checkpoint, folders["sort"], tmp_path / "merged"))
    (checkpoint.folder / "modeling_prismatic.py").unlink()
    # Single precision, sums in another order: 1e-5 of the largest logit.
    found = logits(load_model(merged))
    assert torch.max(torch.abs(found - with_adapter)) < 1e-5 * with_adapter.abs().max()
    assert sorted(path.name for path in merged.folder.iterdir()) == sorted(
        path.name for path in checkpoint.folder.iterdir()
    )
    assert merged.shards == checkpoint.shards


def test_merging_adds_scaled_products_to_the_stored_fused_weights(
    checkpoint: Checkpoint, folders: dict[str, Path], tmp_path: Path
) -> None:
    """By LoRA's formula, W + alpha / r B A, on the files alone; what the adapter leaves out stays bit for bit."""
    merged = merge_adapter(checkpoint, folders["stack"], tmp_path / "merged")

    def tensors(folder: Path) -> dict[str, Tensor]:
        return {n: t for f in folder.glob("model*.safetensors") for n, t in safetensors_torch.load_file(f).items()}

    before, after = tensors(checkpoint.folder), tensors(merged)
    change = safetensors_torch.load_file(folders["stack"] / "adapter_model.safetensors")
    settings = json.loads((folders["stack"] / "adapter_config.json").read_text())
    changed = set()
    for name in before:
        at = "base_model.model." + name.removesuffix(".weight")
        if f"{at}.lora_A.weight" not in change:
            assert torch.equal(before[name], after[name]), name
            continue
        product = change[f"{at}.lora_B.weight"] @ change[f"{at}.lora_A.weight"]
        torch.testing.assert_close(after[name], before[name] + settings["lora_alpha"] / settings["r"] * product)
        changed.add(name)
    assert "vision_backbone.featurizer.blocks.0.attn.qkv.weight" in changed
    assert "vision_backbone.fused_featurizer.attn_pool.kv.weight" in changed


def test_adapter_trained_by_peft_on_this_model_loads_and_merges(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """peft wraps, changes and saves our model by itself; its folder then does here what it did there."""
    names = ["q_proj", "v_proj", "down_proj", "fc3"]
    settings = peft.LoraConfig(r=3, lora_alpha=6, target_modules=names, init_lora_weights=False, use_rslora=True)
    torch.manual_seed(0)
    trained = peft.get_peft_model(load_model(checkpoint), settings).eval()
    trained.save_pretrained(tmp_path / "adapter")
    wanted = logits(trained)
    model = load_model(checkpoint)
    adapters = Adapters(model)
    adapters.load("mine", tmp_path / "adapter")
    adapters.use("mine")
    torch.testing.assert_close(logits(model), wanted, rtol=0.0, atol=0.0)
    merged = load_model(read_checkpoint(merge_adapter(checkpoint, tmp_path / "adapter", tmp_path / "merged")))
    assert torch.max(torch.abs(logits(merged) - wanted)) < 1e-5 * wanted.abs().max()


def damage(source: Path, target: Path, **settings: object) -> Path:
    shutil.copytree(source, target)
    data = json.loads((target / "adapter_config.json").read_text()) | settings
    (target / "adapter_config.json").write_text(json.dumps(data))
    return target


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"r": 5}, "rank 5 needs"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_adapter_that_is_more_than_plain_lora_is_refused(
    folders: dict[str, Path], tmp_path: Path, settings: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        read_adapter(damage(folders["sort"], tmp_path / "damaged", **settings), SMALL)


def test_adapter_of_another_model_is_refused_by_layer(tmp_path: Path, folders: dict[str, Path]) -> None:
    folder = damage(folders["sort"], tmp_path / "damaged")
    tensors = safetensors_torch.load_file(folder / "adapter_model.safetensors")
    name = "base_model.model.language_model.model.layers.9.mlp.up_proj"
    extra = {f"{name}.lora_A.weight": torch.zeros(4, 64), f"{name}.lora_B.weight": torch.zeros(112, 4)}
    safetensors_torch.save_file(tensors | extra, folder / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"layers\.9\.mlp\.up_proj is no linear layer"):
        read_adapter(folder, SMALL)
    del tensors["base_model.model.projector.fc1.lora_A.weight"]
    safetensors_torch.save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match="lora_B"):
        read_adapter(folder, SMALL)


def test_adapter_of_the_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = make_small_adapter(tmp_path, layers=("language_model.model.embed_tokens",))
    with pytest.raises(ConfigError, match="embed_tokens is no linear layer"):
        read_adapter(folder, SMALL)


def test_pickled_adapter_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = damage(folders["sort"], tmp_path / "damaged")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ConfigError, match=r"adapter_model\.bin is pickled"):
        read_adapter(folder, SMALL)


def test_merging_never_writes_over_something(checkpoint: Checkpoint, folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="isn't empty"):
        merge_adapter(checkpoint, folders["sort"], checkpoint.folder)

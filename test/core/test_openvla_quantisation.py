"""Weights in eight and four bits: what they weigh, and that finer scales err less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("tokenizers")

from torch import nn

from vla_ros.errors import ConfigError, MissingDependencyError, UnknownNameError
from vla_ros.policies.openvla.adapters import Adapters
from vla_ros.policies.openvla.checkpoint import Checkpoint, load_model, read_checkpoint
from vla_ros.policies.openvla.comparison import as_table, compare_quantisations
from vla_ros.policies.openvla.config import PUBLISHED_TOWERS, LanguageConfig, ModelConfig, TowerConfig
from vla_ros.policies.openvla.model import build_empty
from vla_ros.policies.openvla.quantisation import (
    NF4_VALUES,
    SCHEMES,
    QuantisedLinear,
    decode,
    encode,
    quantise,
    weight_bytes,
)
from vla_ros.policies.openvla.small import make_small_adapter, make_small_checkpoint

OWN = [name for name, scheme in SCHEMES.items() if scheme.library == "own"]
# Wide enough for several groups of 64 a row.
WIDE = ModelConfig(
    towers=(
        TowerConfig("dinov2", width=128, layers=2, heads=2, mlp_width=256, registers=4, image_px=28),
        TowerConfig("siglip", width=128, layers=2, heads=2, mlp_width=320, image_px=28),
    ),
    language=LanguageConfig(vocab_size=32064, width=192, mlp_width=384, layers=2, heads=3, key_value_heads=3),
    dtype="float32",
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    return [read_checkpoint(make_small_checkpoint(tmp_path_factory.mktemp("wide"), seed, WIDE)) for seed in range(2)]


def weights(seed: int = 0, shape: tuple[int, int] = (48, 200)) -> torch.Tensor:
    """Heavy-tailed, rows of different size, as trained weights are."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator)
    return normal * (1 + normal.abs()) * torch.exp(torch.randn(shape[0], 1, generator=generator))


@pytest.mark.parametrize("name", OWN)
def test_no_weight_is_off_by_more_than_half_a_step(name: str) -> None:
    """The step is worked out anew, entry by entry, from the published definition of each scheme."""
    scheme, weight = SCHEMES[name], weights().double().numpy()
    found = decode(*encode(weights(), scheme), scheme, 200).double().numpy()
    largest = np.empty_like(weight)
    for row in range(48):
        for column in range(200):
            first = column // 64 * 64
            part = {"tensor": weight, "channel": weight[row], "group": weight[row, first : first + 64]}[scheme.share]
            largest[row, column] = np.abs(part).max()
    if scheme.code == "nf4":
        gaps = np.abs((weight / largest)[..., None] - np.array(NF4_VALUES)).min(axis=-1)
        np.testing.assert_allclose(np.abs(found - weight), gaps * largest, atol=1e-5 * largest.max())
    else:
        steps = {"int8": 127, "int4": 7}[scheme.code]
        assert np.all(np.abs(found - weight) <= largest * (0.5 / steps + 1e-6))
        np.testing.assert_allclose(found / largest * steps, np.round(found / largest * steps), atol=1e-4)


def test_nf4_values_are_quantiles_of_a_normal_distribution() -> None:
    """QLoRA's construction: 8 and 9 quantiles of each side to the offset 0.9677083, scaled to one."""
    normal = torch.distributions.Normal(0.0, 1.0)
    positive = normal.icdf(torch.linspace(0.9677083, 0.5, 9)[:-1].double())
    negative = -normal.icdf(torch.linspace(0.9677083, 0.5, 8)[:-1].double())
    values = torch.cat([positive, negative, torch.zeros(1)]).sort().values
    torch.testing.assert_close(values / values.max(), torch.tensor(NF4_VALUES).double(), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("code", ["int8", "int4"])
def test_finer_scales_err_less_on_weights(code: str) -> None:
    errors = {}
    for share in ("tensor", "channel", "group"):
        scheme = SCHEMES[f"{code}_{share}"]
        parts = [decode(*encode(weights(seed), scheme), scheme, 200) - weights(seed) for seed in range(5)]
        errors[share] = float(torch.stack(parts).square().mean())
    assert errors["group"] < errors["channel"] < errors["tensor"]


def test_comparison_reports_memory_and_errors_in_the_expected_order(checkpoints: list[Checkpoint]) -> None:
    """On the mean of models and pictures; a single token may go either way."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(24, 6, 28, 28, generator=generator)
    ids = torch.randint(259, 31000, (24, 8), generator=generator)
    runs = [compare_quantisations(lambda c=c: load_model(c), pixels, ids, OWN) for c in checkpoints]
    assert [row.scheme for row in runs[0]] == ["none", *OWN]
    rows = {parts[0].scheme: parts for parts in zip(*runs, strict=True)}
    logit = {name: float(np.mean([row.logit_error for row in parts])) for name, parts in rows.items()}
    action = {name: float(np.mean([row.action_error for row in parts])) for name, parts in rows.items()}
    size = {name: parts[0].weight_bytes for name, parts in rows.items()}
    for code in ("int8", "int4"):
        assert logit[f"{code}_group"] <= logit[f"{code}_channel"] <= logit[f"{code}_tensor"]
        assert size[f"{code}_tensor"] < size[f"{code}_channel"] < size[f"{code}_group"] < size["none"]
        assert logit[f"{code}_group"] > 0.0
    assert logit["nf4"] < logit["int4_group"]
    assert 10 * logit["int8_channel"] < logit["int4_channel"]
    assert action["none"] == 0.0
    assert action["int8_group"] < action["nf4"] < action["int4_tensor"]
    assert all(row.token_agreement > 0.8 for row in rows["int8_channel"])
    assert "int4_group" in as_table(runs[0])


def test_published_size_of_each_scheme() -> None:
    """7.54 billion parameters; the head (131M), embeddings (131M), the unused pool's matrices and the kernels stay."""
    config = ModelConfig(PUBLISHED_TOWERS["dinosiglip-vit-so-224px"], LanguageConfig(vocab_size=32064))
    linear = 7_541_237_184 - 2 * 32064 * 4096
    sizes = {}
    for name in ("int8_channel", "nf4"):
        sizes[name] = weight_bytes(quantise(build_empty(config, torch.bfloat16, "meta"), name))
    kept = 2 * 2 * 32064 * 4096
    # Beside: scales (four bytes a row or group of 64) and what isn't a linear layer, less than 1 % together for int8.
    assert sizes["int8_channel"] == pytest.approx(linear + kept, rel=0.01)
    assert sizes["nf4"] == pytest.approx(linear * (0.5 + 4 / 64) + kept, rel=0.01)


def test_quantised_model_keeps_its_adapters(checkpoints: list[Checkpoint], tmp_path: Path) -> None:
    pixels, ids = torch.randn(1, 6, 28, 28), torch.tensor([[1, 500, 29871]])
    models = []
    for scheme in ("", "int8_channel"):
        model = load_model(checkpoints[0])
        adapters = Adapters(model)
        adapters.load("sort", make_small_adapter(tmp_path / f"adapter{scheme}", 1, WIDE))
        if scheme:
            quantise(model, scheme)
        base = model(pixels, ids)
        adapters.use("sort")
        models.append((base, model(pixels, ids)))
    (base, adapted), (quantised_base, quantised) = models
    assert (quantised - adapted).std() < 0.1 * (adapted - base).std()
    assert not torch.equal(quantised_base, base)


def test_adapter_comes_before_quantisation(checkpoints: list[Checkpoint], tmp_path: Path) -> None:
    model = quantise(load_model(checkpoints[0]), "nf4")
    with pytest.raises(ConfigError, match="then quantise"):
        Adapters(model).load("sort", make_small_adapter(tmp_path, 1, WIDE))


@pytest.mark.parametrize("name", ["torchao_int8", "bitsandbytes_int8", "bitsandbytes_nf4"])
def test_libraries_agree_with_ours_or_say_what_is_missing(checkpoints: list[Checkpoint], name: str) -> None:
    library = SCHEMES[name].library
    ours = {"int8": "int8_channel", "nf4": "nf4"}[SCHEMES[name].code]
    pixels = torch.randn(8, 6, 28, 28, generator=torch.Generator().manual_seed(3))
    ids = torch.tensor([[1, 500, 29871]] * 8)
    figures = {
        f.scheme: f for f in compare_quantisations(lambda: load_model(checkpoints[0]), pixels, ids, [name, ours])
    }
    try:
        __import__(library)
    except ImportError:
        assert f"{library} is missing" in figures[name].refusal
        with pytest.raises(MissingDependencyError, match=library):
            quantise(load_model(checkpoints[0]), name)
        return
    assert figures[name].logit_error == pytest.approx(figures[ours].logit_error, rel=0.25)
    assert figures[name].weight_bytes == pytest.approx(figures[ours].weight_bytes, rel=0.02)


def test_unknown_scheme_is_refused(checkpoints: list[Checkpoint]) -> None:
    with pytest.raises(UnknownNameError, match="int3"):
        quantise(load_model(checkpoints[0]), "int3")


def test_head_and_attention_pool_stay_as_they_are(checkpoints: list[Checkpoint]) -> None:
    model = quantise(load_model(checkpoints[0]), "int4_group")
    kept = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    pool = "vision_backbone.fused_featurizer.head.attention.out_proj"
    assert kept == {"language_model.lm_head", pool}
    layers = [module for module in model.modules() if isinstance(module, QuantisedLinear)]
    # 7 a block of the Llama, 3 of the projector, and 6 a block of the towers (2 + 2), with 2 of the pool's own MLP.
    assert len(layers) == 2 * 7 + 3 + 4 * 6 + 2

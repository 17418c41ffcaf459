"""Adapters made and trained here: what is trainable, what is written, and what a policy makes of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytest.importorskip("tokenizers")

from torch import Tensor, nn

from vla_ros.contract import ActionSpec, Contract, ImageSpec, ObservationSpec, load_contract
from vla_ros.errors import ConfigError, ContractError, VlaRosError
from vla_ros.policies.normalisation import Statistics
from vla_ros.policies.openvla.adapters import Adapters, LoraShape, find_targets
from vla_ros.policies.openvla.checkpoint import Checkpoint, load_model, read_checkpoint
from vla_ros.policies.openvla.fine_tuned import POLICY_FILE, FineTunedCard, write_meaning
from vla_ros.policies.openvla.lora import write_adapter
from vla_ros.policies.openvla.merging import merge_adapter
from vla_ros.policies.openvla.model import OpenVLA
from vla_ros.policies.openvla.policy import OpenVLAPolicy
from vla_ros.policies.openvla.quantisation import SCHEMES, QuantisedLinear, decode, quantise
from vla_ros.policies.openvla.small import make_small_checkpoint
from vla_ros.policies.registry import load_policy_config, make_policy

PIXELS = torch.randn(2, 6, 56, 56, generator=torch.Generator().manual_seed(2))
IDS = torch.tensor([[1, 29871, 500, 31000, 29871]] * 2)
SHAPE = LoraShape(rank=4, alpha=8.0)
STATISTICS = Statistics.from_samples(
    0.01 * np.random.default_rng(0).normal(size=(50, 7)), np.array([True] * 6 + [False])
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = make_small_checkpoint(tmp_path_factory.mktemp("base"), 7, datasets=("bridge_orig", "kitchen"))
    return read_checkpoint(folder)


def logits(model: OpenVLA) -> Tensor:
    with torch.no_grad():
        return model(PIXELS, IDS)


def disturb(parameters: list[nn.Parameter], seed: int = 0) -> None:
    """As if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


def trained(checkpoint: Checkpoint, folder: Path, **card: Any) -> tuple[OpenVLA, Path]:
    """A model with a changed adapter in use, and the folder in which that was saved."""
    model = load_model(checkpoint)
    adapters = Adapters(model)
    adapters.add("mine", SHAPE, seed=0)
    disturb(adapters.train("mine"))
    folder.mkdir()
    write_adapter(folder, adapters.read("mine"), str(checkpoint.folder))
    about = FineTunedCard(str(checkpoint.folder), "mine", "cups", **card)
    write_meaning(folder, about, load_contract("openvla_bridge"), STATISTICS)
    return model, folder


def test_new_adapter_changes_nothing_and_alone_is_trainable(checkpoint: Checkpoint) -> None:
    model = load_model(checkpoint, "bfloat16")
    base = logits(model)
    adapters = Adapters(model)
    adapters.add("a", SHAPE, seed=0)
    adapters.add("b", SHAPE, seed=1)
    weights = adapters.train("a")
    assert torch.equal(logits(model), base)
    assert all(weight.dtype is torch.float32 for weight in weights)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(names) == len(weights)
    assert all(name.endswith((".lora_A.a.weight", ".lora_B.a.weight")) for name in names)
    # Every one of them has an effect: none lies in a layer that isn't computed.
    disturb(weights)
    model(PIXELS, IDS).float().square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights)


def test_targets_are_named_by_kind_by_part_or_all(checkpoint: Checkpoint) -> None:
    model = load_model(checkpoint)
    every = find_targets(model, ("all-linear",))
    assert "language_model.lm_head" not in every
    assert sum(name.startswith("language_model.") for name in every) == 3 * 7
    # Two of three blocks count in each tower, six matrices each.
    assert sum(name.startswith("vision_backbone.") for name in every) == 2 * 2 * 6
    assert len(every) == 21 + 24 + 3
    assert find_targets(model, ("projector",)) == ["projector.fc1", "projector.fc2", "projector.fc3"]
    assert len(find_targets(model, ("q_proj", "v_proj"))) == 2 * (3 + 4)
    assert find_targets(model, ("projector", "fc3")) == ["projector.fc1", "projector.fc2", "projector.fc3"]
    with pytest.raises(ConfigError, match="lm_head: is no linear layer"):
        find_targets(model, ("lm_head",))


def test_peft_reads_what_is_written(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model, folder = trained(checkpoint, tmp_path / "adapter")
    wanted = logits(model)
    by_peft = peft.PeftModel.from_pretrained(load_model(checkpoint), folder)
    torch.testing.assert_close(logits(by_peft), wanted, rtol=0.0, atol=0.0)
    ours = Adapters(fresh := load_model(checkpoint))
    ours.load("again", folder)
    ours.use("again")
    torch.testing.assert_close(logits(fresh), wanted, rtol=0.0, atol=0.0)


def test_going_on_with_an_adapter_leaves_the_others_and_the_base_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    _, folder = trained(checkpoint, tmp_path / "adapter")
    model = load_model(checkpoint)
    adapters = Adapters(model)
    adapters.load("first", folder)
    adapters.add("second", LoraShape(rank=2, alpha=4.0, targets=("language_model",)), seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.SGD(adapters.train("second"), lr=0.1)
    model(PIXELS, IDS).square().mean().backward()
    optimiser.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(".lora_B.second." in name for name in changed), "A has no gradient while B is zero"


@pytest.mark.parametrize("scheme", ["nf4", "int8_channel", "int4_group"])
def test_gradient_through_codes_is_that_through_the_decoded_weight(scheme: str) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(200, 48)
    layer = QuantisedLinear(linear, SCHEMES[scheme])
    x = torch.randn(5, 3, 200, requires_grad=True)
    weight = decode(layer.codes, layer.scales, SCHEMES[scheme], 200)
    wanted = nn.functional.linear(x, weight, linear.bias)
    found = layer(x)
    assert torch.equal(found, wanted)
    pull = torch.randn(wanted.shape)
    torch.testing.assert_close(torch.autograd.grad(found, x, pull)[0], torch.autograd.grad(wanted, x, pull)[0])


def test_training_on_codes_keeps_no_full_weight_between_the_passes() -> None:
    """A thousandth of the weight and less is kept: nothing but what the layer holds anyway."""
    layer = QuantisedLinear(nn.Linear(256, 256), SCHEMES["nf4"])
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        layer(torch.randn(1, 256, requires_grad=True))
    assert sum(kept) < 256


@pytest.mark.parametrize("scheme", ["nf4", "int8_group"])
def test_merged_with_the_weights_it_was_trained_on_it_says_the_same(
    checkpoint: Checkpoint, tmp_path: Path, scheme: str
) -> None:
    _, folder = trained(checkpoint, tmp_path / "adapter", quantisation=scheme)
    model = load_model(checkpoint)
    adapters = Adapters(model)
    adapters.load("mine", folder)
    quantise(model, scheme)
    adapters.use("mine")
    wanted = logits(model)
    merged = load_model(read_checkpoint(merge_adapter(checkpoint, folder, tmp_path / "merged")))
    assert torch.max(torch.abs(logits(merged) - wanted)) < 1e-5 * wanted.abs().max()


def test_policy_reads_an_adapters_actions_with_its_own_statistics(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The base has two datasets, so that it can't be used unnamed; the adapter knows what it means."""
    _, folder = trained(checkpoint, tmp_path / "adapter", centre_area=0.9)
    policy: Any = make_policy(load_policy_config(str(folder / POLICY_FILE)))[0]
    assert policy._preprocess.centre_area == 0.9
    assert policy._normaliser.statistics.q01.tolist() == STATISTICS.q01.tolist()
    with pytest.raises(VlaRosError, match="bridge_orig"):
        policy.use_adapter(None)
    merged, _ = make_policy(load_policy_config(str(merge_adapter(checkpoint, folder, tmp_path / "m") / POLICY_FILE)))
    assert merged is not None


def test_adapter_of_another_contract_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    _, folder = trained(checkpoint, tmp_path / "adapter")
    spec = ActionSpec(space="tool", rotation="rotvec", relative_to="observation", period_s=0.1)
    other = Contract("other", ObservationSpec({"base": ImageSpec("base")}, (), "base"), spec)
    parameters = {"checkpoint": str(checkpoint.folder), "adapters": {"mine": str(folder)}, "adapter": "mine"}
    with pytest.raises(ContractError, match=r"fine-tuned under(.|\n)*period_s"):
        OpenVLAPolicy.check_parameters(other, parameters)


def test_statistics_are_written_as_openvla_writes_them(checkpoint: Checkpoint, tmp_path: Path) -> None:
    _, folder = trained(checkpoint, tmp_path / "adapter")
    data = json.loads((folder / "dataset_statistics.json").read_text())["cups"]
    assert set(data["action"]) == {"mean", "std", "min", "max", "q01", "q99", "mask"}
    assert data["num_transitions"] == 50
    assert data["action"]["mask"] == [True] * 6 + [False]
    assert Statistics.from_json(data["action"]).stats_hash() == dataclasses.replace(STATISTICS).stats_hash()

"""OpenVLA behind the Policy protocol: which contracts it takes, what its tokens become, what it refuses."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("tokenizers")

from vla_ros.contract import (
    ActionSpec,
    Contract,
    ImageSpec,
    Normalisation,
    NormalisationSpec,
    ObservationSpec,
    load_contract,
)
from vla_ros.errors import (
    ChunkError,
    ConfigError,
    ContractError,
    InstructionError,
    MissingDependencyError,
    UnknownNameError,
)
from vla_ros.policies.base import InferenceContext, Policy
from vla_ros.policies.openvla import policy as policy_module
from vla_ros.policies.openvla.policy import OpenVLAPolicy
from vla_ros.policies.openvla.small import SMALL, make_small_adapter, make_small_checkpoint
from vla_ros.types import CameraFrame, Observation

BRIDGE = ActionSpec(
    space="tool", composition="base_euler", rotation="rpy", relative_to="observation", period_s=0.2, timing="on_arrival"
)
CONTRACT = Contract("openvla_bridge", ObservationSpec({"base": ImageSpec("base")}, (), "base"), BRIDGE)
TASK = "pick up the red block"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_checkpoint(tmp_path_factory.mktemp("openvla"), seed=11)


def observe(seed: int = 0) -> Observation:
    image = np.random.default_rng(seed).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    image[:60] //= 1 + seed
    frames = {"base": CameraFrame(1, image), "wrist": CameraFrame(1, 255 - image)}
    return Observation(1, frames, np.zeros(0), {}, np.eye(4), 1.0, TASK)


def make(folder: Path, contract: Contract = CONTRACT, **parameters: Any) -> OpenVLAPolicy:
    return OpenVLAPolicy.from_parameters(contract, {"checkpoint": str(folder)} | parameters)


def act(policy: OpenVLAPolicy, seed: int = 0) -> np.ndarray:
    policy.reset(TASK, 0)
    return policy.infer(observe(seed), InferenceContext()).actions


def say(policy: OpenVLAPolicy, tokens: list[int], monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What the policy makes of these tokens."""
    monkeypatch.setattr(policy._model, "generate", lambda *_: torch.tensor([tokens]))
    return act(policy)


def with_action(**changes: Any) -> Contract:
    return dataclasses.replace(CONTRACT, action=dataclasses.replace(BRIDGE, **changes))


def test_one_finite_step_that_is_the_same_each_time_and_follows_the_picture(folder: Path) -> None:
    policy = make(folder)
    assert isinstance(policy, Policy)
    assert policy.infer(observe(), InferenceContext()).is_idle, "no task yet"
    answers = [act(policy, seed) for seed in (0, 0, 1, 2, 3)]
    assert all(answer.shape == (1, 7) and np.isfinite(answer).all() for answer in answers)
    np.testing.assert_array_equal(answers[0], answers[1])
    assert any(not np.array_equal(answers[0], answer) for answer in answers[2:])


def test_tokens_at_bin_edges_become_actions_by_the_published_formula(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: 256 edges from -1 to 1 are 2/255 apart, so centres are at -1 + (2 k + 1) / 255.

    Id 31999 is the first centre, 31745 the last (k = 254), and 31744, the edge at 1 itself, is read as it, too.
    """
    ends = {31999: -254 / 255, 31998: -252 / 255, 31872: 0.0, 31745: 254 / 255, 31744: 254 / 255}
    statistics = json.loads((folder / "config.json").read_text())["norm_stats"]["bridge_orig"]["action"]
    q01, q99 = np.array(statistics["q01"]), np.array(statistics["q99"])
    policy = make(folder)
    for token, value in ends.items():
        wanted = 0.5 * (value + 1) * (q99 - q01) + q01
        # The gripper's entry isn't normalised: 1 is open.
        wanted[6] = value
        np.testing.assert_allclose(say(policy, [token] * 7, monkeypatch)[0], wanted, rtol=0.0, atol=1e-12)


def test_edge_values_of_every_bin_are_encoded_as_digitize_does() -> None:
    """The tokens of training, by NumPy's own digitize, decode to within half a bin of where they came from."""
    from vla_ros.policies.representations.bins import VocabularyBins

    edges = np.linspace(-1, 1, 256)
    bins = VocabularyBins(SMALL.action_vocabulary)
    for values in (edges, np.nextafter(edges, -2), np.nextafter(edges, 2), np.array([-3.0, 3.0])):
        ids = 32000 - np.digitize(np.clip(values, -1, 1), edges)
        np.testing.assert_array_equal(bins.encode(values), ids)
        assert np.all(np.abs(bins.decode(ids) - np.clip(values, -1, 1)) <= 1 / 255 + 1e-12)
        assert ids.min() >= 31744
        assert ids.max() <= 31999


@pytest.mark.parametrize("token", [31743, 32000, 2, 29871])
def test_what_is_no_action_token_is_refused_and_not_moved(
    folder: Path, token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ChunkError, match=str(token)):
        say(make(folder), [31900] * 6 + [token], monkeypatch)


@pytest.mark.parametrize(
    "changes",
    [
        {"composition": "tcp"},
        {"composition": "base"},
        {"composition": "base", "rotation": "rotvec"},
        {"gripper": "signed_closing"},
        {"gripper": "closing"},
        {"position_scale_m": 0.05},
        {"composition": "base", "rotation": "quat_xyzw", "relative_to": "nothing"},
    ],
    ids=str,
)
def test_contract_that_means_something_else_is_refused_with_the_difference(
    folder: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(ContractError, match=f"{next(iter(changes))} {next(iter(changes.values()))!r} instead of"):
        make(folder, with_action(**changes))


def test_joint_contract_is_refused(folder: Path) -> None:
    joints = ActionSpec(space="joint", relative_to="nothing", period_s=0.1)
    with pytest.raises(ContractError, match="space 'joint' instead of 'tool'"):
        make(folder, dataclasses.replace(CONTRACT, action=joints))


def test_libero_means_scaled_rotation_vectors(tmp_path: Path) -> None:
    folder = make_small_checkpoint(tmp_path / "libero", datasets=("libero_spatial_no_noops",))
    libero = {"composition": "base", "rotation": "rotvec", "position_scale_m": 0.05, "rotation_scale_rad": 0.5}
    make(folder, with_action(**libero))
    with pytest.raises(ContractError, match="libero"):
        make(folder)
    make(folder, convention="bridge")
    # What nobody knows is the contract's own word, in tool space with angles.
    make(folder, with_action(composition="tcp", rotation="rotvec"), convention="contract")
    with pytest.raises(ContractError, match="rot6d"):
        make(folder, with_action(composition="tcp", rotation="rot6d"), convention="contract")


def test_several_datasets_need_a_key_and_it_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_small_checkpoint(tmp_path / "several", datasets=("bridge_orig", "other"))
    config = json.loads((folder / "config.json").read_text())
    config["norm_stats"]["other"]["action"]["q99"][0] = 1.0
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="bridge_orig, other"):
        make(folder)
    with pytest.raises(UnknownNameError, match="did you mean 'bridge_orig'"):
        make(folder, unnorm_key="bridge_ori")
    highest = [say(make(folder, unnorm_key=key), [31745] * 7, monkeypatch)[0] for key in ("bridge_orig", "other")]
    assert highest[0][0] == pytest.approx(0.0283, abs=2e-4)
    assert highest[1][0] == pytest.approx(1.0, abs=3e-3)
    np.testing.assert_array_equal(highest[0][1:], highest[1][1:])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"q99": None}, "q99"),
        ({"q01": [0.0] * 8, "q99": [1.0] * 8, "mask": [True] * 8}, "8 entries"),
        (None, "norm_stats"),
    ],
)
def test_statistics_that_dont_fit_are_refused(folder: Path, tmp_path: Path, changes: Any, named: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    statistics = {"bridge_orig": {"action": {"q01": [0.0] * 7, "q99": [1.0] * 7} | changes}} if changes else {}
    (copy / "dataset_statistics.json").write_text(json.dumps(statistics))
    with pytest.raises(ConfigError, match=named):
        make(copy)


def test_public_contract_fits_and_another_normalisation_doesnt(folder: Path) -> None:
    public = load_contract("openvla_bridge")
    policy = make(folder, public)
    policy.reset(TASK, 0)
    seen = dataclasses.replace(observe(), images={"image": observe().images["base"]})
    np.testing.assert_array_equal(policy.infer(seen, InferenceContext()).actions, act(make(folder)))
    for other in (NormalisationSpec("mean_std"), NormalisationSpec("quantile", mask=(True,) * 7)):
        contract = dataclasses.replace(public, normalisation=Normalisation(action=other))
        with pytest.raises(ContractError, match="normalised by"):
            make(folder, contract)


def test_policy_sees_the_image_it_is_told_to(folder: Path) -> None:
    images = {"base": ImageSpec("base"), "wrist": ImageSpec("wrist")}
    contract = dataclasses.replace(CONTRACT, observation=ObservationSpec(images, (), "base"))
    seen: list[np.ndarray] = []
    for parameters in ({}, {"image": "wrist"}):
        policy = make(folder, contract, **parameters)
        policy._preprocess = lambda image, inner=policy._preprocess: seen.append(image) or inner(image)
        act(policy)
    np.testing.assert_array_equal(seen[0], 255 - seen[1])
    with pytest.raises(ContractError, match="'side'"):
        make(folder, contract, image="side")


def test_adapters_and_quantisation_by_parameters(folder: Path, tmp_path: Path) -> None:
    adapters = {name: str(make_small_adapter(tmp_path / name, seed)) for name, seed in (("sort", 1), ("stack", 2))}
    policy = make(folder, adapters=adapters, adapter="sort")
    sort = act(policy)
    policy.use_adapter("stack")
    stack = act(policy)
    policy.use_adapter(None)
    base = act(policy)
    assert not np.array_equal(sort, stack)
    np.testing.assert_array_equal(base, act(make(folder)))
    policy.use_adapter("sort")
    np.testing.assert_array_equal(act(policy), sort)
    assert np.isfinite(act(make(folder, adapters=adapters, adapter="sort", quantisation="nf4"))).all()
    with pytest.raises(ConfigError, match="'sort'"):
        make(folder, adapter="sort")
    with pytest.raises(UnknownNameError, match="int8_channel"):
        make(folder, quantisation="int8_chanel")


@pytest.mark.parametrize("task", ["", "   ", "word " * 2500])
def test_task_that_cant_be_read_is_refused_and_forgets_the_last(folder: Path, task: str) -> None:
    policy = make(folder)
    policy.reset(TASK, 0)
    with pytest.raises(InstructionError):
        policy.reset(task, 0)
    assert policy.infer(observe(), InferenceContext()).is_idle


def test_machine_without_torch_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "vla_ros.policies.openvla.policy")
    with pytest.raises(
        MissingDependencyError, match=r"torch is missing, needed for policy openvla; .*vla_ros\[learn\]"
    ):
        importlib.import_module("vla_ros.policies.openvla.policy")


@pytest.mark.parametrize(
    ("parameters", "error", "said"),
    [
        ({"checkpoint": "/nowhere"}, ConfigError, "/nowhere: no such folder"),
        ({"unnorm_key": "bridge"}, UnknownNameError, "did you mean 'bridge_orig'"),
        ({"convention": "libero"}, ContractError, "composition 'base_euler' instead of 'base'"),
        ({"dtype": "int8"}, ConfigError, "dtype 'int8'"),
        ({"quantisation": "int8_chanel"}, UnknownNameError, "int8_channel"),
        ({"adapters": {"sort": "/nowhere"}}, ConfigError, r"/nowhere/adapter_config\.json"),
        ({"device": "toaster"}, ConfigError, "toaster"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_would_be_refused_is_found_without_loading_weights(
    folder: Path, parameters: dict[str, Any], error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_module, "load_model", lambda *_: pytest.fail("weights were loaded"))
    OpenVLAPolicy.check_parameters(CONTRACT, {"checkpoint": str(folder)})
    with pytest.raises(error, match=said):
        OpenVLAPolicy.check_parameters(CONTRACT, {"checkpoint": str(folder)} | parameters)


@pytest.mark.parametrize("library", ["torchao", "bitsandbytes"])
def test_library_of_a_scheme_that_isnt_installed_is_said_without_loading_weights(
    folder: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match=f"{library} is missing.*pip install {library}"):
        OpenVLAPolicy.check_parameters(CONTRACT, {"checkpoint": str(folder), "quantisation": f"{library}_int8"})


def test_parameters_are_checked_by_name(folder: Path) -> None:
    with pytest.raises(ConfigError, match="unorm_key"):
        make(folder, unorm_key="bridge_orig")
    with pytest.raises(ConfigError, match="centre_area"):
        make(folder, centre_area=1.5)
    with pytest.raises(ConfigError, match="no such folder"):
        make(folder / "absent")

"""pi0 through transformers, on a small random checkpoint with the real structure."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers.models.pi0", reason="needs transformers 5.23 or newer")

from safetensors.torch import load_file, save_file
from transformers import PI0ForConditionalGeneration

from vla_ros.contract import ActionSpec, Contract, NormalisationSpec, StateItem
from vla_ros.errors import ConfigError, ContractError, InstructionError
from vla_ros.policies import pi0
from vla_ros.policies.base import InferenceContext, Policy
from vla_ros.policies.pi0 import Pi0Policy
from vla_ros.policies.pi0_small import (
    ACTION_MEAN,
    ACTION_STD,
    CHUNK,
    IMAGE_ID,
    PADDED,
    PATCH,
    SIDE,
    STATE_MEAN,
    STATE_STD,
    STEPS,
    make_small_checkpoint,
    small_contract,
    write_statistics,
)
from vla_ros.types import CameraFrame, Observation

TASK = "pick up the red_block"
CONTRACT = small_contract()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_checkpoint(tmp_path_factory.mktemp("pi0"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def make(checkpoint: Path, contract: Contract = CONTRACT, **parameters: object) -> Pi0Policy:
    return Pi0Policy.from_parameters(contract, {"checkpoint": str(checkpoint), **parameters})


def observe(seed: int = 0, height: int = SIDE, width: int = SIDE, entries: int = 8) -> Observation:
    rng = np.random.default_rng(seed)
    frames = {
        name: CameraFrame(1, rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for name in ("base", "wrist")
    }
    layout = {"tcp_pose": slice(0, 7), "gripper": slice(7, 8)}
    return Observation(1, frames, rng.normal(size=entries), layout, np.eye(4), 1.0, TASK)


def noise(seed: int) -> torch.Tensor:
    return torch.randn((1, CHUNK, PADDED), generator=torch.Generator().manual_seed(seed))


def euler(folder: Path, observation: Observation, words: list[int], seed: int, steps: int) -> np.ndarray:
    """The answer by hand: no cache, every step through the whole network, and inputs made here."""
    model = PI0ForConditionalGeneration.from_pretrained(folder).eval()
    state = torch.zeros(1, PADDED)
    state[0, :8] = torch.tensor((observation.state - STATE_MEAN) / STATE_STD)
    pixels = [torch.tensor(observation.images[name].image.astype(np.float32)) for name in ("base", "wrist")]
    ids = torch.tensor([[IMAGE_ID] * (2 * (SIDE // PATCH) ** 2) + words])
    x = noise(seed)
    with torch.no_grad():
        for step in range(steps):
            velocity = model(
                state=state,
                noise=x,
                timestep=torch.tensor([1.0 - step / steps]),
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=torch.stack([(2.0 * image / 255.0 - 1.0).permute(2, 0, 1) for image in pixels])[None],
                pixel_attention_mask=torch.ones((1, 2), dtype=torch.bool),
            ).logits
            x = x - velocity / steps
    return x[0, :, :7].double().numpy() * ACTION_STD + ACTION_MEAN


# "_" is read as a space and the line is ended, as openpi's tokenizer does: pick up the red block \n.
IDS = [1, 2, 3, 4, 5, 7, 8]


@pytest.mark.parametrize("steps", [None, 7])
def test_answer_is_eulers_from_noise_at_one_to_actions_at_zero(whole: Path, steps: int | None) -> None:
    policy = make(whole, steps=steps)
    policy.reset(TASK, 3)
    answer = policy.infer(observe(), InferenceContext()).actions
    # float32 through two ways of attending to the prefix.
    np.testing.assert_allclose(answer, euler(whole, observe(), IDS, 3, steps or STEPS), atol=2e-5)
    assert answer.shape == (CHUNK, 7)
    assert answer.dtype == np.float64


def test_policy_has_the_protocol(whole: Path) -> None:
    assert isinstance(make(whole), Policy)


def test_images_words_state_and_noise_each_matter(whole: Path) -> None:
    policy = make(whole)
    base = observe()

    def answer(observation: Observation, task: str = TASK, seed: int = 0) -> np.ndarray:
        policy.reset(task, seed)
        return policy.infer(observation, InferenceContext()).actions

    reference = answer(base)
    other = observe(1)
    changed = {
        "base": dataclasses.replace(base, images={**base.images, "base": other.images["base"]}),
        "wrist": dataclasses.replace(base, images={**base.images, "wrist": other.images["wrist"]}),
        "swapped": dataclasses.replace(base, images={"base": base.images["wrist"], "wrist": base.images["base"]}),
        "state": dataclasses.replace(base, state=other.state),
    }
    for name, observation in changed.items():
        assert np.abs(answer(observation) - reference).max() > 1e-3, name
    assert np.abs(answer(base, "pick up the blue block") - reference).max() > 1e-3
    assert np.abs(answer(base, seed=1) - reference).max() > 1e-3


def test_images_go_in_the_order_that_the_parameters_give(whole: Path) -> None:
    swapped = make(whole, images=["wrist", "base"])
    plain = make(whole)
    base = observe()
    turned = dataclasses.replace(base, images={"base": base.images["wrist"], "wrist": base.images["base"]})
    for policy in (swapped, plain):
        policy.reset(TASK, 0)
    np.testing.assert_array_equal(
        swapped.infer(base, InferenceContext()).actions, plain.infer(turned, InferenceContext()).actions
    )


def test_same_seed_gives_the_same_answers_and_reset_forgets(whole: Path) -> None:
    policy = make(whole)

    def answers(seed: int) -> list[np.ndarray]:
        policy.reset(TASK, seed)
        return [policy.infer(observe(k), InferenceContext()).actions for k in range(2)]

    one, other, again = answers(5), answers(6), answers(5)
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)


def test_noise_of_other_code_leaves_it_alone(whole: Path) -> None:
    policy = make(whole)
    policy.reset(TASK, 5)
    first = policy.infer(observe(), InferenceContext()).actions
    policy.reset(TASK, 5)
    torch.manual_seed(99)
    np.testing.assert_array_equal(first, policy.infer(observe(), InferenceContext()).actions)


def test_saved_and_loaded_again_it_answers_the_same(whole: Path, folder: Path) -> None:
    PI0ForConditionalGeneration.from_pretrained(whole).save_pretrained(folder)
    one, other = make(whole), make(folder)
    for policy in (one, other):
        policy.reset(TASK, 2)
    np.testing.assert_array_equal(
        one.infer(observe(), InferenceContext()).actions, other.infer(observe(), InferenceContext()).actions
    )


def test_another_size_is_fitted_in_with_black_bars(whole: Path) -> None:
    policy = make(whole)
    policy.reset(TASK, 0)
    pixels = policy.prepare(observe(height=2 * SIDE, width=4 * SIDE))["pixel_values"][0, 0]
    assert pixels.shape == (3, SIDE, SIDE)
    bar = SIDE // 4
    np.testing.assert_array_equal(pixels[:, :bar], -1.0)
    np.testing.assert_array_equal(pixels[:, -bar:], -1.0)
    assert (pixels[:, bar:-bar] > -1.0).all()


def test_state_is_padded_by_zeros_after_normalisation(whole: Path) -> None:
    policy = make(whole)
    policy.reset(TASK, 0)
    state = policy.prepare(dataclasses.replace(observe(), state=STATE_MEAN + STATE_STD))["state"]
    np.testing.assert_allclose(state[0], [1.0] * 8 + [0.0] * 2, atol=1e-6)


def test_bfloat16_is_near_float32(whole: Path) -> None:
    policies = [make(whole, dtype=dtype) for dtype in ("float32", "bfloat16")]
    for policy in policies:
        policy.reset(TASK, 0)
    one, other = (policy.infer(observe(), InferenceContext()).actions for policy in policies)
    difference = np.abs(one - other) / ACTION_STD
    # bfloat16 has 8 bits: 0.4 % a rounding, dozens of them one after the other.
    assert 0.0 < difference.max() < 0.5


def test_before_a_task_it_is_idle(whole: Path) -> None:
    answer = make(whole).infer(observe(), InferenceContext())
    assert answer.is_idle
    assert answer.actions.shape == (0, 7)


@pytest.mark.parametrize("task", ["", "  ", "\n"])
def test_empty_task_is_refused(whole: Path, task: str) -> None:
    policy = make(whole)
    with pytest.raises(InstructionError):
        policy.reset(task, 0)
    assert policy.infer(observe(), InferenceContext()).is_idle


def test_too_long_a_task_is_refused(whole: Path) -> None:
    with pytest.raises(InstructionError, match=r"takes 9 tokens \(limit 6"):
        make(whole, longest_prompt=6).reset("pick " * 7, 0)


@pytest.mark.parametrize(
    ("state", "action", "line"),
    [
        (9, 7, "state: checkpoint 9, contract 8"),
        (8, 8, "action: checkpoint 8, contract 7"),
        (11, 7, "state: its statistics have 11 entries, the model takes 10"),
        (8, 12, "action: its statistics have 12 entries, the model takes 10"),
    ],
)
def test_wrong_widths_are_refused_by_name(folder: Path, state: int, action: int, line: str) -> None:
    write_statistics(folder, state, action)
    with pytest.raises(ContractError, match=line):
        make(folder)


def test_arm_with_another_number_of_joints_for_state_and_action_is_refused(folder: Path) -> None:
    write_statistics(folder, 7, 9)
    contract = dataclasses.replace(
        CONTRACT,
        observation=dataclasses.replace(
            CONTRACT.observation, state=(StateItem("joint_positions"), StateItem("gripper"))
        ),
        action=ActionSpec("joint", "nothing", 0.1),
    )
    with pytest.raises(ContractError, match="state: checkpoint has 6 joints"):
        make(folder, contract)
    write_statistics(folder, 7, 7)
    make(folder, contract)


def test_observation_of_another_width_is_refused(whole: Path) -> None:
    policy = make(whole)
    policy.reset(TASK, 0)
    with pytest.raises(ContractError, match="has 9 entries"):
        policy.infer(observe(entries=9), InferenceContext())


def test_contract_that_lies_beside_the_checkpoint_is_held_against_the_one_in_force(folder: Path) -> None:
    # JSON is YAML, and knows no tuples.
    (folder / "contract.yaml").write_text(json.dumps(dataclasses.asdict(CONTRACT)))
    make(folder)
    action = dataclasses.replace(CONTRACT.action, gripper="signed_closing")
    with pytest.raises(ContractError, match=r"action\.gripper: opening != signed_closing"):
        make(folder, dataclasses.replace(CONTRACT, action=action))


def test_formula_without_its_statistics_is_refused(folder: Path) -> None:
    content = json.loads((folder / "statistics.json").read_text())
    del content["action"]["q99"]
    (folder / "statistics.json").write_text(json.dumps(content))
    make(folder)
    normalisation = dataclasses.replace(CONTRACT.normalisation, action=NormalisationSpec("quantile"))
    with pytest.raises(ContractError, match="needs q01 and q99"):
        make(folder, dataclasses.replace(CONTRACT, normalisation=normalisation))


def test_contract_with_a_past_is_refused(whole: Path) -> None:
    observation = dataclasses.replace(CONTRACT.observation, history_steps=2, history_spacing_s=0.1)
    with pytest.raises(ContractError, match="history_steps: checkpoint 1, contract 2"):
        make(whole, dataclasses.replace(CONTRACT, observation=observation))


def test_image_that_the_contract_lacks_is_refused(whole: Path) -> None:
    with pytest.raises(ContractError, match="image 'top'"):
        make(whole, images=["base", "top"])


def test_missing_weight_is_refused_and_not_filled_with_random_numbers(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["action_out_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"action_out_proj\.weight"):
        make(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"has no model\.safetensors"):
        make(folder)


@pytest.mark.parametrize("name", ["config.json", "statistics.json", "tokenizer.json", "model.safetensors"])
def test_folder_that_lacks_a_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=str(folder)):
        make(folder)


def test_other_models_folder_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(ConfigError, match="model_type is 'llama'"):
        make(folder)


@pytest.mark.parametrize(
    ("breakage", "error", "said"),
    [
        (lambda folder: shutil.rmtree(folder), ConfigError, "no such folder"),
        (lambda folder: (folder / "tokenizer.json").unlink(), ConfigError, "no tokenizer"),
        (lambda folder: (folder / "model.safetensors").unlink(), ConfigError, r"no model\.safetensors"),
        (lambda folder: write_statistics(folder, 9), ContractError, "state: checkpoint 9, contract 8"),
    ],
)
def test_what_would_be_refused_is_found_without_loading_weights(
    folder: Path, breakage: Any, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pi0, "_load_model", lambda *_: pytest.fail("weights were loaded"))
    Pi0Policy.check_parameters(CONTRACT, {"checkpoint": str(folder)})
    breakage(folder)
    with pytest.raises(error, match=said):
        Pi0Policy.check_parameters(CONTRACT, {"checkpoint": str(folder)})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_device_that_isnt_there_is_refused(whole: Path) -> None:
    for act in (Pi0Policy.check_parameters, Pi0Policy.from_parameters):
        with pytest.raises(ConfigError, match="cuda: torch sees no CUDA here"):
            act(CONTRACT, {"checkpoint": str(whole), "device": "cuda"})


def test_unknown_parameter_is_refused(whole: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'folder'"):
        make(whole, folder="x")

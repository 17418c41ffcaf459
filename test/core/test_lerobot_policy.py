"""LeRobot policies behind the Policy protocol: against lerobot itself where it is, else against a stand-in for it."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import types
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vla_ros.contract import ActionSpec, Contract, ImageSpec, ObservationSpec, StateItem
from vla_ros.errors import ConfigError, ContractError, InstructionError, MissingDependencyError
from vla_ros.policies import served_process
from vla_ros.policies.base import InferenceContext, Policy
from vla_ros.policies.environment import (
    child_environ,
    find_python,
    is_this_environment,
    look_through,
)
from vla_ros.policies.lerobot_features import LeRobotParameters, check_shapes, match, read_features
from vla_ros.policies.lerobot_policy import LeRobotPolicy
from vla_ros.policies.served_process import ServedProcess, ServerStartError, serve_in
from vla_ros.types import CameraFrame, Observation

STAND_IN = Path(__file__).parents[1] / "data" / "lerobot" / "stand_in"
CHECKOUT = Path(__file__).parents[2]
TASK = "pick up the red block"
HEIGHT, WIDTH, HORIZON = 6, 8, 4
TOP, HAND, STATE = "observation.images.top", "observation.images.hand", "observation.state"


def contract(steps: int = 1, **changes: Any) -> Contract:
    observation = {
        "images": {"top": ImageSpec("base", WIDTH, HEIGHT), "wrist": ImageSpec("wrist", WIDTH, HEIGHT)},
        "state": (StateItem("tcp_pose"), StateItem("gripper")),
        "reference": "top",
        "history_steps": steps,
        "history_spacing_s": 0.1 if steps > 1 else 0.0,
    }
    action = ActionSpec("tool", "observation", 0.1, rotation="rotvec")
    return Contract("small", ObservationSpec(**{**observation, **changes}), action)


JOINTS = dataclasses.replace(
    contract(state=(StateItem("joint_positions"), StateItem("gripper"))), action=ActionSpec("joint", "nothing", 0.1)
)


def write_policy(folder: Path, kind: str = "act", state: int = 8, action: int = 7, **changes: Any) -> Path:
    """A folder as lerobot saves one, with the stand-in's weights."""
    folder.mkdir(exist_ok=True)
    visual = {"type": "VISUAL", "shape": [3, HEIGHT, WIDTH]}
    config = {
        "type": kind,
        "n_obs_steps": 2 if kind == "diffusion" else 1,
        "input_features": {TOP: visual, HAND: visual, STATE: {"type": "STATE", "shape": [state]}},
        "output_features": {"action": {"type": "ACTION", "shape": [action]}},
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    steps = [{"registry_name": name} for name in ("rename_observations_processor", "device_processor")]
    for name in ("policy_preprocessor", "policy_postprocessor"):
        (folder / f"{name}.json").write_text(json.dumps({"steps": steps}))
    (folder / "weights.json").write_text(json.dumps({"gain": 0.001, "noise": 0.0, "width": action}))
    return folder


def write_contract(folder: Path, agreed: Contract) -> Path:
    """JSON is YAML, and knows no tuples."""
    path = folder / "contract.yaml"
    path.write_text(json.dumps(dataclasses.asdict(agreed)))
    return path


def parameters(folder: Path, **given: Any) -> dict[str, Any]:
    return {"checkpoint": str(folder), "images": {HAND: "wrist"}, **given}


def differing(folder: Path, agreed: Contract, **given: Any) -> list[str]:
    """The lines with which a folder and a contract are refused."""
    with pytest.raises(ContractError) as caught:
        match(read_features(folder), agreed, LeRobotParameters(**parameters(folder, **given)))
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def observe(step: int, history: tuple[Observation, ...] = (), height: int = HEIGHT) -> Observation:
    rng = np.random.default_rng(step)
    frames = {
        name: CameraFrame(step, rng.integers(0, 256, (height, WIDTH, 3), dtype=np.uint8)) for name in ("top", "wrist")
    }
    layout = {"tcp_pose": slice(0, 7), "gripper": slice(7, 8)}
    return Observation(step, frames, rng.normal(size=8), layout, np.eye(4), 1.0, TASK, history)


def value(observation: Observation) -> float:
    """What the stand-in makes of one, by hand: the normalised state's sum and ten times the images' means."""
    means = [observation.images[name].image.mean() / 255.0 for name in ("top", "wrist")]
    return float(((observation.state - 1.0) / 2.0).sum() + 10.0 * (means[0] + 2.0 * means[1]))


def chunk(total: float, width: int = 7) -> np.ndarray:
    return np.repeat(0.001 * total + np.arange(HORIZON)[:, None] / 100.0, width, axis=1) * 3.0 + 0.25


# What a folder says, against a contract. No torch, no lerobot.


def test_features_are_found_by_the_contracts_names_and_by_those_given(tmp_path: Path) -> None:
    features = read_features(write_policy(tmp_path))
    names = match(features, contract(), LeRobotParameters(**parameters(tmp_path)))
    assert names.images == {TOP: "top", HAND: "wrist"}
    assert names.vectors == {STATE: ("tcp_pose", "gripper")}
    gathered = names.gather(observe(0))
    np.testing.assert_array_equal(gathered[HAND], observe(0).images["wrist"].image)
    np.testing.assert_array_equal(gathered[STATE], observe(0).state)


def test_state_items_go_in_the_order_that_is_given(tmp_path: Path) -> None:
    features = read_features(write_policy(tmp_path))
    given = LeRobotParameters(**parameters(tmp_path, state={STATE: ("gripper", "tcp_pose")}))
    gathered = match(features, contract(), given).gather(observe(0))
    np.testing.assert_array_equal(gathered[STATE], np.roll(observe(0).state, 1))


def test_every_line_that_differs_is_named(tmp_path: Path) -> None:
    write_policy(tmp_path, kind="diffusion", state=9, action=10)
    images = {"top": ImageSpec("base", 2 * WIDTH, HEIGHT), "wrist": ImageSpec("wrist", WIDTH, HEIGHT)}
    assert differing(tmp_path, contract(images=images), images={"observation.images.side": "wrist"}) == [
        "observation.images.top: checkpoint 3x6x8, contract 3x6x16 (image 'top')",
        "observation.images.hand: checkpoint 3x6x8, contract no such image, has top, wrist",
        "n_obs_steps: checkpoint 2, contract 1 (observation.history_steps)",
        "action: checkpoint 10, contract 7",
        "observation.state: checkpoint 9, contract 8",
        "observation.images.side: checkpoint doesn't take it, contract named in the parameters",
    ]


def test_camera_that_a_policy_can_do_without_is_left_out_when_said_so(tmp_path: Path) -> None:
    visual = {"type": "VISUAL", "shape": [3, HEIGHT, WIDTH]}
    inputs = {
        TOP: visual,
        HAND: visual,
        "observation.images.empty_camera_0": visual,
        STATE: {"type": "STATE", "shape": [8]},
    }
    features = read_features(write_policy(tmp_path, kind="smolvla", input_features=inputs))
    given = LeRobotParameters(str(tmp_path), images={HAND: None})
    assert match(features, contract(), given).images == {TOP: "top"}


def test_camera_that_a_policy_cant_do_without_is_not_left_out(tmp_path: Path) -> None:
    write_policy(tmp_path)
    line = "observation.images.hand: checkpoint 3x6x8, always, contract null"
    assert differing(tmp_path, contract(), images={HAND: None}) == [line]


def test_contract_that_lies_beside_a_policy_is_held_against_the_one_in_force(tmp_path: Path) -> None:
    write_policy(tmp_path)
    write_contract(tmp_path, contract())
    features, given = read_features(tmp_path), LeRobotParameters(**parameters(tmp_path))
    match(features, dataclasses.replace(contract(), name="another"), given)
    other = dataclasses.replace(contract(), action=dataclasses.replace(contract().action, composition="tcp"))
    assert differing(tmp_path, other) == ["action.composition: base != tcp"]


def test_number_of_joints_is_whatever_fits_state_and_action_alike(tmp_path: Path) -> None:
    write_policy(tmp_path, state=7, action=7)
    match(read_features(tmp_path), JOINTS, LeRobotParameters(**parameters(tmp_path)))
    write_policy(tmp_path, state=7, action=8)
    assert differing(tmp_path, JOINTS) == [
        "action: checkpoint has 7 joints, contract one arm",
        "observation.state: checkpoint has 6 joints, contract one arm",
    ]
    write_policy(tmp_path, state=1, action=7)
    assert differing(tmp_path, JOINTS) == ["observation.state: checkpoint 1, contract 1 and 1 for each joint"]


def test_feature_that_no_state_item_makes_up_is_refused(tmp_path: Path) -> None:
    inputs = {STATE: {"type": "STATE", "shape": [8]}, "observation.environment_state": {"type": "ENV", "shape": [2]}}
    write_policy(tmp_path, input_features=inputs)
    assert differing(tmp_path, contract(), images={}) == [
        "observation.environment_state: checkpoint 2, contract nothing for it, has tcp_pose, gripper"
    ]
    assert differing(tmp_path, contract(), images={}, state={"observation.environment_state": ("force",)})[0].endswith(
        "contract no state item force, has tcp_pose, gripper"
    )


def test_cameras_own_size_is_held_against_the_policys_when_it_is_seen(tmp_path: Path) -> None:
    images = {"top": ImageSpec("base"), "wrist": ImageSpec("wrist")}
    features = read_features(write_policy(tmp_path))
    names = match(features, contract(images=images), LeRobotParameters(**parameters(tmp_path)))
    check_shapes(features, names.gather(observe(0)))
    with pytest.raises(ContractError, match=r"images\.top: checkpoint 3x6x8, contract 3x12x8"):
        check_shapes(features, names.gather(observe(0, height=12)))


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "isn't a LeRobot policy's"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "pi0"}'), "isn't a LeRobot policy's"),
        (lambda folder: (folder / "policy_postprocessor.json").unlink(), "migrate_policy_normalization"),
    ],
)
def test_folder_that_isnt_a_policys_is_refused(tmp_path: Path, breakage: Any, said: str) -> None:
    breakage(write_policy(tmp_path))
    with pytest.raises(ConfigError, match=said):
        read_features(tmp_path)


# In this process, with the stand-in for lerobot.


@pytest.fixture
def lerobot(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The stand-in in lerobot's place. Gives what its policies and processors were made with."""
    pytest.importorskip("torch")
    for name in [name for name in sys.modules if name.split(".")[0] == "lerobot"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(STAND_IN)
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import lerobot.policies.factory

    yield lerobot.policies.factory.made
    for name in [name for name in sys.modules if name.split(".")[0] == "lerobot"]:
        del sys.modules[name]


def make(folder: Path, agreed: Contract | None = None, **given: Any) -> LeRobotPolicy:
    return LeRobotPolicy.from_parameters(agreed or contract(), parameters(folder, **given))


def ask(policy: Policy, observation: Observation, seed: int = 0) -> np.ndarray:
    policy.reset(TASK, seed)
    return policy.infer(observation, InferenceContext()).actions


@pytest.mark.usefixtures("lerobot")
def test_chunk_is_lerobots_between_its_processors(tmp_path: Path) -> None:
    policy = make(write_policy(tmp_path))
    assert isinstance(policy, Policy)
    actions = ask(policy, observe(3))
    assert actions.shape == (HORIZON, 7)
    assert actions.dtype == np.float64
    # float32 in between.
    np.testing.assert_allclose(actions, chunk(value(observe(3))), rtol=1e-5)


@pytest.mark.usefixtures("lerobot")
def test_queues_hold_the_contracts_history_and_not_the_last_calls(tmp_path: Path) -> None:
    policy = make(write_policy(tmp_path, kind="diffusion"), contract(steps=2))
    policy.reset(TASK, 0)
    for step in (5, 9, 2):
        past, present = observe(step), observe(step + 20)
        answer = policy.infer(dataclasses.replace(present, history=(past,)), InferenceContext())
        np.testing.assert_allclose(answer.actions, chunk(value(past) + 2.0 * value(present)), rtol=1e-5)


@pytest.mark.usefixtures("lerobot")
def test_observation_without_the_history_it_should_have_is_refused(tmp_path: Path) -> None:
    policy = make(write_policy(tmp_path, kind="diffusion"), contract(steps=2))
    policy.reset(TASK, 0)
    with pytest.raises(ContractError, match="comes with 0 before it, contract small says 1"):
        policy.infer(observe(0), InferenceContext())


@pytest.mark.usefixtures("lerobot")
def test_seed_decides_the_answers_and_others_randomness_neither_counts_nor_is_touched(tmp_path: Path) -> None:
    import torch

    folder = write_policy(tmp_path)
    (folder / "weights.json").write_text(json.dumps({"gain": 0.001, "noise": 1.0, "width": 7}))
    policy = make(folder)

    def answers(seed: int) -> list[np.ndarray]:
        policy.reset(TASK, seed)
        return [policy.infer(observe(0), InferenceContext()).actions for _ in range(2)]

    torch.manual_seed(1)
    first = answers(7)
    after_it = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after_it)
    np.testing.assert_array_equal(first, answers(7))
    assert not np.allclose(first, answers(8))
    assert not np.allclose(first[0], first[1])


@pytest.mark.usefixtures("lerobot")
def test_empty_task_is_refused_and_before_a_task_it_is_idle(tmp_path: Path) -> None:
    policy = make(write_policy(tmp_path))
    assert policy.infer(observe(0), InferenceContext()).is_idle
    policy.reset(TASK, 0)
    with pytest.raises(InstructionError):
        policy.reset("  ", 0)
    assert policy.infer(observe(0), InferenceContext()).is_idle


def test_loading_is_strict_local_and_fetches_nothing(tmp_path: Path, lerobot: list[dict[str, Any]]) -> None:
    make(write_policy(tmp_path), device="cpu")
    policy, processors = lerobot
    assert policy["strict"]
    assert policy["local_files_only"]
    assert policy["device"] == "cpu"
    assert policy["pretrained_backbone_weights"] is None
    assert policy["load_vlm_weights"] is False
    wanted = {"device_processor": {"device": "cpu"}, "rename_observations_processor": {"rename_map": {}}}
    assert processors["overrides"] == wanted


@pytest.mark.usefixtures("lerobot")
def test_lerobot_is_kept_from_the_hub_unless_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_policy(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    make(folder, downloads=True)
    assert "HF_HUB_OFFLINE" not in os.environ
    make(folder)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.usefixtures("lerobot")
def test_policy_leaves_its_observation_alone(tmp_path: Path) -> None:
    seen = observe(0)
    for frame in seen.images.values():
        frame.image.setflags(write=False)
    seen.state.setflags(write=False)
    ask(make(write_policy(tmp_path)), seen)


@pytest.mark.usefixtures("lerobot")
def test_preprocessor_without_a_step_is_given_no_setting_for_it(tmp_path: Path) -> None:
    folder = write_policy(tmp_path)
    (folder / "policy_preprocessor.json").write_text(json.dumps({"steps": [{"registry_name": "device_processor"}]}))
    make(folder)


@pytest.mark.usefixtures("lerobot")
@pytest.mark.parametrize(
    ("changes", "weights", "error", "said"),
    [
        ({}, '{"gain": 2.0}', ConfigError, "RuntimeError: Error.s. in loading state_dict"),
        ({"use_peft": True}, None, ConfigError, "is an adapter alone"),
        ({"type": "smolvla"}, None, MissingDependencyError, "num2words is missing"),
        ({"type": "unheard_of"}, None, ConfigError, "KeyError: 'unheard_of'"),
    ],
)
def test_what_lerobot_cant_load_is_said_in_one_line(
    tmp_path: Path, changes: dict[str, Any], weights: str | None, error: type[Exception], said: str
) -> None:
    folder = write_policy(tmp_path, **changes)
    if weights is not None:
        (folder / "weights.json").write_text(weights)
    with pytest.raises(error, match=said) as caught:
        make(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("lerobot")
@pytest.mark.parametrize(("device", "said"), [("cuda", "no CUDA here"), ("toaster", "toaster")])
def test_device_that_isnt_there_is_refused(tmp_path: Path, device: str, said: str) -> None:
    import torch

    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match=said):
        make(write_policy(tmp_path), device=device)


@pytest.mark.skipif(importlib.util.find_spec("lerobot") is not None, reason="lerobot is installed here")
def test_without_lerobot_the_mend_is_an_environment(tmp_path: Path) -> None:
    folder = write_policy(tmp_path)
    for act in (make, lambda folder: LeRobotPolicy.check_parameters(contract(), parameters(folder))):
        with pytest.raises(
            MissingDependencyError, match=r"make_lerobot_environment\.sh FOLDER, then .environment: FOLDER"
        ):
            act(folder)


# Other environments.


def test_python_is_found_in_a_folder_or_by_its_path(tmp_path: Path) -> None:
    assert find_python(sys.executable) == Path(sys.executable)
    assert find_python(sys.prefix).parent == Path(sys.prefix) / "bin"
    with pytest.raises(ConfigError, match="no Python there"):
        find_python(tmp_path)


def test_this_environment_is_known_by_folder_and_by_executable(tmp_path: Path) -> None:
    assert is_this_environment(sys.executable)
    assert is_this_environment(sys.prefix)
    (tmp_path / "bin").mkdir()
    # A venv's python is a link to the one it was made from, which may be ours.
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    assert not is_this_environment(tmp_path)


def test_every_module_that_an_environment_lacks_is_named(tmp_path: Path) -> None:
    needs = {"json": "json", "vla_ros": "vla_ros", "no_such_module": "such-a-package"}
    with pytest.raises(
        MissingDependencyError, match=r"vla_ros, such-a-package is missing.*-m pip install vla_ros such"
    ):
        look_through(bare_environment(tmp_path / "bare"), "this test", needs)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"version": [3, 8], "prefix": "/", "found": {}}', "has Python 3.8, vla_ros needs 3.10"),
        ("not JSON", "doesn't run"),
    ],
)
def test_python_that_is_too_old_or_none_is_refused(tmp_path: Path, answer: str, said: str) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\necho '{answer}'\n")
    fake.chmod(0o755)
    with pytest.raises(ConfigError, match=said):
        look_through(fake, "this test", {})


def test_nothing_of_this_environment_leads_into_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/opt/ros/jazzy/lib/python3.12/site-packages")
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/opt/ros/jazzy")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/opt/ros/jazzy/lib:/usr/local/cuda/lib64:{sys.prefix}/lib")
    monkeypatch.setenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1")
    monkeypatch.setenv("KEPT", "yes")
    environ = child_environ(Path("/lent"))
    assert environ["PYTHONPATH"] == "/lent"
    assert environ["LD_LIBRARY_PATH"] == "/usr/local/cuda/lib64"
    assert environ["KEPT"] == "yes"
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in environ
    assert "PYTHONPATH" not in child_environ(None)


def bare_environment(folder: Path, *paths: Path) -> Path:
    """A venv with nothing in it but what lies in the given folders."""
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "paths.pth").write_text("".join(f"{path}\n" for path in paths))
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has what this one has, and the stand-in for lerobot."""
    pytest.importorskip("torch")
    pytest.importorskip("msgpack")
    pytest.importorskip("websockets")
    pytest.importorskip("vla_ros.policies.remote.policy")
    folder = tmp_path_factory.mktemp("environment")
    (folder / "more").mkdir()
    (folder / "more" / "torchvision.py").write_text("")
    modules = [importlib.import_module(name) for name in ("numpy", "yaml", "torch", "msgpack", "websockets")]
    here = {Path(str(module.__file__)).parents[1] for module in modules}
    return bare_environment(folder / "venv", *here, STAND_IN, folder / "more")


def test_policy_in_another_environment_answers_as_in_this_one(tmp_path: Path, environment: Path) -> None:
    folder = write_policy(tmp_path / "policy", kind="diffusion")
    policy = make(folder, contract(steps=2), environment=str(environment), deadline_s=30.0, start_timeout_s=90.0)
    past, present = observe(1), observe(2)
    answer = ask(policy, dataclasses.replace(present, history=(past,)))
    np.testing.assert_allclose(answer, chunk(value(past) + 2.0 * value(present)), rtol=1e-5)
    with pytest.raises(InstructionError):
        policy.reset("", 0)
    policy.close()
    with pytest.raises(ServerStartError, match="configure it again"):
        policy.reset(TASK, 0)


def test_what_fails_in_another_environment_is_said_here(tmp_path: Path, environment: Path) -> None:
    folder = write_policy(tmp_path / "policy", use_peft=True)
    with pytest.raises(ServerStartError, match=r"ended with code 2: .*is an adapter alone"):
        make(folder, environment=str(environment), start_timeout_s=90.0)


def test_environment_without_lerobot_is_refused_with_the_script_that_makes_one(tmp_path: Path) -> None:
    bare = bare_environment(tmp_path / "bare")
    with pytest.raises(MissingDependencyError, match=r"numpy, PyYAML, msgpack, websockets, lerobot, torch is missing"):
        make(write_policy(tmp_path / "policy"), environment=str(bare))


def test_other_process_sees_only_vla_ros_of_this_environment(tmp_path: Path) -> None:
    found = look_through(bare_environment(tmp_path / "bare"), "this test", {})
    with ServedProcess(found, ["--version"]) as process:
        assert process.wait() == 0
    assert process.last_line.startswith("vla-ros ")
    # NumPy is in this environment, not in that one.
    with ServedProcess(found, ["serve", "scripted_visual"]) as process:
        assert process.wait() == 1
    assert process.last_line in (
        "ModuleNotFoundError: No module named 'yaml'",
        "ModuleNotFoundError: No module named 'numpy'",
    )


def test_serving_there_ends_with_the_other_processs_code_and_passes_on_what_it_says(environment: Path) -> None:
    said: list[str] = []
    assert serve_in(environment, ["serve", "no_such_policy"], said.append) == 2
    assert any("unknown policy 'no_such_policy'" in line for line in said)


def test_server_that_never_gets_ready_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_process, "_SERVE", "import time; print('loading'); time.sleep(600)")
    found = look_through(bare_environment(tmp_path / "bare"), "this test", {})
    process = ServedProcess(found, ["serve"])
    with pytest.raises(ServerStartError, match=r"wasn't ready after 0\.5 s; its last line was"):
        process.wait_for_url(0.5)
    assert not process.is_running


def test_other_process_ends_when_nobody_holds_its_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_process, "_SERVE", "import time; time.sleep(600)")
    process = ServedProcess(look_through(bare_environment(tmp_path / "bare"), "this test", {}), ["serve"])
    child = process._process
    assert child.poll() is None
    del process
    gc.collect()
    assert child.poll() is not None


def test_other_process_ends_when_this_one_is_killed(tmp_path: Path) -> None:
    """A parent that starts one, says its number, and is killed without a chance to clean up."""
    program = """
import sys, time
from pathlib import Path
from vla_ros.policies import environment, served_process as s
s._SERVE = s._SERVE.replace("from vla_ros.cli import main", "import time; main = lambda words: time.sleep(600)")
process = s.ServedProcess(environment.Environment(Path(sys.executable), Path(sys.prefix)), ["serve"])
print(process._process.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(600):
        if not Path(f"/proc/{child}").exists():
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("it lives on 30 s after its parent")


# Against lerobot itself.


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["act", "diffusion", "smolvla"])
def test_real_policy_answers_as_lerobots_own_loop_does(lerobot_policies: Any, kind: str) -> None:
    folder = lerobot_policies.folder / kind
    wanted = np.load(folder / "lerobot.npy")
    assert wanted.std(axis=0).min() > 1e-3
    # The same operations on the same machine, but lerobot's loop gives the postprocessor one step at a time.
    np.testing.assert_allclose(np.load(folder / "adapter.npy"), wanted, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["act", "diffusion", "smolvla"])
def test_real_policy_in_its_own_environment_answers_the_same(lerobot_policies: Any, kind: str) -> None:
    from vla_ros.contract import load_contract

    folder = lerobot_policies.folder / kind
    stored = np.load(folder / "observations.npz")
    agreed = load_contract(str(folder / "contract.yaml"))
    layout = {"tcp_pose": slice(0, 7), "gripper": slice(7, 8)}
    steps = []
    for step, (images, state) in enumerate(zip(stored["images"], stored["states"], strict=True)):
        frames = {name: CameraFrame(step, images[index]) for index, name in enumerate(("top", "wrist"))}
        steps.append(Observation(step, frames, state, layout, np.eye(4), 1.0, TASK))
    observation = dataclasses.replace(steps[-1], history=tuple(steps[-agreed.observation.history_steps : -1]))
    policy = make(folder, agreed, environment=str(lerobot_policies.python), deadline_s=60.0)
    answer = ask(policy, observation, seed=11)
    np.testing.assert_allclose(answer, np.load(folder / "lerobot.npy"), atol=1e-5)
    policy.reset("pick up the blue block", 11)
    other = policy.infer(observation, InferenceContext()).actions
    policy.close()
    # ACT and Diffusion take no language.
    assert (np.abs(answer - other).max() > 1e-5) == (kind == "smolvla")

"""`vla-ros train` from a dataset on the disk to a policy that answers, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")
for package in ("accelerate", "av", "pyarrow", "safetensors"):
    pytest.importorskip(package)

from example_datasets import CONTRACT, make_episode, make_poses, write_dataset

from vla_ros.actions.decode import anchored_poses, decode_tool_chunk
from vla_ros.cli import main
from vla_ros.observation.image import prepare_frame
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.registry import load_policy_config, make_policy
from vla_ros.recording.opening import open_any
from vla_ros.training.open_loop import compare_chunks, describe_open_loop
from vla_ros.types import CameraFrame, Observation

TASKS = ("pick up the red block", "reach the blue block")
FRAMES = 8
SMALL = ["contract=null", "loop.precision=fp32", "loop.batch_size=16", "loop.warm_up_steps=10", "loop.ema_decay=0.95"]
TINY_BC = ["architecture.width=128", "architecture.channels=[8]", "architecture.layers=1", "architecture.keypoints=4"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "set"
    return write_dataset(folder, [make_episode(seed, FRAMES, tasks=[TASKS[seed]] * FRAMES) for seed in range(2)])


def train(*words, settings=()):
    return main(["train", *map(str, words), *(word for setting in settings for word in ("--set", setting))])


def said(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_it_learns_a_few_episodes_by_heart_and_the_policy_does_what_was_done(dataset, tmp_path, capsys):
    """Targets are a random walk, so that only what was learned by heart can be right."""
    settings = [*SMALL, *TINY_BC, "architecture.smoothness_weight=0.0", "augment=false", "held_out=0"]
    settings += ["loop.learning_rate=1e-2", "loop.weight_decay=0", "loop.ema_decay=0.9"]
    words = ["--dataset", dataset, "--policy", "bc", "--out", tmp_path / "run", "--steps", 200, "--json"]
    assert train(*words, settings=settings) == 0
    report = said(capsys)
    assert report["onnx"] is not None, report["note"]
    policy, _ = make_policy(load_policy_config(report["policy"]))
    errors_m, moved_m = [], []
    for index in range(2):
        frames = open_any(dataset)[1].read(index)
        images = {(name, number): image for name, number, image in frames.read_images()}
        targets = np.asarray(frames.columns["action"], dtype=np.float64)[:, :3]
        policy.reset(TASKS[index], 0)
        for frame, anchor in enumerate(make_poses(index, FRAMES)):
            seen = {
                name: prepare_frame(CameraFrame(0, images[f"observation.images.{name}", frame]), spec)
                for name, spec in CONTRACT.observation.images.items()
            }
            state = np.asarray(frames.columns["observation.state"][frame], dtype=np.float64)
            answer = policy.infer(Observation(0, seen, state, {}, anchor, 0.5, TASKS[index]), InferenceContext())
            poses = anchored_poses(decode_tool_chunk(answer, CONTRACT.action, 0, anchor, "test"), anchor)
            wanted = targets[frame:]
            errors_m.append(np.linalg.norm(poses[: len(wanted), :3, 3] - wanted, axis=1).mean())
            moved_m.append(np.linalg.norm(wanted - anchor[:3, 3], axis=1).mean())
    # Found: 0.02.
    assert np.mean(errors_m) < 0.1 * np.mean(moved_m)


def test_run_is_gone_on_with_by_its_folder_alone(dataset, tmp_path, capsys):
    out = tmp_path / "run"
    # The name of settings, which train the network flow_vla.
    words = ["--dataset", dataset, "--policy", "small_vla", "--out", out, "--no-export", "--json"]
    tiny = ["architecture.width=16", "architecture.heads=2", "architecture.layers=1", "architecture.mlp_width=16"]
    assert train(*words, "--steps", 4, settings=[*SMALL, *tiny, "held_out=0.5"]) == 0
    first = said(capsys)
    assert {"position_mm", "position_mm_at_1", "position_mm_at_4", "position_mm_at_8", "turn_deg"} < set(
        first["open_loop"]
    )
    assert train("--resume", "--out", out, "--policy", "bc") == 2
    assert "--policy bc, and it trains flow_vla" in capsys.readouterr().err
    assert train("--resume", "--out", out, "--policy", "small_vla", "--steps", 6, "--no-export", "--json") == 0
    second = said(capsys)
    assert (second["step"], second["onnx"]) == (6, None)
    assert (out / "log.csv").read_text().splitlines()[-1].startswith("6,")
    assert (Path(second["last"]) / "training.yaml").read_text() == (out / "config.yaml").read_text()
    names = {path.name for path in out.iterdir()}
    assert {"config.yaml", "log.csv", "open_loop.csv", "policy.yaml", "last.json", "best.json"} <= names


@pytest.mark.parametrize(
    ("words", "settings", "text"),
    [
        (["--policy", "bcc"], [], "did you mean 'bc'"),
        (["--policy", "bc"], ["loop.stepps=3"], "unknown key 'stepps'"),
        (["--policy", "bc"], ["architecture.wdth=3"], "did you mean 'width'"),
        (["--policy", "bc"], ["loop"], "isn't key=value"),
        (["--policy", "bc"], ["policy.name=1"], "policy isn't a mapping"),
        (["--policy", "bc", "--steps", "0"], [], "--steps 0: above 0"),
        (["--policy", "bc"], ["contract=droid_joint"], "droid_joint"),
        (["--policy", "bc"], ["contract=null", "selection.outcomes=[failure]"], "no example is left"),
        (["--policy", "bc"], ["contract=null", "columns.front=top"], "columns.front: the contract has no such image"),
        (["--policy", "bc"], ["contract=null", "weights=[1, 2]"], "2 weights of 1 datasets; give one for each"),
        (["--policy", "bc", "--lora"], [], "--lora: is for OpenVLA, and bc is to be trained"),
        (["--policy", "bc", "--checkpoint", "openvla-7b"], [], "--checkpoint: is for OpenVLA"),
        (["--resume"], [], "--resume needs --out"),
        ([], [], "--policy is missing"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(dataset, tmp_path, capsys, words, settings, text):
    place = [] if "--resume" in words else ["--out", tmp_path / "run"]
    assert train("--dataset", dataset, *words, *place, settings=settings) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_going_on_where_nothing_began_and_a_single_episode_are_told_what_to_do(tmp_path, capsys):
    assert train("--resume", "--out", tmp_path / "run") == 2
    assert "run: holds no training to go on with" in capsys.readouterr().err
    alone = write_dataset(tmp_path / "alone", [make_episode(0, 4)])
    assert train("--dataset", alone, "--policy", "bc", "--out", tmp_path / "run", settings=["contract=null"]) == 2
    assert "hold none out (`held_out: 0`)" in capsys.readouterr().err


def test_missing_video_is_named(dataset, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy, ignore=shutil.ignore_patterns(".vla_ros_cache"))
    video = next(copy.rglob("*.mp4"))
    video.unlink()
    words = ["--dataset", copy, "--policy", "bc", "--out", tmp_path / "run"]
    assert train(*words, settings=["contract=null"]) == 2
    assert video.name in capsys.readouterr().err


def test_open_loop_figures_by_hand():
    """Two chunks: one 3-4-5 mm off at every step and turned by 90 degrees; one of a single valid step that is right."""
    done = np.zeros((2, 4, 7))
    done[..., :3] = [0.01, 0.0, 0.0]
    done[..., 6] = 1.0
    answers = done.copy()
    answers[0, :, :3] += [0.003, 0.004, 0.0]
    answers[0, :, 5] = np.pi / 2.0
    answers[0, :2, 6] = 0.4
    is_valid = np.ones((2, 4), dtype=bool)
    is_valid[1, 1:] = False
    answers[1, 1:] = 9.0
    found = compare_chunks(answers, done, is_valid, CONTRACT.action)
    wanted = {
        "position_mm": 4.0,  # 4 steps of 5 mm and one of 0.
        "position_mm_at_1": 2.5,
        "position_mm_at_4": 5.0,
        "turn_deg": 72.0,
        "stay_position_mm": 10.0,
        "stay_turn_deg": 0.0,
        "gripper_accuracy": 0.6,
    }
    assert dict(found.figures) == pytest.approx(wanted, abs=1e-9)
    assert found.score == pytest.approx(4.0)
    assert describe_open_loop(dict(found.figures)).startswith("4 mm (staying: 10), 72 degrees")

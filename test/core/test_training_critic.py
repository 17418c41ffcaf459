"""`vla-ros critic` and options in a whole training: from datasets and settings to weights, and on after a break."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")
for package in ("accelerate", "av", "pyarrow", "safetensors"):
    pytest.importorskip(package)

from example_datasets import HEIGHT, WIDTH, make_episode, write_dataset
from safetensors.torch import load_file
from training_runs import LOOP, DrawnBatches, make_learner, read_log

from vla_ros.cli import main
from vla_ros.policies.checkpoint import read_checkpoint
from vla_ros.policies.registry import load_policy_config, make_policy
from vla_ros.policies.torch_model import save_policy
from vla_ros.training.optional import with_options
from vla_ros.training.options import Distillation, Insulation, Options, Smoothness
from vla_ros.training.outcome import Watch
from vla_ros.training.trainer import Trainer
from vla_ros.training.weighting import Scores

FRAMES, LOST = 16, 9
SMALL = ["loop.precision=fp32", "loop.batch_size=32", "loop.warm_up_steps=5", "loop.ema_decay=0.9", "is_cached=false"]


def make_take(seed: int, is_success: bool) -> Any:
    """A bar comes down the image; where it is lost, it lies at the side from step `LOST` on. The arm moves alike."""
    episode = make_episode(0, FRAMES)

    def read_images() -> Any:
        for frame in range(FRAMES):
            image = np.full((HEIGHT, WIDTH, 3), 30, dtype=np.uint8)
            is_held = is_success or frame < LOST
            image[(slice(2 * frame, 2 * frame + 4), slice(None)) if is_held else (slice(None), slice(0, 12))] = 220
            yield "observation.images.base", frame, image
            yield "observation.images.wrist", frame, np.full((HEIGHT, WIDTH, 3), 60, dtype=np.uint8)

    outcome = {"outcome": "success" if is_success else "failure"}
    return dataclasses.replace(episode, name=f"take {seed}", read_images=read_images, attributes=outcome)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    takes = [make_take(seed, seed % 2 == 0) for seed in range(6)]
    return write_dataset(tmp_path_factory.mktemp("takes") / "set", takes)


@pytest.fixture(scope="module")
def scored(dataset, tmp_path_factory):
    """The folder of a critic of the dataset, and what the command said."""
    out = tmp_path_factory.mktemp("critic") / "run"
    small = ["architecture.width=32", "architecture.channels=[8, 16]", "architecture.keypoints=4", "loop.steps=80"]
    quick = [*SMALL, *small, "loop.learning_rate=1e-2", "scoring.window=3"]
    words = ["critic", "--dataset", str(dataset), "--out", str(out)]
    assert main([*words, *(word for change in quick for word in ("--set", change))]) == 0
    return out


def test_critic_is_gone_on_with_by_its_folder_alone(scored, capsys):
    before = Scores.load(scored / "scores.npz")
    assert main(["critic", "--resume", "--out", str(scored), "--set", "scoring.floor=0", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["failing_steps"]) == 3
    after = Scores.load(scored / "scores.npz")
    # Values are the critic's; with a floor of 0 a success is worth nothing at its beginning, and yet doesn't fail.
    np.testing.assert_array_equal(after.value, before.value)
    np.testing.assert_array_equal(after.failing_row, before.failing_row)
    before.save(scored / "scores.npz")


def test_critic_finds_the_failing_step_of_each_failed_episode_and_leaves_chunks_past_it_out(scored):
    scores = Scores.load(scored / "scores.npz")
    assert len(scores) == 6 * FRAMES
    found = [row - episode * FRAMES if row >= 0 else None for episode, row in enumerate(scores.failing_row.tolist())]
    assert found[::2] == [None] * 3
    assert all(step is not None and abs(step - LOST) <= 1 for step in found[1::2]), found
    weight = scores.weight.reshape(6, FRAMES)
    assert (weight[1::2, LOST + 1 :] == 0.0).all()
    assert (weight[::2] > 0.0).all()
    # A chunk of eight steps that begins two steps in reaches past the loss, one that begins at once doesn't.
    assert (weight[1::2, 3:] == 0.0).all()
    value = scores.value.reshape(6, FRAMES)
    assert value[::2, LOST + 1 :].min() > value[1::2, LOST + 1 :].max() + 0.3


@pytest.mark.parametrize("by", ["weight", "word"])
def test_training_takes_the_scores_and_goes_on_with_them(dataset, scored, tmp_path, by, capsys):
    tiny = ["architecture.width=16", "architecture.heads=2", "architecture.channels=[8]", "held_out=0"]
    options = [f"options.weighting.scores={scored / 'scores.npz'}", f"options.weighting.by={by}", "contract=null"]
    changes = [word for change in [*SMALL, *tiny, *options] for word in ("--set", change)]
    out = tmp_path / "run"
    words = ["train", "--dataset", str(dataset), "--policy", "bc", "--out", str(out), "--no-export", "--json"]
    assert main([*words, "--steps", "3", *changes]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert np.isfinite(list(report["losses"].values())).all()
    vocabulary = read_checkpoint(out / "checkpoints" / "step-000003").card.spec.vocabulary if by == "word" else ()
    assert by == "weight" or {"well", "badly"} <= set(vocabulary)
    config = load_policy_config(report["policy"])
    assert config.parameters.get("added_words", "") == ("well" if by == "word" else "")
    policy, _ = make_policy(config)
    policy.reset("pick up the red block", 0)
    # The settings in the folder have the options, too.
    assert main(["train", "--resume", "--out", str(out), "--no-export"]) == 0


def test_scores_of_other_data_and_labels_of_one_kind_are_refused(dataset, scored, tmp_path, capsys):
    takes = [make_take(seed, True) for seed in range(2)]
    other = write_dataset(tmp_path / "other", takes)
    change = ["--set", f"options.weighting.scores={scored / 'scores.npz'}", "--set", "contract=null"]
    small = ["--set", "is_cached=false", "--set", "held_out=0"]
    words = ["train", "--dataset", str(other), "--policy", "bc", "--out", str(tmp_path / "run")]
    assert main([*words, *change, *small]) == 2
    assert f"scores of {6 * FRAMES} rows, the examples have {2 * FRAMES}" in capsys.readouterr().err
    assert main(["critic", "--dataset", str(other), "--out", str(tmp_path / "critic"), *small[:2]]) == 2
    assert "2 of them labelled success and 0 failure" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        Options(freeze=("scene.cameras",), smoothness=Smoothness(0.1)),
        Options(distillation=Distillation("", "chunk", 0.5), insulation=Insulation(("scene",), ("nll",))),
        Options(distillation=Distillation("", "actions", 0.5)),
    ],
    ids=["freeze-smoothness", "insulation-chunk", "actions"],
)
def test_options_go_on_after_a_break_to_the_same_curve_and_weights(tmp_path, options):
    teacher = make_learner("bc")
    save_policy(tmp_path / "teacher", teacher.module, teacher.contract, teacher.statistics)
    if options.distillation is not None:
        distillation = dataclasses.replace(options.distillation, teacher=str(tmp_path / "teacher"))
        options = dataclasses.replace(options, distillation=distillation)

    def train(out: str, stop_after: int = 99, is_resumed: bool = False) -> Any:
        asked = iter(range(1, 99))
        watch = Watch(should_stop=lambda: next(asked) >= stop_after)
        learner = with_options(make_learner("bc"), options)
        return Trainer(learner, DrawnBatches(), LOOP, tmp_path / out, watch=watch, is_resumed=is_resumed).run()

    whole = train("whole")
    train("broken", stop_after=5)
    report = train("broken", is_resumed=True)
    for found, wanted in zip(read_log(tmp_path / "broken"), read_log(tmp_path / "whole"), strict=True):
        # The same arithmetic in the same order; a library may sum in another order with other memory alignment.
        assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    found, wanted = load_file(report.last / "model.safetensors"), load_file(whole.last / "model.safetensors")
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-7)

"""The training loop: the same curve after an interruption, whole files after a kill, errors that change nothing."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import shutil
import signal
import socket
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")
pytest.importorskip("accelerate")

import training_runs
from safetensors.torch import load_file
from training_runs import CONTRACT, LOOP, DrawnBatches, make_learner, read_log

from vla_ros.errors import ConfigError
from vla_ros.policies.checkpoint import read_checkpoint
from vla_ros.training.average import WeightAverage
from vla_ros.training.config import LoopConfig
from vla_ros.training.loader import Loader
from vla_ros.training.outcome import Examination, Watch
from vla_ros.training.run_log import Table
from vla_ros.training.schedule import learning_rate_share
from vla_ros.training.step import TrainingError
from vla_ros.training.trainer import Trainer

CONTEXT = multiprocessing.get_context("forkserver")
# An optimiser imports the second one, which takes seconds.
CONTEXT.set_forkserver_preload(["training_runs", "torch._dynamo", "torch.utils.tensorboard"])


def train(out, loop=LOOP, name="bc", **options):
    return Trainer(make_learner(name), DrawnBatches(), loop, out, **options).run()


def assert_same_curve(found, wanted):
    assert [row["step"] for row in found] == [row["step"] for row in wanted]
    for row, other in zip(found, wanted, strict=True):
        # The same arithmetic in the same order; a library may sum in another order with other memory alignment.
        assert row == pytest.approx(other, rel=1e-6, abs=1e-9)


def stop_after(steps):
    asked = iter(range(1, 10_000))
    return Watch(should_stop=lambda: next(asked) >= steps)


@pytest.mark.parametrize("name", ["bc", "act"])
def test_resumed_run_has_the_curve_and_the_weights_of_one_without_interruption(tmp_path, name):
    """ACT draws noise and dropout; it is stopped twice, once between two checkpoints."""
    whole = train(tmp_path / "whole", name=name)
    assert whole.is_complete
    assert not train(tmp_path / "broken", name=name, watch=stop_after(4)).is_complete
    assert train(tmp_path / "broken", name=name, watch=stop_after(3), is_resumed=True).step == 7
    report = train(tmp_path / "broken", name=name, is_resumed=True)
    assert (report.step, report.is_complete) == (12, True)
    assert_same_curve(read_log(tmp_path / "broken"), read_log(tmp_path / "whole"))
    found, wanted = load_file(report.last / "model.safetensors"), load_file(whole.last / "model.safetensors")
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-7)
    # Nothing is left to do.
    assert train(tmp_path / "broken", name=name, is_resumed=True).step == 12


def test_killed_at_random_moments_it_leaves_whole_files_and_goes_on_to_the_same_curve(tmp_path):
    """It checkpoints at every step, so that most moments are within one."""
    loop = dataclasses.replace(LOOP, steps=24, checkpoint_every=1)
    rng = np.random.default_rng(0)
    out, kills = tmp_path / "killed", 0
    while True:
        process = CONTEXT.Process(target=training_runs.run, args=(out, loop, "bc", True))
        process.start()
        wait_for_lines(out, len(read_lines(out)) + 2, process)
        time.sleep(rng.uniform(0.0, 0.1))
        if process.exitcode is None and kills < 5:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        for folder in (out / "checkpoints").glob("step-*"):
            read_checkpoint(folder)
        for pointer in (path for path in [out / "last.json"] if path.exists()):
            assert (out / json.loads(pointer.read_text())["checkpoint"]).is_dir()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert kills >= 3
    training_runs.run(tmp_path / "whole", loop)
    assert_same_curve(read_log(out), read_log(tmp_path / "whole"))
    assert not [path.name for path in out.rglob("*.partial")]


def read_lines(out):
    path = out / "log.csv"
    return path.read_text().splitlines() if path.exists() else []


def wait_for_lines(out, count, process, most_s=60.0):
    end_s = time.monotonic() + most_s
    while len(read_lines(out)) < count and process.exitcode is None:
        assert time.monotonic() < end_s, "waited too long"
        time.sleep(0.01)


def test_damaged_state_is_passed_over_for_the_one_before(tmp_path):
    train(tmp_path, watch=stop_after(8))
    newest = tmp_path / "resume" / "step-000008" / "tensors.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    train(tmp_path / "whole")
    train(tmp_path, is_resumed=True)
    assert_same_curve(read_log(tmp_path), read_log(tmp_path / "whole"))


def test_nan_ends_the_training_with_the_step_named_and_the_checkpoints_as_they_were(tmp_path):
    learner = make_learner()
    trainer = Trainer(learner, DrawnBatches(bad_step=6), LOOP, tmp_path)
    with pytest.raises(TrainingError, match=r"loss 'nll' is nan at step 6 \(learning rate 0\.00\d+\); the checkpoints"):
        trainer.run()
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "step-000004")
    assert checkpoint.contract.interface_hash == CONTRACT.interface_hash
    assert all(bool(torch.isfinite(weight).all()) for weight in learner.module.parameters())
    assert read_log(tmp_path)[-1]["step"] == 6


def test_a_checkpoint_that_cannot_be_written_ends_the_training_with_its_folder_named(tmp_path):
    def spoil():
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
        (tmp_path / "checkpoints").write_text("")
        return False

    with pytest.raises(ConfigError, match=r"step 4 can't be written .*; make room there, and go on with --resume"):
        train(tmp_path, watch=Watch(should_stop=spoil))


def test_checkpoint_holds_the_averaged_weights_and_training_goes_on_with_the_newest(tmp_path):
    """The average is worked out again here, step by step, from runs that end a step apart with the newest weights."""
    newest = []
    for steps in range(1, 5):
        out = tmp_path / str(steps)
        # Steps that were not taken have no influence on the schedule of those that were: it is stopped, not shortened.
        train(out, dataclasses.replace(LOOP, ema_decay=0.0), watch=stop_after(steps))
        newest.append(load_file(out / "checkpoints" / f"step-{steps:06d}" / "model.safetensors"))
    wanted = {name: value.clone() for name, value in make_learner().module.state_dict().items()}
    for step, weights in enumerate(newest):
        decay = min(0.9, (1.0 + step) / (10.0 + step))
        wanted = {name: decay * value + (1.0 - decay) * weights[name] for name, value in wanted.items()}
    train(tmp_path / "averaged", watch=stop_after(4))
    found = load_file(tmp_path / "averaged" / "checkpoints" / "step-000004" / "model.safetensors")
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    state = load_file(tmp_path / "averaged" / "resume" / "step-000004" / "tensors.safetensors")
    for name, value in newest[-1].items():
        torch.testing.assert_close(state[f"weight/{name}"], value)


def test_average_by_hand_and_weights_are_back_after_it_was_applied():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    average = WeightAverage({"w": weight}, 0.5)
    weight.data.fill_(3.0)
    average.update(0)
    # Step 0 keeps a tenth: 0.1 + 0.9 * 3.
    assert float(average.averages["w"]) == pytest.approx(2.8)
    weight.data.fill_(4.0)
    average.update(100)
    assert float(average.averages["w"]) == pytest.approx(3.4)
    with average.applied():
        assert float(weight.detach()) == pytest.approx(3.4)
    assert float(weight.detach()) == 4.0


def test_learning_rate_rises_in_a_line_and_falls_in_a_cosine_to_its_floor():
    assert learning_rate_share(0, 0.0, 9, 0.1) == pytest.approx(0.1)
    assert learning_rate_share(4, 0.0, 9, 0.1) == pytest.approx(0.5)
    assert learning_rate_share(50, 0.5, 9, 0.1) == pytest.approx(0.55)
    assert learning_rate_share(75, 0.75, 9, 0.0) == pytest.approx(0.5 * (1.0 - math.sqrt(0.5)))
    assert learning_rate_share(100, 1.0, 9, 0.1) == pytest.approx(0.1)
    assert learning_rate_share(100, 1.7, 0, 0.1) == pytest.approx(0.1)


def test_the_clock_ends_it_with_the_learning_rate_at_its_floor(tmp_path):
    """Each look at this clock takes a second, so that a minute ends long before 1000 steps."""
    ticks = iter(range(100_000))
    loop = dataclasses.replace(LOOP, steps=1000, minutes=1.0, checkpoint_every=1000, floor=0.1)
    report = train(tmp_path, loop, watch=Watch(clock=lambda: float(next(ticks))))
    assert report.is_complete
    assert 10 < report.step < 40
    rates = [row["learning_rate"] for row in read_log(tmp_path)]
    assert rates[-1] == pytest.approx(0.1 * loop.learning_rate, rel=0.3)
    assert np.argmax(rates) < 4


def test_best_checkpoint_is_that_of_the_least_score_and_is_kept(tmp_path):
    scores = iter([3.0, 1.0, 2.0])
    loop = dataclasses.replace(LOOP, keep=1)
    seen = []
    learner = make_learner()

    def examine():
        seen.append(learner.module.training)
        return Examination(score := next(scores), {"position_mm": score})

    report = Trainer(learner, DrawnBatches(), loop, tmp_path, examine=examine).run()
    assert report.best.name == "step-000008"
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000008", "step-000012"]
    assert json.loads((tmp_path / "best.json").read_text())["score"] == 1.0
    assert (tmp_path / "open_loop.csv").read_text().splitlines()[0] == "step,seconds,position_mm"
    assert seen == [False] * 3


def test_bfloat16_learns_with_float32_weights(tmp_path):
    report = train(tmp_path, dataclasses.replace(LOOP, precision="bf16"))
    train(tmp_path / "fp32")
    found, wanted = read_log(tmp_path), read_log(tmp_path / "fp32")
    assert {value.dtype for value in load_file(report.last / "model.safetensors").values()} == {torch.float32}
    # Eight bits of mantissa: 0.4 % each, of a loss of about 1 that is made of differences.
    assert found[-1]["total"] == pytest.approx(wanted[-1]["total"], rel=0.1)
    assert found[-1]["total"] != wanted[-1]["total"]


@pytest.mark.parametrize(
    ("loop", "text"),
    [
        (dataclasses.replace(LOOP, seed=1), "another seed: 0, not 1"),
        (dataclasses.replace(LOOP, batch_size=8), "another batch_size"),
    ],
)
def test_what_changes_the_curve_is_refused_when_going_on(tmp_path, loop, text):
    train(tmp_path, watch=stop_after(4))
    with pytest.raises(ConfigError, match=text):
        train(tmp_path, loop, is_resumed=True)


def test_folder_with_a_run_is_refused_without_resume_and_so_is_one_in_use(tmp_path):
    trainer = Trainer(make_learner(), DrawnBatches(), LOOP, tmp_path)

    def start_another():
        with pytest.raises(ConfigError, match="somebody is training into it"):
            train(tmp_path, is_resumed=True)
        return True

    trainer._watch = Watch(should_stop=start_another)
    trainer.run()
    with pytest.raises(ConfigError, match="holds a training already"):
        train(tmp_path)


def test_nothing_to_learn_from_and_nothing_that_learns_are_refused(tmp_path):
    class Empty(DrawnBatches):
        def __len__(self):
            return 0

    with pytest.raises(ConfigError, match="no examples"):
        Trainer(make_learner(), Empty(), LOOP, tmp_path)
    frozen = make_learner()
    frozen.module.requires_grad_(False)
    with pytest.raises(ConfigError, match="no weight"):
        Trainer(frozen, DrawnBatches(), LOOP, tmp_path)


def test_frozen_weights_stay_and_are_not_remembered(tmp_path):
    learner = make_learner()
    learner.module.scene.requires_grad_(False)
    before = {name: weight.clone() for name, weight in learner.module.named_parameters()}
    Trainer(learner, DrawnBatches(), LOOP, tmp_path).run()
    for name, weight in learner.module.named_parameters():
        assert torch.equal(weight, before[name]) == (not weight.requires_grad), name
    state = load_file(tmp_path / "resume" / "step-000012" / "tensors.safetensors")
    assert not [name for name in state if "scene" in name]
    assert [name for name in state if name.startswith("optimiser.exp_avg/head")]


def test_table_drops_a_line_that_was_cut_off_and_takes_new_columns(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n1,0.5\n2,0.25\n3,0.125\n4,0.0")
    table = Table(path, until=2)
    table.add({"step": 3, "loss": 0.1, "pose": 7.0})
    table.add({"step": 4, "loss": 0.05})
    assert path.read_text().splitlines() == ["step,loss,pose", "1,0.5,", "2,0.25,", "3,0.1,7.0", "4,0.05,"]


def test_processes_take_turns_in_the_order_and_a_fault_in_a_batch_is_told():
    class Places(DrawnBatches):
        def batch(self, step, size):
            if step > 6:
                raise ValueError("no such place")
            return list(range(step * size, (step + 1) * size))

    with Loader(Places(), 2, 1, process=0, processes=2) as one, Loader(Places(), 2, 1, process=1, processes=2) as other:
        assert [next(one), next(other), next(one), next(other)] == [[4, 5], [6, 7], [8, 9], [10, 11]]
        assert next(one) == [12, 13]
        with pytest.raises(ValueError, match="no such place"):
            next(other)


def test_batches_are_made_on_one_core_and_the_network_keeps_its_own():
    class Cores(DrawnBatches):
        def batch(self, step, size):
            return torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with Loader(Cores(), 2) as loader:
            assert [next(loader) for _ in range(3)] == [1, 1, 1]
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_two_processes_learn_as_one_with_twice_the_batch(tmp_path):
    train(tmp_path / "one", dataclasses.replace(LOOP, steps=6))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = [(rank, port, tmp_path / "two") for rank in range(2)]
    both = [CONTEXT.Process(target=training_runs.run_beside_another, args=each) for each in told]
    for process in both:
        process.start()
    try:
        for process in both:
            process.join(100.0)
        assert [process.exitcode for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
    found, wanted = read_log(tmp_path / "two"), read_log(tmp_path / "one")
    assert len(found) == 6
    for row, other in zip(found, wanted, strict=True):
        # Two means of two are summed in another order than one mean of four, in float32, step after step.
        assert row == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"learning_rate": -1.0},
        {"floor": 1.5},
        {"betas": (0.9, 1.0)},
        {"checkpoint_every": 10, "open_loop_every": 15},
        {"minutes": 0.0},
    ],
)
def test_settings_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match=next(reversed(bad))):
        LoopConfig(**bad)

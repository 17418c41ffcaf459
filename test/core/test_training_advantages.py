"""Values, advantages and the failing step, on episodes of which it is known where they failed; and what weights do."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")
pytest.importorskip("safetensors")

from vla_ros.errors import ConfigError
from vla_ros.policies.architectures.base import Batch, Inputs
from vla_ros.policies.architectures.bc import Bc, BcConfig
from vla_ros.policies.architectures.flow_vla import FlowVla, FlowVlaConfig
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.training.advantages import (
    advantages,
    are_good,
    exponential_weights,
    failing_step,
    is_before_failure,
    progress_targets,
)
from vla_ros.training.critic import CriticConfig, CriticLearner, ProgressCritic, load_critic, two_hot
from vla_ros.training.options import Weighting
from vla_ros.training.step import train_step
from vla_ros.training.weighting import Scores, ToldLearner, WeightedLearner, add_word

SPEC = ModelSpec(("base",), (8, 8), 1, 1, 2, ("push", "well", "badly"), 3)
SMALL = {"width": 16, "heads": 2, "keypoints": 1, "channels": (8,)}


def test_targets_by_hand():
    short, failed, unknown, long = progress_targets([3, 7, 2, 5], [True, False, None, True])
    # Two steps, one step and none are left, of the four of the longest success, which begins at 0.5.
    np.testing.assert_allclose(short, [0.75, 0.875, 1.0])
    np.testing.assert_allclose(long, [0.5, 0.625, 0.75, 0.875, 1.0])
    np.testing.assert_allclose(failed, np.zeros(7))
    assert np.isnan(unknown).all()
    share, one = progress_targets([3, 1], [True, True], "share", floor=0.0)
    np.testing.assert_allclose(share, [0.0, 0.5, 1.0])
    np.testing.assert_allclose(one, [1.0])
    (cut,) = progress_targets([4], [True], floor=0.0, longest=3)
    np.testing.assert_allclose(cut, [0.0, 0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match="floor 1"):
        progress_targets([1], [True], floor=1.0)


def test_advantages_by_hand():
    values, returns = [0.5, 0.5, 0.9, 0.8], [0.7, 0.8, 0.9, 1.0]
    # Two steps on: (0.7 - 0.9) + 0.9 - 0.5, then (0.8 - 1.0) + 0.8 - 0.5; at the end returns less values.
    np.testing.assert_allclose(advantages(values, returns, 2), [0.2, 0.1, 0.0, 0.2], atol=1e-12)
    np.testing.assert_allclose(advantages(values, returns, 9), np.subtract(returns, values))
    with pytest.raises(ValueError, match="n 0"):
        advantages(values, returns, 0)


def test_a_critic_that_is_right_finds_no_advantage_and_n_steps_are_the_sum_of_single_ones():
    returns = progress_targets([9, 6], [True, True])
    for each in returns:
        assert np.abs(advantages(each, each, 3)).max() < 1e-12
    rng = np.random.default_rng(0)
    values, target = rng.random(9), returns[0]
    single = advantages(values, target, 1)
    three = [single[t : t + 3].sum() for t in range(9)]
    np.testing.assert_allclose(advantages(values, target, 3), three, atol=1e-12)


def test_weights_rise_with_the_advantage_and_are_bounded():
    np.testing.assert_allclose(exponential_weights([0.0, 0.1, -0.1, 9.0], 0.1, 5.0), [1.0, np.e, 1.0 / np.e, 5.0])
    good = are_good([0.5, -0.5, 0.1, np.nan, 0.2, 0.0], 0.4)
    assert good.tolist() == [True, False, False, False, True, False]
    with pytest.raises(ValueError, match="temperature"):
        exponential_weights([0.0], 0.0)


@pytest.mark.parametrize("step", [6, 20, 33])
def test_failing_step_is_found_under_noise(step):
    """Progress rises until the thing is lost, and stays low from there on."""
    rng = np.random.default_rng(step)
    values = np.where(np.arange(40) < step, 0.3 + 0.01 * np.arange(40), 0.05) + 0.03 * rng.standard_normal(40)
    found = failing_step(values)
    assert found is not None
    assert abs(found - step) <= 1
    assert is_before_failure(values, 4).tolist() == [t + 4 <= found for t in range(40)]


def test_rising_or_noisy_values_have_no_failing_step():
    rng = np.random.default_rng(0)
    assert failing_step(np.linspace(0.1, 1.0, 30) + 0.05 * rng.standard_normal(30)) is None
    assert failing_step([0.5]) is None
    assert is_before_failure(np.linspace(0.0, 1.0, 5), 8).all()


def test_two_hot_is_a_distribution_whose_mean_is_the_value():
    values = torch.rand(100, generator=torch.Generator().manual_seed(0))
    found = two_hot(values, 11)
    torch.testing.assert_close(found.sum(-1), torch.ones(100))
    torch.testing.assert_close(found @ torch.linspace(0.0, 1.0, 11), values)
    assert int((found > 0.0).sum(-1).max()) == 2


# Episodes of a thing that is pushed to the right, which is a bright column of the image, and the state. In half of them
# it is lost at a step, and the image is dark from there on.


def make_episodes(count: int, length: int = 12) -> tuple[Batch, list[bool], list[int]]:
    rng = np.random.default_rng(1)
    images, states, lost_at = [], [], []
    for episode in range(count):
        lost = length if episode % 2 == 0 else int(rng.integers(3, length - 3))
        lost_at.append(lost)
        for t in range(length):
            image = np.zeros((3, 8, 8), dtype=np.float32)
            if t < lost:
                image[:, :, int(7 * t / (length - 1))] = 1.0
            images.append(image)
            states.append([2.0 * t / (length - 1) - 1.0 + 0.05 * rng.standard_normal()])
    n = count * length
    words = torch.tensor([[1, 0, 0]]).expand(n, 3)
    inputs = Inputs(torch.from_numpy(np.stack(images))[:, None], torch.tensor(states, dtype=torch.float32), words)
    actions, is_valid = torch.zeros(n, 2, 1), torch.ones((n, 2), dtype=torch.bool)
    batch = Batch(inputs, actions, is_valid, index=torch.arange(n))
    return batch, [lost == length for lost in lost_at], lost_at


def part_of(batch: Batch, rows: Any) -> Batch:
    inputs = Inputs(batch.inputs.images[rows], batch.inputs.state[rows], batch.inputs.words[rows])
    return Batch(inputs, batch.actions[rows], batch.is_valid[rows], index=batch.index[rows])


def test_critic_learns_progress_finds_the_failing_steps_and_comes_back_from_its_folder(tmp_path):
    batch, outcomes, lost_at = make_episodes(24)
    targets = progress_targets([12] * 24, outcomes)
    targets[2][:] = np.nan
    torch.manual_seed(0)
    critic = ProgressCritic(SPEC, CriticConfig(**SMALL | {"keypoints": 4}, bins=21))
    learner = CriticLearner(critic, np.concatenate(targets))
    optimiser = torch.optim.Adam(critic.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        rows = torch.randint(len(batch.actions), (64,), generator=generator)
        train_step(learner.losses, part_of(batch, rows), optimiser, generator)
    learner.save(tmp_path / "critic")
    read = load_critic(tmp_path / "critic")
    with torch.inference_mode():
        values = read.value(batch.inputs).numpy().reshape(24, 12)
        np.testing.assert_array_equal(values.ravel(), critic.eval().value(batch.inputs).numpy())
    assert values[0, -1] > 0.8
    found = [failing_step(value, window=2) for value in values]
    right = [step == (None if lost == 12 else lost) for step, lost in zip(found, lost_at, strict=True)]
    assert sum(right) >= 22, (found, lost_at)
    # What looks two steps ahead into the loss is worse than expected, and worth less than the steps before.
    for value, target, lost in zip(values[1::2], targets[1::2], lost_at[1::2], strict=True):
        advantage = advantages(value, target, 2)
        assert advantage[lost - 1] < -0.1
        assert advantage[lost - 1] == pytest.approx(advantage.min(), abs=0.15)
    (tmp_path / "critic" / "critic.json").write_text("{}")
    with pytest.raises(ConfigError, match="isn't a critic"):
        load_critic(tmp_path / "critic")


# A dataset of two ways: one state, half of the actions at +1, which went well, and half at -1, which didn't.


def two_ways() -> tuple[Batch, np.ndarray]:
    is_good = np.arange(64) % 2 == 0
    actions = torch.where(torch.from_numpy(is_good)[:, None, None], 1.0, -1.0).expand(64, 2, 1)
    inputs = Inputs(torch.zeros(64, 1, 3, 8, 8), torch.zeros(64, 1), torch.tensor([[1, 0, 0]]).expand(64, 3))
    return Batch(inputs, actions, torch.ones((64, 2), dtype=torch.bool), index=torch.arange(64)), is_good


@dataclasses.dataclass
class Plain:
    module: Any

    def losses(self, batch: Any, generator: Any) -> dict[str, Any]:
        return self.module.losses(batch, generator)

    def save(self, folder: Any) -> None:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        return {"name": "plain"}


def learn(learner: Any, batch: Batch, steps: int = 80) -> None:
    optimiser = torch.optim.Adam(learner.module.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        train_step(learner.losses, batch, optimiser, generator)


def test_weights_make_behaviour_cloning_prefer_the_way_that_went_well():
    batch, is_good = two_ways()
    weights = exponential_weights(np.where(is_good, 0.2, -0.2), temperature=0.1)
    said = {}
    for name, weight in (("even", np.ones(64)), ("weighted", weights), ("masked", is_good.astype(np.float64))):
        torch.manual_seed(0)
        learner = WeightedLearner(Plain(Bc(SPEC, BcConfig(layers=1, **SMALL))), weight)
        learn(learner, batch)
        said[name] = float(learner.module.distribution(batch.inputs)[0].mean().detach())
    # The weighted mean of +1 and -1: (e^2 - e^-2) / (e^2 + e^-2).
    assert said["even"] == pytest.approx(0.0, abs=0.1)
    assert said["weighted"] == pytest.approx(np.tanh(2.0), abs=0.1)
    assert said["masked"] == pytest.approx(1.0, abs=0.1)


def test_a_network_that_is_told_which_went_well_does_what_it_is_told():
    batch, is_good = two_ways()
    torch.manual_seed(0)
    network = FlowVla(SPEC, FlowVlaConfig(mlp_width=32, layers=1, steps=4, things=1, draws=2, **SMALL))
    learner = ToldLearner(Plain(network), SPEC, is_good, Weighting("-", by="word"))
    learn(learner, batch, 150)
    noise = torch.randn((64, 2, 1), generator=torch.Generator().manual_seed(5))
    for words, sign in (("push well", 1.0), ("push badly", -1.0)):
        ids = torch.tensor([SPEC.word_ids(words)]).expand(64, 3)
        with torch.inference_mode():
            drawn = network.eval().sample(dataclasses.replace(batch.inputs, words=ids), noise)
        assert float((drawn * sign > 0.0).float().mean()) > 0.9, words


def test_word_comes_after_the_last_one_and_needs_room():
    words = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]])
    assert add_word(words, torch.tensor([2, 3, 0])).tolist() == [[1, 2, 0], [1, 1, 3], [1, 1, 1]]
    with pytest.raises(ConfigError, match="max_words"):
        add_word(words, torch.tensor([0, 0, 2]))


def test_share_of_the_examples_is_told_nothing():
    batch, is_good = two_ways()
    seen = []

    class Listening(Plain):
        def losses(self, batch: Any, generator: Any) -> dict[str, Any]:
            seen.append(batch.inputs.words)
            return {"total": batch.actions.sum()}

    learner = ToldLearner(Listening(torch.nn.Linear(1, 1)), SPEC, is_good, Weighting("-", by="word", silent=0.5))
    for seed in range(10):
        learner.losses(batch, torch.Generator().manual_seed(seed))
    words = torch.cat(seen)[:, 1].reshape(10, 64)
    # 640 fair coins: 320 give or take 13.
    assert 260 < int((words == 0).sum()) < 380
    assert set(words[:, ::2].unique().tolist()) == {0, 2}
    assert set(words[:, 1::2].unique().tolist()) == {0, 3}
    with pytest.raises(ConfigError, match="doesn't know the word 'gut'"):
        ToldLearner(Listening(torch.nn.Linear(1, 1)), SPEC, is_good, Weighting("-", by="word", good="gut"))


def test_scores_come_back_from_their_file_and_others_are_refused(tmp_path):
    n = 5
    scores = Scores(
        np.linspace(0.0, 1.0, n, dtype=np.float32), np.zeros(n, np.float32), np.ones(n, np.float32),
        np.zeros(n, np.bool_), np.array([-1, 3]),
    )  # fmt: skip
    scores.save(tmp_path / "scores.npz")
    read = Scores.load(tmp_path / "scores.npz")
    assert all(np.array_equal(a, b) for a, b in zip(vars(read).values(), vars(scores).values(), strict=True))
    dataclasses.replace(scores, weight=-scores.weight).save(tmp_path / "negative.npz")
    (tmp_path / "broken.npz").write_bytes(b"no")
    for name, text in (("negative", "negative or not finite"), ("broken", "isn't a file of scores"), ("no", "isn't")):
        with pytest.raises(ConfigError, match=text):
            Scores.load(tmp_path / f"{name}.npz")
    batch, _ = two_ways()
    with pytest.raises(ConfigError, match="5 rows"):
        WeightedLearner(Plain(torch.nn.Linear(1, 1)), scores.weight).losses(batch, torch.Generator())
    with pytest.raises(ConfigError, match="don't say which examples"):
        WeightedLearner(Plain(torch.nn.Linear(1, 1)), scores.weight).losses(
            dataclasses.replace(batch, index=None), torch.Generator()
        )

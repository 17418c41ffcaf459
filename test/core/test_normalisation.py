"""Normalisation against numbers worked by hand, against torch, and against itself back and forth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.contract import Contract, Normalisation, NormalisationSpec, load_contract
from vla_ros.errors import ConfigError, ContractError
from vla_ros.policies.normalisation import Normaliser, Statistics
from vla_ros.policies.statistics_file import CheckpointStatistics

FORMULAS = ("mean_std", "min_max", "quantile")


def array(*values: float) -> np.ndarray:
    return np.array(values)


STATISTICS = Statistics(
    mean=array(1.0, -2.0, 0.5), std=array(0.5, 4.0, 0.1), minimum=array(0.0, -10.0, 0.0), maximum=array(4.0, 10.0, 1.0),
    q01=array(0.5, -8.0, 0.0), q99=array(2.5, 8.0, 1.0),
)  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "x", "y"),
    [
        (NormalisationSpec("mean_std"), [2.0, 2.0, 0.4], [2.0, 1.0, -1.0]),
        (NormalisationSpec("mean_std", epsilon=0.5), [2.0, 2.5, 0.5], [1.0, 1.0, 0.0]),
        (NormalisationSpec("min_max"), [0.0, 10.0, 0.75], [-1.0, 1.0, 0.5]),
        (NormalisationSpec("quantile"), [0.5, 8.0, 0.25], [-1.0, 1.0, -0.5]),
        # Past the quantiles, where OpenVLA clips.
        (NormalisationSpec("quantile"), [4.5, 0.0, 0.5], [3.0, 0.0, 0.0]),
        # 2 (2.5 - 0.5) / (2 + 2) - 1 = 0; 2 (8 + 8) / (16 + 2) - 1 = 7/9; 2 (1 - 0) / (1 + 2) - 1 = -1/3.
        (NormalisationSpec("quantile", epsilon=2.0), [2.5, 8.0, 1.0], [0.0, 7.0 / 9.0, -1.0 / 3.0]),
        (NormalisationSpec("quantile", mask=(True, True, False)), [1.5, 4.0, 0.9], [0.0, 0.5, 0.9]),
        (NormalisationSpec("none"), [7.0, 8.0, 9.0], [7.0, 8.0, 9.0]),
    ],
)
def test_formulas_give_the_numbers_worked_by_hand_and_back(spec: NormalisationSpec, x: Any, y: Any) -> None:
    normaliser = Normaliser(spec, STATISTICS)
    np.testing.assert_allclose(normaliser.normalise(np.array(x)), y, atol=1e-14)
    np.testing.assert_allclose(normaliser.unnormalise(np.array(y)), x, atol=1e-14)


def test_unnormalising_is_openvla_s_formula() -> None:
    rng = np.random.default_rng(0)
    q01 = rng.normal(size=7)
    q99 = q01 + rng.uniform(0.1, 2.0, 7)
    mask = np.array([True] * 6 + [False])
    actions = rng.uniform(-1.0, 1.0, (5, 7))
    # As in OpenVLA's predict_action.
    expected = np.where(mask, 0.5 * (actions + 1.0) * (q99 - q01) + q01, actions)
    normaliser = Normaliser(NormalisationSpec("quantile"), Statistics(q01=q01, q99=q99, mask=mask))
    np.testing.assert_allclose(normaliser.unnormalise(actions), expected, atol=1e-14)


def test_clip_holds_normalised_values_both_ways_and_leaves_what_passes_through() -> None:
    normaliser = Normaliser(NormalisationSpec("quantile", mask=(True, True, False), clip=1.0), STATISTICS)
    np.testing.assert_allclose(normaliser.normalise(array(4.5, -100.0, 5.0)), [1.0, -1.0, 5.0])
    np.testing.assert_allclose(normaliser.unnormalise(array(3.0, -7.0, 5.0)), [2.5, -8.0, 5.0])


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_entry_without_spread_is_zero_and_comes_back_as_its_one_value(formula: Any, epsilon: float) -> None:
    rng = np.random.default_rng(1)
    # Numbers whose mean is off by rounding, so that their spread about it isn't quite 0.
    samples = np.stack([rng.normal(size=1000), np.full(1000, 0.1), np.full(1000, -1234.5678)], axis=1)
    statistics = Statistics.from_samples(samples)
    assert samples[:, 1].std() > 0.0
    assert statistics.std is not None
    np.testing.assert_array_equal(statistics.std[1:], 0.0)
    normaliser = Normaliser(NormalisationSpec(formula, epsilon=epsilon), statistics)
    with np.errstate(all="raise"):
        y = normaliser.normalise(samples)
        np.testing.assert_array_equal(y[:, 1:], 0.0)
        np.testing.assert_allclose(normaliser.unnormalise(y), samples, atol=1e-12)
        np.testing.assert_array_equal(normaliser.unnormalise(y + 0.3)[:, 1:], samples[:, 1:])


def test_constant_entry_that_the_mask_leaves_out_passes_through() -> None:
    statistics = Statistics(q01=array(0.0, 1.0), q99=array(1.0, 1.0))
    normaliser = Normaliser(NormalisationSpec("quantile", mask=(True, False)), statistics)
    np.testing.assert_array_equal(normaliser.normalise(array(0.5, 0.7)), [0.0, 0.7])
    np.testing.assert_array_equal(normaliser.unnormalise(array(0.0, 0.7)), [0.5, 0.7])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    formula=st.sampled_from(FORMULAS), epsilon=st.sampled_from((0.0, 1e-8, 1e-6, 0.1)),
    mask=st.one_of(st.none(), st.tuples(*[st.booleans()] * 4)), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_what_was_normalised_comes_back(formula: Any, epsilon: float, mask: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.normal(rng.normal(size=4), rng.uniform(0.01, 10.0, 4), (50, 4))
    normaliser = Normaliser(NormalisationSpec(formula, epsilon, mask), Statistics.from_samples(samples))
    np.testing.assert_allclose(normaliser.unnormalise(normaliser.normalise(samples)), samples, atol=1e-10)
    y = rng.uniform(-1.0, 1.0, (2, 3, 4))
    np.testing.assert_allclose(normaliser.normalise(normaliser.unnormalise(y)), y, atol=1e-9)


@pytest.mark.parametrize("formula", FORMULAS)
def test_tensors_get_the_same_numbers_and_keep_their_type_and_gradient(formula: Any) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    samples = np.concatenate([rng.normal(size=(200, 4)), np.full((200, 1), 3.0)], axis=1)
    spec = NormalisationSpec(formula, epsilon=1e-6, mask=(True, True, True, False, True), clip=1.5)
    normaliser = Normaliser(spec, Statistics.from_samples(samples))
    for function in (normaliser.normalise, normaliser.unnormalise):
        for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 1e-5)):
            tensor = torch.tensor(samples[:10], dtype=dtype, requires_grad=True)
            got = function(tensor)
            assert got.dtype == dtype
            np.testing.assert_allclose(got.detach().numpy(), function(samples[:10]), atol=tolerance)
            got.sum().backward()
            assert torch.isfinite(tensor.grad).all()


def test_statistics_are_numpy_s_and_torch_s() -> None:
    torch = pytest.importorskip("torch")
    samples = np.random.default_rng(3).normal(size=(501, 3))
    found, tensor = Statistics.from_samples(samples), torch.tensor(samples)
    assert found.count == 501
    assert found.width == 3
    for got, expected in (
        (found.mean, tensor.mean(0)), (found.std, tensor.std(0, correction=0)), (found.minimum, tensor.amin(0)),
        (found.maximum, tensor.amax(0)), (found.q01, tensor.quantile(0.01, 0)), (found.q99, tensor.quantile(0.99, 0)),
    ):  # fmt: skip
        np.testing.assert_allclose(got, expected.numpy(), atol=1e-12)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Statistics(), "none of mean, std"),
        (lambda: Statistics(mean=array(1.0), std=array(1.0, 2.0)), "different vectors"),
        (lambda: Statistics(mean=array(np.nan)), "mean .* isn't finite"),
        (lambda: Statistics(std=array(-1.0)), "negative"),
        (lambda: Statistics(q01=array(2.0), q99=array(1.0)), "q01 .* is above q99"),
        (lambda: Statistics(mean=array(1.0), mask=np.array([True, False])), "different vectors"),
        (lambda: Statistics.from_samples(np.zeros((0, 3))), r"samples, found \(0, 3\)"),
        (lambda: Statistics.from_samples(np.array([[0.0], [np.inf]])), "sample 1, entry 0 is inf"),
        (lambda: Statistics.from_json({"mean": ["x"]}), "can't be read"),
        (lambda: Statistics.from_json({"mean": [1.0], "mask": [1]}), "true and false"),
        (lambda: Statistics.from_json({"mean": [1.0], "count": float("inf")}), "can't be read"),
        (lambda: Statistics.from_json({"mean": [10**400]}), "can't be read"),
        (lambda: Statistics.from_json({"mean": []}), "or of none"),
        (lambda: Statistics.from_json([1.0]), "they are list"),  # type: ignore[arg-type]
        (lambda: Normaliser(NormalisationSpec("quantile"), Statistics(mean=array(1.0))), "needs q01 and q99"),
        (lambda: Normaliser(NormalisationSpec("quantile"), None), "needs statistics"),
        (lambda: Normaliser(NormalisationSpec("mean_std", mask=(True,)), STATISTICS), "mask has 1 entries"),
        (lambda: Normaliser(NormalisationSpec("mean_std"), STATISTICS).normalise(np.zeros(4)), r"shape \(4,\) met"),
        (lambda: Normaliser(NormalisationSpec("mean_std"), STATISTICS).unnormalise(np.zeros(())), "of 3 entries"),
    ],
)
def test_what_does_not_fit_together_is_refused(make: Any, text: str) -> None:
    with pytest.raises(ContractError, match=text):
        make()


# The file


def test_json_comes_back_and_keeps_its_hash() -> None:
    statistics = Statistics.from_samples(np.random.default_rng(4).normal(size=(9, 2)), np.array([True, False]))
    again = Statistics.from_json(json.loads(json.dumps(statistics.to_json())))
    assert again.to_json() == statistics.to_json()
    assert again.stats_hash() == statistics.stats_hash()
    assert len(again.stats_hash()) == 16


def test_hash_changes_with_every_number_and_not_with_the_count() -> None:
    hashes = {STATISTICS.stats_hash()}
    for name in ("mean", "std", "maximum", "q99"):
        data = STATISTICS.to_json()
        data[name][1] += 1e-9
        hashes.add(Statistics.from_json(data).stats_hash())
    assert len(hashes) == 5
    assert Statistics.from_json({**STATISTICS.to_json(), "count": 7}).stats_hash() == STATISTICS.stats_hash()


def test_openvla_s_names_are_understood() -> None:
    # As in the statistics beside OpenVLA's checkpoints, shortened to two entries.
    data = {
        "mean": [0.1, 0.5], "std": [0.2, 0.5], "max": [0.4, 1.0], "min": [-0.4, 0.0], "q01": [-0.3, 0.0],
        "q99": [0.3, 1.0], "mask": [True, False], "num_transitions": 11, "num_trajectories": 2,
    }  # fmt: skip
    statistics = Statistics.from_json(data)
    assert statistics.count == 11
    np.testing.assert_array_equal(statistics.minimum, [-0.4, 0.0])
    np.testing.assert_allclose(
        Normaliser(NormalisationSpec("quantile"), statistics).unnormalise(array(0.5, 0.5)), [0.15, 0.5], atol=1e-15
    )


def checkpoint() -> CheckpointStatistics:
    rng = np.random.default_rng(5)
    return CheckpointStatistics(
        state=Statistics.from_samples(rng.normal(size=(20, 8))),
        action=Statistics.from_samples(rng.normal(size=(20, 7))),
        dataset="blocks", interface_hash=load_contract("tool_delta_visual").interface_hash,
    )  # fmt: skip


def test_file_comes_back_with_its_provenance(tmp_path: Path) -> None:
    checkpoint().save(tmp_path / "statistics.json")
    again = CheckpointStatistics.load(tmp_path / "statistics.json")
    assert (again.dataset, again.interface_hash) == ("blocks", checkpoint().interface_hash)
    assert again.stats_hash == checkpoint().stats_hash
    assert again.state is not None
    assert again.state.count == 20


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: data["action"]["mean"].__setitem__(0, 9.0), "it was changed"),
        (lambda data: data.update({"weights": []}), r"unknown keys \['weights'\]"),
        (lambda data: data.update({"action": [1, 2]}), "compute them anew"),
        (lambda data: data["state"].update({"std": [-1.0] * 8}), "negative"),
    ],
)
def test_file_that_was_changed_is_refused(tmp_path: Path, change: Any, text: str) -> None:
    path = tmp_path / "statistics.json"
    checkpoint().save(path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=text):
        CheckpointStatistics.load(path)


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, None], ids=["empty", "list", "deep", "absent"])
def test_file_that_is_none_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "statistics.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"statistics\.json"):
        CheckpointStatistics.load(path)


def test_statistics_of_another_contract_formula_or_width_are_named() -> None:
    contract, statistics = load_contract("tool_delta_visual"), checkpoint()
    assert statistics.find_mismatches(contract, joints=6) == []
    other = Contract(contract.name, contract.observation, contract.action,
                     Normalisation(action=NormalisationSpec("quantile", mask=(True,))))  # fmt: skip
    assert any("mask has 1 entries" in line for line in statistics.find_mismatches(other))
    moved = CheckpointStatistics(statistics.action, statistics.state, "blocks", "0123456789abcdef")
    found = "\n".join(moved.find_mismatches(contract, joints=6))
    assert "computed under interface 0123456789abcdef" in found
    assert "statistics of state have 7 entries, contract tool_delta_visual has 8" in found
    assert "statistics of action have 8 entries, contract tool_delta_visual has 7" in found

"""`vla-ros bench training`: its parts, and that neither side works on the other's time."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")
pytest.importorskip("accelerate")

from vla_ros.benchmarks.registry import BENCHMARKS
from vla_ros.benchmarks.training.benchmark import BENCHMARK, PARTS
from vla_ros.benchmarks.training.made_up import make_examples, make_network
from vla_ros.benchmarks.training.throughput import Turns
from vla_ros.training.batches import ExampleBatches


def test_it_is_registered_and_knows_its_parts():
    assert "training" in BENCHMARKS
    assert BENCHMARK.chosen([]) == list(PARTS)
    assert {item.key for item in BENCHMARK.requirements(list(PARTS))} == {"samples_per_s_over_bare", "infer_ms"}


def test_made_up_examples_are_what_the_shipped_networks_settings_take(tmp_path):
    examples = make_examples(tmp_path, frames=60)
    batch = ExampleBatches(examples, make_network(examples).spec, examples.statistics()).batch(0, 4)
    assert batch.inputs.images.shape == (4, 2, 3, 96, 144)
    assert bool(batch.is_valid.all())
    assert batch.target_xy is not None


def test_the_bare_step_has_its_turn_when_all_batches_are_made_and_as_often_as_the_trainer():
    class Made:
        made = 0

    batches, order = Made(), []
    turns = Turns(lambda: order.append(batches.made), batches, steps=2, blocks=3, progress=lambda _name, _share: None)
    steps = 0
    while True:
        steps += 1
        batches.made = steps + 2
        if turns.should_stop():
            break
    # One block to warm up, and then three of each.
    assert steps == 8
    assert order == [4, 4, 6, 6, 8, 8, 10, 10]
    assert len(turns.trainer_s) == 3

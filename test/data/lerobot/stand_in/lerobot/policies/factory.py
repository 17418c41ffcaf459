"""Policies with and without queues of observations, and their processors."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import torch

HORIZON = 4
# Arguments with which policies and processors were made, for tests to look at.
made: list[dict[str, Any]] = []


class Policy:
    """action[h, j] = gain (sum of the states + 10 sum of the images' means (c + 1)) + h / 100 + noise."""

    def __init__(self, config: Any, weights: dict[str, float]) -> None:
        self.config, self._weights = config, weights
        self.is_training = True
        self.reset()

    @classmethod
    def from_pretrained(cls, folder: Path, *, config: Any, local_files_only: bool, strict: bool) -> Policy:
        made.append({**vars(config), "local_files_only": local_files_only, "strict": strict})
        weights = json.loads((Path(folder) / "weights.json").read_text())
        if strict and set(weights) != {"gain", "noise", "width"}:
            raise RuntimeError(f"Error(s) in loading state_dict: {sorted(weights)}")
        return cls(config, weights)

    def eval(self) -> Policy:
        self.is_training = False
        return self

    def reset(self) -> None:
        pass

    def select_action(self, batch: dict[str, Any]) -> torch.Tensor:
        raise AssertionError("select_action is the way through the ensembler and the queue of actions")

    def predict_action_chunk(self, batch: dict[str, Any]) -> torch.Tensor:
        assert batch["task"] == ["pick up the red block"]
        means = [(c + 1) * batch[name].mean() for c, name in enumerate(self.config.image_features) if name in batch]
        return self._chunk(batch["observation.state"].sum() + 10 * sum(means))

    def _chunk(self, value: torch.Tensor) -> torch.Tensor:
        assert not self.is_training
        width = int(self._weights["width"])
        steps = torch.arange(HORIZON).float().div(100)[None, :, None].expand(1, HORIZON, width)
        return self._weights["gain"] * value + steps + self._weights["noise"] * torch.randn(1, HORIZON, width)


class QueuedPolicy(Policy):
    """As lerobot's Diffusion: what it sees is in its queues, and the t-th of them counts t + 1 times."""

    def reset(self) -> None:
        n = self.config.n_obs_steps
        self._queues = {name: deque(maxlen=n) for name in ("observation.state", "observation.images")}
        self._queues["action"] = deque(maxlen=HORIZON)

    def predict_action_chunk(self, batch: dict[str, Any]) -> torch.Tensor:
        stacked = {name: torch.stack(list(self._queues[name]), dim=1) for name in batch if name in self._queues}
        states, images = stacked["observation.state"], stacked["observation.images"]
        assert images.shape[1] == states.shape[1] == self.config.n_obs_steps
        value = torch.zeros(())
        for t in range(self.config.n_obs_steps):
            value = value + (t + 1) * states[0, t].sum()
            for c in range(images.shape[2]):
                value = value + 10 * (t + 1) * (c + 1) * images[0, t, c].mean()
        return self._chunk(value)


def get_policy_class(name: str) -> type[Policy]:
    if name == "smolvla":
        raise ModuleNotFoundError("No module named 'num2words'", name="num2words")
    return {"act": Policy, "diffusion": QueuedPolicy}[name]


def make_pre_post_processors(
    config: Any, pretrained_path: str, preprocessor_overrides: dict[str, Any] | None = None
) -> tuple[Any, Any]:
    folder = Path(pretrained_path)
    saved = json.loads((folder / "policy_preprocessor.json").read_text())
    unknown = set(preprocessor_overrides or {}) - {step["registry_name"] for step in saved["steps"]}
    if unknown:
        raise KeyError(f"Override keys {unknown} do not match any step in the saved configuration.")
    made.append({"overrides": preprocessor_overrides})

    def before(raw: dict[str, Any]) -> dict[str, Any]:
        batch = {"action": None, "next.reward": 0.0, "next.done": False, "info": {}, "task": [raw["task"]]}
        for name, value in raw.items():
            if name.startswith("observation."):
                assert value.dtype == torch.float32
                batch[name] = value
        batch["observation.state"] = (batch["observation.state"] - 1.0) / 2.0
        return batch

    def after(action: torch.Tensor) -> torch.Tensor:
        assert action.ndim == 2
        return action * 3.0 + 0.25

    return before, after

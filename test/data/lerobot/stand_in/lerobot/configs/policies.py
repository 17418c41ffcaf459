"""`PreTrainedConfig`, read from a folder's config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class PreTrainedConfig:
    def __init__(self, content: dict[str, Any]) -> None:
        self.type = content["type"]
        self.n_obs_steps = content.get("n_obs_steps", 1)
        self.image_features = {
            name: entry for name, entry in content["input_features"].items() if entry["type"] == "VISUAL"
        }
        self.use_amp = content.get("use_amp", False)
        self.use_peft = content.get("use_peft", False)
        self.device = "saved"
        self.pretrained_backbone_weights = "to be fetched"
        self.load_vlm_weights = True

    @classmethod
    def from_pretrained(cls, folder: Path, *, local_files_only: bool = False) -> PreTrainedConfig:
        return cls(json.loads((Path(folder) / "config.json").read_text()))

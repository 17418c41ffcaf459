"""The folder of a checkpoint: read back as it was written, or refused with what is wrong; and never half."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vla_ros.config import package_share
from vla_ros.contract import load_contract
from vla_ros.errors import ConfigError, ContractError
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.policies.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from vla_ros.policies.normalisation import Statistics
from vla_ros.policies.statistics_file import CheckpointStatistics

CONTRACT = load_contract("tool_delta_visual")
RNG = np.random.default_rng(0)
STATISTICS = CheckpointStatistics(
    Statistics.from_samples(RNG.standard_normal((20, 8))),
    Statistics.from_samples(RNG.standard_normal((20, 7))),
    "test",
    CONTRACT.interface_hash,
)
SPEC = ModelSpec(("base", "wrist"), (32, 48), 8, 7, 6, ("block", "red"), 4)
WEIGHTS = b"not looked at by this module"


def write(folder: Path, **changes: Any) -> Checkpoint:
    given: dict[str, Any] = {
        "architecture": "act", "config": {"width": 16, "channels": (8, 16)}, "spec": SPEC, "contract": CONTRACT,
        "statistics": STATISTICS, "write_weights": lambda path: path.write_bytes(WEIGHTS),
    }  # fmt: skip
    return write_checkpoint(folder, **(given | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "checkpoint").folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_written_is_read(folder: Path) -> None:
    found = read_checkpoint(folder)
    assert found.contract == CONTRACT
    assert found.card.spec == SPEC
    assert found.card.config == {"width": 16, "channels": [8, 16]}
    assert found.description["spec"]["images"] == ["base", "wrist"]
    assert found.onnx is None
    assert found.statistics.stats_hash == STATISTICS.stats_hash == found.card.stats_hash


def test_the_folder_holds_what_is_promised_and_nothing_else(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {"policy.json", "contract.yaml", "statistics.json", "model.safetensors"}
    card = json.loads((folder / "policy.json").read_text())
    assert card["interface_hash"] == CONTRACT.interface_hash
    assert {"vla_ros", "git", "stats_hash", "weights_hash"} <= card.keys()


def test_the_commit_is_noted_where_it_is_known(folder: Path) -> None:
    if not (package_share() / ".git").exists():
        pytest.skip("not a checkout")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=package_share(), check=True)
    commit = json.loads((folder / "policy.json").read_text())["git"].removesuffix("-dirty")
    assert head.stdout.startswith(commit)


@pytest.mark.parametrize("name", ["policy.json", "contract.yaml", "statistics.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=f"{name} is missing"):
        read_checkpoint(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        read_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["policy.json", "statistics.json"])
@pytest.mark.parametrize("text", ["{", "[]", "\xff"], ids=["cut", "list", "binary"])
def test_a_broken_file_is_named(folder: Path, name: str, text: str) -> None:
    (folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=name):
        read_checkpoint(folder)


def test_an_unknown_key_is_refused(folder: Path) -> None:
    edit(folder / "policy.json", arcitecture="act")
    with pytest.raises(ConfigError, match=r"unknown key 'arcitecture'; did you mean 'architecture'\?"):
        read_checkpoint(folder)


@pytest.mark.parametrize("data", [{"sate": {}}, {"action": {}}, {"action": 3}])
def test_statistics_that_are_none_are_refused(folder: Path, data: dict[str, Any]) -> None:
    (folder / "statistics.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=r"statistics\.json: "):
        read_checkpoint(folder)


def test_another_format_is_refused(folder: Path) -> None:
    edit(folder / "policy.json", format=2)
    with pytest.raises(ConfigError, match="format 2 isn't 1"):
        read_checkpoint(folder)


def test_weights_of_another_checkpoint_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(WEIGHTS + b"!")
    with pytest.raises(ConfigError, match=r"model\.safetensors: has the hash .* they aren't of one checkpoint"):
        read_checkpoint(folder)
    assert read_checkpoint(folder, with_weights=False).card.spec == SPEC


def test_statistics_of_another_checkpoint_are_refused(folder: Path) -> None:
    data = json.loads((folder / "statistics.json").read_text())
    data["action"]["mean"][0] += 1e-9
    del data["stats_hash"]  # Which would give it away before.
    (folder / "statistics.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=r"statistics\.json: has the hash"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "change", [{"action": {"period_s": 0.2}}, {"normalisation": {"action": {"formula": "mean_std"}}}], ids=str
)
def test_a_contract_that_was_changed_is_refused(folder: Path, change: dict[str, dict[str, Any]]) -> None:
    path = folder / "contract.yaml"
    data = yaml.safe_load(path.read_text())
    for part, values in change.items():
        data[part] = data[part] | values
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=r"contract\.yaml: has the hash"):
        read_checkpoint(folder)


def test_another_contract_is_refused_with_every_line_that_differs(folder: Path) -> None:
    action = dataclasses.replace(CONTRACT.action, composition="tcp", period_s=0.2)
    other = dataclasses.replace(CONTRACT, name="other", action=action)
    with pytest.raises(ContractError) as error:
        read_checkpoint(folder).check_contract(other)
    text = str(error.value)
    assert "action.composition: base != tcp" in text
    assert "action.period_s: 0.1 != 0.2" in text
    assert "rotation" not in text
    assert CONTRACT.interface_hash in text
    assert other.interface_hash in text


def test_a_contract_of_another_name_and_the_same_meaning_is_taken(folder: Path) -> None:
    read_checkpoint(folder).check_contract(dataclasses.replace(CONTRACT, name="other"))


def test_writing_again_replaces_all(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"of the old weights")
    write(folder, write_weights=lambda path: path.write_bytes(b"new"))
    assert (folder / "model.safetensors").read_bytes() == b"new"
    assert read_checkpoint(folder).onnx is None


def test_a_failed_write_leaves_the_old_checkpoint(folder: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(folder, write_weights=fail)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_copy_elsewhere_reads_the_same(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert read_checkpoint(tmp_path / "copy").card == read_checkpoint(folder).card


def test_reading_imports_neither_torch_nor_safetensors(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from vla_ros.policies.checkpoint import read_checkpoint;"
        "read_checkpoint(Path(sys.argv[1])); print([m for m in ('torch', 'safetensors', 'onnx') if m in sys.modules])"
    )
    reply = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True, cwd=package_share()
    )
    assert reply.stdout.strip() == "[]"

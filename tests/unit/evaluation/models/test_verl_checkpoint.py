import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
import torch

from speciarl.errors import DataError
from speciarl.evaluation.models.checkpoint import locate


@pytest.mark.parametrize("mesh", [(1,), (2,), (4,), (2, 2)])
def test_tensors_of_all_ranks_are_put_together(tmp_path: Path, mesh: tuple[int, ...]) -> None:
    state = tiny_models.in_peft(base=True)
    found = locate(str(tiny_models.checkpoint(tmp_path / "run", state, mesh).parent))
    assert found.names == sorted(state)
    for name, tensor in state.items():
        assert torch.equal(found.tensor(name), tensor), name
        assert found.size(name) == tensor.numel() * 4


def test_a_runs_folder_is_its_tracked_checkpoint(tmp_path: Path) -> None:
    tiny_models.checkpoint(tmp_path, tiny_models.weights(), step=9)
    tracked = tiny_models.checkpoint(tmp_path, tiny_models.weights(), step=5)
    assert locate(str(tmp_path)).actor == tracked
    assert locate(str(tmp_path / "global_step_9")).actor.parent.name == "global_step_9"
    assert locate(str(tracked)).actor == tracked


def test_tensors_that_are_not_sharded_must_agree(tmp_path: Path) -> None:
    actor = tiny_models.checkpoint(tmp_path, {"a": torch.zeros(2)}, (2,))
    for rank, value in enumerate([1.0, 1.0]):
        torch.save({"a": torch.tensor(value)}, actor / f"model_world_size_2_rank_{rank}.pt")
    assert locate(str(tmp_path)).tensor("a") == 1
    torch.save({"a": torch.tensor(2.0)}, actor / "model_world_size_2_rank_1.pt")
    with pytest.raises(DataError, match="ranks differ in a"):
        locate(str(tmp_path)).tensor("a")


def _missing_rank(actor: Path) -> None:
    (actor / "model_world_size_2_rank_1.pt").unlink()


def _other_world_size(actor: Path) -> None:
    (actor / "fsdp_config.json").write_text(json.dumps({"world_size": 4}))


def _two_world_sizes(actor: Path) -> None:
    (actor / "fsdp_config.json").unlink()
    (actor / "model_world_size_1_rank_0.pt").write_bytes(b"")


def _truncated(actor: Path) -> None:
    file = actor / "model_world_size_2_rank_1.pt"
    file.write_bytes(file.read_bytes()[:-1000])


def _empty(actor: Path) -> None:
    (actor / "model_world_size_2_rank_1.pt").write_bytes(b"")


def _pickled_code(actor: Path) -> None:
    torch.save({"a": Path("x")}, actor / "model_world_size_2_rank_1.pt")


def _other_tensors(actor: Path) -> None:
    torch.save({"b": torch.zeros(1)}, actor / "model_world_size_2_rank_1.pt")


def _other_mesh(actor: Path) -> None:
    for rank in range(2):
        part = torch.load(actor / f"model_world_size_2_rank_{rank}.pt")
        torch.save(part, actor / f"model_world_size_3_rank_{rank}.pt")
        (actor / f"model_world_size_2_rank_{rank}.pt").unlink()
    torch.save(part, actor / "model_world_size_3_rank_2.pt")
    (actor / "fsdp_config.json").write_text(json.dumps({"world_size": 3}))


def _same_rank_twice(actor: Path) -> None:
    part = torch.load(actor / "model_world_size_2_rank_0.pt")
    torch.save(part, actor / "model_world_size_2_rank_1.pt")


def _no_configuration(actor: Path) -> None:
    (actor / "huggingface" / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_missing_rank, "lacks model_world_size_2_rank_1.pt; bring the shards of all nodes"),
        (_other_world_size, "says world size 4, but shards are of 2"),
        (_two_world_sizes, "shards of world sizes 1, 2; remove"),
        (_truncated, r"rank_1\.pt cannot be read \("),
        (_empty, r"rank_1\.pt cannot be read \("),
        (_pickled_code, r"rank_1\.pt cannot be read \("),
        (_other_tensors, "rank_1.pt has other tensors than model_world_size_2_rank_0.pt"),
        (_other_mesh, "was spread over 2 ranks, but there are 3 shards"),
        (_same_rank_twice, r"shards of a give \(4, 2\), not \(3, 2\)"),
        (_no_configuration, "no huggingface/config.json"),
    ],
)
def test_a_broken_checkpoint_is_refused_in_a_line(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(tiny_models.checkpoint(tmp_path, {"a": torch.arange(6.0).reshape(3, 2)}, (2,)))
    with pytest.raises(DataError, match=said) as refusal:
        locate(str(tmp_path)).tensor("a")
    assert "\n" not in str(refusal.value)


def test_a_folder_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no checkpoint"):
        locate(str(tmp_path / "none"))
    with pytest.raises(DataError, match="neither actor/ nor latest_checkpointed_iteration"):
        locate(str(tmp_path))
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("7")
    with pytest.raises(DataError, match="has no global_step_7"):
        locate(str(tmp_path))
    (tmp_path / "global_step_7" / "actor" / "dist_ckpt").mkdir(parents=True)
    with pytest.raises(DataError, match="only checkpoints of FSDP"):
        locate(str(tmp_path))

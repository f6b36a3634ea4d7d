"""One rank of a policy with LoRA under FSDP, saved by veRL's own checkpoint manager: the laptop's policy, not trained.

python sharded_policy.py RUN RANK WORLD_SIZE
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import verl  # noqa: F401  (loads our plug-in)
from peft import LoraConfig, TaskType, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers import AutoModelForImageTextToText
from verl.trainer.config import CheckpointConfig
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager
from verl.utils.fsdp_utils import get_fsdp_wrap_policy

import speciarl.laptop

POLICY = Path(speciarl.laptop.__file__).parent / "models" / "policy"


def main(run: Path, rank: int, world_size: int) -> None:
    """Save ``RUN/global_step_1``, base and adapter, and the adapter as PEFT writes it to ``RUN/peft``."""
    dist.init_process_group("gloo", init_method=f"file://{run / 'rendezvous'}", rank=rank, world_size=world_size)
    torch.manual_seed(0)
    policy = AutoModelForImageTextToText.from_pretrained(POLICY, dtype=torch.float32)
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=4, lora_alpha=24, target_modules="all-linear", exclude_modules=".*visual.*",
        bias="none", init_lora_weights=False,
    )  # fmt: skip
    model = get_peft_model(policy, lora)  # B is random: as if it were trained
    if rank == 0:
        model.save_pretrained(run / "peft")
    sharded = FullyShardedDataParallel(
        model,
        auto_wrap_policy=get_fsdp_wrap_policy(model, is_lora=True),
        device_id=torch.device("cpu"),
        device_mesh=init_device_mesh("cpu", (world_size,), mesh_dim_names=("fsdp",)),
        use_orig_params=True,
    )
    optimizer = torch.optim.SGD([weight for weight in sharded.parameters() if weight.requires_grad])
    FSDPCheckpointManager(
        model=sharded, optimizer=optimizer, checkpoint_config=CheckpointConfig(save_contents=["model"])
    ).save_checkpoint(str(run / "global_step_1" / "actor"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

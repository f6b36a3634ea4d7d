"""The CPU in the roles that veRL gives to an accelerator."""

import re
from pathlib import Path

import pytest
import torch
import verl

from speciarl.cpu import device_module
from speciarl.cpu.device_index import DeviceIndex


def test_index_is_a_device_for_torch() -> None:
    index = DeviceIndex()
    assert torch.device(index) == torch.device("cpu")
    assert torch.ones(2).to(index).device.type == "cpu"
    assert torch.empty(1, device=index).device.type == "cpu"


def test_index_formats_as_a_number() -> None:
    index = DeviceIndex()
    assert f"cpu:{index}" == "cpu:0"
    assert f"{index:>3}" == "  0"
    assert int(index) == 0
    assert ["first"][index] == "first"
    assert torch.empty(1, device=f"cpu:{index}").device.type == "cpu"


def test_module_has_whatever_verl_asks_of_a_device_module() -> None:
    sources = Path(verl.__file__).parent.rglob("*.py")
    pattern = re.compile(r"get_torch_device\(\)\.(\w+)")
    asked = {name for source in sources for name in pattern.findall(source.read_text(encoding="utf-8"))}
    assert len(asked) > 10
    assert [name for name in sorted(asked) if not hasattr(device_module, name)] == []


def test_unknown_name_says_where_it_was_looked_for() -> None:
    with pytest.raises(AttributeError, match=r"neither speciarl\.cpu\.device_module nor torch\.cpu has 'warp_speed'"):
        device_module.warp_speed  # noqa: B018


def test_memory_is_the_machines() -> None:
    free, total = device_module.mem_get_info()
    assert 0 < free <= total
    assert device_module.memory_allocated() == 0


def test_random_state_is_saved_and_restored() -> None:
    device_module.manual_seed(3)
    state = device_module.get_rng_state()
    first = torch.rand(4)
    device_module.set_rng_state(state)
    assert torch.equal(first, torch.rand(4))

"""Runs on installations with and without flash-attention: what recipes set, what is refused, and who says so."""

import copy
import importlib.machinery
import importlib.util
import sys
from typing import Any

import pytest
from composed_run import composed
from omegaconf import DictConfig, OmegaConf

from speciarl import flash_attention
from speciarl.cpu import stack
from speciarl.doctor import Level, packages
from speciarl.errors import ConfigError
from speciarl.training.preflight import checks
from speciarl.training.preflight.attention import attention_notice, check_attention

MAIN, LAPTOP = "+recipe=speciarl", "+recipe=[speciarl,laptop]"


def model(recipe: str, **overrides: Any) -> DictConfig:
    """The configuration of a run; `overrides`: keys of its model."""
    config = copy.deepcopy(composed(recipe))
    config.actor_rollout_ref.model = OmegaConf.merge(config.actor_rollout_ref.model, overrides)
    return config


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of modules that can be found beside the real ones; flash-attention and torch_npu are hidden at first."""
    names: set[str] = set()
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        if name in names:
            return importlib.machinery.ModuleSpec(name, None)
        return None if name in ("flash_attn", "flash_attn_2_cuda", "torch_npu") else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    return names


def test_nothing_is_imported_to_tell(installed: set[str]) -> None:
    installed.add("flash_attn_2_cuda")
    assert flash_attention.installed()
    assert "flash_attn_2_cuda" not in sys.modules


def test_another_package_of_that_name_does_not_count(installed: set[str]) -> None:
    installed.add("flash_attn")
    assert not flash_attention.installed()
    installed.add("torch_npu")
    assert flash_attention.installed()


@pytest.mark.parametrize(("there", "packing", "attention"), [(True, True, "flash_attention_2"), (False, False, "sdpa")])
def test_main_recipe_packs_only_with_flash_attention(
    installed: set[str], there: bool, packing: bool, attention: str
) -> None:
    installed.update(["flash_attn_2_cuda"] if there else [])
    config = model(MAIN)
    chosen = config.actor_rollout_ref.model
    assert (chosen.use_remove_padding, chosen.override_config.attn_implementation) == (packing, attention)
    # Everywhere that veRL reads it from.
    assert config.actor_rollout_ref.actor.use_remove_padding == packing
    check_attention(config)


@pytest.mark.parametrize("there", [True, False])
def test_laptop_never_packs(installed: set[str], there: bool) -> None:
    installed.update(["flash_attn_2_cuda"] if there else [])
    config = model(LAPTOP)
    chosen = config.actor_rollout_ref.model
    assert (chosen.use_remove_padding, chosen.override_config.attn_implementation) == (False, "sdpa")
    check_attention(config)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"use_remove_padding": True}, "model.use_remove_padding=True: "),
        ({"override_config": {"attn_implementation": "flash_attention_2"}}, "attn_implementation=flash_attention_2: "),
    ],
)
def test_what_needs_it_is_refused_in_one_line(installed: set[str], overrides: dict[str, Any], key: str) -> None:
    config = model(MAIN, **overrides)
    with pytest.raises(ConfigError, match=r"flash-attention.* not installed") as caught:
        check_attention(config)
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)
    installed.add("flash_attn_2_cuda")
    check_attention(config)


def test_verls_default_attention_is_refused_too(installed: set[str]) -> None:
    config = model(LAPTOP)
    OmegaConf.set_struct(config, False)
    del config.actor_rollout_ref.model.override_config["attn_implementation"]
    with pytest.raises(ConfigError, match="set it to sdpa"):
        check_attention(config)


def test_run_on_gpus_without_it_is_told_and_goes_on(
    installed: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checks, "check_run", lambda config: None)
    for on_cpu, there, lines in ((False, False, 1), (False, True, 0), (True, False, 0)):
        monkeypatch.setattr(stack, "active", lambda on_cpu=on_cpu: on_cpu)
        installed.clear()
        installed.update(["flash_attn_2_cuda"] if there else [])
        checks.Preflight().on_job_start(model(MAIN))
        said = capsys.readouterr().err.splitlines()
        assert len(said) == lines
        assert all(line == f"speciarl: {attention_notice()}" and "sdpa" in line for line in said)


def test_doctor_says_it_in_one_line(installed: set[str]) -> None:
    [found] = packages.flash_attention("gpu")
    assert found.level is Level.WARNING
    assert "sdpa" in found.detail
    assert "docs/install.md" in found.remedy
    installed.add("flash_attn_2_cuda")
    [found] = packages.flash_attention("gpu")
    assert found.level is Level.OK
    assert list(packages.flash_attention("cpu")) == []

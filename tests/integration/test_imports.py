"""Fresh processes that import veRL with and without our plug-in, and torchvision with and without our shim."""

import subprocess
import sys

import torch

from speciarl.cpu import stack
from speciarl.hydra_support import resolvers


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, away from the checkout, with a bare environment."""
    bare = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd="/", env={**bare, **environment}
    )


def test_import_verl_is_enough_and_stays_lean() -> None:
    result = run(
        "import os, sys, verl\n"
        "from speciarl.plugin import ACTIVATION\n"
        f"assert ACTIVATION.on_cpu is {stack.active()}\n"
        "assert ACTIVATION.environment.items() <= os.environ.items()\n"
        f"assert os.environ.get('VERL_ENGINE_DEVICE') == {'cuda' if stack.active() else None!r}\n"
        "assert os.environ['OMP_NUM_THREADS'] == '7'  # a user's choice\n"
        "assert 'VERL_PLATFORM' not in os.environ\n"
        f"from verl.utils.device import get_device_name; assert get_device_name() == {resolvers.device()!r}\n"
        "heavy = ['hydra', 'vllm', 'verl.trainer.ppo.v1', 'speciarl.training', 'speciarl.verifier_server']\n"
        "assert not [name for name in heavy if name in sys.modules], sorted(sys.modules)\n"
        "import verl.trainer.ppo.v1\n"
        "assert 'speciarl.training.trainer.trainer' in sys.modules  # registered, now that somebody trains\n"
        "print('fine')",
        OMP_NUM_THREADS="7",
    )
    assert result.stdout == "fine\n", result.stderr


def test_without_plugins_verl_is_as_shipped() -> None:
    result = run(
        "import sys, verl\nassert not [name for name in sys.modules if name.startswith('speciarl')]\nprint('fine')",
        VERL_USE_EXTERNAL_PLUGINS="none",
    )
    assert result.stdout == "fine\n", result.stderr


def import_torchvision(prelude: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys\n{prelude}\nimport torchvision.transforms.v2\nprint(torchvision.__version__)"
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=120)


def test_real_torchvision_is_imported_with_it_and_if_built_for_cuda_not_without() -> None:
    helped = import_torchvision("")
    assert helped.returncode == 0, helped.stderr
    needed = torch.version.cuda is None and "+cu" in helped.stdout
    without = "sys.meta_path = [one for one in sys.meta_path if type(one).__module__ != 'torchvision_cpu_shim']"
    alone = import_torchvision(without)
    assert ("operator torchvision::nms does not exist" in alone.stderr) is needed

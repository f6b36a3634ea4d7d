"""Lets a CUDA build of torchvision be imported beside a CPU build of torch.

Some package indexes carry torchvision for CUDA only. Its compiled extension needs libraries of CUDA torch; without
them torchvision goes on with no operators, until it attaches shape functions to two of them ("operator
torchvision::nms does not exist"). Image transforms, which is all that transformers, vLLM and qwen_vl_utils use, are
pure Python. So the two operators are declared, without an implementation: calling one still fails, and says so.

Started by a .pth file in every interpreter of the environment, so it must be cheap and must never fail: it imports
only importlib, and acts only when torchvision itself is imported, its operators are missing and torch is a CPU build.
"""

import importlib.util
import sys

_MODULE = "torchvision.extension"
_OPERATORS = (
    ("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
    ("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
)


def declare_missing_operators(extension):
    """Declare the operators if the imported module ``torchvision.extension`` found none and torch is a CPU build.

    Returns:
        Whether they were declared.
    """
    import torch

    if extension._has_ops() or torch.version.cuda is not None or torch.version.hip is not None:
        return False
    for name, schema in _OPERATORS:
        torch.library.define(name, schema)
    return True


class _Loader:
    """The module's own loader, followed by the declaration."""

    def __init__(self, inner):
        self._inner = inner

    def create_module(self, spec):
        return self._inner.create_module(spec)

    def exec_module(self, module):
        self._inner.exec_module(module)
        declare_missing_operators(module)


class Finder:
    """Finds one module once, then steps out of the way."""

    def find_spec(self, name, path=None, target=None):
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


sys.meta_path.insert(0, Finder())

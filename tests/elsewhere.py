"""A device that is not the CPU, for machines that have no other.

Its tensors hold tensors of the CPU, and refuse to meet one that is on the CPU itself, as a GPU's do.
"""

from contextlib import contextmanager

import torch
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

ELSEWHERE = torch.device("meta")  # gradients of what is there are taken in the thread that asks
MEETING = {"aten::_to_copy", "aten::copy_", "aten::index"}  # copies, and indices from the CPU, as for a GPU


class Elsewhere(torch.Tensor):
    @staticmethod
    def __new__(cls, held, requires_grad=False):
        there = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=ELSEWHERE, requires_grad=requires_grad
        )
        there.held = held
        return there

    def __init__(self, held, requires_grad=False):
        pass

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), named=None):
        return _run(function, arguments, named or {})


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        return _run(function, arguments, named or {})


def _run(function, arguments, named):
    tensors = [leaf for leaf in tree_iter((arguments, named)) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    if there and function._schema.name not in MEETING:
        strangers = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.ndim > 0]
        assert not strangers, f"{function}: tensors of two devices"
    goes_there = torch.device(named.get("device") or (ELSEWHERE if there else "cpu")) == ELSEWHERE
    if named.get("device"):
        named = {**named, "device": torch.device("cpu")}
    arguments, named = tree_map_only(Elsewhere, lambda tensor: tensor.held, (arguments, named))
    result = function(*arguments, **named)
    if not goes_there:
        return result
    known = {id(tensor.held): tensor for tensor in there}  # what an operation in place gives back
    return tree_map_only(torch.Tensor, lambda held: known[id(held)] if id(held) in known else Elsewhere(held), result)


@contextmanager
def elsewhere(monkeypatch):
    """Within, ``device=ELSEWHERE`` and ``.to(ELSEWHERE)`` lead there."""
    supported = [*optimizer._get_fused_kernels_supported_devices(), ELSEWHERE.type]
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: supported)
    monkeypatch.setattr(torch.__future__, "get_swap_module_params_on_conversion", lambda: True)
    with _Dispatch():
        yield

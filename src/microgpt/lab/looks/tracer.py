"""Every operation of the model as it runs, in order: no second implementation, the model's own functions are heard.

PyTorch calls a `TorchFunctionMode` for each of its functions, with the tensors that go in; what comes out becomes a
node. A tensor is known again by its identity.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from microgpt.model.gpt import GPT, Norm

RESIDUALS = ("attn_residual", "mlp_residual")


@dataclass
class Operation:
    """A node: a parameter, an input, or the result of a function.

    Attributes:
        name: such as `layer0.attn_wq`.
        op: the function's name, `parameter` or `input`.
        layer: that it belongs to.
        output: the tensor, in the graph of autograd.
        inputs: nodes that went in, in the order of the arguments.
        call: the function and its arguments; None for parameters and inputs.
        forward, backward: places in the two orders.
        gradient: of the loss, once backward has run.
    """

    name: str
    op: str
    layer: int | None
    output: Tensor
    inputs: list[int] = field(default_factory=list[int])
    call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = None
    forward: int | None = None
    backward: int | None = None
    gradient: Tensor | None = None


def op_name(function: Callable[..., Any]) -> str:
    """What people call a function of torch: `add` for `Tensor.__add__`."""
    name = getattr(function, "__name__", "op")
    plain = name.strip("_")
    reflected = name.startswith("__r") and plain[1:] in ("add", "mul", "sub", "truediv")
    return (plain[1:] if reflected else plain).replace("truediv", "div")


class Trace(TorchFunctionMode):
    """Records the operations of one forward pass, and with `nudge` changes one result on the way.

    Args:
        model: that is going to run.
        nudge: number of an operation (counted in the forward order) and what is added to its result.
    """

    def __init__(self, model: GPT, nudge: tuple[int, Tensor] | None = None) -> None:
        super().__init__()
        self.model, self.nudge = model, nudge
        self.operations: list[Operation] = []
        self._known: dict[int, int] = {}
        self._kept: list[Tensor] = []  # identities stay taken while the trace lives
        self._parameters = {id(p): n for n, p in model.named_parameters()}
        self._scopes: list[str] = []
        self._counts: dict[str, int] = {}
        self._done = self._ready = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor) or not result.is_floating_point() or func.__name__ == "__get__":
            return result
        given = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor) and t.is_floating_point()]
        if not any(id(t) in self._known or id(t) in self._parameters for t in given):
            return result  # masks and rotary factors: made of no weight
        if any(result is t for t in given):
            return result  # a change of format that changes nothing
        if self.nudge is not None and self.nudge[0] == self._done:
            result = result + self.nudge[1]
        inputs = [self._place(t) for t in given]
        scope = self._scopes[-1] if self._scopes else ""
        operation = Operation(
            self._named(func, args, scope), op_name(func), self._layer(scope), result, inputs, (func, args, kwargs)
        )
        operation.forward, self._done = self._done, self._done + 1
        self._add(operation)
        return result

    def _place(self, tensor: Tensor) -> int:
        """The node of a tensor; one that is not known yet is a parameter, or comes from outside."""
        if id(tensor) not in self._known:
            name = self._parameters.get(id(tensor))
            layer = self._layer(name or "")
            kind = "input" if name is None else "parameter"
            self._add(Operation(name or f"input{len(self.operations)}", kind, layer, tensor))
        return self._known[id(tensor)]

    def _add(self, operation: Operation) -> None:
        tensor = operation.output
        self._known[id(tensor)] = len(self.operations)
        self._kept.append(tensor)
        self.operations.append(operation)
        if tensor.requires_grad:

            def ready(gradient: Tensor, operation: Operation = operation) -> None:
                operation.gradient = gradient
                operation.backward, self._ready = self._ready, self._ready + 1

            handle: Any = tensor.register_hook(ready)
            if operation.op == "parameter":
                self._handles.append(handle)

    @property
    def _handles(self) -> list[Any]:
        return self.__dict__.setdefault("handles", [])

    def release(self) -> None:
        """Take the hooks off the parameters."""
        for handle in self._handles:
            handle.remove()

    @staticmethod
    def _layer(name: str) -> int | None:
        head = name.partition(".")[0]
        return int(head.removeprefix("layer")) if head.startswith("layer") else None

    def _named(self, func: Any, args: Any, scope: str) -> str:
        op = op_name(func)
        for tensor in tree_flatten(args)[0]:
            if isinstance(tensor, Tensor) and id(tensor) in self._parameters and op in ("linear", "embedding"):
                return self._parameters[id(tensor)]
        if op in ("rms_norm", "layer_norm"):
            return scope
        if op == "scaled_dot_product_attention":
            return f"{scope}.attention"
        count = self._counts[f"{scope} {op}"] = self._counts.get(f"{scope} {op}", 0) + 1
        if op == "add" and self._layer(scope) is not None and scope.count(".") == 0:
            return f"{scope}.{RESIDUALS[min(count, 2) - 1]}"
        if op == "add" and not scope:
            return "embedding"
        return f"{scope}.{op}{count}" if scope else f"{op}{count}"

    @contextmanager
    def _scoped(self) -> Generator[None]:
        """Know which layer and norm is running."""
        hooks: list[Any] = []

        def entered(name: str, module: nn.Module, inputs: Any) -> None:
            self._scopes.append(name)

        def left(module: nn.Module, inputs: Any, output: Any) -> None:
            self._scopes.pop()

        for name, module in self.model.named_modules():
            if isinstance(module, Norm) or name.startswith("layer"):
                hooks.append(module.register_forward_pre_hook(partial(entered, name)))
                hooks.append(module.register_forward_hook(left))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def listening(self) -> Generator[Trace]:
        """Record what runs in the block."""
        with self._scoped(), self:
            yield self


@dataclass(frozen=True)
class Attended:
    """Attention of one layer, float32: queries see keys.

    Attributes:
        weights: [rows, heads, tokens, tokens]; what is not seen is 0.
        logits: scaled scores before the softmax, same shape; what is not seen is -inf.
    """

    weights: Tensor
    logits: Tensor


class Listener(TorchFunctionMode):
    """Hears the attention of every layer and the residual stream between them; nothing is changed.

    Attributes:
        attention: of each layer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention: list[Attended] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            q, k, _ = args
            self.attention.append(attended(q.detach(), k.detach(), kwargs.get("attn_mask")))
        return func(*args, **kwargs)


def attended(q: Tensor, k: Tensor, mask: Tensor | None) -> Attended:
    """Scores and weights of the attention between queries and keys [rows, heads, tokens, width]."""
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    logits = (q @ k.mT / q.shape[-1] ** 0.5).float()
    if mask is None:
        unseen = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        logits = logits.masked_fill(unseen, float("-inf"))
    else:
        logits = logits + mask
    return Attended(torch.softmax(logits, dim=-1), logits)


def rerun(operation: Operation) -> tuple[Tensor, dict[int, Tensor]]:
    """An operation once more, by itself: its result, and its inputs as leaves that gradients end at, by identity."""
    assert operation.call is not None
    function, args, kwargs = operation.call
    leaves: dict[int, Tensor] = {}

    def leaf(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if id(value) not in leaves:
            leaves[id(value)] = value.detach().clone().requires_grad_(True)
        return leaves[id(value)]

    given, named = tree_map(leaf, (args, kwargs))
    return function(*given, **named), leaves

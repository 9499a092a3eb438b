"""The computation of the batch's loss as a graph, down to single numbers and their derivatives."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from microgpt.errors import UsageError
from microgpt.lab.looks.scene import Row, Scene, Tensors, stats
from microgpt.lab.looks.tracer import Operation, Trace, rerun
from microgpt.lab.messages import MOST_NUMBERS
from microgpt.lab.panels import (
    CheckData,
    GraphData,
    GraphParams,
    Node,
    NodeData,
    NodeParams,
    Operand,
    ScalarData,
    ScalarParams,
    Where,
)
from microgpt.model.gpt import GPT

EPSILON = 1e-5
CLOSE = 1e-3


def run(model: GPT, row: Row, scene: Scene, backward: bool, nudge: tuple[int, Tensor] | None = None) -> Trace:
    """The loss of the row's batch through the model, recorded; with backward also every gradient."""
    typed = row.alone is row.batch
    inputs, targets, positions, segments = row.batch
    count = int((targets >= 0).sum()) if typed else scene.target_count()
    trace = Trace(model, nudge)
    with torch.set_grad_enabled(backward):
        with trace.listening():
            loss = model.loss(inputs, targets, positions, segments) / max(1, count)
        if backward:
            loss.backward()
    trace.release()
    model.zero_grad(set_to_none=True)
    return trace


def described(number: int, operation: Operation) -> Node:
    """A node as the page gets it."""
    gradient = operation.gradient
    return Node(
        id=number,
        name=operation.name,
        op=operation.op,
        layer=operation.layer,
        inputs=operation.inputs,
        shape=list(operation.output.shape),
        forward=operation.forward,
        backward=operation.backward,
        value=stats(operation.output),
        gradient=None if gradient is None else stats(gradient),
    )


def graph(scene: Scene, params: GraphParams) -> tuple[GraphData, Tensors]:
    """All operations in order."""
    row = scene.rows(params)
    found = run(scene.model, row, scene, backward=True).operations
    nodes = [described(i, operation) for i, operation in enumerate(found)]
    return GraphData(nodes=nodes, loss=float(found[-1].output.detach()), tokens=row.tokens()), {}


def chosen(scene: Scene, params: Where, node: int) -> tuple[Operation, Row, Trace]:
    """A node of the graph with its values and gradients.

    Raises:
        UsageError: there is no such node.
    """
    row = scene.rows(params)
    trace = run(scene.model, row, scene, backward=True)
    if node >= len(trace.operations):
        raise UsageError(f"the graph has no node {node}", f"it has {len(trace.operations)}, from 0")
    return trace.operations[node], row, trace


def node(scene: Scene, params: NodeParams) -> tuple[NodeData, Tensors]:
    """All numbers of a node."""
    operation, row, _ = chosen(scene, params, params.node)
    value, gradient = operation.output.detach(), operation.gradient
    rows = len(row.batch[0])
    per_row = operation.op != "parameter" and value.dim() > 1 and value.shape[0] == rows
    prefix = [row.number] if per_row else []
    if per_row:
        value = value[row.number]
        gradient = None if gradient is None else gradient[row.number]
    cut = value.numel() > MOST_NUMBERS
    if cut:
        value = value.flatten()[:MOST_NUMBERS]
        gradient = None if gradient is None else gradient.flatten()[:MOST_NUMBERS]
    shape = list(operation.output.shape)
    described_node = described(params.node, operation)
    data = NodeData(node=described_node, shape=shape, shown=list(value.shape), prefix=prefix, cut=cut)
    return data, {"value": value} | ({} if gradient is None else {"gradient": gradient})


def place(operation: Operation, index: Sequence[int]) -> tuple[int, ...]:
    """An index into a node.

    Raises:
        UsageError: it is outside.
    """
    shape = list(operation.output.shape)
    if len(index) != len(shape) or any(i >= n for i, n in zip(index, shape)):
        raise UsageError(f"there is no number at {list(index)}", f"the node has the shape {shape}")
    return tuple(index)


def scalar(scene: Scene, params: ScalarParams) -> tuple[ScalarData, Tensors]:
    """One number: its value, its gradient and what it is made of."""
    operation, _, trace = chosen(scene, params, params.node)
    at = place(operation, params.index)
    upstream = None if operation.gradient is None else float(operation.gradient[at])
    operands: list[Operand] = []
    count = 0
    if operation.call is not None:
        with torch.enable_grad():
            result, leaves = rerun(operation)
            numbers = {id(trace.operations[i].output): i for i in operation.inputs}
            wanted = [(numbers[key], leaf) for key, leaf in leaves.items() if key in numbers]
            given: Any = torch.autograd.grad(result[at], [leaf for _, leaf in wanted], allow_unused=True)
            derivatives: tuple[Tensor | None, ...] = given
        for (source, leaf), local in zip(wanted, derivatives):
            if local is None:
                continue
            flat = local.flatten()
            count += int((flat != 0).sum())
            values, places = torch.topk(flat.abs(), min(params.count, len(flat)))
            for size, spot in zip(values.tolist(), places.tolist()):
                if size:
                    inside = [int(i) for i in torch.unravel_index(torch.tensor(spot), local.shape)]
                    slope = float(flat[spot])
                    operands.append(
                        Operand(
                            node=source,
                            name=trace.operations[source].name,
                            index=inside,
                            value=float(leaf.detach().flatten()[spot]),
                            local=slope,
                            flow=slope * (upstream or 0.0),
                        )
                    )
    operands.sort(key=lambda o: -abs(o.local))
    data = ScalarData(
        node=params.node,
        name=operation.name,
        op=operation.op,
        index=list(at),
        value=float(operation.output.detach()[at]),
        gradient=upstream,
        operands=operands[: params.count],
        operand_count=count,
    )
    return data, {}


def check(scene: Scene, params: ScalarParams) -> tuple[CheckData, Tensors]:
    """A gradient against a central difference of the loss in float64."""
    operation, row, _ = chosen(scene, params, params.node)
    at = place(operation, params.index)
    if operation.gradient is None:
        raise UsageError(f"no gradient reaches {operation.name}", "choose a parameter or a result on the way")
    exact_model = copy.deepcopy(scene.model).double()
    exact = run(exact_model, row, scene, backward=True).operations[params.node]
    assert exact.gradient is not None
    number, output = exact.forward, exact.output.detach()
    step = EPSILON * max(1.0, abs(float(output[at])))
    losses: list[float] = []
    for sign in (1.0, -1.0):
        if number is None:  # a parameter
            with torch.no_grad():
                exact_model.get_parameter(operation.name)[at] += sign * step
            trace = run(exact_model, row, scene, backward=False)
            with torch.no_grad():
                exact_model.get_parameter(operation.name)[at] -= sign * step
        else:
            nudge = torch.zeros_like(output)
            nudge[at] = sign * step
            trace = run(exact_model, row, scene, backward=False, nudge=(number, nudge))
        losses.append(float(trace.operations[-1].output))
    numeric = (losses[0] - losses[1]) / (2 * step)
    gradient = float(operation.gradient[at])
    error = abs(gradient - numeric) / max(abs(gradient), abs(numeric), 1e-6)
    data = CheckData(
        node=params.node,
        name=operation.name,
        index=list(at),
        gradient=gradient,
        exact=float(exact.gradient[at]),
        numeric=numeric,
        epsilon=step,
        error=error,
        ok=error < CLOSE,
    )
    return data, {}

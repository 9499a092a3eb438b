"""Prior art E's `train_step` event: the forward pass of a step's first row, token by token."""

from __future__ import annotations

from typing import Any

import torch

from microgpt.lab.learner import Learner, Stepped
from microgpt.lab.looks.scene import Scene, token_text
from microgpt.lab.looks.tokens import heard
from microgpt.lab.messages import HeadEvent, LayerEvent, Sequence, TokenEvent, TrainStep
from microgpt.lab.panels import Where

TOP = 5
#: token events of longer rows would be megabytes a step
MOST_EVENTS = 64


@torch.no_grad()
def events_before(learner: Learner) -> dict[str, Any]:
    """The parts of the event that are of the weights before the update; the learner is left as it was."""
    model = learner.model
    training = model.training
    model.eval()
    scene = Scene(model, learner.step, learner, lambda: None)
    row = scene.rows(Where(row=0))
    logits, weights, scores = heard(model, row)
    model.train(training)
    inputs, targets = (t[0].tolist() for t in row.cut[:2])
    chances = torch.softmax(logits, dim=-1)
    tokenizer = scene.tokenizer

    def text(token: int) -> str:
        return token_text(tokenizer, token) if token >= 0 else ""

    events: list[TokenEvent] = []
    for pos in range(min(len(inputs), MOST_EVENTS)):
        layers = [
            LayerEvent(
                layer=layer,
                heads=[
                    HeadEvent(
                        head=head,
                        weights=weights[layer, head, pos, : pos + 1].tolist(),
                        logits=[number(v) for v in scores[layer, head, pos, : pos + 1].tolist()],
                    )
                    for head in range(weights.shape[1])
                ],
            )
            for layer in range(len(weights))
        ]
        event = TokenEvent(
            pos=pos,
            input_token_id=inputs[pos],
            input_token=text(inputs[pos]),
            target_token_id=targets[pos],
            target_token=text(targets[pos]),
            top_probs=scene.likely(chances[pos], TOP),
            attention=layers,
        )
        events.append(event)
    whole = [*inputs, targets[-1]] if targets[-1] >= 0 else inputs
    return {
        "doc": tokenizer.decode(whole),
        "sequence": Sequence(token_ids=whole, tokens=[text(t) for t in whole]),
        "token_events": events,
        "last_token_event": events[-1] if events else None,
    }


def train_step(done: Stepped, end: int, moved: float | None, before: dict[str, Any]) -> dict[str, Any]:
    """The whole event as JSON.

    Args:
        done: the step.
        end: the last step.
        moved: mean of |change| over all parameters.
        before: of `events_before`.
    """
    event = TrainStep(
        step=done.step,
        num_steps=end,
        step_time_ms=done.step_ms,
        progress=min(1.0, done.step / end),
        steps_remaining=max(0, end - done.step),
        loss=number(done.loss),
        learning_rate=done.learning_rate,
        grad_norm=number(done.grad_norm),
        mean_abs_update=moved,
        **before,
    )
    return event.model_dump(mode="json")


def number(value: float) -> float | None:
    """A number as JSON has it: None where it is not finite."""
    return value if abs(value) < float("inf") else None

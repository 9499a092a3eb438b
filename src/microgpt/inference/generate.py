"""Drawing text from a model with PyTorch: prefill, then a token at a time with a KV cache."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microgpt.config.schema import SamplingConfig
from microgpt.errors import UsageError
from microgpt.model.gpt import GPT, Cache
from microgpt.tokenizer.base import Tokenizer

COLDEST = 1e-6  # below it logits over temperature leave the numbers, and the likeliest token always wins


@dataclass(frozen=True)
class Sample:
    """One generated text.

    Attributes:
        prompt: what it goes on from.
        text: what the model wrote.
        tokens: how many tokens that was.
        finish: `end` (the model ended it), `stop` (a stop text came) or `length`.
    """

    prompt: str
    text: str
    tokens: int
    finish: str


def filtered(logits: Tensor, recent: Sequence[int], sampling: SamplingConfig) -> Tensor:
    """Logits of one position after penalty, temperature, top-k, top-p and min-p; dropped tokens are -inf.

    Args:
        logits: shape [vocab_size].
        recent: ids that the repetition penalty looks at.
        sampling: the settings; temperature must be above 0.
    """
    logits = penalised(logits, recent, sampling.repetition_penalty) / sampling.temperature
    if 0 < sampling.top_k < logits.numel():
        lowest = torch.topk(logits, sampling.top_k).values[-1]
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    if sampling.top_p < 1 or sampling.min_p > 0:
        probabilities = torch.softmax(logits, dim=-1)
        if sampling.top_p < 1:
            ordered, order = torch.sort(probabilities, descending=True, stable=True)
            before = ordered.cumsum(0) - ordered  # a token stays while those before it have less than top_p
            logits = logits.index_fill(0, order[before >= sampling.top_p], -torch.inf)
        if sampling.min_p > 0:
            logits = logits.masked_fill(probabilities < sampling.min_p * probabilities.max(), -torch.inf)
    return logits


def penalised(logits: Tensor, recent: Sequence[int], penalty: float) -> Tensor:
    """Make recent tokens less likely (Keskar et al. 2019, arXiv:1909.05858): divide a positive logit by the
    penalty, multiply a negative one."""
    if penalty == 1 or not recent:
        return logits
    ids = torch.tensor(sorted(set(recent)), device=logits.device)
    chosen = logits[ids]
    return logits.index_copy(0, ids, torch.where(chosen > 0, chosen / penalty, chosen * penalty))


def pick(logits: Tensor, recent: Sequence[int], sampling: SamplingConfig, generator: torch.Generator) -> int:
    """One token from the logits [vocab_size] of a position. Temperature 0, or next to it, takes the likeliest."""
    if sampling.temperature < COLDEST:
        return int(penalised(logits, recent, sampling.repetition_penalty).argmax())
    probabilities = torch.softmax(filtered(logits, recent, sampling), dim=-1).cpu()
    return int(torch.multinomial(probabilities, 1, generator=generator))


@torch.inference_mode()
def generated_tokens(
    model: GPT, prompt: Sequence[int], sampling: SamplingConfig, end: Sequence[int], seed: int
) -> Generator[int, None, int | None]:
    """Ids that the model draws after a prompt, until an end token, the length limit or a full context.

    Args:
        model: in evaluation mode.
        prompt: at least one id, fewer than block_size.
        sampling: how to draw.
        end: ids that end the text; they are not yielded.
        seed: of this sequence.

    Returns:
        The end token that was drawn, or None where the limit or the context ended the text.
    """
    device, block = model.wte.device, model.config.block_size
    generator = torch.Generator().manual_seed(seed)
    cache = Cache(model.config, 1, device, model.wte.dtype)
    history = list(prompt)
    logits = model(torch.tensor([history], device=device), cache=cache)[0, -1].float()
    for count in range(sampling.max_new_tokens):
        if count < sampling.min_new_tokens:
            logits = logits.index_fill(0, torch.tensor(list(end), device=device), -torch.inf)
        recent = history[-sampling.repeat_last_n :] if sampling.repeat_last_n else []
        token = pick(logits, recent, sampling, generator)
        if token in end:
            return token
        history.append(token)
        yield token
        if cache.length >= block:
            return None
        logits = model(torch.tensor([[token]], device=device), cache=cache)[0, -1].float()
    return None


def generate(
    model: GPT, tokenizer: Tokenizer, sampling: SamplingConfig, prompt: str = "", samples: int | None = None
) -> Iterator[Sample]:
    """Texts that go on from a prompt; the i-th is drawn with seed `sampling.seed + i`.

    Raises:
        UsageError: the prompt does not fit into the context.
    """
    ids = [tokenizer.bos, *(tokenizer.encode(prompt) if prompt else [])]
    if len(ids) >= model.config.block_size:
        raise UsageError(
            f"the prompt has {len(ids)} tokens, the context holds {model.config.block_size}",
            "shorten the prompt",
        )
    training = model.training
    model.eval()
    try:
        for i in range(sampling.num_samples if samples is None else samples):
            drawn: list[int] = []
            finish = "end"
            text = ""
            for token in generated_tokens(model, ids, sampling, [tokenizer.bos], sampling.seed + i):
                drawn.append(token)
                if sampling.stop:
                    text = tokenizer.decode(drawn)
                    at = min((p for s in sampling.stop if s and (p := text.find(s)) >= 0), default=-1)
                    if at >= 0:
                        text, finish = text[:at], "stop"
                        break
            if finish != "stop":
                text = tokenizer.decode(drawn)
                full = len(ids) + len(drawn) > model.config.block_size or len(drawn) >= sampling.max_new_tokens
                finish = "length" if full else "end"
            yield Sample(prompt, text, len(drawn), finish)
    finally:
        model.train(training)

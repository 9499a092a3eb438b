"""What is told of a run before it starts agrees with the model that is then made."""

from __future__ import annotations

import pytest

from microgpt.config.compose import compose
from microgpt.config.schema import ModelConfig
from microgpt.model.gpt import GPT
from microgpt.training.estimate import estimate, flops_per_token, guessed_vocabulary


@pytest.mark.parametrize("preset", ["micro", "micro_first", "tiny", "nanogpt_shakespeare"])
def test_parameters_and_operations_are_the_models_own(preset: str) -> None:
    config = compose([f"model={preset}", "tokenizer=bpe", "tokenizer.vocab_size=300", "model.dropout=0"])
    model = GPT(config.model, 300)
    found = estimate(config, 100_000)
    assert found.vocab_size == 300
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.flops_per_token == model.flops_per_token()


def test_a_tied_head_counts_once() -> None:
    model = ModelConfig(tied=True)
    assert flops_per_token(model, 300) == GPT(model, 300).flops_per_token()


def test_more_of_everything_costs_more() -> None:
    small, large = (estimate(compose([f"model={m}", "trainer.max_steps=100"]), 10**6) for m in ("tiny", "small"))
    assert large.parameters > small.parameters
    assert large.memory_bytes > small.memory_bytes
    assert large.seconds > small.seconds
    quick = estimate(compose(["model=tiny", "trainer.max_steps=100"]), 10**6, flops_per_s=1e12)
    assert quick.seconds < small.seconds


def test_the_vocabulary_is_guessed_by_its_kind() -> None:
    assert guessed_vocabulary(compose(["tokenizer=char"]), 1000, 26) == 27
    assert guessed_vocabulary(compose(["tokenizer.vocab_size=700"]), 1000) == 700
    assert guessed_vocabulary(compose([]), 10**7) == 4096

"""The model against finite differences, against a second way of writing it, and its promise to look
at no future token."""

from __future__ import annotations

import math
from random import Random

import pytest

from microgpt.reference import (
    GPT,
    Cache,
    Config,
    Value,
    cross_entropy,
    from_arrays,
    rms_norm,
    softmax,
    to_arrays,
)
from microgpt.reference.gpt import Activation, Init

REVISIONS: list[tuple[Activation, Init]] = [("relu", "current"), ("relu2", "first")]


def small_model(seed: int, activation: Activation = "relu", init: Init = "current") -> GPT:
    """A random small shape whose weights are large enough for every path to matter.

    (The first weights of `first` are zero in places, where most gradients would be zero too.)
    """
    rng = Random(seed)
    n_head = rng.choice([1, 2, 3])
    config = Config(
        n_embd=n_head * rng.choice([1, 2]),
        n_head=n_head,
        n_layer=rng.choice([1, 2]),
        block_size=rng.choice([4, 5]),
        vocab_size=rng.choice([3, 5]),
        activation=activation,
        init=init,
    )
    model = GPT.initial(config, rng)
    for weight in model.parameters():
        weight.data = rng.gauss(0.0, 0.7)
    return model


def tokens_for(model: GPT, seed: int, length: int | None = None) -> list[int]:
    rng = Random(seed)
    return [rng.randrange(model.config.vocab_size) for _ in range(length or model.config.block_size + 1)]


def run_through(model: GPT, tokens: list[int]) -> list[list[float]]:
    cache = Cache(model.config.n_layer)
    return [[x.data for x in model.forward(token, i, cache)] for i, token in enumerate(tokens)]


@pytest.mark.parametrize("activation, init", REVISIONS)
@pytest.mark.parametrize("seed", range(6))
def test_gradients_of_the_whole_loss_match_finite_differences(seed: int, activation: Activation, init: Init) -> None:
    model = small_model(seed, activation, init)
    tokens = tokens_for(model, seed)
    model.loss(tokens).backward()
    h = 1e-5
    for weight in model.parameters():
        there = weight.data
        weight.data = there + h
        above = model.loss(tokens).data
        weight.data = there - h
        below = model.loss(tokens).data
        weight.data = there
        assert weight.grad == pytest.approx((above - below) / (2 * h), rel=1e-4, abs=1e-7)


def whole_text_at_once(model: GPT, tokens: list[int]) -> list[list[float]]:
    """The same model once more: plain floats, all positions at a time, a mask in place of a cache."""
    weights, config = to_arrays(model), model.config

    def times(matrix: list[list[float]], x: list[float]) -> list[float]:
        return [math.fsum(w * v for w, v in zip(row, x)) for row in matrix]

    def norm(x: list[float]) -> list[float]:
        return [v / math.sqrt(math.fsum(u * u for u in x) / len(x) + 1e-5) for v in x]

    def plus(a: list[float], b: list[float]) -> list[float]:
        return [u + v for u, v in zip(a, b)]

    size, count = config.n_embd // config.n_head, len(tokens)
    stream = [norm(plus(weights["wte"][t], weights["wpe"][i])) for i, t in enumerate(tokens)]
    for layer in range(config.n_layer):
        wq, wk, wv, wo = (weights[f"layer{layer}.attn_{name}"] for name in ("wq", "wk", "wv", "wo"))
        normed = [norm(x) for x in stream]
        q, k, v = ([times(matrix, x) for x in normed] for matrix in (wq, wk, wv))
        mixed = [[0.0] * config.n_embd for _ in tokens]
        for head in range(config.n_head):
            columns = range(head * size, (head + 1) * size)
            for i in range(count):
                powers = [
                    math.exp(sum(q[i][c] * k[j][c] for c in columns) / math.sqrt(size)) if j <= i else 0.0
                    for j in range(count)
                ]
                for c in columns:
                    mixed[i][c] = sum(powers[j] * v[j][c] for j in range(count)) / sum(powers)
        stream = [plus(x, times(wo, m)) for x, m in zip(stream, mixed)]
        for i, x in enumerate(stream):
            hidden = [max(0.0, u) for u in times(weights[f"layer{layer}.mlp_fc1"], norm(x))]
            if config.activation == "relu2":
                hidden = [u * u for u in hidden]
            stream[i] = plus(x, times(weights[f"layer{layer}.mlp_fc2"], hidden))
    return [times(weights["lm_head"], x) for x in stream]


@pytest.mark.parametrize("activation, init", REVISIONS)
@pytest.mark.parametrize("seed", range(6))
def test_token_by_token_equals_the_whole_text_at_once(seed: int, activation: Activation, init: Init) -> None:
    model = small_model(seed, activation, init)
    tokens = tokens_for(model, seed, model.config.block_size)
    for one, other in zip(run_through(model, tokens), whole_text_at_once(model, tokens), strict=True):
        assert one == pytest.approx(other, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("activation, init", REVISIONS)
@pytest.mark.parametrize("seed", range(4))
def test_later_tokens_change_no_earlier_logit_and_earlier_ones_change_later_logits(
    seed: int, activation: Activation, init: Init
) -> None:
    model = small_model(seed, activation, init)
    tokens = tokens_for(model, seed, model.config.block_size)
    before = run_through(model, tokens)
    for changed in range(len(tokens)):
        other = list(tokens)
        other[changed] = (other[changed] + 1) % model.config.vocab_size
        after = run_through(model, other)
        assert after[:changed] == before[:changed]
        # RMSNorm leaves of a vector of width 1 little but its sign, so there two tokens may coincide.
        if model.config.n_embd > 1:
            assert all(a != b for a, b in zip(after[changed:], before[changed:]))


@pytest.mark.parametrize("activation, init", REVISIONS)
def test_the_loss_of_a_position_sends_no_gradient_to_later_positions(activation: Activation, init: Init) -> None:
    model = small_model(1, activation, init)
    tokens = tokens_for(model, 1)
    cache = Cache(model.config.n_layer)
    logits = [model.forward(token, i, cache) for i, token in enumerate(tokens[:-1])]
    cross_entropy(logits[1], tokens[2]).backward()
    touched = [any(value.grad for value in row) for row in model.state["wpe"]]
    assert touched == [True, True] + [False] * (model.config.block_size - 2)


def test_the_loss_is_the_mean_over_the_predictions_of_the_document() -> None:
    model = small_model(3)
    tokens = tokens_for(model, 3, 4)
    surprises: list[float] = []
    for logits, target in zip(run_through(model, tokens[:-1]), tokens[1:]):
        surprises.append(-math.log(softmax([Value(logit) for logit in logits])[target].data))
    assert model.loss(tokens).data == pytest.approx(sum(surprises) / 3, rel=1e-12)


def test_what_exceeds_the_block_is_cut_off() -> None:
    model = small_model(3)
    tokens = tokens_for(model, 3, model.config.block_size + 1)
    assert model.loss([*tokens, 0, 1, 2]).data == model.loss(tokens).data
    assert model.loss(tokens).data != model.loss(tokens[:-1]).data


def test_a_document_of_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="two tokens"):
        small_model(0).loss([0])


@pytest.mark.parametrize(
    "config, count",
    [(Config(), 4192), (Config(block_size=8, activation="relu2", init="first"), 4064)],
)
def test_parameter_counts_of_both_revisions(config: Config, count: int) -> None:
    assert len(GPT.initial(config, Random(0)).parameters()) == count


def test_weights_are_drawn_matrix_by_matrix_and_row_by_row() -> None:
    config = Config(n_embd=4, n_head=2, block_size=2, vocab_size=3, n_layer=2)
    model, rng = GPT.initial(config, Random(7)), Random(7)
    order = ["wte", "wpe", "lm_head"]
    for layer in (0, 1):
        parts = ("attn_wq", "attn_wk", "attn_wv", "attn_wo", "mlp_fc1", "mlp_fc2")
        order += [f"layer{layer}.{part}" for part in parts]
    assert list(model.state) == order
    for name in order:
        for row in model.state[name]:
            assert [value.data for value in row] == [rng.gauss(0, 0.08) for _ in row]


def test_first_starts_with_layers_that_add_nothing() -> None:
    config = Config(init="first", activation="relu2", block_size=8)
    weights = to_arrays(GPT.initial(config, Random(42)))
    for name, rows in weights.items():
        spread = math.sqrt(sum(x * x for row in rows for x in row) / sum(map(len, rows)))
        if name.endswith(("attn_wo", "mlp_fc2")):
            assert spread == 0
        else:
            assert spread == pytest.approx(0.02, rel=0.15)


def test_zero_weights_are_drawn_all_the_same() -> None:
    # The original calls gauss(0, 0) for them; skipping the call would shift all later numbers.
    config = Config(n_embd=2, n_head=1, block_size=1, vocab_size=1, init="first")
    rng, count = Random(5), Random(5)
    GPT.initial(config, rng)
    for rows, columns in config.shapes().values():
        for _ in range(rows * columns):
            count.gauss(0, 1)
    assert rng.random() == count.random()


def test_rms_norm_gives_mean_square_one_and_keeps_direction() -> None:
    normed = [value.data for value in rms_norm([Value(3.0), Value(-4.0)])]
    assert sum(x * x for x in normed) / 2 == pytest.approx(1.0, rel=1e-5)
    assert normed[0] / normed[1] == pytest.approx(-0.75)


def test_rms_norm_of_zeros_is_zeros() -> None:
    assert [value.data for value in rms_norm([Value(0.0), Value(0.0)])] == [0.0, 0.0]


def test_softmax_and_cross_entropy_survive_huge_scores() -> None:
    scores = [Value(1e6), Value(-1e6), Value(1e6)]
    assert [p.data for p in softmax(scores)] == [0.5, 0.0, 0.5]
    assert cross_entropy(scores, 1).data == pytest.approx(2e6)


@pytest.mark.parametrize("token, position", [(-1, 0), (27, 0), (0, -1), (0, 16), (0, 1)])
def test_a_token_or_position_that_does_not_fit_is_refused(token: int, position: int) -> None:
    with pytest.raises(ValueError, match=r"token|position"):
        GPT.initial(Config(), Random(0)).forward(token, position, Cache(1))


def test_config_lists_all_mistakes_at_once() -> None:
    with pytest.raises(ValueError) as caught:
        Config(n_embd=15, n_layer=0, activation="gelu", init="zeros")  # type: ignore[arg-type]
    for word in ("n_embd", "n_layer", "gelu", "zeros"):
        assert word in str(caught.value)


def test_equal_weights_give_equal_losses_after_a_round_trip() -> None:
    model = small_model(2)
    tokens = tokens_for(model, 2)
    assert from_arrays(model.config, to_arrays(model)).loss(tokens).data == model.loss(tokens).data

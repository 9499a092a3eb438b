"""What every variant of the model keeps to: the past does not see the future, documents do not see each other."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from microgpt.config.compose import compose
from microgpt.config.schema import ModelConfig
from microgpt.model.gpt import GPT, Cache, init_std
from microgpt.model.shapes import mlp_width, parameter_shapes

VOCAB = 11
BLOCK = 10
BASE = ModelConfig(
    n_layer=2, n_head=4, n_embd=16, block_size=BLOCK, mlp="gelu", mlp_hidden=24, position="learned", qk_norm=False,
    init="normal", init_std=0.3,
)  # fmt: skip
ROPE = replace(BASE, position="rope")
VARIANTS = {
    "rmsnorm": BASE,
    "rmsnorm_nogain": replace(BASE, norm="rmsnorm_nogain"),
    "layernorm": replace(BASE, norm="layernorm"),
    "layernorm_bias": replace(BASE, norm="layernorm", bias=True),
    "relu": replace(BASE, mlp="relu"),
    "relu2": replace(BASE, mlp="relu2"),
    "swiglu": replace(BASE, mlp="swiglu"),
    "swiglu_bias": replace(BASE, mlp="swiglu", bias=True),
    "rope": ROPE,
    "rope_base": replace(ROPE, rope_base=100.0),
    "qk_norm": replace(ROPE, qk_norm=True),
    "qk_norm_nogain": replace(ROPE, qk_norm=True, norm="rmsnorm_nogain"),
    "grouped": replace(ROPE, n_kv_head=2),
    "one_kv_head": replace(BASE, n_kv_head=1, bias=True),
    "all_kv_heads": replace(ROPE, n_kv_head=4),
    "tied": replace(BASE, tied=True),
    "bias": replace(BASE, bias=True),
    "embed_norm": replace(BASE, embed_norm=True),
    "no_final_norm": replace(BASE, final_norm=False, embed_norm=True),
    "everything": replace(
        ROPE, norm="layernorm", mlp="swiglu", bias=True, tied=True, n_kv_head=2, qk_norm=True, embed_norm=True
    ),
    "default": ModelConfig(n_embd=16, block_size=BLOCK, mlp_hidden=24),
}


def made(config: ModelConfig, seed: int = 0, vocab: int = VOCAB) -> GPT:
    """A float64 model in evaluation mode whose gains and biases are not those of the start."""
    model = GPT(config, vocab).double()
    model.init_weights(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2 or float(parameter.abs().max()) == 0:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def ids(rows: int, tokens: int, seed: int = 3) -> Tensor:
    return torch.randint(VOCAB, (rows, tokens), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> GPT:
    return made(VARIANTS[request.param])


@torch.no_grad()
def test_later_tokens_never_change_earlier_logits(model: GPT) -> None:
    tokens = ids(2, BLOCK)
    whole = model(tokens)
    for cut in range(1, BLOCK):
        other = tokens.clone()
        other[:, cut:] = (other[:, cut:] + 1) % VOCAB
        changed = model(other)
        torch.testing.assert_close(changed[:, :cut], whole[:, :cut], rtol=0, atol=1e-12)
        assert (changed[:, cut:] - whole[:, cut:]).abs().amax() > 1e-6  # and they do change their own


@torch.no_grad()
def test_earlier_tokens_do_change_later_logits(model: GPT) -> None:
    tokens = ids(1, BLOCK)
    other = tokens.clone()
    other[:, 0] = (other[:, 0] + 1) % VOCAB
    assert (model(other)[:, 1:] - model(tokens)[:, 1:]).abs().amax(dim=-1).min() > 1e-9


@pytest.mark.parametrize("chunks", [(1,) * BLOCK, (4, 1, 3, 2), (BLOCK,), (1, 9), (9, 1)], ids=str)
@torch.no_grad()
def test_decoding_with_a_cache_equals_the_whole_forward(model: GPT, chunks: tuple[int, ...]) -> None:
    tokens = ids(2, BLOCK)
    whole = model(tokens)
    cache = Cache(model.config, 2, torch.device("cpu"), torch.float64)
    parts = [model(part, cache=cache) for part in tokens.split(list(chunks), dim=1)]
    assert cache.length == BLOCK
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-12)


def documents() -> list[Tensor]:
    return [ids(1, size, seed=size) for size in (4, 1, 5)]


def packed(rows: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    tokens = torch.cat(rows, dim=1)
    positions = torch.cat([torch.arange(row.shape[1]) for row in rows])[None]
    segments = torch.cat([torch.full((row.shape[1],), i) for i, row in enumerate(rows)])[None]
    return tokens, positions, segments


@torch.no_grad()
def test_documents_packed_into_one_row_have_the_logits_of_documents_alone(model: GPT) -> None:
    alone = torch.cat([model(row) for row in documents()], dim=1)
    tokens, positions, segments = packed(documents())
    torch.testing.assert_close(model(tokens, positions, segments), alone, rtol=0, atol=1e-12)
    assert (model(tokens) - alone).abs().amax() > 1e-6  # without the wall they would differ


def gradients(model: GPT) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def test_documents_packed_into_one_row_have_the_gradients_of_documents_alone(model: GPT) -> None:
    rows = documents()
    targets = [torch.roll(row, -1, dims=1) for row in rows]
    sum((model.loss(row, target) for row, target in zip(rows, targets)), torch.zeros(())).backward()
    alone = gradients(model)
    tokens, positions, segments = packed(rows)
    model.loss(tokens, torch.cat(targets, dim=1), positions, segments).backward()
    torch.testing.assert_close(gradients(model), alone, rtol=1e-9, atol=1e-11)
    assert set(alone) == {n for n, _ in model.named_parameters()}


def test_padding_rows_and_tokens_change_neither_loss_nor_gradients(model: GPT) -> None:
    tokens, targets = ids(1, 6), ids(1, 6, seed=9)
    positions, segments = torch.arange(6)[None], torch.zeros(1, 6, dtype=torch.int32)
    plain = model.loss(tokens, targets, positions, segments)
    plain.backward()
    expected = gradients(model)

    def filled(values: Tensor, with_: int) -> Tensor:  # as data/batches.py fills rows up
        wide = torch.full((3, BLOCK), with_, dtype=values.dtype)
        wide[:1, :6] = values
        return wide

    padded = model.loss(filled(tokens, 0), filled(targets, -1), filled(positions, 0), filled(segments, -1))
    padded.backward()
    torch.testing.assert_close(padded, plain, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients(model), expected, rtol=1e-9, atol=1e-11)


def test_a_batch_of_nothing_but_padding_has_loss_0_and_finite_gradients(model: GPT) -> None:
    tokens = torch.zeros(2, BLOCK, dtype=torch.int64)
    loss = model.loss(tokens, tokens - 1, tokens, torch.full((2, BLOCK), -1))
    loss.backward()
    assert loss.item() == 0
    assert all(float(g.abs().max()) == 0 for g in gradients(model).values())


def test_the_loss_is_the_sum_of_the_losses(model: GPT) -> None:
    model.float()
    tokens, targets = ids(3, BLOCK), ids(3, BLOCK, seed=9)
    targets[0, 3] = targets[2] = -1
    each = model.losses(tokens, targets)
    assert each.shape == targets.shape
    assert (each[targets < 0] == 0).all()
    assert (each[targets >= 0] > 0).all()
    torch.testing.assert_close(model.loss(tokens, targets), each.sum())
    expected = -torch.log_softmax(model(tokens), -1)[0, 0, targets[0, 0]]
    torch.testing.assert_close(each[0, 0], expected)


def test_every_gradient_is_finite_and_none_is_missing(model: GPT) -> None:
    model.float()
    model.loss(ids(2, BLOCK), ids(2, BLOCK, seed=9)).backward()
    found = gradients(model)
    assert set(found) == {n for n, _ in model.named_parameters()}
    assert all(bool(torch.isfinite(g).all()) and float(g.abs().max()) > 0 for g in found.values())


def test_shapes_are_known_without_making_a_tensor(model: GPT) -> None:
    real = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert parameter_shapes(model.config, VOCAB) == real
    assert model.parameter_count() == sum(math.prod(shape) for shape in real.values())


# ---- what tells the variants apart


@pytest.mark.parametrize("kind", ["rmsnorm", "rmsnorm_nogain", "layernorm"])
def test_norms_are_the_textbook_formulas(kind: str) -> None:
    from microgpt.model.gpt import Norm

    norm = Norm(6, replace(BASE, norm=kind, bias=True)).double()
    x = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(6, generator=torch.Generator().manual_seed(1)))
    centred = x - x.mean(-1, keepdim=True) if kind == "layernorm" else x
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = expected * (1 if norm.weight is None else norm.weight) + (0 if norm.bias is None else norm.bias)
    torch.testing.assert_close(norm(x), expected)
    assert (norm.weight is None, norm.bias is None) == (kind == "rmsnorm_nogain", kind != "layernorm")


@pytest.mark.parametrize("mlp", ["relu", "relu2", "gelu", "gelu_tanh", "swiglu"])
def test_mlps_are_the_textbook_formulas(mlp: str) -> None:
    layer = made(replace(BASE, mlp=mlp, bias=True)).layers[0]
    x = torch.randn(2, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    up = x @ layer.mlp_fc1.T + layer.mlp_b1
    if mlp == "swiglu":
        gate = x @ layer.mlp_gate.T
        hidden = gate / (1 + torch.exp(-gate)) * up
    elif mlp == "gelu":
        hidden = up * 0.5 * (1 + torch.erf(up / math.sqrt(2)))
    elif mlp == "gelu_tanh":
        hidden = up * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
    else:
        hidden = up.clamp(min=0) ** (2 if mlp == "relu2" else 1)
    torch.testing.assert_close(layer._mlp(x), hidden @ layer.mlp_fc2.T + layer.mlp_b2)


def test_the_width_of_the_mlp_is_4_or_for_swiglu_8_thirds_in_multiples_of_64() -> None:
    assert mlp_width(ModelConfig(n_embd=64, mlp="relu")) == 256
    assert [mlp_width(ModelConfig(n_embd=n)) for n in (24, 64, 128, 384)] == [64, 192, 384, 1024]
    assert mlp_width(ModelConfig(n_embd=64, mlp_hidden=100)) == 100


@torch.no_grad()
def test_rotary_positions_are_relative() -> None:
    model = made(VARIANTS["qk_norm"])
    tokens = ids(1, 5)
    shifted = model(tokens, torch.arange(3, 8)[None])
    torch.testing.assert_close(shifted, model(tokens), rtol=0, atol=1e-6)  # the angles are kept in float32
    scattered = model(tokens, torch.tensor([[0, 2, 3, 7, 9]]))
    assert (scattered - model(tokens)).abs().amax() > 1e-4


@torch.no_grad()
def test_learned_positions_are_rows_of_the_table() -> None:
    model = made(BASE)
    tokens = ids(1, 5)
    assert (model(tokens, torch.arange(5, 10)[None]) - model(tokens)).abs().amax() > 1e-3
    model.wpe[5:10] = model.wpe[0:5].clone()
    torch.testing.assert_close(model(tokens, torch.arange(5, 10)[None]), model(tokens))


@torch.no_grad()
def test_grouped_queries_equal_full_attention_with_repeated_keys_and_values() -> None:
    grouped = made(replace(ROPE, n_kv_head=2, bias=True))
    full = made(replace(ROPE, bias=True))
    state = grouped.state_dict()
    for name in list(state):
        if name.rpartition(".")[2] in ("attn_wk", "attn_wv", "attn_bk", "attn_bv"):
            heads = state[name].unflatten(0, (2, 4))
            state[name] = heads.repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(state)
    torch.testing.assert_close(full(ids(2, BLOCK)), grouped(ids(2, BLOCK)))


@torch.no_grad()
def test_a_tied_head_is_the_embedding() -> None:
    tied = made(VARIANTS["tied"])
    own = made(BASE)
    assert "lm_head" not in dict(tied.named_parameters())
    own.load_state_dict({**tied.state_dict(), "lm_head": tied.wte})
    torch.testing.assert_close(own(ids(1, 4)), tied(ids(1, 4)))


def test_dropout_is_in_training_only_and_drops_in_every_place() -> None:
    model = made(replace(BASE, dropout=0.5))
    tokens = ids(2, BLOCK)
    assert torch.equal(model(tokens), model(tokens))
    torch.testing.assert_close(model(tokens), made(BASE)(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))


# ---- initial weights


@pytest.mark.parametrize("init", ["normal", "zero_out", "scaled_out"])
def test_initial_weights_are_a_function_of_the_seed(init: str) -> None:
    config = replace(BASE, init=init, init_std=None)
    first, second, other = GPT(config, VOCAB), GPT(config, VOCAB), GPT(config, VOCAB)
    torch.manual_seed(1)
    first.init_weights(5)
    torch.manual_seed(2)
    second.init_weights(5)
    other.init_weights(6)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name))
    assert not torch.equal(first.wte, other.wte)


@pytest.mark.parametrize("init", ["normal", "zero_out", "scaled_out"])
def test_initial_weights_have_the_deviation_that_the_config_says(init: str) -> None:
    config = ModelConfig(
        n_layer=3, n_embd=128, init=init, bias=True, norm="layernorm", position="learned", block_size=128
    )
    model = GPT(config, 128)
    model.init_weights(0)
    std = 0.08
    assert init_std(config) == std
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        if parameter.dim() < 2:
            assert (parameter == (1 if leaf == "weight" else 0)).all()
            continue
        expected = std
        if leaf in ("attn_wo", "mlp_fc2"):
            expected = {"normal": std, "zero_out": 0.0, "scaled_out": std / math.sqrt(6)}[init]
        assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.05), name
    assert float(init_std(ModelConfig(n_embd=1024))) == 1 / 32
    assert init_std(ModelConfig(init_std=0.5)) == 0.5


@torch.no_grad()
def test_with_zero_outputs_the_layers_add_nothing_at_first() -> None:
    config = replace(BASE, init="zero_out")
    deep, shallow = GPT(config, VOCAB).eval(), GPT(replace(config, n_layer=1), VOCAB).eval()
    deep.init_weights(0)
    shallow.load_state_dict({n: t for n, t in deep.state_dict().items() if not n.startswith("layer1.")})
    assert torch.equal(deep(ids(1, 5)), shallow(ids(1, 5)))


# ---- counts


@pytest.mark.parametrize(
    ("preset", "vocab", "count"),
    [("micro", 27, 4192), ("micro_first", 27, 4064), ("gpt2", 50257, 124_439_808)],
)
def test_presets_have_the_published_number_of_parameters(preset: str, vocab: int, count: int) -> None:
    config = compose([f"model={preset}"]).model
    assert sum(math.prod(shape) for shape in parameter_shapes(config, vocab).values()) == count


def test_flops_per_token_by_hand() -> None:
    model = GPT(replace(BASE, n_kv_head=2, mlp="swiglu", norm="layernorm", bias=True), VOCAB)
    a_layer = 16 * 16 + 2 * 8 * 16 + 16 * 16 + 3 * 24 * 16  # q, k and v, o, and the three of the MLP
    head = VOCAB * 16
    attention = 2 * 12 * 16 * BLOCK
    assert model.flops_per_token() == 6 * (2 * a_layer + head) + attention
    assert made(VARIANTS["tied"]).flops_per_token() == made(BASE).flops_per_token()

"""What a model's config comes to in sizes, without torch."""

from __future__ import annotations

from microgpt.config.schema import ModelConfig


def mlp_width(config: ModelConfig) -> int:
    """Hidden width of the MLP: as configured, or 4 n_embd; for SwiGLU, which has a third matrix, 8/3 n_embd."""
    if config.mlp_hidden is not None:
        return config.mlp_hidden
    if config.mlp == "swiglu":
        return -(-8 * config.n_embd // 3 // 64) * 64
    return 4 * config.n_embd


def parameter_shapes(config: ModelConfig, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model; a test holds it equal to gpt.py."""
    width, head = config.n_embd, config.n_embd // config.n_head
    kv = (config.n_kv_head or config.n_head) * head
    hidden = mlp_width(config)
    shapes: dict[str, tuple[int, ...]] = {"wte": (vocab_size, width)}
    if config.position == "learned":
        shapes["wpe"] = (config.block_size, width)

    def norm(name: str, size: int = width, kind: str = config.norm) -> None:
        if kind != "rmsnorm_nogain":
            shapes[f"{name}.weight"] = (size,)
        if kind == "layernorm" and config.bias:
            shapes[f"{name}.bias"] = (size,)

    if config.embed_norm:
        norm("embed_norm")
    for i in range(config.n_layer):
        at = f"layer{i}."
        norm(at + "attn_norm")
        norm(at + "mlp_norm")
        shapes |= {at + "attn_wq": (width, width), at + "attn_wk": (kv, width), at + "attn_wv": (kv, width)}
        shapes |= {at + "attn_wo": (width, width), at + "mlp_fc1": (hidden, width), at + "mlp_fc2": (width, hidden)}
        if config.mlp == "swiglu":
            shapes[at + "mlp_gate"] = (hidden, width)
        if config.qk_norm:
            kind = "rmsnorm_nogain" if config.norm == "rmsnorm_nogain" else "rmsnorm"
            norm(at + "q_norm", head, kind)
            norm(at + "k_norm", head, kind)
        if config.bias:
            sizes = {
                "attn_bq": width,
                "attn_bk": kv,
                "attn_bv": kv,
                "attn_bo": width,
                "mlp_b1": hidden,
                "mlp_b2": width,
            }
            shapes |= {at + name: (size,) for name, size in sizes.items()}
    if config.final_norm:
        norm("final_norm")
    if not config.tied:
        shapes["lm_head"] = (vocab_size, width)
    return shapes

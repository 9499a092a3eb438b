"""Weights leave and enter as nested lists, and nothing wrong enters."""

from __future__ import annotations

import math
from random import Random

import pytest

from microgpt.reference import GPT, Config, from_arrays, gradients_to_arrays, to_arrays

CONFIG = Config(n_embd=4, n_head=2, n_layer=2, block_size=3, vocab_size=5)


def model() -> GPT:
    return GPT.initial(CONFIG, Random(0))


def test_names_and_shapes_are_those_other_packages_expect() -> None:
    arrays = to_arrays(model())
    shapes = {name: (len(rows), len(rows[0])) for name, rows in arrays.items()}
    layer = {
        "attn_wq": (4, 4), "attn_wk": (4, 4), "attn_wv": (4, 4), "attn_wo": (4, 4),
        "mlp_fc1": (16, 4), "mlp_fc2": (4, 16),
    }  # fmt: skip
    assert shapes == {
        "wte": (5, 4), "wpe": (3, 4), "lm_head": (5, 4),
        **{f"layer{i}.{name}": shape for i in (0, 1) for name, shape in layer.items()},
    }  # fmt: skip


def test_a_round_trip_keeps_every_bit() -> None:
    arrays = to_arrays(model())
    assert to_arrays(from_arrays(CONFIG, arrays)) == arrays


def test_arrays_are_a_copy() -> None:
    original = model()
    arrays = to_arrays(original)
    arrays["wte"][0][0] += 1
    assert to_arrays(original) != arrays


def test_gradients_have_the_same_form() -> None:
    trained = model()
    trained.loss([4, 0, 1, 4]).backward()
    gradients = gradients_to_arrays(trained)
    assert gradients["wte"][0][0] == trained.state["wte"][0][0].grad != 0
    assert {n: [len(r) for r in g] for n, g in gradients.items()} == {
        n: [len(r) for r in a] for n, a in to_arrays(trained).items()
    }


def test_whole_numbers_become_floats() -> None:
    arrays = {name: [[1] * columns] * rows for name, (rows, columns) in CONFIG.shapes().items()}
    loaded = from_arrays(CONFIG, arrays)
    assert all(type(value.data) is float for value in loaded.parameters())
    assert len(set(loaded.parameters())) == len(loaded.parameters())  # no value stands in two places


def test_all_that_is_wrong_is_listed_at_once() -> None:
    arrays = to_arrays(model())
    del arrays["wpe"]
    arrays["bias"] = [[0.0]]
    arrays["wte"].pop()
    arrays["lm_head"][1].pop()
    arrays["layer0.attn_wq"][0][0] = math.nan
    with pytest.raises(ValueError) as caught:
        from_arrays(CONFIG, arrays)
    for problem in (
        "wpe is missing",
        "bias is unknown",
        "wte is not 5 x 4",
        "lm_head is not 5 x 4",
        "layer0.attn_wq holds a number that is not finite",
    ):
        assert problem in str(caught.value)

"""The verb `import`: a model that transformers made is talked to, fine-tuned, evaluated and exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from microgpt.checkpoints.folder import find
from microgpt.checkpoints.model import open_model
from microgpt.runs.folder import read_metrics

pytestmark = pytest.mark.slow
transformers: Any = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def home(warm_anywhere, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `theirs`, a random GPT-2 with a tokenizer of its own, and `ours`, the model directory of it."""
    from tokenizers import ByteLevelBPETokenizer

    home = tmp_path_factory.mktemp("imported")
    fast = ByteLevelBPETokenizer()
    fast.train_from_iterator(["anna and emma and noah and liam"] * 20, 300, 2, False, ["<|endoftext|>"])
    (home / "theirs").mkdir()
    fast.save(str(home / "theirs" / "tokenizer.json"))
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(
        vocab_size=fast.get_vocab_size(), n_embd=16, n_layer=1, n_head=2, n_positions=64, **ids
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(home / "theirs")
    done = warm_anywhere("cli", "import", "theirs", "ours", cwd=home)
    assert "note: <|endoftext|> is <bos>" in done.stderr
    assert "imported theirs (gpt2) to ours: 1 layers x 16 wide x 2 heads, context 64" in done.stderr
    return home


def test_generate_and_info_take_it(warm_anywhere, home: Path) -> None:
    done = warm_anywhere("cli", "generate", "--model-dir", "ours", "--num-samples", "2", cwd=home)
    assert done.stdout.count("\n") >= 2
    told = warm_anywhere("cli", "info", "--model-dir", "ours", cwd=home).stdout
    assert "from theirs (gpt2)" in told
    assert "gelu_tanh" in told


def test_it_is_fine_tuned_and_the_result_evaluated(warm_anywhere, home: Path) -> None:
    words = ["init_from=ours", "data=names", "trainer.max_steps=5", "trainer.eval_interval=5", "data.batch_size=4"]
    words += ["sampling.num_samples=2", "sampling.max_new_tokens=8", "device=cpu", "device.threads=1"]
    warm_anywhere("train", *words, "tracking=off", "hydra.run.dir=outputs/tuned", cwd=home)
    losses = read_metrics(home / "outputs" / "tuned")["train/loss"]
    assert sorted(losses) == [1, 2, 3, 4, 5]
    assert losses[5] < losses[1]
    warm_anywhere("evaluate", "run=[outputs/tuned]", "tracking=off", "sampling.num_samples=2", cwd=home)
    assert json.loads((home / "outputs" / "tuned" / "evaluation.json").read_text())["bits_per_byte"] > 0
    tuned = open_model(find(home / "outputs" / "tuned" / "checkpoints", "best"))
    assert tuned.tokenizer.to_json() == open_model(home / "ours").tokenizer.to_json()


def test_it_is_exported_with_the_place_that_it_came_from(warm_anywhere, home: Path) -> None:
    words = ["run=ours", "format=[huggingface,safetensors]", "output=exports", "tracking=off"]
    warm_anywhere("export", *words, cwd=home)
    card = (home / "exports" / "huggingface" / "README.md").read_text()
    assert "Imported into microgpt from `theirs` (gpt2)." in card
    assert open_model(home / "exports" / "safetensors").meta["imported"]["name"] == "theirs"
    warm_anywhere("cli", "import", "exports/huggingface", "again", cwd=home)
    weights = [(home / name / "weights.safetensors").read_bytes() for name in ("ours", "again")]
    assert weights[0] == weights[1]


def test_what_is_refused_ends_with_its_code_and_one_line(warm_anywhere, home: Path) -> None:
    (home / "pickled").mkdir(exist_ok=True)
    (home / "pickled" / "ckpt.pt").write_bytes(b"\x80\x04.")
    for source, target, code, word in (
        ("pickled", "new", 4, "ckpt.pt"),
        ("ours", "new", 4, "use it as it is"),
        ("nowhere", "new", 4, "does not exist"),
        ("theirs", "ours", 2, "holds something"),
    ):
        done = warm_anywhere("cli", "import", source, target, cwd=home, code=code)
        (line,) = done.stderr.strip().splitlines()
        assert word in line
    assert not (home / "new").exists()

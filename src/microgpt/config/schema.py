"""What a run is: one dataclass a config group, each field with its help, unit, range and choices.

`--help`, the error messages, the docs page and every form are made from this file alone. YAML in `conf/` holds
only what differs from the defaults here. `None` means "auto": `resolved()` in config/auto.py chooses, and what
it chose is stored in the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SCHEMA_VERSION = 1


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with what a user needs to know about it. A list default is copied for each instance."""
    metadata = {"help": help, "unit": unit, "ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices}
    if isinstance(default, list):
        items: list[Any] = list(default)  # pyright: ignore[reportUnknownArgumentType]
        return field(default_factory=lambda: list(items), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ModelConfig:
    """The shape of the GPT."""

    depth: int | None = setting(
        None,
        "one dial for the size: sets n_layer, n_embd and n_head, and the autos of learning rate, batch and steps "
        "follow scaling rules; typed keys win (auto: off)",
        ge=1,
        le=128,
    )
    n_layer: int = setting(2, "transformer blocks", ge=1, le=1024)
    n_head: int = setting(4, "attention heads; n_embd must be divisible by it", ge=1, le=1024)
    n_kv_head: int | None = setting(
        None, "heads of keys and values, a divisor of n_head (auto: n_head)", ge=1, le=1024
    )
    n_embd: int = setting(64, "width of the residual stream", ge=1, le=65536)
    block_size: int = setting(256, "context length", unit="tokens", ge=2, le=1_048_576)
    mlp: str = setting("swiglu", "activation of the MLP", choices=("relu", "relu2", "gelu", "gelu_tanh", "swiglu"))
    mlp_hidden: int | None = setting(
        None,
        "hidden width of the MLP (auto: 4 n_embd; for swiglu 8/3 n_embd up to a multiple of 64)",
        ge=1,
        le=1_048_576,
    )
    norm: str = setting("rmsnorm", "kind of normalisation", choices=("rmsnorm", "rmsnorm_nogain", "layernorm"))
    norm_eps: float = setting(1e-5, "added to the mean square inside a norm", gt=0, le=0.1)
    embed_norm: bool = setting(True, "normalise after the embedding; with rope it is folded into the table at export")
    final_norm: bool = setting(True, "normalise before the head")
    position: str = setting("rope", "how a token knows its place", choices=("learned", "rope"))
    rope_base: float = setting(10000.0, "base of the rotary frequencies", gt=1, le=1e9)
    qk_norm: bool = setting(True, "RMSNorm of queries and keys in each head")
    tied: bool = setting(False, "the head shares the embedding's weights")
    bias: bool = setting(False, "biases in linear layers and layernorm")
    dropout: float = setting(0.0, "share of activations dropped in training", ge=0, lt=1)
    init: str = setting(
        "zero_out",
        "weights at the start: normal everywhere, output matrices zero, or those scaled by 1/sqrt(2 n_layer)",
        choices=("normal", "zero_out", "scaled_out"),
    )
    init_std: float | None = setting(
        None, "standard deviation of the initial weights (auto: 1/sqrt(n_embd) up to 0.08)", gt=0, le=10
    )


@dataclass
class DataConfig:
    """What is read, how it is split into documents, and how documents become batches."""

    path: list[str] = setting(
        [], "files, folders, globs or hub names; empty takes the embedded corpus of data.corpus"
    )
    corpus: str = setting(
        "tales",
        "a named data set: embedded (tales, names, conversations) or downloaded (the rest)",
        choices=("tales", "names", "conversations", "names32k", "shakespeare", "dolly", "oasst1"),
    )
    format: str = setting(
        "auto",
        "how files are read (auto: by the file's ending)",
        choices=("auto", "text", "jsonl", "parquet", "hub"),
    )
    document: str = setting("line", "what one document is in a text file", choices=("line", "file", "separator"))
    separator: str = setting("<|endoftext|>", "text between documents where document=separator")
    schema: str = setting(
        "auto",
        "schema of JSONL and table rows (auto: that of the first row)",
        choices=("auto", "text", "messages", "sharegpt", "records", "dolly", "alpaca"),
    )
    chat: bool = setting(True, "conversations keep their turns, with control tokens; false reads them as plain text")
    loss_on: str = setting("assistant", "which tokens of conversations count", choices=("assistant", "all"))
    skip_long: bool = setting(False, "leave out documents that do not fit the context; false cuts them")
    mixture: list[str] = setting(
        [], "several data sets with weights, as name-or-path:weight; takes the place of data.path and data.corpus"
    )
    text_field: str = setting("text", "field that holds the text in JSONL, Parquet and hub rows")
    split: str = setting("train", "which split of a hub data set is read")
    val_fraction: float = setting(
        0.1, "share of documents held out for validation, by content", unit="fraction", gt=0, lt=0.5
    )
    batch_size: int | None = setting(
        None, "rows in a micro-batch (auto: about 4,096 tokens)", unit="rows", ge=1, le=1_000_000
    )
    packing: bool = setting(True, "pack documents into full rows; false keeps one document a row, padded")
    on_bad_rows: str = setting("fail", "what bad rows do", choices=("fail", "skip"))
    max_line_mb: float = setting(
        64.0, "a longer line is refused, so that memory stays bounded", unit="MB", gt=0, le=4096
    )
    workers: int = setting(
        0, "threads that prepare batches ahead; the batches are the same for any number", ge=0, le=64
    )
    tokenize_workers: int | None = setting(
        None,
        "processes that tokenize; 0 is none beside the training's own; the tokens are the same for any number "
        "(auto: one a core, up to 16, for text of 32 MB and more)",
        ge=0,
        le=256,
    )


@dataclass
class TokenizerConfig:
    """How text becomes token ids."""

    kind: str = setting("bpe", "tokenizer", choices=("char", "bpe", "cl100k"))
    vocab_size: int | None = setting(
        None,
        "tokens of bpe and cl100k, control tokens included (auto: 4,096, fewer for text under 256 KB)",
        unit="tokens",
        ge=258,
        le=200_000,
    )
    sample_mb: float = setting(
        100.0,
        "training text that bpe and cl100k are made from; of more a sample is taken, by content",
        unit="MB",
        gt=0,
        le=1_000_000,
    )
    encoding: str = setting("cl100k_base", "ranks that tokenizer=cl100k is cut from", choices=("cl100k_base",))
    fallback: bool = setting(False, "use bpe where the ranks of cl100k are not at hand")


@dataclass
class OptimizerConfig:
    """How weights move."""

    name: str = setting(
        "muon", "optimizer: muon for matrices with adamw for the rest, or adamw", choices=("adamw", "muon")
    )
    learning_rate: float | None = setting(
        None, "peak learning rate of adamw (auto: falls with the model's width)", gt=0, le=10
    )
    muon_learning_rate: float = setting(0.03, "peak learning rate of muon's matrices", gt=0, le=10)
    muon_momentum: float = setting(0.9, "momentum of muon", ge=0, lt=1)
    beta1: float = setting(0.9, "decay of adamw's first moment", ge=0, lt=1)
    beta2: float = setting(0.95, "decay of adamw's second moment", ge=0, lt=1)
    eps: float = setting(1e-8, "added to adamw's denominator", gt=0, le=1)
    weight_decay: float = setting(
        0.0, "decoupled decay of matrices and embeddings, times the learning rate", ge=0, le=10
    )
    grad_clip: float = setting(1.0, "gradients are scaled down to this norm; 0 leaves them", ge=0, le=1e6)
    schedule: str | None = setting(
        None,
        "shape of the learning rate after warm-up; wsd is stable, then down over decay_fraction (auto: wsd, or "
        "linear where the data is read more than once)",
        choices=("linear", "cosine", "wsd", "constant"),
    )
    warmup_steps: int | None = setting(
        None, "steps of linear warm-up (auto: 2 % of max_steps)", unit="steps", ge=0, le=10_000_000
    )
    decay_fraction: float = setting(0.6, "share of the run that wsd spends going down", gt=0, le=1)
    final_lr_ratio: float = setting(0.0, "learning rate at the end, as a share of the peak", ge=0, le=1)
    ema_decay: float = setting(
        0.0, "average weights over steps and use the average for evaluation; 0 is off", ge=0, lt=1
    )


@dataclass
class TrainerConfig:
    """How long a run is and what happens on the way. A step is one optimizer step."""

    max_steps: int | None = setting(
        None, "length of the run and of the schedule (auto: the data four times)", unit="steps", ge=1, le=10**9
    )
    additional_steps: int = setting(
        0, "with resume=: go on for so many steps after the finished ones", unit="steps", ge=0, le=10**9
    )
    accumulate: int = setting(1, "micro-batches summed into one step", ge=1, le=100_000)
    eval_interval: int | None = setting(
        None, "steps between validations (auto: a twentieth of the run)", unit="steps", ge=1, le=10**9
    )
    eval_batches: int | None = setting(
        None,
        "validation batches, always the same ones; 0 is all (auto: at most a tenth of the time)",
        ge=0,
        le=10**9,
    )
    patience: int = setting(
        0,
        "stop after so many validations without a better loss; 0 never stops early",
        unit="validations",
        ge=0,
        le=10**6,
    )
    min_delta: float = setting(0.0005, "a validation loss is better when lower by this", unit="nats", ge=0, le=100)
    checkpoint_interval: int | None = setting(
        None,
        "steps between checkpoints (auto: eval_interval; 0: only at the end)",
        unit="steps",
        ge=0,
        le=10**9,
    )
    keep_checkpoints: int = setting(2, "checkpoints kept beside the best one", unit="checkpoints", ge=2, le=10**6)
    log_interval: int = setting(1, "steps between lines of metrics", unit="steps", ge=1, le=10**6)
    sample_interval: int = setting(
        0, "steps between samples (0: with every fourth validation)", unit="steps", ge=0, le=10**9
    )
    steps_per_call: int | None = setting(
        None, "optimizer steps in one Lightning training_step (auto: more for tiny models)", ge=1, le=1000
    )
    max_bad_steps: int = setting(3, "updates skipped for NaN or Inf before the run ends", ge=0, le=10**6)
    skip_spikes: bool = setting(
        False,
        "leave out the update of a step whose loss is above mean + 6 sigma of the last 128; it is logged anyway",
    )
    auto_micro_batch: bool = setting(
        False, "out of memory: halve the micro-batch and double the accumulation, instead of ending the run"
    )
    find_lr: bool = setting(
        False, "find the learning rates by a range test on a copy of the model, then train with them"
    )
    find_batch_size: bool = setting(
        False,
        "find the micro-batch, at the same rows a step: the largest that fits a GPU, the fastest on a CPU; then "
        "train with it",
    )
    profile: bool = setting(False, "tell at the end where the time went: a table, profile.csv and MLflow metrics")
    deterministic: bool = setting(False, "same bits on CUDA too, slower; the CPU is always so")


@dataclass
class DeviceConfig:
    """Where it runs."""

    name: str = setting(
        "auto",
        "device (auto: cuda, then mps, then cpu); ddp and fsdp are several processes that train together",
        choices=("auto", "cpu", "cuda", "mps", "ddp", "fsdp"),
    )
    accelerator: str = setting(
        "auto",
        "what the processes of ddp and fsdp compute on (auto: cuda where there is one)",
        choices=("auto", "cpu", "cuda"),
    )
    devices: int | None = setting(
        None, "processes of ddp and fsdp on each machine (auto: one a GPU; on the CPU one)", ge=1, le=1024
    )
    num_nodes: int = setting(1, "machines of ddp and fsdp", unit="machines", ge=1, le=10_000)
    timeout: float = setting(
        600.0, "a process of ddp and fsdp that waits longer for the others ends the run", unit="s", ge=5, le=86400
    )
    precision: str = setting(
        "auto", "number format of the arithmetic (auto: bf16 on cuda, and compiled on CPUs that have it; else f32)",
        choices=("auto", "f32", "bf16", "f16"),
    )  # fmt: skip
    threads: int = setting(
        0, "CPU threads (0: OMP_NUM_THREADS or all cores, fewer where a batch is too small for them)", ge=0, le=1024
    )
    compile: str = setting(
        "auto",
        "torch.compile (auto: when the run is long enough to pay for it)",
        choices=("auto", "on", "off"),
    )


@dataclass
class TrackingConfig:
    """Where metrics go beside the run folder."""

    kind: str = setting("mlflow", "MLflow store in ./mlruns, a server, or none", choices=("off", "mlflow", "server"))
    uri: str = setting("", "tracking URI (empty: MLFLOW_TRACKING_URI, then sqlite:///mlruns/mlflow.db)")
    experiment: str = setting("microgpt", "MLflow experiment")
    system_interval: float = setting(5.0, "seconds between system metrics; 0 is off", unit="s", ge=0, le=86400)
    log_level: str = setting("info", "detail of train.log", choices=("info", "debug"))
    progress: bool = setting(True, "show progress bars and tables")


@dataclass
class SamplingConfig:
    """How text is drawn from the model."""

    temperature: float = setting(0.7, "divides the logits; 0 takes the likeliest token", ge=0, le=100)
    top_k: int = setting(40, "keep the k likeliest tokens; 0 keeps all", unit="tokens", ge=0, le=10**6)
    top_p: float = setting(0.95, "keep the smallest set with this probability; 1 keeps all", gt=0, le=1)
    min_p: float = setting(0.0, "drop tokens below this share of the likeliest one's probability", ge=0, lt=1)
    repetition_penalty: float = setting(1.0, "makes recent tokens less likely; 1 is off", gt=0, le=10)
    repeat_last_n: int = setting(64, "how many recent tokens the penalty looks at", unit="tokens", ge=0, le=10**6)
    frequency_penalty: float = setting(
        0.0, "taken from a token's logit for each time that it was written", ge=-2, le=2
    )
    presence_penalty: float = setting(0.0, "taken from the logit of each token that was written", ge=-2, le=2)
    min_new_tokens: int = setting(0, "tokens before the end may come", unit="tokens", ge=0, le=10**6)
    max_new_tokens: int = setting(200, "most tokens of a sample", unit="tokens", ge=1, le=10**6)
    num_samples: int = setting(8, "samples at a time", unit="samples", ge=1, le=10**5)
    stop: list[str] = setting([], "texts that end a sample")
    seed: int = setting(42, "seed of sampling", ge=0, le=2**63 - 1)


@dataclass
class SweepConfig:
    """How `-m` chooses its trials. One run alone pays no heed to it."""

    kind: str = setting(
        "grid",
        "every combination of the values, trials that Optuna chooses to lower the validation loss, or a scaling "
        "study: small models foretell the loss of a larger one",
        choices=("grid", "optuna", "scaling"),
    )
    trials: int = setting(20, "with optuna: trials of the whole sweep", unit="trials", ge=1, le=100_000)
    sampler: str = setting("tpe", "with optuna: how values are chosen", choices=("tpe", "random"))
    seed: int = setting(42, "with optuna: seed of the sampler", ge=0, le=2**31 - 1)
    startup_trials: int = setting(
        5, "with optuna: trials that are drawn at random and end unpruned, before earlier ones are looked at",
        unit="trials", ge=0, le=100_000,
    )  # fmt: skip
    pruner: str = setting(
        "median",
        "with optuna: which trials end before their last step; median: those above the median of the trials before "
        "them at the same step; halving: those outside the best quarter at 1, 4, 16, ... times the first steps",
        choices=("median", "halving", "none"),
    )
    prune_after: int = setting(0, "with optuna: no trial is pruned before this step", unit="steps", ge=0, le=10**9)
    parallel: int = setting(
        0, "with optuna: trials chosen at a time (0: hydra.launcher.n_jobs where it is given, else 1)",
        unit="trials", ge=0, le=10_000,
    )  # fmt: skip
    depths: list[str] = setting(["1", "2", "3"], "with scaling: model.depth of the small models")
    budgets: list[str] = setting(
        ["1e12", "2e12", "4e12", "8e12"], "with scaling: operations that each of them is trained with", unit="FLOPs"
    )
    target_depth: int = setting(
        0, "with scaling: model.depth of the larger model (0: by the sixth root of its compute)", ge=0, le=128
    )
    target_budget: float = setting(
        0.0, "with scaling: operations of the larger model (0: 4 times the largest budget)", unit="FLOPs",
        ge=0, le=1e30,
    )  # fmt: skip


NAME_HELP = "name of the run: letters, digits, '.', '_' and '-' (auto: data and model)"


@dataclass
class TrainConfig:
    """`python -m microgpt.train`: train a model."""

    schema_version: int = setting(SCHEMA_VERSION, "version of this schema; old run folders are migrated", ge=1)
    name: str = setting("", NAME_HELP)
    seed: int = setting(42, "seed of weights, order and dropout", ge=0, le=2**63 - 1)
    resume: str = setting(
        "", "go on with a run: latest, auto (the latest unfinished, or a fresh run), a run folder or MLflow id"
    )
    init_from: str = setting("", "start from the weights and tokenizer of a run or model folder (fine-tuning)")
    from_run: str = setting("", "train a run again from its record: a run folder or MLflow id")
    lab: bool = setting(False, "keep a checkpoint of every hundredth of the run, for `microgpt lab --run`")
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


@dataclass
class ValidateConfig:
    """`python -m microgpt.validate`: check a data set and report on it."""

    name: str = setting("", NAME_HELP)
    seed: int = setting(42, "seed of the split", ge=0, le=2**63 - 1)
    near_duplicates: float = setting(
        0.8, "documents that share this much of their word 5-grams count as near-duplicates", gt=0, le=1
    )
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class EvaluateConfig:
    """`python -m microgpt.evaluate`: score runs on their whole validation set."""

    run: list[str] = setting(
        ["latest"], "run folders, model folders, MLflow ids, latest or best; several are compared"
    )
    checkpoint: str = setting("best", "which checkpoint of a run", choices=("best", "latest"))
    batch_tokens: int = setting(16384, "tokens scored at a time", unit="tokens", ge=1, le=10**8)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


@dataclass
class ExportConfig:
    """`python -m microgpt.export`: write a model for others to load."""

    run: str = setting("latest", "run folder, model folder, MLflow id, latest or best")
    checkpoint: str = setting("best", "which checkpoint of a run", choices=("best", "latest"))
    format: list[str] = setting(
        ["safetensors"],
        "what is written: the project's own model directory, a Hugging Face folder, a file for llama.cpp and Ollama, "
        "or an ONNX graph; several as a list",
        choices=("safetensors", "huggingface", "gguf", "onnx"),
    )
    dtype: str = setting(
        "f32",
        "number format of the weights; q8_0 is for gguf alone, and onnx has f32 alone",
        choices=("f32", "bf16", "f16", "q8_0"),
    )
    output: str = setting(
        "", "folder to write; of several formats each gets a folder in it (empty: <run>/export/<format>-<dtype>)"
    )
    register: bool = setting(False, "put the model into MLflow's registry")
    alias: str = setting("best", "alias of the registered model")
    promote: str = setting(
        "better",
        "when the alias moves to the new model: if its validation scores are better, or always",
        choices=("better", "always"),
    )
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class CompareConfig:
    """`python -m microgpt.compare`: set runs beside each other in a report that stands alone."""

    name: str = setting("", NAME_HELP.replace("data and model", "compare"))
    runs: list[str] = setting(
        [],
        "run folders, folders of runs such as a sweep's, globs, MLflow ids of runs or sweeps, latest, best or all "
        "(empty: the latest sweep, or all runs where there is none)",
    )
    top: int = setting(0, "compare only the best so many; 0 is all", unit="runs", ge=0, le=10**6)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class PipelineConfig:
    """`python -m microgpt.pipeline`: run the stages of a recipe in order."""

    recipe: str = setting("names", "a recipe of pipelines/, or the path of one")
    force: bool = setting(False, "run every stage, also those whose inputs have not changed")
    override: list[str] = setting(
        [], 'overrides for the train and validate stages that have the key; quote each: override=["model=micro"]'
    )
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


STAGES: dict[str, type] = {
    "train": TrainConfig,
    "validate": ValidateConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "compare": CompareConfig,
    "pipeline": PipelineConfig,
}

"""A GPT in plain Python, to be read in an evening.

Nothing here needs more than Python's standard library, and nothing is hidden: a model is some
four thousand numbers, and every one of the operations that train it can be followed by eye. It reproduces the
original microgpt (A. Karpathy, 2026) to the digit, and is what the fast model of this project is
measured against.

Read in this order:

    value.py       a number that knows its slope
    tokenizer.py   letters to numbers
    gpt.py         the model
    adam.py        how weights move
    train.py       the loop, and drawing new names
    weights.py     weights in and out
    corpus.py      where the names come from

Run it: python -m microgpt.reference
"""

from .adam import Adam, Schedule, scheduled_rate
from .corpus import DataError, download, embedded_names, read_documents
from .gpt import GPT, Activation, Cache, Config, Init, State, cross_entropy, rms_norm, softmax
from .tokenizer import CharTokenizer
from .train import PRESETS, Preset, Revision, Step, Training, sample
from .value import Value, dot, linear, total
from .weights import Arrays, from_arrays, gradients_to_arrays, to_arrays

__all__ = [
    "GPT",
    "PRESETS",
    "Activation",
    "Adam",
    "Arrays",
    "Cache",
    "CharTokenizer",
    "Config",
    "DataError",
    "Init",
    "Preset",
    "Revision",
    "Schedule",
    "State",
    "Step",
    "Training",
    "Value",
    "cross_entropy",
    "dot",
    "download",
    "embedded_names",
    "from_arrays",
    "gradients_to_arrays",
    "linear",
    "read_documents",
    "rms_norm",
    "sample",
    "scheduled_rate",
    "softmax",
    "to_arrays",
    "total",
]

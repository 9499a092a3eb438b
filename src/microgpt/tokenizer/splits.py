"""How a byte-level BPE divides text before it merges: the kinds that are known.

Only these are read from a stranger's tokenizer.json. Any other expression could take for ever on some text, or leave
a part of it out.
"""

from __future__ import annotations

from typing import Any

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: expression: its name in llama.cpp
PATTERNS = {
    _WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe",
    _WORDS + r"\p{N}" + _REST: "qwen2",
}
GPT2, DIGITS = "gpt-2", "smollm"


def split_name(pre_tokenizer: Any) -> str:
    """What llama.cpp calls a `pre_tokenizer` of tokenizer.json; nothing where it is none of the known ones.

    Args:
        pre_tokenizer: that entry; its kinds are GPT-2's expression, the same after single digits were set apart
            (SmolLM), and the expressions of Llama 3 and Qwen 2.

    Raises:
        KeyError, TypeError: an entry lacks a key or is of another type.
    """
    parts: list[Any] = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    *first, last = parts
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return ""
    by_words = last.get("use_regex", True)
    if not first:
        return GPT2 if by_words else ""
    if len(first) > 1:
        return ""
    (split,) = first
    if split["type"] == "Digits" and split["individual_digits"] and by_words:
        return DIGITS
    if split["type"] == "Split" and split["behavior"] == "Isolated" and not split["invert"] and not by_words:
        return PATTERNS.get(split["pattern"].get("Regex", ""), "")
    return ""

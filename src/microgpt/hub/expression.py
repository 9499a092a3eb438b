"""Filters over rows: `val_loss < 2 and status = FINISHED`, `model.n_layer >= 2 or name ~ tiny`, or just a word."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Values = Mapping[str, Any]


class ExpressionError(ValueError):
    """A filter that means nothing."""


def _compared(left: Any, operator: ast.cmpop, right: Any) -> bool:
    if left is None or right is None:
        return isinstance(operator, ast.NotEq) and left is not right
    if isinstance(operator, (ast.In, ast.NotIn)):  # `~` and `!~`: has the text in it, or has not
        return (str(right).lower() in str(left).lower()) == isinstance(operator, ast.In)
    both = isinstance(left, (int, float)) and isinstance(right, (int, float))
    if not both:
        left, right = str(left).lower(), str(right).lower()
    match operator:
        case ast.Lt():
            return left < right
        case ast.LtE():
            return left <= right
        case ast.Gt():
            return left > right
        case ast.GtE():
            return left >= right
        case ast.Eq():
            return left == right
        case _:
            return left != right


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    raise ExpressionError("only names, numbers, texts, comparisons, and, or, not and brackets can stand here")


def _value(node: ast.expr, values: Values, left: bool) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        number: Any = node.operand.value
        if isinstance(number, (int, float)):
            return -number
    name = _name(node)
    if name in values:
        return values[name]
    leaves = [k for k in values if k.rpartition(".")[2] == name]
    if leaves:
        return values[leaves[0]]
    if left:
        raise ExpressionError(f"there is no {name}; there are {', '.join(list(values)[:12])} and the config's keys")
    words = {"true": True, "false": False, "inf": math.inf, "none": None, "auto": None}
    return words.get(name.lower(), name)  # a word on the right is a text


def _holds(node: ast.expr, values: Values) -> bool:
    if isinstance(node, ast.BoolOp):
        parts = [_holds(part, values) for part in node.values]
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _holds(node.operand, values)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        told = [_value(side, values, i == 0) for i, side in enumerate(sides)]
        return all(_compared(told[i], op, told[i + 1]) for i, op in enumerate(node.ops))
    return bool(_value(node, values, True))


def compiled(text: str) -> Callable[[Values], bool]:
    """A filter from its text; what is no expression is looked for in the values' `name`.

    Raises:
        ExpressionError: it has comparisons but cannot be read, or (when it is used) names what is not there.
    """
    text = text.strip()
    if not text:
        return lambda values: True
    if not re.search(r"[<>=~]", text) and not re.match(r"not\b", text):
        word = text.lower()
        return lambda values: word in str(values.get("name", "")).lower()
    python = re.sub(r"(?<![<>=!])=(?!=)", "==", text)
    python = re.sub(r"!?~", lambda m: " not in " if m[0] == "!~" else " in ", python)
    try:
        tree = ast.parse(python.replace("&&", " and ").replace("||", " or "), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ExpressionError(f"{text!r} cannot be read: write name < number, joined by and, or, not") from None
    return lambda values: _holds(tree, values)

"""Out of memory: what to tell the user, and the smaller micro-batch that `trainer.auto_micro_batch` goes on with."""

from __future__ import annotations

from microgpt.config.schema import TrainConfig
from microgpt.errors import OutOfMemoryError


def smaller(rows: int, accumulate: int) -> tuple[int, int] | None:
    """A half of the rows and twice the accumulation (of an odd number its smallest part); None where one row is left.

    The rows of a step stay the same ones, since they are numbered through its micro-batches.
    """
    if rows == 1:
        return None
    factor = next((f for f in range(2, rows) if rows % f == 0), rows)
    return rows // factor, accumulate * factor


def out_of_memory(config: TrainConfig, error: BaseException) -> OutOfMemoryError:
    """What to tell a user whose device is too small."""
    auto = "" if config.trainer.auto_micro_batch else ", or set trainer.auto_micro_batch=true"
    return OutOfMemoryError(
        f"out of memory: {(str(error).splitlines() or [type(error).__name__])[0][:120]}",
        f"lower data.batch_size={config.data.batch_size} (raise trainer.accumulate by as much), "
        f"model.block_size={config.model.block_size} or model.n_embd={config.model.n_embd}{auto}",
    )

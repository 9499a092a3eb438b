"""A registered model as MLflow runs it.

This file is copied beside the model and run when MLflow loads it ("models from code"): nothing is pickled. It needs
an installed microgpt and nothing else of this folder.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import mlflow
import pandas
from mlflow.pyfunc import PythonModel

import microgpt


class ServedModel(PythonModel):
    """Texts that go on from prompts; the replies to them where the model is for chat."""

    def load_context(self, context: Any) -> None:
        """Load the model directory that lies beside this file."""
        self.model, self.lock = microgpt.load(context.artifacts["model"]), Lock()

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]  # the base declares that it returns nothing
        self, context: Any, model_input: pandas.DataFrame, params: dict[str, Any] | None = None
    ) -> list[str]:
        """One text for each row.

        Args:
            context: of MLflow.
            model_input: a table with the column `prompt`.
            params: fields of SamplingConfig, such as temperature, max_new_tokens and seed.
        """
        prompts, settings = [str(prompt) for prompt in model_input["prompt"]], params or {}
        with self.lock:  # MLflow's server asks from several threads, and an engine is one thread's
            if self.model.tokenizer.is_chat:
                return [self.model.chat(prompt, **settings).text for prompt in prompts]
            return [self.model.generate(prompt, **settings)[0] for prompt in prompts]


mlflow.models.set_model(ServedModel())

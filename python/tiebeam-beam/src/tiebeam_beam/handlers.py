"""Model handlers by Beam's names: what names a model and says how it is used. They hold nothing of it."""

import os
from collections.abc import Mapping, Sequence
from typing import Any


class ModelHandler:
    """A handler's type and configuration, as the expansion service takes them."""

    def __init__(
            self,
            *,
            inputs: Mapping[str, str | Sequence[str]] | None = None,
            outputs: Sequence[str] | None = None,
            preprocess: str | None = None,
            postprocess: str | None = None,
            min_batch_size: int | None = None,
            max_batch_size: int | None = None,
            max_batch_duration_secs: float | None = None,
            max_batch_weight: int | None = None,
            model_copies: int | None = None,
            engine: str | None = None,
            sha256: str | None = None):
        """
        :param inputs: the field of each of the model's inputs, or the fields whose numbers make one.
        :param outputs: the model's outputs that are wanted; all unless given.
        :param preprocess: an expression or a function's source that makes the inputs of a row.
        :param postprocess: the same over `inference`, `example` and `model_id`.
        """
        self._config = {
            'inputs': None if inputs is None else {
                name: field if isinstance(field, str) else ', '.join(field)
                for name, field in inputs.items()
            },
            'outputs': None if outputs is None else list(outputs),
            'preprocess': _processing(preprocess),
            'postprocess': _processing(postprocess),
            'min_batch_size': min_batch_size,
            'max_batch_size': max_batch_size,
            'max_batch_duration_secs': None if max_batch_duration_secs is None else float(max_batch_duration_secs),
            'max_batch_weight': max_batch_weight,
            'model_copies': model_copies,
            'engine': engine,
            'sha256': sha256,
        }

    def to_config(self) -> dict[str, Any]:
        """`{type: …, config: …}`, without what was not given."""
        given = {name: value for name, value in self._config.items() if value is not None}
        return {'type': type(self).__name__, 'config': given}


def _processing(source: str | None) -> dict[str, str] | None:
    if source is None:
        return None
    is_function = source.lstrip().startswith(('lambda', 'def '))
    return {'callable' if is_function else 'expression': source}


def _path(path: str) -> str:
    """Absolute where it is a file of this machine: the service has another folder."""
    return path if '://' in path else os.path.abspath(path)


class PytorchModelHandlerTensor(ModelHandler):
    """A PyTorch state dict, in an architecture of one input."""

    def __init__(
            self,
            state_dict_path: str,
            model_class: str,
            model_params: Mapping[str, Any] | None = None,
            device: str | None = None,
            **options):
        """
        :param model_class: the architecture's name, such as `LinearRegression`. A class is taken by its name.
        """
        super().__init__(**options)
        self._config.update(
            state_dict_path=_path(state_dict_path),
            model_class=model_class if isinstance(model_class, str) else model_class.__name__,
            model_params=dict(model_params) if model_params else None,
            device=device.lower() if device else None)


class PytorchModelHandlerKeyedTensor(PytorchModelHandlerTensor):
    """A PyTorch state dict, in an architecture of named inputs."""


class OnnxModelHandlerNumpy(ModelHandler):
    """An ONNX model."""

    def __init__(self, model_uri: str, providers: Sequence[str] | None = None, **options):
        super().__init__(**options)
        self._config.update(
            model_uri=_path(model_uri), providers=None if providers is None else list(providers))

"""The transforms: thin shells over the SchemaTransforms of the expansion service."""

from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.transforms.external import SchemaAwareExternalTransform

from tiebeam_beam.handlers import ModelHandler
from tiebeam_beam.service import shared_address

_IDENTIFIER = 'beam:schematransform:org.apache.beam:tiebeam_{}:v1'


class _Offered(beam.PTransform):
    """A SchemaTransform; its configuration is what is not None."""

    _name: str

    def __init__(self, expansion_service: str | None, config: dict[str, Any]):
        super().__init__()
        self._expansion_service = expansion_service
        self._config = config
        self._errors: str | None = None

    def with_exception_handling(self, output: str = 'errors'):
        """Gives rows that fail an output of their own: the result is then a dict of `output` and this one.

        Its rows have the fields `element`, `msg` and `stack`.
        """
        self._errors = output
        return self

    def expand(self, rows):
        config = {name: value for name, value in self._config.items() if value is not None}
        if self._errors is not None:
            config['error_handling'] = {'output': self._errors}
        return rows | SchemaAwareExternalTransform(
            identifier=_IDENTIFIER.format(self._name),
            expansion_service=self._expansion_service or shared_address(),
            rearrange_based_on_discovery=True,
            **config)


class RunInference(_Offered):
    """Runs a model on rows: the same rows with the model's answer as one more field."""

    _name = 'run_inference'

    def __init__(
            self,
            model_handler: ModelHandler,
            *,
            inference_tag: str | None = None,
            with_model_id: bool = False,
            expansion_service: str | None = None):
        """
        :param model_handler: one of this package's handlers.
        :param inference_tag: the name of the new field; `inference` unless given.
        :param with_model_id: adds the field `<tag>_model_id`.
        :param expansion_service: the address of a running service; one is started unless given.
        """
        if not isinstance(model_handler, ModelHandler):
            raise TypeError(
                f'model_handler is a {type(model_handler).__name__}, wanted a handler of tiebeam_beam: '
                "Beam's own hold a model of Python's")
        super().__init__(expansion_service, {
            'model_handler': model_handler.to_config(),
            'inference_tag': inference_tag,
            'with_model_id': with_model_id or None,
        })


class DecodeImage(_Offered):
    """The bytes of image files (JPEG, PNG, GIF, BMP, WebP) as images: rows of height, width and rgb."""

    _name = 'decode_image'

    def __init__(self, bytes: str | None = None, to: str | None = None, expansion_service: str | None = None):
        super().__init__(expansion_service, {'bytes': bytes, 'to': to})


class ImageToTensor(_Offered):
    """Images as the tensors that models take: resized, scaled, normalised."""

    _name = 'image_to_tensor'

    def __init__(
            self,
            size: Sequence[int],
            *,
            image: str | None = None,
            to: str | None = None,
            layout: str | None = None,
            resize: str | int | None = None,
            scale: float | None = None,
            mean: Sequence[float] | None = None,
            std: Sequence[float] | None = None,
            expansion_service: str | None = None):
        numbers = lambda values: None if values is None else [float(value) for value in values]
        super().__init__(expansion_service, {
            'size': list(size),
            'image': image,
            'to': to,
            'layout': layout,
            'resize': None if resize is None else str(resize),
            'scale': None if scale is None else float(scale),
            'mean': numbers(mean),
            'std': numbers(std),
        })

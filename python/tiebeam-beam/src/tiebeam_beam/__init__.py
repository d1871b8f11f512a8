"""RunInference for Apache Beam's Python SDK whose models run in Rust."""

from tiebeam_beam.handlers import (
    ModelHandler,
    OnnxModelHandlerNumpy,
    PytorchModelHandlerKeyedTensor,
    PytorchModelHandlerTensor,
)
from tiebeam_beam.service import ExpansionService, ServiceError
from tiebeam_beam.transforms import DecodeImage, ImageToTensor, RunInference

__all__ = [
    'DecodeImage',
    'ExpansionService',
    'ImageToTensor',
    'ModelHandler',
    'OnnxModelHandlerNumpy',
    'PytorchModelHandlerKeyedTensor',
    'PytorchModelHandlerTensor',
    'RunInference',
    'ServiceError',
]

"""A Python pipeline whose model runs in Rust: rows through the `tiebeam` command's expansion service, and typed rows back.

    python engines/python/run_inference.py --expansion HOST:PORT --job_endpoint HOST:PORT [--output FILE]

Prints sorted lines; exits 0 when the job is done.
"""

import argparse
import glob
import os
import sys
import tempfile
import typing

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.external_transform_provider import ExternalTransformProvider


class Cell(typing.NamedTuple):
    name: str
    value: float


# Named tuples travel as rows only if Beam is told.
beam.coders.registry.register_coder(Cell, beam.coders.RowCoder)


def line(row):
    # Typed: a field that was not there, or of another type, would fail here.
    assert isinstance(row.name, str) and isinstance(row.inference, float), row
    return f'{row.name}: {row.value:g} -> {row.inference:g}'


def error_line(row):
    return f'{row.element.name}: {row.element.value:g} failed'


def main(argv):
    parser = argparse.ArgumentParser()
    parser.add_argument('--expansion', required=True)
    parser.add_argument('--job_endpoint')
    parser.add_argument('--model', default='fixtures/models/five.pth')
    arguments, rest = parser.parse_known_args(argv)
    options = ['--environment_type=LOOPBACK', *rest]
    if arguments.job_endpoint:
        options += ['--runner=PortableRunner', f'--job_endpoint={arguments.job_endpoint}']
    transforms = ExternalTransformProvider(arguments.expansion)
    handler = {
        'type': 'PytorchModelHandlerTensor',
        'config': {
            'state_dict_path': os.path.abspath(arguments.model),
            'model_class': 'LinearRegression',
            'model_params': {'input_dim': 1, 'output_dim': 1},
            'inputs': {'x': 'value'},
        },
    }
    cells = [Cell('twenty', 20.0), Cell('thirty', 30.0), Cell('forty', 40.0)]
    with tempfile.TemporaryDirectory() as folder:
        with beam.Pipeline(options=PipelineOptions(options)) as p:
            _ = (
                p
                | beam.Create(cells).with_output_types(Cell)
                | 'Five' >> transforms.TiebeamRunInference(model_handler=handler)
                | beam.Map(line)
                | beam.io.WriteToText(os.path.join(folder, 'out'), num_shards=1))
        lines = []
        for path in glob.glob(os.path.join(folder, 'out*')):
            with open(path) as file:
                lines += file.read().splitlines()
    for text in sorted(lines):
        print(text)


if __name__ == '__main__':
    main(sys.argv[1:])

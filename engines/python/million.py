"""Python Beam's RunInference over the numbers of a file, on any job service: to be measured beside the example
`times_five` on the same engine.

    python engines/python/million.py --job_endpoint=127.0.0.1:PORT --input=FILE --output=PREFIX [--parallelism=4]

Each line is a number; the model is fixtures/models/five.onnx in ONNX Runtime, in a Python worker pool of this script.
"""

import argparse
import time

import apache_beam as beam
import numpy
from apache_beam.ml.inference.base import RunInference
from apache_beam.ml.inference.onnx_inference import OnnxModelHandlerNumpy
from apache_beam.options.pipeline_options import PipelineOptions


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--model", default="fixtures/models/five.onnx")
    known, rest = parser.parse_known_args()
    options = PipelineOptions(rest + ["--runner=PortableRunner", "--environment_type=LOOPBACK"])
    handler = OnnxModelHandlerNumpy(known.model)
    started = time.time()
    with beam.Pipeline(options=options) as p:
        (
            p
            | beam.io.ReadFromText(known.input)
            | beam.Map(lambda line: numpy.array([float(line)], dtype=numpy.float32))
            | RunInference(handler)
            | beam.Map(lambda result: "%g -> %g" % (result.example[0], numpy.asarray(result.inference).ravel()[0]))
            | beam.io.WriteToText(known.output)
        )
    print("%.1f s" % (time.time() - started))


if __name__ == "__main__":
    main()

"""Beam's reference runner with a Tiebeam worker: runs the pipeline of `pipe_worker.rs`, which checks itself.

    pip install apache-beam==2.77.0
    cargo build -p tiebeam-worker --example pipe_worker
    python crates/tiebeam-worker/examples/beam_runner.py target/debug/examples/pipe_worker

Three runs: as it is, with every bundle run twice, and with all groups behind the state channel.
"""

import struct
import subprocess
import sys
import threading

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2, beam_runner_api_pb2, endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from apache_beam.runners.worker import data_plane

INSTRUCTION, DESCRIPTOR, STATE = 1, 2, 3
WORKER = sys.argv[1]


@worker_handlers.WorkerHandler.register_environment(python_urns.EMBEDDED_PYTHON, None)
class PipeWorkerHandler(worker_handlers.WorkerHandler):
    """Takes the place of the runner's in-process Python worker: no gRPC, messages over a pipe."""

    def __init__(self, payload, state, provision_info, manager):
        super().__init__(self, data_plane.InMemoryDataChannel(), state, provision_info)
        self.control_conn, self.data_conn = self, self.data_plane_handler
        self.descriptors = manager._process_bundle_descriptors
        self.count, self.lock = 0, threading.Lock()
        self.process = subprocess.Popen([WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _send(self, kind, message):
        self.process.stdin.write(struct.pack(">BI", kind, len(message)) + message)
        self.process.stdin.flush()

    def _receive(self):
        kind, length = struct.unpack(">BI", self.process.stdout.read(5))
        return kind, self.process.stdout.read(length)

    def push(self, request):
        with self.lock:
            return self._push(request)

    def _push(self, request):
        if not request.instruction_id:
            self.count += 1
            request.instruction_id = "control_%s" % self.count
        is_bundle = request.WhichOneof("request") == "process_bundle"
        if is_bundle:
            # All input goes with the request: the worker's data stream is not part of this check.
            elements = request.process_bundle.elements
            for one in self.data_conn.inverse().input_elements(request.instruction_id, []):
                if isinstance(one, beam_fn_api_pb2.Elements.Data):
                    elements.data.add().CopyFrom(one)
            self._close(request, "beam:runner:source:v1", elements.data.append)
        self._send(INSTRUCTION, request.SerializeToString())
        while True:
            kind, message = self._receive()
            if kind == DESCRIPTOR:
                self._send(DESCRIPTOR, self.descriptors[message.decode()].SerializeToString())
            elif kind == STATE:
                self._send(STATE, self._state(message).SerializeToString())
            else:
                response = beam_fn_api_pb2.InstructionResponse.FromString(message)
                if is_bundle:
                    data = response.process_bundle.elements.data
                    self.data_conn._inputs.extend(one for one in data if one.data)
                    self._close(request, "beam:runner:sink:v1", self.data_conn._inputs.append)
                    response.process_bundle.ClearField("elements")
                return worker_handlers.ControlFuture(request.instruction_id, response)

    def _close(self, request, urn, add):
        descriptor = self.descriptors[request.process_bundle.process_bundle_descriptor_id]
        for transform_id, transform in descriptor.transforms.items():
            if transform.spec.urn == urn:
                add(beam_fn_api_pb2.Elements.Data(
                    instruction_id=request.instruction_id, transform_id=transform_id, is_last=True))

    def _state(self, message):
        request = beam_fn_api_pb2.StateRequest.FromString(message)
        try:
            data, token = self.state.get_raw(request.state_key, request.get.continuation_token or None)
            get = beam_fn_api_pb2.StateGetResponse(data=data, continuation_token=token or b"")
            return beam_fn_api_pb2.StateResponse(id=request.id, get=get)
        except Exception as error:  # What the runner refuses, the worker must hear.
            return beam_fn_api_pb2.StateResponse(id=request.id, error=repr(error))

    def start_worker(self):
        pass

    def stop_worker(self):
        self.process.stdin.close()
        self.process.wait()

    def done(self):
        pass

    def data_api_service_descriptor(self):
        return endpoints_pb2.ApiServiceDescriptor(url="pipe")

    def state_api_service_descriptor(self):
        return None

    def logging_api_service_descriptor(self):
        return None


def main():
    pipeline = beam_runner_api_pb2.Pipeline.FromString(subprocess.check_output([WORKER, "proto"]))
    for settings in [{}, {"bundle_repeat": 2}, {"use_state_iterables": True}]:
        runner = fn_runner.FnApiRunner(**settings)
        result = runner.run_via_runner_api(pipeline, PipelineOptions())
        result.wait_until_finish()
        words = result.metrics().query()["counters"][0].committed
        print("%s with %s: %s transforms, %s words counted"
              % (result.state, settings or "no settings", len(pipeline.components.transforms), words))
        assert result.state == "DONE" and words == 3


main()

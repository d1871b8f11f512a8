"""Run with `python -m unittest discover -s tests`; those of pipelines need the `tiebeam` command and are skipped without it."""

import os
import unittest
from unittest import mock

import apache_beam as beam
from apache_beam.testing.util import assert_that, equal_to

import tiebeam_beam
from tiebeam_beam import service

FIVE = os.path.join(os.path.dirname(__file__), '../../../fixtures/models/five.pth')


def has_binary():
    try:
        service.find_binary()
        return True
    except tiebeam_beam.ServiceError:
        return False


def five(**options):
    return tiebeam_beam.PytorchModelHandlerTensor(
        FIVE, 'LinearRegression', {'input_dim': 1, 'output_dim': 1}, inputs={'x': 'value'}, **options)


class Handlers(unittest.TestCase):
    def test_what_is_not_given_is_not_told(self):
        handler = tiebeam_beam.OnnxModelHandlerNumpy('m.onnx', max_batch_size=3)
        self.assertEqual(
            handler.to_config(), {
                'type': 'OnnxModelHandlerNumpy',
                'config': {'model_uri': os.path.abspath('m.onnx'), 'max_batch_size': 3},
            })

    def test_files_are_absolute_and_urls_are_kept(self):
        handler = tiebeam_beam.OnnxModelHandlerNumpy('gs://b/m.onnx')
        self.assertEqual(handler.to_config()['config']['model_uri'], 'gs://b/m.onnx')

    def test_several_fields_make_one_input(self):
        handler = tiebeam_beam.OnnxModelHandlerNumpy('m.onnx', inputs={'x': ['a', 'b'], 'y': 'c'})
        self.assertEqual(handler.to_config()['config']['inputs'], {'x': 'a, b', 'y': 'c'})

    def test_functions_and_expressions_are_told_apart(self):
        handler = tiebeam_beam.OnnxModelHandlerNumpy(
            'm.onnx', preprocess='lambda row: row.a', postprocess='inference * 2')
        config = handler.to_config()['config']
        self.assertEqual(config['preprocess'], {'callable': 'lambda row: row.a'})
        self.assertEqual(config['postprocess'], {'expression': 'inference * 2'})

    def test_a_class_is_taken_by_its_name(self):
        class LinearRegression:
            pass

        handler = tiebeam_beam.PytorchModelHandlerTensor('m.pth', LinearRegression)
        self.assertEqual(handler.to_config()['config']['model_class'], 'LinearRegression')

    def test_handlers_of_beam_are_refused(self):
        with self.assertRaisesRegex(TypeError, "model_handler is a dict, wanted a handler of tiebeam_beam"):
            tiebeam_beam.RunInference({})


class Service(unittest.TestCase):
    def test_no_binary_is_said(self):
        with mock.patch.dict(os.environ, {'PATH': '', service.BINARY: ''}):
            with self.assertRaisesRegex(tiebeam_beam.ServiceError, 'no `tiebeam` on the PATH'):
                service.find_binary()
        with mock.patch.dict(os.environ, {service.BINARY: '/nowhere/tiebeam'}):
            with self.assertRaisesRegex(tiebeam_beam.ServiceError, 'which is no program'):
                service.find_binary()

    def test_a_program_that_is_no_service_is_said(self):
        with self.assertRaisesRegex(tiebeam_beam.ServiceError, 'ended with code 0 and did not say'):
            tiebeam_beam.ExpansionService(binary='/bin/true')


@unittest.skipUnless(has_binary(), 'no `tiebeam` command')
class Pipelines(unittest.TestCase):
    def test_rows_come_back_typed(self):
        with beam.Pipeline() as p:
            answers = (
                p
                | beam.Create([beam.Row(name='twenty', value=20.0), beam.Row(name='thirty', value=30.0)])
                | tiebeam_beam.RunInference(five(max_batch_size=1), inference_tag='answer', with_model_id=True))
            self.assertEqual(answers.element_type._fields, ('name', 'value', 'answer', 'answer_model_id'))
            lines = answers | beam.Map(lambda row: (row.name, round(row.answer), len(row.answer_model_id) > 0))
            assert_that(lines, equal_to([('twenty', 100, True), ('thirty', 150, True)]))

    def test_rows_that_fail_have_an_output(self):
        with tiebeam_beam.ExpansionService() as own, beam.Pipeline() as p:
            cells = p | beam.Create([b'no image']) | beam.Map(lambda data: beam.Row(bytes=bytes(data))).with_output_types(
                beam.typehints.row_type.RowTypeConstraint.from_fields([('bytes', bytes)]))
            outputs = cells | tiebeam_beam.DecodeImage(
                expansion_service=own.address).with_exception_handling()
            self.assertEqual(sorted(outputs), ['errors', 'output'])
            assert_that(outputs['errors'] | beam.Map(lambda row: row.element.bytes), equal_to([b'no image']))

    def test_mistakes_are_told_when_the_pipeline_is_built(self):
        p = beam.Pipeline()
        rows = p | beam.Create([beam.Row(other=20.0)])
        with self.assertRaisesRegex(RuntimeError, 'TB0204'):
            _ = rows | tiebeam_beam.RunInference(five())


if __name__ == '__main__':
    unittest.main()

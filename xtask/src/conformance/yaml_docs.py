"""Runs pipeline files with Beam's Python SDK: reads a JSON list of cases, prints a line of JSON for each.

A case is {"name", "folder", "file", "variables", "tests"}. Each runs in a process of its own that was forked after Beam
was imported. Beam does Sql, and joins through it, in Java; what it would run there runs on SQLite here, with Beam's own
query.
"""

import json
import logging
import os
import signal
import sqlite3
import sys
import traceback

import apache_beam as beam
from apache_beam.typehints import row_type
from apache_beam.typehints.schemas import named_fields_from_element_type
from apache_beam.yaml import main, yaml_provider

SECONDS = 90
SAMPLES = {int: 1, float: 1.0, str: 'a', bool: True, bytes: b'a'}


def plain(field):
    parts = [part for part in getattr(field, '__args__', ()) or () if part is not type(None)]
    field = parts[0] if len(parts) == 1 else field
    for known in (bool, int, float, str, bytes):
        try:
            if field is known or issubclass(field, known):
                return known
        except TypeError:
            pass
    name = str(field).lower()
    return int if 'int' in name else float if 'float' in name else bool if 'bool' in name else str


def query(text, tables, rows):
    database = sqlite3.connect(':memory:')
    for table, columns in tables.items():
        names = ', '.join('"%s"' % name for name in columns)
        database.execute('create table "%s" (%s)' % (table, names))
        places = ', '.join('?' * len(columns))
        for row in rows[table]:
            values = [value.item() if hasattr(value, 'item') else value for value in row]
            database.execute('insert into "%s" values (%s)' % (table, places), values)
    cursor = database.execute(text)
    return [column[0] for column in cursor.description], cursor.fetchall()


def unique(names):
    """As Calcite tells equal names apart."""
    seen = []
    for name in names:
        number, one = 0, name
        while one in seen:
            one, number = '%s%d' % (name, number), number + 1
        seen.append(one)
    return seen


class SqliteSql(beam.PTransform):
    def __init__(self, query):
        self.query = query

    def expand(self, inputs):
        if isinstance(inputs, beam.PCollection):
            inputs = {'PCOLLECTION': inputs}
        tables = {
            tag: dict(named_fields_from_element_type(pcoll.element_type)) for tag, pcoll in inputs.items()}
        sample = {
            tag: [[SAMPLES[plain(kind)] for kind in columns.values()]] for tag, columns in tables.items()}
        names, found = query(self.query, tables, sample)
        names = unique(names)
        kinds = [type(value) if value is not None else str for value in found[0]] if found else [str] * len(names)
        text = self.query

        def rows(group):
            _, collected = group
            plain_rows = {tag: [tuple(row) for row in all_rows] for tag, all_rows in collected.items()}
            for values in query(text, tables, plain_rows)[1]:
                yield beam.Row(**dict(zip(names, values)))

        from typing import Optional
        typed = row_type.RowTypeConstraint.from_fields(
            [(name, Optional[kind]) for name, kind in zip(names, kinds)])
        # All rows of a window are one group, so that each window has a query of its own.
        keyed = {
            tag: pcoll | 'Key %s' % tag >> beam.Map(lambda row: (0, tuple(row))) for tag, pcoll in inputs.items()}
        return keyed | beam.CoGroupByKey() | beam.FlatMap(rows).with_output_types(typed)


STANDARD = yaml_provider.standard_providers


def providers():
    """Beam's own, but for Sql, and for those of services that cases have stand-ins for."""
    return {
        **{name: found for name, found in STANDARD().items() if 'PubSub' not in name},
        'Sql': [yaml_provider.InlineProvider({'Sql': SqliteSql})]}


def run(case):
    os.chdir(case['folder'])
    provider = yaml_provider.InlineProvider({'Sql': SqliteSql})
    yaml_provider.SqlBackedProvider.sql_provider = lambda self: provider
    yaml_provider.standard_providers = providers
    arguments = ['--yaml_pipeline_file=' + case['file'], '--runner=FnApiRunner']
    if case['variables']:
        arguments.append('--jinja_variables=' + case['variables'])
    if case['tests']:
        import unittest
        told = {}

        class Result(unittest.TestResult):
            def addSuccess(self, test):
                told[test.id().split(' (line')[0]] = True

            def addError(self, test, error):
                told[test.id().split(' (line')[0]] = False

            addFailure = addError

        unittest.TextTestRunner = lambda: type('Runner', (), {'run': staticmethod(lambda suite: (
            lambda result: (suite.run(result), result)[1])(Result()))})()
        try:
            main.run_tests(arguments, exit=False)
        except RuntimeError:
            pass
        with open('tests.json', 'w') as out:
            json.dump(told, out)
    else:
        main.run(arguments)


def first_line(error):
    text = str(error).strip() or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return '%s: %s' % (type(error).__name__, lines[0][:300] if lines else '')


def apart(case):
    """Runs a case in a process of its own; None where all went well, else what went wrong."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        signal.alarm(SECONDS)
        code = 0
        try:
            quiet = os.open(os.path.join(case['folder'], '.log'), os.O_WRONLY | os.O_CREAT)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            run(case)
        except BaseException as error:
            traceback.print_exc()
            os.write(write, first_line(error).encode())
            code = 1
        sys.stderr.flush()
        os._exit(code)
    os.close(write)
    with os.fdopen(read, 'rb') as pipe:
        told = pipe.read().decode(errors='replace')
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return 'stopped by signal %d, after at most %d s' % (os.WTERMSIG(status), SECONDS)
    return told or None if status else None


if __name__ == '__main__':
    logging.getLogger().setLevel(logging.ERROR)
    for one in json.load(sys.stdin):
        print(json.dumps({'name': one['name'], 'error': apart(one)}), flush=True)

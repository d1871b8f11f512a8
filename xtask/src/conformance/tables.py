"""Files of Parquet and Avro by pyarrow and fastavro: `write FOLDER` makes some, `read FOLDER` reads those that it finds.

Rows are told as JSON: instants of microseconds as {"seconds", "micros"}, of milliseconds as a number, bytes in base64,
maps as objects.
"""

import base64
import datetime
import glob
import json
import os
import sys

import fastavro
import pyarrow
import pyarrow.parquet

UTC = datetime.timezone.utc
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)


def rows():
    for i in range(500):
        at = EPOCH + datetime.timedelta(days=i, microseconds=i * 1001)
        yield {
            'id': i,
            'small': i % 100,
            'text': None if i % 7 == 0 else 'row %d \u00e9' % i,
            'x': i / 3,
            'flag': None if i % 5 == 0 else i % 2 == 0,
            'raw': bytes([i % 256]) * (i % 4),
            'at': None if i % 11 == 0 else at,
            'list': None if i % 6 == 0 else [None if k == 1 else k for k in range(i % 4)],
            'map': {'k%d' % k: i + k for k in range(i % 3)},
            'row': None if i % 8 == 0 else {'a': i, 'b': [{'c': str(k)} for k in range(i % 3)]},
        }


ARROW = pyarrow.schema([
    pyarrow.field('id', pyarrow.int64(), nullable=False),
    pyarrow.field('small', pyarrow.int16(), nullable=False),
    ('text', pyarrow.string()),
    ('x', pyarrow.float64()),
    ('flag', pyarrow.bool_()),
    ('raw', pyarrow.binary()),
    ('at', pyarrow.timestamp('us', tz='UTC')),
    ('list', pyarrow.list_(pyarrow.int64())),
    ('map', pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    ('row', pyarrow.struct([
        ('a', pyarrow.int64()), ('b', pyarrow.list_(pyarrow.struct([('c', pyarrow.string())])))])),
])

AVRO = fastavro.parse_schema({
    'type': 'record', 'name': 'Row', 'namespace': 'some.where', 'fields': [
        {'name': 'id', 'type': 'long'},
        {'name': 'small', 'type': 'int'},
        {'name': 'text', 'type': ['null', 'string']},
        {'name': 'x', 'type': 'double'},
        {'name': 'flag', 'type': ['boolean', 'null']},
        {'name': 'raw', 'type': 'bytes'},
        {'name': 'at', 'type': ['null', {'type': 'long', 'logicalType': 'timestamp-micros'}]},
        {'name': 'list', 'type': ['null', {'type': 'array', 'items': ['null', 'long']}]},
        {'name': 'map', 'type': {'type': 'map', 'values': 'long'}},
        {'name': 'row', 'type': ['null', {'type': 'record', 'name': 'Inner', 'fields': [
            {'name': 'a', 'type': 'long'},
            {'name': 'b', 'type': {'type': 'array', 'items': {
                'type': 'record', 'name': 'Innermost', 'fields': [{'name': 'c', 'type': 'string'}]}}}]}]},
    ]})


def plain(value):
    if isinstance(value, datetime.datetime):
        micros = (value - EPOCH) // datetime.timedelta(microseconds=1)
        return {'seconds': micros // 1000000, 'micros': micros % 1000000}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    # pyarrow has maps as lists of pairs.
    if isinstance(value, list) and value and all(isinstance(one, tuple) for one in value):
        return {key: plain(one) for key, one in value}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value


def tell(path, found):
    with open(path, 'w') as out:
        for row in found:
            out.write(json.dumps(plain(row)) + '\n')


def write(folder):
    made = list(rows())
    tell(os.path.join(folder, 'theirs.json'), made)
    table = pyarrow.Table.from_pylist(made, schema=ARROW)
    for codec in ['none', 'snappy', 'gzip', 'zstd', 'lz4']:
        for version in ['1.0', '2.0']:
            path = os.path.join(folder, 'theirs-%s-%s.parquet' % (codec, version[0]))
            pyarrow.parquet.write_table(
                table, path, compression=codec, data_page_version=version, row_group_size=100)
    for codec in ['null', 'deflate', 'snappy', 'zstandard']:
        try:
            with open(os.path.join(folder, 'theirs-%s.avro' % codec), 'wb') as out:
                fastavro.writer(out, AVRO, made, codec=codec, sync_interval=2000)
        except Exception as error:
            print('%s: not written by fastavro: %s' % (codec, error))
            os.remove(os.path.join(folder, 'theirs-%s.avro' % codec))


def read(folder):
    for path in glob.glob(os.path.join(folder, 'ours-*.parquet')):
        table = pyarrow.parquet.read_table(path)
        found = table.to_pylist()
        for row in found:
            # An empty map is an empty list of pairs.
            row['map'] = dict(row['map'])
        tell(path + '.json', found)
    for path in glob.glob(os.path.join(folder, 'ours-*.avro')):
        try:
            with open(path, 'rb') as source:
                tell(path + '.json', list(fastavro.reader(source)))
        except Exception as error:
            print('%s: not read by fastavro: %s' % (os.path.basename(path), error))


{'write': write, 'read': read}[sys.argv[1]](sys.argv[2])

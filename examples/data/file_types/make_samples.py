"""Writes nine small files of nine types, for the file_types example. Run once, by hand, from this folder; the results are
committed. Needs only Python's standard library. The type that each should be told as is the first part of its name.
"""

import io
import json
import struct
import zipfile
import zlib


def png(width=48, height=48):
    rows = b"".join(
        b"\0" + bytes(v for x in range(width) for v in (x * 5 % 256, y * 5 % 256, (x ^ y) * 4 % 256)) for y in range(height)
    )

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def pdf():
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents 4 0 R /Resources << /Font << /F 5 0 R >> >> >>",
        b"<< /Length 44 >>\nstream\nBT /F 18 Tf 20 50 Td (A tie beam) Tj ET     \nendstream",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)


def zipped():
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            entry = zipfile.ZipInfo(f"beam{i}.dat", (2026, 1, 1, 0, 0, 0))
            archive.writestr(entry, bytes((i * 7 + j * j) % 251 for j in range(400)))
    return body.getvalue()


SAMPLES = {
    "python.sample": b'''import math
from dataclasses import dataclass


@dataclass
class Beam:
    """A beam between two walls."""

    span: float
    load: float

    def moment(self) -> float:
        return self.load * self.span**2 / 8


def strongest(beams: list[Beam]) -> Beam:
    return max(beams, key=lambda beam: beam.moment())


if __name__ == "__main__":
    print(strongest([Beam(4.0, 2.5), Beam(math.pi, 3.0)]))
''',
    "c.sample": b'''#include <stdio.h>
#include <stdlib.h>

struct beam {
    double span;
    double load;
};

static double moment(const struct beam *b) {
    return b->load * b->span * b->span / 8.0;
}

int main(int argc, char **argv) {
    struct beam b = {.span = 4.0, .load = argc > 1 ? atof(argv[1]) : 2.5};
    printf("%.2f\\n", moment(&b));
    return EXIT_SUCCESS;
}
''',
    "html.sample": b'''<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Tie beams</title></head>
<body>
  <h1>Tie beams</h1>
  <p>A <em>tie beam</em> ties the walls of a house together.</p>
  <ul><li><a href="walls.html">Walls</a></li><li><a href="roofs.html">Roofs</a></li></ul>
</body>
</html>
''',
    "json.sample": json.dumps(
        {"beams": [{"id": i, "span": 3.5 + i, "load": 2 * i, "walls": ["north", "south"]} for i in range(6)], "unit": "m"},
        indent=2,
    ).encode(),
    "csv.sample": ("id,span,load,wall\n" + "".join(f"{i},{3.5 + i},{2 * i},north\n" for i in range(40))).encode(),
    "xml.sample": b'''<?xml version="1.0" encoding="UTF-8"?>
<house>
  <wall side="north"><beam span="4.0" load="2.5"/></wall>
  <wall side="south"><beam span="3.5" load="2.0"/></wall>
  <roof pitch="35"><rafter length="5.2"/><rafter length="5.2"/></roof>
</house>
''',
    "png.sample": png(),
    "zip.sample": zipped(),
    "pdf.sample": pdf(),
}

for name, body in SAMPLES.items():
    with open(name, "wb") as file:
        file.write(body)

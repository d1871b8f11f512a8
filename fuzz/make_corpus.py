"""Makes the seeds of the fuzz targets from the project's own fixtures: fuzz/corpus/TARGET/NAME. Run from anywhere."""

import base64
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "fixtures/models"


def put(target, name, data):
    folder = ROOT / "fuzz/corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


for path in sorted(MODELS.iterdir()):
    if path.suffix in (".pth", ".pt"):
        put("pth", path.name, path.read_bytes())
    elif path.suffix == ".safetensors":
        # The target puts the length of the header before it.
        put("safetensors", path.name, path.read_bytes()[8:])
    elif path.suffix == ".onnx":
        put("onnx", path.name, path.read_bytes())
for image in json.loads((ROOT / "crates/tiebeam-io/tests/golden/images.json").read_text())["decoding"]:
    put("image", image["name"].replace(" ", "_"), base64.b64decode(image["file"]))
for path in sorted((ROOT / "examples").glob("*.yaml")):
    put("yaml", path.name, path.read_bytes())
put("csv", "quoted", b'n,x,t,b\n1,2.5,word,true\n2,,"two, three",false\n3,1e300,"a ""b""",\n')
put("csv", "crlf", 'b,t,x,n\r\nfalse,"line\nbreak",-0.0,9223372036854775807\r\n'.encode())
put("json", "all", b'{"n": 1, "x": 2.5, "t": "word", "b": true}\n{"n": 2, "x": null, "t": "\\u00e9", "b": false}\n')
put("json", "nulls", b'{"b":null,"t":null,"x":-1e-300,"n":-9223372036854775808}\n')

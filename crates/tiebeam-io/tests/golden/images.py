"""Records what Pillow makes of small images: python images.py > images.json

Each decoding case is a file (base64) with the RGB bytes that `ImageOps.exif_transpose(image).convert("RGB")` gives; each
resizing case gives the RGB bytes after the transform, on the picture of `picture()`. Pictures are made by a formula, so
that the test makes the same ones. Recorded with Pillow 12.
"""

import base64
import io
import json
import sys

import numpy as np
from PIL import Image, ImageOps


def picture(width, height):
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * 7 + y * 3) % 256, (x * x + y * 5) % 256, (x * y * 2 + 11) % 256]
    return np.stack(planes, axis=-1).astype(np.uint8)


def smooth(width, height):
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) * 255 // (width + height - 2)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def b64(data):
    return base64.b64encode(bytes(data)).decode()


def decoded(name, image, fmt, **options):
    out = io.BytesIO()
    image.save(out, fmt, **options)
    back = ImageOps.exif_transpose(Image.open(io.BytesIO(out.getvalue()))).convert("RGB")
    return {
        "name": name,
        "file": b64(out.getvalue()),
        "width": back.width,
        "height": back.height,
        "rgb": b64(back.tobytes()),
    }


def decoding():
    rgb = Image.fromarray(smooth(19, 13))
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray((picture(19, 13)[:, :, 0])))
    grey = rgb.convert("L")
    yield decoded("png rgb", rgb, "PNG")
    yield decoded("png rgba", alpha, "PNG")
    yield decoded("png grey", grey, "PNG")
    yield decoded("png grey alpha", alpha.convert("LA"), "PNG")
    yield decoded("png palette", rgb.quantize(16), "PNG")
    yield decoded("png bilevel", grey.convert("1"), "PNG")
    yield decoded("bmp", rgb, "BMP")
    yield decoded("gif", rgb.quantize(32), "GIF")
    yield decoded("webp lossless", rgb, "WEBP", lossless=True)
    yield decoded("webp lossy", rgb, "WEBP", quality=90)
    yield decoded("jpeg", rgb, "JPEG", quality=95, subsampling=0)
    yield decoded("jpeg subsampled", rgb, "JPEG", quality=95, subsampling=2)
    yield decoded("jpeg progressive", rgb, "JPEG", quality=95, subsampling=0, progressive=True)
    yield decoded("jpeg grey", grey, "JPEG", quality=95)
    yield decoded("jpeg cmyk", rgb.convert("CMYK"), "JPEG", quality=95)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield decoded(f"jpeg exif {orientation}", rgb, "JPEG", quality=95, subsampling=0, exif=exif.tobytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    yield decoded("png exif 6", rgb, "PNG", exif=exif.tobytes())


def shorter_side(image, to):
    width, height = image.size
    if width <= height:
        return image.resize((to, int(to * height / width)), Image.Resampling.BILINEAR)
    return image.resize((int(to * width / height), to), Image.Resampling.BILINEAR)


def centre_crop(image, height, width):
    top = int(round((image.height - height) / 2.0))
    left = int(round((image.width - width) / 2.0))
    return image.crop((left, top, left + width, top + height))


def resizing():
    for width, height, out_height, out_width in [(61, 47, 20, 24), (61, 47, 8, 8), (10, 7, 31, 23), (64, 64, 64, 64), (5, 90, 16, 16)]:
        image = Image.fromarray(picture(width, height)).resize((out_width, out_height), Image.Resampling.BILINEAR)
        yield {"width": width, "height": height, "mode": "stretch", "size": [out_height, out_width], "rgb": b64(image.tobytes())}
    for width, height, to, size in [(61, 47, 32, 28), (47, 61, 32, 28), (90, 31, 17, 16), (31, 31, 40, 33), (62, 40, 40, 40)]:
        image = centre_crop(shorter_side(Image.fromarray(picture(width, height)), to), size, size)
        yield {"width": width, "height": height, "mode": "shorter", "to": to, "size": [size, size], "rgb": b64(image.tobytes())}


json.dump({"decoding": list(decoding()), "resizing": list(resizing())}, sys.stdout, indent=1)
print()

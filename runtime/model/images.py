"""An image in a file as the row that a model is trained with and asked about. It judges no image and keeps none."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from contracts.errors import InvalidInput
from contracts.request import Request
from contracts.request.data import ImageFolder

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MOST_PIXELS = 100_000_000

_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
"""How the files of those formats begin that no text begins with."""

# Pillow lets the exceptions of its decoders through, and those are of many kinds.
_DAMAGE = (OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError)


class BrokenImage(Exception):
    """An image that cannot be read."""


def is_image(name: str, content: bytes) -> bool:
    """Whether a file is meant to be an image, by its name or by how it begins."""
    return name.lower().endswith(ENDINGS) or content.startswith(_BEGINNINGS)


def decoded(content: bytes, admit: Callable[[int], None] = lambda pixels: None) -> Image:
    """The image, the right way up; raises `BrokenImage`. `admit` is told its number of pixels first."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MOST_PIXELS:
                raise BrokenImage(f"{image.width} x {image.height} pixels are more than {MOST_PIXELS}")
            admit(image.width * image.height)
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise BrokenImage(f"it is none of {', '.join(FORMATS)}") from None
    except _DAMAGE as error:
        raise BrokenImage(f"{type(error).__name__}: {str(error)[:120]}") from None


def pixels(image: Image, data: ImageFolder) -> np.ndarray:
    """One row: the image in the size and the colours that the data section asks for, from 0 to 255, channels first."""
    from PIL import Image, ImageOps

    size = (data.width, data.height)
    image = image.convert("L" if data.colours == "grey" else "RGB")
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    values = np.asarray(image)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def row_of(content: bytes, name: str, request: Mapping[str, object]) -> list[np.ndarray]:
    """An image as the one row that the model is asked about, made as those that it was trained with."""
    data = Request.model_validate(request).data
    if not isinstance(data, ImageFolder):
        message = f"{name} is an image, and this session was trained with rows of {data.source!r}."
        raise InvalidInput(message, cure="Give the rows as numbers: CSV, JSON or JSON Lines.")
    try:
        return [pixels(decoded(content), data)]
    except BrokenImage as broken:
        raise InvalidInput(f"{name} cannot be read as an image: {broken}.", cure="Save it again.") from None
    except ModuleNotFoundError:
        cure = "Install it: pip install 'stigmergy-swarm[data]'"
        raise InvalidInput("reading images needs the package 'PIL', which is not here.", cure=cure) from None

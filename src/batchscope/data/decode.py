"""Image files to one array of bytes: each image is read rightly or refused with a reason."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from batchscope.data.dataset import BadImage
from batchscope.data.problems import UnusableImageError, first_ten
from batchscope.data.resize import FILTERS, resize
from batchscope.errors import DataError

__all__ = ["Decoded", "decode_all", "decode_image", "several_sizes"]

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_LARGEST = 50_000_000
_SMALLEST = 4
_SCAN = b"\xff\xda"
_MOST_SCANS = 100
_RUN = 64
_SMALL_FILE = 10_000


@dataclass(frozen=True, eq=False)
class Decoded:
    """What became of a list of image files.

    Attributes:
        images: The usable ones, uint8 of shape (n, height, width, 3).
        kept: Their places in the list, int64 of shape (n,).
        bad: The others.
        sizes: (height, width, count) of the usable ones as their files have them, the most frequent
            first.
    """

    images: NDArray[np.uint8]
    kept: NDArray[np.int64]
    bad: tuple[BadImage, ...]
    sizes: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, eq=False)
class _Picture:
    """Pixels, reduced where they were too many, and height and width as they were."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int]


def decode_all(
    ids: Sequence[str], read: Callable[[str], bytes], image_size: int | None, interpolation: str
) -> Decoded:
    """Decodes image files in parallel.

    Images that all have one size, no larger than `image_size`, keep it; enlarging them is left to
    the batch, which saves memory. Otherwise each is brought to `image_size` squared; the aspect
    ratio is not kept.

    Args:
        ids: Which images, in the order wanted.
        read: Gives the bytes of one; raises `UnusableImageError` where they cannot be had.
        image_size: Height and width in pixels that the network sees; None to leave images as they are.
        interpolation: ``nearest`` or ``bilinear``.

    Raises:
        DataError: Images are left as they are and have several sizes.
    """
    runs = [ids[start : start + _RUN] for start in range(0, len(ids), _RUN)]

    def decode_run(run: Sequence[str]) -> list[_Picture | BadImage]:
        return [_decode_one(name, read, image_size, interpolation) for name in run]

    # Images that decode in less time than threads need to take turns are left to one thread.
    workers = 1 if _are_small(ids, read) else None
    # A warning about an image is a reason to name it. Filters belong to the process, so they are set
    # here, around all the threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("error", RuntimeWarning)
        # The photograph is whole; only the list of the pictures behind it is not.
        warnings.filterwarnings("ignore", "Image appears to be a malformed MPO file", UserWarning)
        results = [result for run in pool.map(decode_run, runs) for result in run]
    bad = tuple(result for result in results if isinstance(result, BadImage))
    kept = [place for place, result in enumerate(results) if not isinstance(result, BadImage)]
    pictures = [result for result in results if not isinstance(result, BadImage)]
    counts = Counter(picture.size for picture in pictures).most_common()
    sizes = tuple((*size, count) for size, count in counts)
    if image_size is None and len(sizes) > 1:
        raise DataError(several_sizes(sizes))
    return Decoded(
        images=_stack([picture.pixels for picture in pictures], image_size, interpolation),
        kept=np.array(kept, np.int64),
        bad=bad,
        sizes=sizes,
    )


def several_sizes(sizes: Sequence[tuple[int, int, int]]) -> str:
    """What is said of images of several sizes (height, width, count) that are to stay as they are."""
    told = [f"{width} x {height} px ({count:,})" for height, width, count in sizes]
    return (
        "images must have one size where model.image_size does not give one, but have "
        f"{len(sizes):,}: {first_ten(told)}; set model.image_size"
    )


def decode_image(content: bytes) -> Image.Image:
    """Decodes one image file to 8-bit red, green and blue, upright as its EXIF orientation says.

    The content alone counts, not the name's extension. Of a JPEG that holds several pictures, as
    phones write them (MPO), the first is the photograph; the others are previews and the like.

    Simplification: colour profiles are not applied.

    Args:
        content: The file's bytes: BMP, GIF, JPEG, PNG, TIFF or WebP.

    Raises:
        UnusableImageError: With the rule that the image breaks, and the value.
    """
    if not content:
        raise UnusableImageError("an image file must not be empty, but it has 0 bytes")
    try:
        return _decode(content)
    except (UnusableImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        formats = ", ".join(_FORMATS)
        raise UnusableImageError(f"is not an image in a format read here ({formats})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableImageError(f"{_too_large()}, but it claims more") from error
    except Warning as error:
        raise UnusableImageError(f"must decode without a warning, but Pillow warns: {error}") from error
    except Exception as error:  # Pillow's decoders raise many kinds of error on malformed bytes.
        raise UnusableImageError(f"is damaged or cut short: {error or type(error).__name__}") from error


def _decode(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        _check(image)
        _check_scans(image, content)
        image.load()
        upright = ImageOps.exif_transpose(image)
        if not upright.has_transparency_data:
            return upright.convert("RGB")
        coloured = upright.convert("RGBA")
        least, _ = coloured.getchannel("A").getextrema()
        if least != 255:
            raise UnusableImageError(
                f"must be opaque, but its alpha goes down to {least} of 255; lay it on a background"
            )
        return coloured.convert("RGB")


def _check(image: ImageFile.ImageFile) -> None:
    """Refuses by what the file's header says, before anything large is unpacked."""
    width, height = image.size
    if width * height > _LARGEST:
        raise UnusableImageError(f"{_too_large()}, but it has {width} x {height}")
    if min(width, height) < _SMALLEST:
        raise UnusableImageError(f"sides must be at least {_SMALLEST} px, but it has {width} x {height}")
    if image.mode not in _MODES:
        raise UnusableImageError(
            f"colours must be 8-bit RGB, grey or palette, but its mode is {image.mode}; convert it"
        )
    # Pillow reduces 16-bit colour to 8 bits in silence; only the raw mode of its tiles tells. In a BMP
    # the same number counts the bits of all three colours.
    if image.format != "BMP" and any(";16" in str(tile[3]) for tile in image.tile):
        raise UnusableImageError("colours must have 8 bits, but it has 16; convert it")
    # Their number is not asked for: Pillow walks through all of them to count, which may take hours.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise UnusableImageError("must be a single picture, but it has several frames; save one of them")


def _check_scans(image: ImageFile.ImageFile, content: bytes) -> None:
    """Refuses a JPEG that goes over its pixels again and again; libtiff draws the same line.

    A dozen bytes make a scan, and each scan costs as much time as the picture has pixels. Behind
    the marks of scans the byte 255 is followed by 0, so that they can be counted.
    """
    scans = content.count(_SCAN) if image.format in ("JPEG", "MPO") else 0
    if scans > _MOST_SCANS:
        raise UnusableImageError(f"a JPEG must have at most {_MOST_SCANS} scans, but it has {scans:,}")


def _are_small(ids: Sequence[str], read: Callable[[str], bytes]) -> bool:
    """Whether the first files are so small that several threads are slower than one, as was measured."""
    sizes = []
    for name in ids[:16]:
        with suppress(UnusableImageError):
            sizes.append(len(read(name)))
    return sum(sizes) <= len(sizes) * _SMALL_FILE


def _too_large() -> str:
    return f"must have at most {_LARGEST:,} pixels"


def _decode_one(
    name: str, read: Callable[[str], bytes], image_size: int | None, interpolation: str
) -> _Picture | BadImage:
    try:
        image = decode_image(read(name))
    except UnusableImageError as error:
        return BadImage(name, str(error))
    size = (image.height, image.width)
    if image_size is not None and max(size) > image_size:
        image = image.resize((image_size, image_size), FILTERS[interpolation])
    return _Picture(np.asarray(image), size)


def _stack(
    pictures: list[NDArray[np.uint8]], image_size: int | None, interpolation: str
) -> NDArray[np.uint8]:
    if not pictures:
        return np.empty((0, image_size or _SMALLEST, image_size or _SMALLEST, 3), np.uint8)
    if image_size is None or len({picture.shape for picture in pictures}) == 1:
        return np.stack(pictures)
    return np.concatenate([resize(picture[None], image_size, interpolation) for picture in pictures])

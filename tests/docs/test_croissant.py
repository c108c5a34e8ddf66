"""Croissant metadata: current, complete by the specification's required properties, and true of the tasks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from anytime_bench import load_task
from anytime_bench.tasks.known import KNOWN

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docs" / "croissant").glob("*.json"))
#: Required of a dataset, a file, a record set and a field by Croissant 1.0.
DATASET = {"@context", "@type", "conformsTo", "description", "license", "name", "url", "creator", "datePublished"}
FILE = {"@type", "@id", "name", "contentUrl", "encodingFormat"}
FIELD = {"@type", "@id", "name", "dataType"}


@pytest.mark.slow
def test_the_files_are_what_their_generator_writes() -> None:
    checked = subprocess.run(
        [sys.executable, "docs/make_croissant.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert {path.stem for path in FILES} >= set(KNOWN)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_required_properties_are_there_and_references_resolve(path: Path) -> None:
    data = json.loads(path.read_text())
    assert data.keys() >= DATASET
    assert data["name"] == path.stem
    for file in data["distribution"]:
        assert file.keys() >= FILE
        digest = file.get("sha256") or file["md5"]
        assert re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{32}", digest)
    for group in data["recordSet"]:
        places = [field["@id"] for field in group["field"]]
        assert all(field.keys() >= FIELD for field in group["field"])
        assert all(place.startswith(f"{group['@id']}/") for place in places)
        for row in group.get("data", []):
            assert set(row) == set(places)
    identifiers = [each["@id"] for each in data["distribution"] + data["recordSet"]]
    assert len(set(identifiers)) == len(identifiers)


def test_the_metadata_of_digits_is_true_of_its_data() -> None:
    card = load_task("digits").card
    data = json.loads((ROOT / "docs" / "croissant" / "digits.json").read_text())
    assert data["identifier"] == f"sha256:{card.sha256}"
    assert {row["splits/name"]: row["splits/images"] for row in data["recordSet"][0]["data"]} == dict(card.sizes)

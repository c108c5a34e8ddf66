"""Shared by the tests of records."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import generated_records as generated


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A record in a store of its own."""
    return generated.save(tmp_path, "quick")

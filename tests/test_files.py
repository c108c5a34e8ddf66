"""Files appear whole or not at all, several of them together; what dead writers left is removed, names are safe."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_bench.files import is_record_file, safe_name, write_all, write_atomically

DIES = """
import os, sys
from pathlib import Path
real = os.replace
os.replace = lambda *args: os.kill(os.getpid(), 9)
from anytime_bench.files import write_atomically
write_atomically(Path(sys.argv[1]), b"half")
"""


def test_what_a_killed_writer_left_is_gone_after_the_next_write_and_what_a_living_one_writes_stays(tmp_path):
    died = subprocess.run([sys.executable, "-c", DIES, str(tmp_path / "a")])
    assert died.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".part")
    living = tmp_path / left.name.replace(left.name.split("-")[-1].partition(".")[0], str(os.getpid()))
    living.write_bytes(b"at work")
    write_atomically(tmp_path / "b", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"b", living.name}


def test_several_files_appear_together_or_not_at_all(tmp_path):
    old = {tmp_path / name: name.encode() for name in ("a", "b")}
    write_all(old)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", b"new")
    (tmp_path / "folder").rmdir()
    blocked = tmp_path / "a" / "c"  # below a file
    with pytest.raises(OSError, match="c"):
        write_all({tmp_path / "a": b"new", tmp_path / "b": b"new", blocked: b"new"})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == old


@given(st.text(st.characters(), max_size=40))
def test_a_safe_name_is_one_part_of_a_path(name):
    safe = safe_name(name)
    assert safe not in ("", ".", "..")
    assert not set(safe) & {"/", "\\", "\0", ":"}
    safe.encode()
    assert not safe.startswith(".")


def test_only_files_named_by_a_hash_are_records(tmp_path):
    assert is_record_file(tmp_path / f"{'0a' * 32}.json")
    for name in ("0a" * 32, f"{'0a' * 31}.json", f"{'0A' * 32}.json", f"{'zz' * 32}.json", f"{'0a' * 32}.json.damaged"):
        assert not is_record_file(tmp_path / name)

"""Bad input: one clear line, exit status 2, and nothing half-written."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from anytime_bench.cli import main as command_line
from anytime_bench.errors import UserError
from anytime_bench.registry import methods

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


def run_cli(capsys, monkeypatch, *arguments: str) -> tuple[int, str, str]:
    """The console script in this process: status, standard output, standard error."""
    monkeypatch.setattr("sys.argv", ["anytime-bench", *arguments])
    with pytest.raises(SystemExit) as leave:
        command_line.main()
    out, err = capsys.readouterr()
    return int(leave.value.code or 0), out, err


@pytest.fixture
def refused(capsys, monkeypatch, tmp_path):
    """Run in an empty folder; assert status 2, one line that holds ``words``, and an untouched folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, words: tuple[str, ...], leaves: tuple[str, ...] = ()) -> None:
        status, _, err = run_cli(capsys, monkeypatch, *arguments)
        assert status == 2, err
        lines = [line for line in err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, err
        assert "Traceback" not in err
        for word in words:
            assert word in lines[0], lines[0]
        # Python's own cache of an imported plugin is no output of ours.
        assert sorted(p.name for p in tmp_path.iterdir() if p.name != "__pycache__") == sorted(leaves)

    with methods.temporary(empty=True):
        yield call


def test_unknown_method_names_the_nearest(refused):
    refused("run", "--method", "cascade_td", words=("unknown method 'cascade_td'", "cascaded_td"))


def test_unknown_task_names_the_nearest(refused):
    refused("run", "--method", "msdnet", "--task", "digit", words=("unknown task 'digit'", "digits"))


def test_misspelt_key_names_the_nearest(refused):
    refused("run", "--method", "cascaded_td", "epoch=3", words=("epoch", "epochs"))


def test_unknown_section(refused):
    refused("run", "--method", "cascaded_td", "train.epochs=3", words=("train", "training"))


def test_wrong_type(refused):
    refused("run", "--method", "cascaded_td", "epochs=many", words=("epochs=many", "Integer"))


def test_out_of_range(refused):
    refused("run", "--method", "cascaded_td", "epochs=0", words=("training.epochs=0", "above 0"))


def test_option_out_of_range(refused):
    refused("run", "--method", "cascaded_td", "lam=1.5", words=("lam", "1.5"))


def test_not_key_value(refused):
    refused("run", "--method", "cascaded_td", "faster", words=("faster", "key=value"))


def test_unknown_flag(refused):
    refused("run", "--methods", "cascaded_td", words=("--methods",))


def test_cuda_without_cuda(refused, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused("run", "--method", "serial_ce", "--device", "cuda", words=("cuda", "no CUDA device"))


def test_unknown_device(refused):
    refused("run", "--method", "serial_ce", "--device", "gpu", words=("device 'gpu'", "cpu, cuda"))


def test_negative_seed(refused):
    refused("run", "--method", "serial_ce", "--seed", "-1", words=("--seed -1",))


def test_unknown_noise(refused):
    refused("run", "--method", "serial_ce", "--noise", "papr", words=("papr",))


def test_missing_plugin(refused):
    refused("run", "--plugin", "nowhere.py", "--method", "x", words=("nowhere.py", "does not exist"))


def test_plugin_that_fails_to_import_names_its_own_line(refused, tmp_path):
    (tmp_path / "broken.py").write_text("import torch\n\nvalue = undefined_name\n")
    words = ("broken.py:3", "NameError", "undefined_name")
    refused("run", "--plugin", "broken.py", "--method", "x", words=words, leaves=("broken.py",))


def test_plugin_without_a_method(refused, tmp_path):
    (tmp_path / "empty.py").write_text("value = 1\n")
    words = ("registers nothing", "anytime_bench.Method")
    refused("run", "--plugin", "empty.py", "-m", "x", words=words, leaves=("empty.py",))


def test_plugin_that_takes_an_installed_name(refused, tmp_path, plugin_file):
    text = plugin_file.read_text().replace("card = MethodCard(", 'name = "msdnet"\n    card = MethodCard(')
    (tmp_path / "taken.py").write_text(text)
    words = ("'msdnet'", "taken.py", "anytime_bench")
    refused("run", "--plugin", "taken.py", "-m", "msdnet", words=words, leaves=("taken.py",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("yield self.early(x.flatten(1))", "yield self.early(x.flatten(1))[0]"), ("two_exits", "(B, C)")),
        (("num_exits, ticks = 2, (1, 2)", "num_exits, ticks = 3, (1, 2, 3)"), ("two_exits", "3")),
        (("num_exits, ticks = 2, (1, 2)", "num_exits, ticks = 2, (2, 1)"), ("two_exits", "tick")),
        (("return TwoExitNet(task)", "return nn.Linear(2, 2)"), ("two_exits", "AnytimeModel")),
    ],
)
def test_plugin_that_breaks_the_contract_is_refused_before_training(refused, tmp_path, plugin_file, change, words):
    (tmp_path / "wrong.py").write_text(plugin_file.read_text().replace(*change))
    refused("run", "--plugin", "wrong.py", "--method", "two_exits", words=words, leaves=("wrong.py",))


def test_missing_data(refused):
    refused("run", "-m", "serial_ce", "-t", "cifar10_jpeg", words=("cifar10_jpeg", "--data-root"))


def test_missing_tiny_imagenet(refused):
    refused("run", "-m", "serial_ce", "-t", "tiny_imagenet", "--data-root", "x", words=("tiny-imagenet-200", "missing"))


def test_altered_cifar10_says_what_was_expected(refused, tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"not the official file")
    words = ("cifar10", "missing, truncated or altered", "official")
    refused("run", "-m", "serial_ce", "-t", "cifar10", "--data-root", ".", words=words, leaves=("cifar-10-batches-py",))


@pytest.mark.skipif(not DEBIAN_FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
@pytest.mark.parametrize("fault", ["truncated", "altered", "missing"])
def test_damaged_fashion_mnist(refused, tmp_path, fault):
    shutil.copytree(DEBIAN_FASHION, tmp_path / "data")
    file = tmp_path / "data" / "t10k-labels-idx1-ubyte.gz"
    if fault == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif fault == "altered":
        content = bytearray(gzip.decompress(file.read_bytes()))
        content[-1] ^= 1
        file.write_bytes(gzip.compress(bytes(content)))
    else:
        file.unlink()
    words = ("fashion_mnist", "t10k-labels-idx1-ubyte", "official")
    refused("run", "-m", "serial_ce", "-t", "fashion_mnist", "--data-root", "data", words=words, leaves=("data",))


def test_truncated_jpeg_archive(refused, tmp_path):
    (tmp_path / "cifar10-jpeg75.tar.xz").write_bytes(b"\xfd7zXZ\x00 cut")
    words = ("cifar10-jpeg75.tar.xz", "truncated or damaged")
    refused(
        "run", "-m", "serial_ce", "-t", "cifar10_jpeg", "--data-root", ".", words=words,
        leaves=("cifar10-jpeg75.tar.xz",),
    )  # fmt: skip


def test_image_folder_without_classes(refused, tmp_path):
    (tmp_path / "pictures").mkdir()
    refused("run", "-m", "serial_ce", "-t", "image_folder:pictures", words=("pictures", "class"), leaves=("pictures",))


def test_output_folder_that_is_a_file(refused, tmp_path):
    (tmp_path / "taken").write_text("")
    refused("run", "-m", "serial_ce", "--out", "taken", words=("taken", "--out"), leaves=("taken",))


def test_output_folder_that_cannot_be_written(refused):
    refused("run", "-m", "serial_ce", "--out", "/proc/nothing", words=("/proc/nothing", "--out"))


def test_a_full_disk_is_one_line_and_leaves_no_record(refused, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        fast = ("epochs=1", "timing_rounds=0")
        words = ("No space left", "--out")
        refused("run", "-m", "serial_ce", "--out", "small", *fast, words=words, leaves=("small",))
        assert not list(place.rglob("*.json"))
        assert not list(place.rglob("*.part"))
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"reference: \xff\xfe\n", ("not UTF-8",)),
        (b"training: 5\n", ("training must be a mapping", "5")),
        (b"options: [1, 2]\n", ("options must be a mapping",)),
        (b"methods: {serial_ce: 3}\n", ("methods.serial_ce must be a mapping",)),
        (b"methods: {serial_ce: {training: fast}}\n", ("methods.serial_ce.training must be a mapping", "fast")),
        (b"reference: [serial_ce]\n", ("reference must be a mapping",)),
        (b"reference: serial_cf\n", ("unknown method 'serial_cf'", "serial_ce")),
        (b"reference: {method: serial_ce, options: {widht: 3}}\n", ("widht", "width")),
        (b"- 1\n", ("must be a mapping",)),
        (b"a: b: c\n", ("not valid YAML",)),
        (b"a: *x\n", ("not valid YAML", "alias")),
    ],
)
def test_recipes_that_are_none(refused, tmp_path, text, words):
    (tmp_path / "mine.yaml").write_bytes(text)
    refused("run", "-m", "serial_ce", "--recipe", "mine.yaml", words=("mine.yaml",) * (b"serial_cf" not in text)
            * (b"widht" not in text) + words, leaves=("mine.yaml",))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"methods: \xff\n", ("not UTF-8",)),
        (b"methods: {a: 1}\n", ("'methods' must be a list",)),
        (b"methods: [a]\noverrides: epochs=3\n", ("'overrides' must be a list",)),
        (b"methods: [a]\nslurm: 4\n", ("'slurm' must be a mapping",)),
        (b"methods: [a]\nout: [1]\n", ("'out' must be text",)),
        (b"methods: [a]\nseeds: 0-999999999\n", ("seeds '0-999999999'", "at most 100,000")),
        (b"methods: [a]\njobs: [2]\n", ("jobs=[2]",)),
    ],
)
def test_plans_that_are_none(refused, tmp_path, text, words):
    (tmp_path / "plan.yaml").write_bytes(text)
    refused("sweep", "plan.yaml", words=words, leaves=("plan.yaml",))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sweep", "-m", "serial_ce", "--seeds", "0-999999999"), ("0-999999999", "at most 100,000")),
        (("run", "-m", "serial_ce", "--device", "[[1]]"), ("device '[[1]]'", "cpu, cuda")),
        (("run", "-m", "serial_ce", "width=[[1]]"), ("width", "[[1]]")),
        (("run", "-m", "serial_ce", "width=1\nepochs: 2"), ("width", "YAML")),
        (("run", "-m", "serial_ce", "epochs=${oc.env:NOWHERE}"), ("NOWHERE",)),
        (("run", "-m", "serial_ce", "reference.widht=8"), ("widht", "width")),
        (("run", "-m", "serial_ce", "reference=[1]"), ("which method is the reference",)),
        (("run", "-m", "serial_ce", "--reference", "serial_c"), ("unknown method 'serial_c'", "serial_ce")),
        (("list", "methods", "--plugin", "."), ("'.'", "does not exist")),
    ],
)
def test_odd_values(refused, arguments, words):
    refused(*arguments, words=words)


BROKEN = """
import torch
from anytime_bench import Method, MethodCard


class Broken(Method):
    card = MethodCard("Broken")

    def build(self, task):
        return torch.nn.Linear(-1, 2)
"""


@pytest.mark.parametrize("how", ["option", "environment", "neither"])
def test_an_error_in_a_plugin_names_its_own_line_and_the_traceback_is_there_for_the_asking(
    capsys, monkeypatch, tmp_path, how
):
    monkeypatch.chdir(tmp_path)
    # Set and not removed, so that what the option sets is undone after the test.
    monkeypatch.setenv("ANYTIME_BENCH_TRACEBACK", "")
    (tmp_path / "broken.py").write_text(BROKEN)
    arguments = ["run", "--plugin", "broken.py", "-m", "broken", *["--traceback"] * (how == "option")]
    if how == "environment":
        monkeypatch.setenv("ANYTIME_BENCH_TRACEBACK", "1")
    with methods.temporary():
        status, _, err = run_cli(capsys, monkeypatch, *arguments)
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert status == 2
    assert "broken.py:10: RuntimeError" in line, line
    assert ("Traceback" in err) == (how != "neither")


def test_a_fault_of_the_suite_is_one_line_with_its_place(capsys, monkeypatch):
    def fault(*_):
        raise KeyError("surprise")

    monkeypatch.setattr("anytime_bench.cli.titles.titled", fault)
    status, _, err = run_cli(capsys, monkeypatch, "list", "methods")
    assert status == 1
    assert err.count("\n") == 1
    assert "test_bad_input.py" in err
    assert "--traceback" in err


def test_no_method_lists_them(refused):
    refused("run", words=("which method", "cascaded_td", "msdnet"))


def test_two_plugins_of_one_name_are_told_apart_by_origin(plugin_file, tmp_path):
    from anytime_bench.registry import Origin, Registry

    registry = Registry("anytime_bench.nothing", "method")
    registry.add("two", object(), Origin("two", file="a.py", sha256="1" * 64))
    with pytest.raises(UserError, match=r"registered twice: by a\.py .* and by b\.py"):
        registry.add("two", object(), Origin("two", file="b.py", sha256="2" * 64))

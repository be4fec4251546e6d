"""What the trainer asks of a processor."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tf_mmloss.train import experiment, processor, strategy
from tf_mmloss.train.config import Config
from tf_mmloss.train.strategy import Accelerator

pytest.importorskip("tensorflow", reason="runs read their images through tf.data")

ROOT = Path(__file__).parents[1]
AVX2 = "flags\t\t: fpu avx avx2 fma\nflags\t\t: avx512_bf16\n"


@pytest.fixture
def cpuinfo(monkeypatch):
    """Make the processor one of which Linux tells this."""

    def be(text):
        monkeypatch.setattr(processor.Path, "read_text", lambda path, encoding=None: text)
        processor.instructions.cache_clear()

    yield be
    monkeypatch.undo()
    processor.instructions.cache_clear()


@pytest.mark.parametrize(
    ("text", "emulated", "vectors"),
    [
        (AVX2, ("bfloat16", "float16"), "avx2"),
        ("flags : avx2 avx512f", ("bfloat16", "float16"), "avx512f"),
        ("flags : avx2 avx512f avx512_bf16", ("float16",), "avx512_bf16"),
        ("flags : avx2 avx512f avx512_bf16 avx512_fp16", (), "avx512_bf16"),
        ("Features : asimd bf16", (), None),
        ("", (), None),
    ],
)
def test_precisions_that_a_processor_lacks(cpuinfo, text, emulated, vectors):
    cpuinfo(text)
    assert tuple(p for p in ("float32", "bfloat16", "float16") if processor.emulates(p)) == emulated
    assert processor.vectors() == vectors


def test_without_cpuinfo_nothing_is_claimed(monkeypatch, cpuinfo):
    def missing(path, encoding=None):
        raise OSError

    cpuinfo("")
    monkeypatch.setattr(processor.Path, "read_text", missing)
    assert not processor.emulates("bfloat16")
    assert processor.vectors() is None


@pytest.mark.parametrize("said", [None, "0"])
@pytest.mark.parametrize("first", ["import tf_mmloss.train", "from tf_mmloss import cli\nwith cli.imports(): pass"])
def test_tensorflow_is_told_before_it_starts(first, said):
    code = f"import os, sys, platform\n{first}\nassert 'tensorflow' not in sys.modules\n"
    code += "print(platform.machine() in ('x86_64', 'AMD64'), os.environ.get('TF_ENABLE_ONEDNN_OPTS'))"
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    if said:
        environment["TF_ENABLE_ONEDNN_OPTS"] = said
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    on_x86, told = done.stdout.split()
    assert told == (said or ("1" if on_x86 == "True" else "None"))


def test_tensorflow_that_has_started_is_left(monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    processor.use_onednn()
    assert "TF_ENABLE_ONEDNN_OPTS" not in os.environ


@pytest.mark.parametrize(
    ("precision", "devices", "times"),
    [("bfloat16", [], 1), ("float32", [], 0), ("bfloat16", [Accelerator("a GPU", (9, 0))], 0)],
)
def test_a_run_says_that_its_precision_is_emulated(tmp_path, monkeypatch, capsys, precision, devices, times):
    monkeypatch.setattr(processor, "emulates", lambda precision: precision == "bfloat16")
    monkeypatch.setattr(strategy, "accelerators", lambda: devices)
    experiment.run(Config(dataset="digits", ratio=20, depth=8, epochs=1, precision=precision), tmp_path / "run")
    assert capsys.readouterr().out.count("bfloat16 is computed in software here") == times

"""The processor that a run computes on, where there is no accelerator: what it lacks, and what TensorFlow is told."""

import functools
import os
import platform
import sys
from pathlib import Path


def use_onednn() -> None:
    """Have TensorFlow compute with oneDNN; call it before anything imports TensorFlow.

    On x86 processors without AVX-512 TensorFlow leaves it off, and a step of ResNet-32 takes 1.9 times as long. What
    the environment says (TF_ENABLE_ONEDNN_OPTS) stays.
    """
    if platform.machine() in ("x86_64", "AMD64") and "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@functools.cache
def instructions() -> frozenset[str]:
    """The names that Linux gives to what the processor can do; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    named = (line.split(":", 1)[1] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(named, "").split())


def emulates(precision: str) -> bool:
    """Whether an x86 processor computes a precision in software, which takes it ten times as long as float32."""
    has = {"bfloat16": {"avx512_bf16", "amx_bf16"}, "float16": {"avx512_fp16", "amx_fp16"}}
    known = "avx2" in instructions()
    return known and precision in has and not instructions() & has[precision]


def vectors() -> str | None:
    """The widest vectors of an x86 processor: results of one lock file differ by rounding where these do."""
    return next((name for name in ("avx512_bf16", "avx512f", "avx2") if name in instructions()), None)

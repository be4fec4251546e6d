"""Backend, seeds and dtype policy of every test; the browser of those that need one."""

import contextlib
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
from browser import CHROMIUM, Browser


@pytest.fixture(autouse=True)
def seeds():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def dtype_policy():
    """Give every test the process's float type and dtype policy, whatever the last one left."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium")
    with contextlib.closing(Browser(tmp_path_factory.mktemp("profile"))) as opened:
        yield opened

"""Backend, seeds and dtype policy of every test; the browser of those that need one."""

import contextlib
import os
import tempfile

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As the commands do, whose runs are compared with those of this process.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
if os.environ["KERAS_BACKEND"] == "jax" and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Many runs train the same small program: it is compiled once for all of them, in every process of the tests.
    compiled = tempfile.TemporaryDirectory(prefix="compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

if os.environ["KERAS_BACKEND"] == "torch" and "PYTEST_XDIST_WORKER" in os.environ:
    # PyTorch's threads wait for one another in a loop: where several tests share the processors, a run of 4 seconds
    # took 100.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The backend has no part in these: in the environment of TensorFlow and JAX they pass or fail alike. In that of
# PyTorch, which has neither, they run again.
if os.environ["KERAS_BACKEND"] == "jax":
    alike = "benchmarks cli cluster compare comparison data_images data_load data_sources datasets datasets_untrusted"
    alike += " doc_examples doc_generated evaluation files functions imbalance methods_contract own_data package page"
    alike += " plots processor progress recipes report runs sampling site table tune validation wheel"
    collect_ignore = [f"test_{name}.py" for name in alike.split()]

import keras
import pytest
from browser import CHROMIUM, Browser
from helpers import savefig
from matplotlib.figure import Figure

# The files that take longest. They begin first, so that at the end no process waits for another's.
LONGEST = ("losses_contract", "experiment", "strategy", "cluster", "fit", "benchmarks", "export", "table", "tune")


def pytest_collection_modifyitems(items):
    place = {f"test_{name}": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


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


@pytest.fixture(autouse=True, scope="module")
def figures_as_text(request):
    """Runs write their figures as a line of text, but in a module with `DRAWS`: to draw one takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "DRAWS", False):
            patch.setattr(Figure, "savefig", savefig)
        yield


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium")
    with contextlib.closing(Browser(tmp_path_factory.mktemp("profile"))) as opened:
        yield opened

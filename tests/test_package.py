"""The package as a user meets it: the README's example, imports without TensorFlow, exports."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tf_mmloss
from tf_mmloss.cli import fit

ROOT = Path(__file__).parents[1]
BACKENDS = ("tensorflow", "jax", "torch")

ALONE = """
import sys
for name in {blocked}:
    sys.modules[name] = None  # importing it now fails, as if it were not installed
import keras
import numpy as np
import tf_mmloss
from tf_mmloss import callbacks, datasets, metrics, sampling
model = tf_mmloss.resnet(8, 3, input_shape=(8, 8, 1))
counts = [8, 4, 4]
model.compile(optimizer=tf_mmloss.SGD(0.01), loss=tf_mmloss.MaxMarginLoss(counts))
x, y = np.ones((16, 8, 8, 1), "float32"), np.repeat([0, 1, 2], counts)
seen = []
callbacks = [
    tf_mmloss.DeferredReweighting(1, counts, "inverse"),
    keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append(keras.ops.convert_to_numpy(model.loss.class_weights.weight))
    ),
]
history = model.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
assert history.history["reweighting"] == [0.0, 1.0]
assert np.isfinite(history.history["loss"]).all()
np.testing.assert_allclose(seen, [[1, 1, 1], [0.6, 1.2, 1.2]], rtol=1e-6)
print("trained")
"""


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, cwd=ROOT
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_imports_and_trains_with_one_backend_alone(backend):
    """And re-weights, in a process where no other backend and no optional package can be imported."""
    pytest.importorskip(backend)
    blocked = {*BACKENDS, "tensorflow_datasets", "keras_tuner", "matplotlib", "sklearn"} - {backend}
    child = run_python(ALONE.format(blocked=blocked), KERAS_BACKEND=backend)
    assert child.stdout.strip().endswith("trained"), child.stderr


@pytest.mark.parametrize("module", ["losses", "callbacks", "evaluation"])
def test_a_module_can_be_what_is_imported_first(module):
    """Keras' import brings in the others, which need each other."""
    child = run_python(f"import tf_mmloss.{module}")
    assert child.returncode == 0, child.stderr


def test_import_alone_needs_no_optional_package():
    blocked = {"tensorflow_datasets", "keras_tuner"}
    code = f"import sys, tf_mmloss; assert not {blocked} & set(sys.modules)"
    child = run_python(code)
    assert child.returncode == 0, child.stderr


def test_readme_example_runs_as_written_and_learns():
    readme = (ROOT / "README.md").read_text()
    code = re.search(r"<!-- example:begin -->\n```python\n(.*?)```\n<!-- example:end -->", readme, re.S).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    child = run_python(code)
    assert child.returncode == 0, child.stderr
    accuracy = float(re.search(r"'balanced_accuracy': ([0-9.]+)", child.stdout).group(1))
    assert accuracy > 0.5


def test_links_of_the_documents_lead_somewhere():
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    links = [(path, link) for path in documents for link in re.findall(r"\]\(([^)]+)", path.read_text())]
    generated = {f"{name}.md" for name in ("contributing", "benchmarks", "changelog", "methods")}  # see docs/hooks.py
    missing = []
    for path, link in links:
        name, _, anchor = link.partition("#")
        if "://" in link or (name in generated and path.parent.name == "docs"):
            continue
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(f"{path.name}: {link}")
    assert len(links) > 20
    assert not missing


def anchors(page):
    """What the headings of a page are named, by mkdocs and by GitHub."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_the_start_page_tells_of_the_headings_of_a_run_page():
    start = (ROOT / "docs" / "index.md").read_text().partition("## Reading its page")[2].partition("\n## ")[0]
    told = set(re.findall(r"^- \*\*(.+?)\*\*", start, re.M)) - {"The first screen"}
    page = (ROOT / "tf_mmloss" / "runs" / "templates" / "run.html").read_text()
    assert len(told) > 5
    assert told <= set(re.findall(r"<h2>(.+?)</h2>", page))


def test_the_readme_is_short_and_has_a_picture_a_table_and_code():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 120
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    assert len(code.splitlines()) <= 20
    pictures = re.findall(r"^!\[.+\]\((.+)\)$", text, re.M)
    assert len(pictures) == len(re.findall(r"^\| -", text, re.M)) == 1
    assert (ROOT / pictures[0]).exists()


def test_options_in_the_text_of_the_documents_exist():
    written = "".join(
        path.read_text()
        for folder in ("tf_mmloss", "reproduction", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    )
    known = {
        *re.findall(r'"(--[a-z-]+)"', written),
        *fit.parser()._option_string_actions,
    }
    known |= {"--epsilon", "--head", "--port", "--address", "--generate"}  # of docs/extending.md, and of Ray
    documents = [
        *map(ROOT.joinpath, ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
        *(ROOT / "docs").glob("*.md"),
    ]
    named = {o for path in documents for o in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", path.read_text())}
    assert len(named) > 50
    assert {re.sub("^--no-", "--", option) for option in named} <= known


def test_every_option_of_a_training_is_in_the_documents():
    told = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    options = set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', (ROOT / "tf_mmloss" / "cli" / "fit.py").read_text()))
    assert len(options) > 40
    untold = {option for option in options if not re.search(rf"--(no-)?{option[2:]}(?![\w-])", told)}
    assert not untold


def test_the_site_has_every_public_name():
    pages = "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    shown = set(re.findall(r"^::: tf_mmloss\.(\S+)$", pages, re.M))
    assert {*tf_mmloss._MODULE_OF.values(), "imbalance"} <= shown


def in_order(names):
    """As ruff sorts them: constants, then classes, then the rest."""
    return sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


def test_exports_are_sorted_and_there():
    modules = [tf_mmloss, *(importlib.import_module(f"tf_mmloss.{name}") for name in ("callbacks", "layers", "losses"))]
    for module in modules:
        assert module.__all__ == in_order(set(module.__all__))
        assert all(hasattr(module, name) for name in module.__all__)
        classes = {name for name in module.__all__ if isinstance(getattr(module, name), type)}
        assert classes <= set(tf_mmloss.__all__)
    assert set(tf_mmloss.__all__) == {*tf_mmloss._MODULE_OF, "__version__", "imbalance"}
    assert tf_mmloss.__version__ in (ROOT / "CHANGELOG.md").read_text()


def test_type_checkers_see_every_name():
    tree = ast.parse((ROOT / "tf_mmloss" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = [(alias.name, node.module) for node in block.body for alias in node.names]
    assert dict(seen) == {name: f"tf_mmloss.{module}" for name, module in tf_mmloss._MODULE_OF.items()} | {
        "imbalance": "tf_mmloss"
    }


# A folder of a user or of a container, an address in a private network, an index of packages, a login in an address.
TRACES = re.compile(
    r"/(?:home|Users|root|work|workspace|mnt|srv)/[\w.-]"
    r"|[A-Z]:\\Users\\"
    r"|\b(?:10(?:\.\d{1,3}){3}|192\.168(?:\.\d{1,3}){2}|172\.(?:1[6-9]|2\d|3[01])(?:\.\d{1,3}){2})\b"
    r"|--(?:extra-)?index-url[ =]+\w|--find-links[ =]+\w|[.](?:internal|corp)\b"
    r"|://[^/\s@]+:[^/\s@]+@"
)


@pytest.mark.parametrize(
    "trace",
    [
        "/".join(["", "home", "me", "run"]),
        "/".join(["", "work", "data"]),
        "C:" + r"\Users\me",
        ".".join(["10", "1", "2", "3"]),
        ".".join(["192", "168", "0", "7"]),
        "--index-url " + "https" + "://host/simple",
        "https" + "://me:secret" + "@host",
        ".".join(["cache", "host", "internal"]),
    ],
)
def test_traces_of_a_machine_are_known(trace):
    assert TRACES.search(f"text {trace} text")


def test_no_trace_of_a_machine_in_tracked_text():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    read, found = 0, []
    for name in filter(None, tracked.stdout.split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b"\0"  # one that is removed but not yet committed
        if b"\0" in content:
            continue
        read += 1
        text = content.decode(errors="replace")
        found += [f"{name}: {match[0]}" for match in TRACES.finditer(text)]
        if len(ROOT.parts) > 2 and str(ROOT) in text:
            found.append(f"{name}: {ROOT}")
    assert read > 100
    assert not found
    for name in ("dev.txt", "torch.txt"):
        lock = (ROOT / "requirements" / name).read_text()
        assert "://" not in lock
        assert "--hash=sha256:" in lock

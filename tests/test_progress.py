"""What commands that train print: for people, for programs, for nobody, and on a terminal."""

import io
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from tf_mmloss.cli import fit
from tf_mmloss.train import experiment, progress
from tf_mmloss.train.bar import bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def events(text):
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def test_lines_objects_or_nothing(capsys):
    said = {"where": Path("a/b"), "error": np.float32(0.25), "loss": float("inf"), "counts": (np.int64(3),)}
    for how in progress.HOW:
        with progress.shown(how):
            progress.tell("\na line")
            progress.tell("of people", event=None)
            progress.tell(None, "start", **said)
        out = capsys.readouterr().out
        if how == "lines":
            assert out == "\na line\nof people\n"
        elif how == "quiet":
            assert out == ""
        else:
            found = {"event": "start", "where": "a/b", "error": 0.25, "loss": None, "counts": [3]}
            assert events(out) == [{"event": "message", "message": "a line"}, found]
    assert progress.how() == "lines"


@pytest.mark.parametrize("how", ["lines", "json", "quiet"])
def test_errors_and_stops_are_told_to_programs_too(how, monkeypatch, capsys, tmp_path):
    def ended(error):
        def run(config, folder, **_):
            folder.mkdir(exist_ok=True)
            (folder / "config.json").write_text("{}")  # a run was begun
            raise error

        monkeypatch.setattr(experiment, "run", run)
        options = [] if how == "lines" else [f"--{how}"]
        status = fit.main(["--dataset", "digits", "--ratio", "20", "--out", str(tmp_path / "run"), *options])
        return status, *capsys.readouterr()

    for error, expected in ((ValueError("`a` is b."), 2), (KeyboardInterrupt(), 130)):
        status, out, err = ended(error)
        assert status == expected
        assert err == ("error: `a` is b.\n" if expected == 2 else "")
        if how == "json":
            (said,) = events(out)
            assert said["event"] == {2: "error", 130: "stopped"}[expected]
            assert said["message"].startswith({2: "`a` is b.", 130: "Stopped. Every complete epoch"}[expected])
        elif how == "quiet":
            assert out == ""
    with pytest.raises(SystemExit):
        fit.main(["--json", "--quiet"])
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize("steps", [4, 1])
def test_a_terminal_has_a_bar_that_is_gone_before_a_line(steps, monkeypatch):
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with bar(steps, 1, 3) as shown:
        called = keras.callbacks.CallbackList(shown)
        for epoch in (1, 2):
            called.on_epoch_begin(epoch)
            for step in range(steps):
                called.on_train_batch_end(step)
            called.on_test_begin()
            called.on_epoch_end(epoch)
            assert terminal.getvalue().endswith("\r")
    said = terminal.getvalue()
    assert said.endswith("\r")
    assert re.search(r"\repoch 2/3: .* 0/4 " if steps == 4 else r"\repoch 2/3: .* 1/3 ", said)
    assert re.search(r"\repoch 3/3, evaluating: .* 4/4 " if steps == 4 else r"\repoch 3/3, evaluating: .* 3/3 ", said)


def test_there_is_no_bar_elsewhere(monkeypatch):
    with bar(4, 0, 1) as shown:
        assert shown == []
    monkeypatch.setattr("sys.stderr", Terminal())
    for how in ("json", "quiet"):
        with progress.shown(how), bar(4, 0, 1) as shown:
            assert shown == []

"""The published learning-rate schedule."""

import keras
import numpy as np
import pytest

from tf_mmloss import CosineSchedule, WarmupStepSchedule


def rates(schedule, epochs):
    return [schedule(epoch) for epoch in range(epochs)]


def test_the_published_run():
    expected = [0.02, 0.04, 0.06, 0.08, 0.1] + [0.1] * 155 + [1e-3] * 20 + [1e-5] * 20
    np.testing.assert_allclose(rates(WarmupStepSchedule(), 200), expected, rtol=1e-12)
    assert WarmupStepSchedule.published() == WarmupStepSchedule()


@pytest.mark.parametrize(
    ("epochs", "warmup", "milestones"), [(200, 5, (160, 180)), (40, 1, (32, 36)), (100, 2, (80, 90)), (10, 0, (8, 9))]
)
def test_shorter_runs_scale_the_milestones(epochs, warmup, milestones):
    schedule = WarmupStepSchedule.published(epochs, learning_rate=0.2)
    assert (schedule.warmup_epochs, schedule.milestones) == (warmup, milestones)
    found = rates(schedule, epochs)
    assert found[warmup : milestones[0]] == [0.2] * (milestones[0] - warmup)
    np.testing.assert_allclose(
        found[milestones[0] :], [2e-3] * (milestones[1] - milestones[0]) + [2e-5] * (epochs - milestones[1])
    )


def test_without_warmup_and_milestones():
    assert rates(WarmupStepSchedule(0.3, 0, ()), 5) == [0.3] * 5


def test_one_epoch():
    assert rates(WarmupStepSchedule.published(1), 1) == [pytest.approx(0.1)]


def test_cosine():
    schedule = CosineSchedule.scaled(80, learning_rate=0.4)
    found = rates(schedule, 80)
    assert schedule == CosineSchedule(0.4, 80, 2)
    np.testing.assert_allclose(found[:3], [0.2, 0.4, 0.4], rtol=1e-12)
    np.testing.assert_allclose(found[2:], 0.2 * (1 + np.cos(np.pi * np.arange(78) / 78)), rtol=1e-12)
    assert np.all(np.diff(found[2:]) < 0)
    assert found[-1] > 0
    assert schedule(80) == schedule(1000) == 0
    assert rates(CosineSchedule.scaled(1), 1) == [0.1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.1, 5, 5), "`epochs` must be more than the 5"),
        ((0,), "`learning_rate` must"),
        ((0.1, 9, -1), "`warmup_epochs`"),
    ],
)
def test_cosine_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        CosineSchedule(*arguments)


def test_in_a_fit_that_resumes():
    """The rate follows from the epoch, whatever rate the optimizer had."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(7.0), "mse")
    schedule = WarmupStepSchedule(0.1, 2, (4,), 0.5)
    x = np.zeros((2, 1), "float32")
    callback = keras.callbacks.LearningRateScheduler(schedule)
    history = model.fit(x, x, epochs=6, initial_epoch=1, verbose=0, callbacks=[callback]).history
    np.testing.assert_allclose(history["learning_rate"], rates(schedule, 6)[1:], rtol=1e-6)


def test_it_is_plain_data():
    schedule = WarmupStepSchedule(milestones=(3, 3))
    assert schedule == WarmupStepSchedule(milestones=(3, 3))
    assert hash(schedule) == hash(WarmupStepSchedule(milestones=(3, 3)))
    with pytest.raises(AttributeError):
        schedule.factor = 0.5


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", np.nan),
        ("factor", 0.0),
        ("factor", "0.1"),
        ("factor", 1e30),
        ("learning_rate", [0.1]),
        ("milestones", 160),
        ("milestones", None),
        ("milestones", "160"),
        ("warmup_epochs", -1),
        ("warmup_epochs", 0.5),
        ("milestones", (180, 160)),
        ("milestones", (1.5,)),
        ("milestones", (-1,)),
    ],
)
def test_bad_arguments_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        WarmupStepSchedule(**{argument: value})


@pytest.mark.parametrize("epoch", [-1, 0.5, None, "3"])
def test_bad_epochs_are_refused(epoch):
    with pytest.raises(ValueError, match="`epoch`"):
        WarmupStepSchedule()(epoch)


@pytest.mark.parametrize("epochs", [0, -1, 2.5, "200", 10**400])
def test_bad_lengths_are_refused(epochs):
    with pytest.raises(ValueError, match="`epochs`"):
        WarmupStepSchedule.published(epochs)

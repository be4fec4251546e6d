"""Own arrays and PyTorch's loader, class-balanced."""

import keras
import numpy as np
import pytest
from helpers import BACKEND

from tf_mmloss import ClassBalancedSampler, DeferredResampling, LDAMLoss, ResampledDataset
from tf_mmloss.imbalance import class_indices
from tf_mmloss.sampling import draw_epoch, draw_positions

COUNTS = [40, 8, 3]
LABELS = np.repeat(np.arange(3), COUNTS)
N = len(LABELS)


def epoch_of(data, epoch=0):
    start = epoch * data.steps_per_epoch
    return [data[start + step] for step in range(data.steps_per_epoch)]


def model():
    inputs = keras.Input((1,))
    network = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    network.compile("sgd", LDAMLoss(COUNTS))
    return network


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([2, 0, 1], [2, 0, 1]),
        ([[1], [0]], [1, 0]),
        (["b", "a", "b"], [1, 0, 1]),
        (np.eye(3)[[2, 0]], [2, 0]),
        (np.array(["b", "a"], object), [1, 0]),
    ],
    ids=["whole", "column", "names", "one-hot", "objects"],
)
def test_class_indices(labels, expected):
    found = class_indices(labels)
    assert found.tolist() == expected
    assert found.dtype == np.int64


@pytest.mark.parametrize("bad", [[], [-1, 0], [0.5, 1], [np.nan, 1], [[0.5, 0.5]], ["a", None], 3], ids=str)
def test_what_is_no_label_has_no_index(bad):
    with pytest.raises(ValueError, match="`labels`"):
        class_indices(bad)


@pytest.mark.parametrize("weights", [None, np.array([1.0, 5.0, 9.0])], ids=["uniform", "weighted"])
@pytest.mark.parametrize("replicas", [1, 2, 4, 60])
def test_processes_share_out_one_draw(weights, replicas):
    shares = [
        draw_positions(LABELS, 3, 2, class_weights=weights, num_replicas=replicas, rank=rank)
        for rank in range(replicas)
    ]
    whole = draw_epoch(LABELS, 3, 2, class_weights=weights).position
    together = np.stack(shares, axis=1).reshape(-1)
    np.testing.assert_array_equal(together, np.resize(whole, len(together)))
    assert 0 <= len(together) - N < replicas


@pytest.mark.parametrize("replicas", [1, 2])
def test_batches_of_all_processes_are_those_of_one(replicas):
    arguments = {"x": np.arange(N), "y": LABELS, "batch_size": 8, "seed": 5}
    one = ResampledDataset(**arguments)
    many = [ResampledDataset(**arguments, num_replicas=replicas, rank=rank) for rank in range(replicas)]
    for step in range(N // 8):
        shared = [data[step][0] for data in many]
        np.testing.assert_array_equal(np.stack(shared, axis=1).reshape(-1), one[step][0])
        np.testing.assert_array_equal(one[step][1], LABELS[one[step][0]])


def test_batches_are_a_function_of_seed_and_epoch():
    data = ResampledDataset(np.arange(N), LABELS, batch_size=8)
    later = ResampledDataset(np.arange(N), LABELS, batch_size=8, first_epoch=2)
    expected = [x for x, _ in epoch_of(data, 2)]
    for step in (6, 0, 3):
        np.testing.assert_array_equal(later[step][0], expected[step])
    assert sum(map(len, expected)) == N
    assert not np.array_equal(data[0][0], later[0][0])


@pytest.mark.parametrize(
    ("resampling", "mass"),
    [
        ("inverse", [1, 1, 1]),
        ([1, 0, 0], [1, 0, 0]),
        (lambda epoch: np.array([0, 1, 1]), [0, 8, 3]),
        (None, COUNTS),
    ],
    ids=["inverse", "weights", "function", "none"],
)
def test_classes_are_drawn_as_asked(resampling, mass):
    data = ResampledDataset(np.arange(N), LABELS, resampling=resampling)
    sampler = ClassBalancedSampler(LABELS, resampling)
    seen = []
    for epoch in range(60):
        seen += [y for _, y in epoch_of(data, epoch)]
        sampler.set_epoch(epoch)
        np.testing.assert_array_equal(LABELS[list(sampler)], np.concatenate(seen[-data.steps_per_epoch :]))
    share = np.bincount(np.concatenate(seen), minlength=3) / (60 * N)
    np.testing.assert_allclose(share, np.array(mass) / np.sum(mass), atol=0.05)


def test_arrays_of_any_kind():
    texts = [f"text {i}" for i in range(N)]
    x = {"image": np.random.default_rng(0).random((N, 4, 4, 3)), "text": texts, "pair": (np.arange(N), list(range(N)))}
    y = {"kind": LABELS, "age": np.arange(N)}
    data = ResampledDataset(x, y, labels=LABELS, sample_weight=np.arange(N), batch_size=10)
    taken, targets, weight = data[1]
    rows = targets["age"]
    np.testing.assert_array_equal(weight, rows)
    np.testing.assert_array_equal(taken["image"], x["image"][rows])
    np.testing.assert_array_equal(taken["pair"][0], rows)
    np.testing.assert_array_equal(taken["pair"][1], rows)
    assert [t.decode() if isinstance(t, bytes) else t for t in np.asarray(taken["text"]).tolist()] == [
        texts[i] for i in rows
    ]
    np.testing.assert_array_equal(targets["kind"], LABELS[rows])


def test_the_transform_is_a_function_of_the_step():
    data = ResampledDataset(np.zeros((N, 2)), LABELS, transform=lambda x, rng: x + rng.random(x.shape))
    again = ResampledDataset(np.zeros((N, 2)), LABELS, transform=data.transform)
    np.testing.assert_array_equal(data[1][0], again[1][0])
    assert not np.array_equal(data[1][0], data[0][0])


def test_the_transform_does_not_draw_what_chose_the_rows():
    """Else an augmentation of the first batch would depend on the class."""
    data = ResampledDataset(np.zeros(N), LABELS, batch_size=N, transform=lambda x, rng: rng.random(len(x)))
    numbers, labels = data[0]
    share = np.cumsum(COUNTS / np.repeat(N, 3) * data.resampling(0))
    assert not np.array_equal(np.searchsorted(share, numbers * share[-1]), labels)


def test_deferred_resampling_of_own_arrays():
    drs = DeferredResampling(2, COUNTS)
    data = ResampledDataset(np.ones((N, 1), "float32"), LABELS, batch_size=16, first_epoch=1, resampling=drs)
    fitted = model().fit(
        data, steps_per_epoch=data.steps_per_epoch, initial_epoch=1, epochs=4, shuffle=False, verbose=0, callbacks=[drs]
    )
    assert fitted.history["resampling"] == [0, 1, 1]
    epochs = [np.sort(np.concatenate([y for _, y in epoch_of(data, epoch)])) for epoch in range(2)]
    np.testing.assert_array_equal(epochs[0], LABELS)
    assert not np.array_equal(epochs[1], LABELS)


class Batches(keras.utils.PyDataset):
    """Somebody's own: ten rows a batch."""

    def __len__(self):
        return -(-N // 10)

    def __getitem__(self, index):
        rows = slice(10 * index, 10 * index + 10)
        return {"number": keras.ops.convert_to_tensor(np.arange(N)[rows])}, LABELS[rows], np.ones(N)[rows]


def test_batches_of_others_are_read_once():
    drs = DeferredResampling(1, COUNTS)
    data = ResampledDataset.of_batches(Batches(), batch_size=16, resampling=drs)
    same = ResampledDataset({"number": np.arange(N)}, LABELS, batch_size=16, resampling=drs)
    for mine, theirs in zip(epoch_of(data, 1), epoch_of(same, 1), strict=True):
        np.testing.assert_array_equal(mine[0]["number"], theirs[0]["number"])
        np.testing.assert_array_equal(mine[1], theirs[1])
        assert mine[2].tolist() == [1] * len(mine[1])
    for bad in (np.zeros((3, 2)), data, [Batches()]):
        with pytest.raises(ValueError, match="`data` must"):
            ResampledDataset.of_batches(bad)


def test_batches_of_tf_data_are_read_once():
    tf = pytest.importorskip("tensorflow")
    texts = [f"text {i}".encode() for i in range(N)]
    rows = tf.data.Dataset.from_tensor_slices(((np.arange(N), texts), LABELS))
    data = ResampledDataset.of_batches(rows.batch(20), batch_size=N, resampling=None)
    (numbers, read), labels = data[0]
    np.testing.assert_array_equal(labels, LABELS[numbers])
    assert [bytes(text) for text in np.asarray(read)] == [texts[i] for i in numbers]
    for bad in (rows, rows.batch(20).repeat(), tf.data.Dataset.from_tensor_slices(LABELS).batch(20)):
        with pytest.raises(ValueError, match="`data` must"):
            ResampledDataset.of_batches(bad)


@pytest.mark.parametrize("other", ["data", "epoch", "steps"])
def test_deferred_resampling_refuses_another_fit(other):
    drs = DeferredResampling(1, COUNTS)
    x = np.ones((N, 1), "float32")
    data = ResampledDataset(x, LABELS, batch_size=16, resampling=drs)
    given = ResampledDataset(x, LABELS, batch_size=16) if other == "data" else data
    with pytest.raises(RuntimeError, match="DeferredResampling"):
        model().fit(
            given,
            steps_per_epoch=data.steps_per_epoch + (other == "steps"),
            initial_epoch=int(other == "epoch"),
            epochs=3,
            shuffle=False,
            verbose=0,
            callbacks=[drs],
        )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the other backends have no strings")
def test_text_reaches_a_model():
    vectorize = keras.layers.TextVectorization(output_mode="multi_hot", vocabulary=["a", "b"])
    network = keras.Sequential([vectorize, keras.layers.Dense(3)])
    network.compile("sgd", LDAMLoss(COUNTS))
    data = ResampledDataset([["a b"]] * N, LABELS, batch_size=16)
    network.fit(data, steps_per_epoch=2, epochs=2, shuffle=False, verbose=0)


def test_the_loader_of_pytorch():
    torch = pytest.importorskip("torch")
    rows = torch.utils.data.TensorDataset(torch.arange(N))
    sampler = ClassBalancedSampler(LABELS, num_replicas=2, rank=1)
    sampler.set_epoch(4)
    loader = torch.utils.data.DataLoader(rows, batch_size=5, sampler=sampler)
    found = torch.cat([batch for (batch,) in loader]).tolist()
    weights = 1 / np.array(COUNTS)
    assert found == draw_positions(LABELS, 0, 4, class_weights=weights, num_replicas=2, rank=1).tolist()
    assert len(loader) == 6


def test_the_process_group_of_pytorch(monkeypatch):
    import sys
    import types

    group = types.SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, get_world_size=lambda: 4, get_rank=lambda: 3
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(distributed=group))
    sampler = ClassBalancedSampler(LABELS)
    assert (sampler.num_replicas, sampler.rank) == (4, 3)
    assert list(sampler) == list(ClassBalancedSampler(LABELS, num_replicas=4, rank=3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", np.zeros(3)),
        ("x", {"a": 1}),
        ("y", {"a": LABELS}),
        ("labels", LABELS[1:]),
        ("labels", np.zeros(N, int)),
        ("sample_weight", [1]),
        ("batch_size", 0),
        ("batch_size", 3),
        ("rank", 2),
        ("num_replicas", 0),
        ("resampling", "often"),
        ("resampling", [0, 0, 0]),
        ("resampling", [1, 1]),
        pytest.param("resampling", DeferredResampling(9, [3, 2]), id="resampling-of other counts"),
        ("transform", 3),
        ("first_epoch", -1),
        ("seed", 0.5),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(name, value):
    arguments = {"x": np.arange(N), "y": LABELS, "batch_size": 8, "num_replicas": 2, name: value}
    named = {"y": "labels", "resampling": "labels|resampling", "labels": "labels|x"}.get(name, name)
    with pytest.raises(ValueError, match=f"`({named})` must"):
        ResampledDataset(**arguments)

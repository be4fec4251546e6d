"""Change the class weights of a running `fit`."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tf_mmloss._validation import choice, number, text
from tf_mmloss.callbacks.base import Deferred, attach_states, fit_arguments
from tf_mmloss.imbalance import WEIGHT_SCHEMES, check_counts, class_weights
from tf_mmloss.losses.base import ClassWeights, LongTailLoss


class _Named(NamedTuple):
    """A loss of this package in a model, with the name and position of its output."""

    name: str
    position: int | None  # None where the model has one loss
    loss: LongTailLoss


class DeferredReweighting(Deferred):
    """Deferred re-weighting (DRW): class weights of one until `start_epoch`, re-balancing weights from then on.

        stage 1, epoch < start_epoch:   w_c = 1
        stage 2:                        w_c ~ 1 / effective number of c, or ~ 1 / n_c,  sum_c w_c = C

    (paper, section 3.3 and Algorithm 1). The model must be compiled with a loss of this package, whose batch
    loss is the weighted mean. Nothing is traced again when the weights change; the callback is a function of the
    epoch number alone, so it is right after a resume; `val_loss` stays un-weighted. `logs["reweighting"]` is 1
    in the epochs that were re-weighted, else 0. Between epochs and after `fit` the loss has weights of one, so place
    the callback before others that evaluate the model, and evaluate between epochs: between batches the weights of the
    training are on; after a `fit` that was interrupted call `on_train_end()`.

    A model of several outputs takes a callback for each, aimed by the output's name; `logs["NAME_reweighting"]` is
    then what the callback did. `fit` warns if it never reaches `start_epoch`, and if `class_weight=`, or weights by
    class in an array `sample_weight=` or in the first batch of a `tf.data` set or `PyDataset` (one is drawn for it),
    would weigh the classes a second time; those of a generator it cannot see.

    Args:
        start_epoch: first re-weighted epoch, from 0. The published one is the first drop of the learning rate,
            160 of 200; 0 re-weights throughout (CB-RW, CB-Focal).
        cls_counts: (C,) training examples per class. Default: those of the loss.
        scheme: "effective" (default; the published code) or "inverse" (Algorithm 1).
        beta: of the effective number, in [0, 1). Default 0.9999.
        output: name of the output whose loss is re-weighted: a key of the `loss` that the model was compiled with, or
            one of `model.output_names`. Default: all outputs, whose losses must have the same counts then.

    Raises:
        ValueError: an argument out of range. When `fit` starts: other counts than the loss's, or none in both; an
            output that is not there, or of several outputs none was named; another callback re-weights the same loss.
        TypeError: when `fit` starts, if the model's loss is none of this package's, or the model is of legacy
            `tf_keras`; on JAX, if the model is a `keras.Sequential`, which does not track the weights.
        RuntimeError: on JAX, in the first step, if a `train_step` of the model's own computes the loss without the
            model's state, in which the weights are, see "Weights and scales".

    Example:
        >>> model.compile(optimizer=SGD(0.1), loss=MaxMarginLoss(cls_counts))
        >>> model.fit(data, epochs=200, callbacks=[DeferredReweighting(160)])
        >>> two_outputs.compile(SGD(0.1), {"kind": LDAMLoss(kinds), "age": CrossEntropyLoss()})
        >>> callbacks = [DeferredReweighting(160, output="kind"), DeferredReweighting(160, ages, output="age")]
        >>> two_outputs.fit(kinds_and_ages, epochs=200, callbacks=callbacks)

    Reference:
        Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019, Algorithm 1.
    """

    # The attribute by which the loss's weights become part of the model's state during `fit`.
    _ATTRIBUTE = "deferred_reweighting"

    def __init__(
        self,
        start_epoch: int,
        cls_counts: Sequence[int] | np.ndarray | None = None,
        scheme: str = "effective",
        beta: float = 0.9999,
        *,
        output: str | None = None,
    ) -> None:
        super().__init__(start_epoch)
        self.cls_counts = None if cls_counts is None else check_counts(cls_counts).tolist()
        self.scheme, self.beta = choice("scheme", scheme, WEIGHT_SCHEMES), number("beta", beta, at_least=0, below=1)
        self.output = None if output is None else text("output", output)

    def _forget(self) -> None:
        super()._forget()
        self._weights = np.ones(0)  # from `start_epoch` on
        self._begun = False  # what the epoch that runs asks for
        self._layers: list[ClassWeights] = []

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        model = self.model
        if not isinstance(model, keras.Model):
            kind = f"{type(model).__module__}.{type(model).__name__}"
            raise TypeError(f"DeferredReweighting needs a model of Keras 3, a `keras.Model`. Received: {kind}")
        losses = _losses(model)
        if not losses:
            raise TypeError(
                "DeferredReweighting needs a model compiled with a LongTailLoss of tf_mmloss, whose class weights it "
                "can change: the losses for several classes an example, as AsymmetricLoss, have none. "
                f"Received: loss={model.loss!r}"
            )
        named = self._aimed(losses)
        aimed, counts = _different(named), self._counts(named)
        for loss in aimed:
            loss.enable_class_weights(len(counts))
        self._weights = class_weights(counts, self.scheme, self.beta)
        self._layers = [loss.class_weights for loss in aimed if loss.class_weights is not None]
        positions = {id(loss): position for position, loss in enumerate(_different(losses))}
        states: dict[str, keras.layers.Layer] = {}
        for loss, layer in zip(aimed, self._layers, strict=True):
            layer.held_by = id(self)
            states[f"{self._ATTRIBUTE}_{positions[id(loss)]}"] = layer
        attach_states(self, model, states)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        if any(layer.held_by != id(self) for layer in self._layers):
            raise ValueError(
                "Two DeferredReweighting re-weight one loss. Aim each at an output of its own, as in "
                f"DeferredReweighting(..., output={_losses(self.model)[0].name!r}). Received: output={self.output!r}"
            )
        self._warn_of_weights_applied_twice()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._begun = epoch >= self.start_epoch
        self._assign(self._begun)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            name = "reweighting" if self.output is None else f"{self.output}_reweighting"
            logs[name] = float(epoch >= self.start_epoch)
        self._assign(False)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._assign(False)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self._assign(self._begun)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        self._begun = False
        self._assign(False)

    def _assign(self, reweighted: bool) -> None:
        for layer in self._layers:
            layer.weight.assign(self._weights if reweighted else np.ones_like(self._weights))

    def _aimed(self, losses: list[_Named]) -> list[_Named]:
        """The losses of the output that the callback names, or all."""
        if self.output is None:
            return losses
        aimed = [named for named in losses if named.name == self.output]
        if not aimed:
            names = ", ".join(repr(named.name) for named in losses)
            raise ValueError(
                f"`output` must be one of the outputs with a loss of tf_mmloss: {names}. "
                f"Received: output={self.output!r}"
            )
        sharing = [named.name for named in losses if named.name != self.output and named.loss is aimed[0].loss]
        if sharing:
            raise ValueError(
                f"`output` {self.output!r} has one loss object with {', '.join(map(repr, sharing))}: re-weighting one "
                f"re-weights all. Give each output a loss of its own. Received: output={self.output!r}"
            )
        return aimed

    def _counts(self, aimed: list[_Named]) -> list[int]:
        """The counts of the callback, of its losses, or of both; refuse those that differ or that fit ambiguously."""
        of_losses = [named.loss.cls_counts for named in aimed]
        counts = of_losses[0] if self.cls_counts is None else self.cls_counts
        if len(_different(aimed)) > 1 and any(other is None or other != counts for other in of_losses):
            every = "; ".join(f"output={named.name!r} for {_described(named.loss)}" for named in aimed)
            raise ValueError(
                f"`output` must name the output to re-weight, as the losses of this model are not alike: {every}. "
                f"Write DeferredReweighting(..., output={aimed[0].name!r}), one callback for each output. "
                "Received: output=None"
            )
        if counts is None:
            raise ValueError(
                f"`cls_counts` must be given, as {type(aimed[0].loss).__name__} has none. Received: cls_counts=None"
            )
        if of_losses[0] is not None and of_losses[0] != counts:
            raise ValueError(
                f"`cls_counts` must be one count for each class, those of the loss, {of_losses[0]}; they can be left "
                f"out. Received: cls_counts={counts}"
            )
        return counts

    def _warn_of_weights_applied_twice(self) -> None:
        arguments = fit_arguments(self.model)
        twice = None
        if arguments.get("class_weight") is not None:
            twice = "`class_weight`"
        else:
            of_data = _labels_and_weights(arguments.get("x"))
            labels, weights = of_data or (arguments.get("y"), arguments.get("sample_weight"))
            aimed = self._aimed(_losses(self.model))
            if any(_weigh_by_class(_of_output(named, labels), _of_output(named, weights)) for named in aimed):
                twice = "The data set's `sample_weight`" if of_data else "`sample_weight`"
        if twice:
            warnings.warn(
                f"{twice} of `fit` weighs by class, and DeferredReweighting does so from epoch {self.start_epoch} on: "
                "the weights are multiplied. Leave one of the two out.",
                stacklevel=2,
            )


def _losses(model: keras.Model) -> list[_Named]:
    """The losses of this package by output, named as `compile` names them."""
    names = list(getattr(model, "output_names", None) or [])
    flat = keras.tree.flatten_with_path(model.loss)
    if len(flat) == 1 and flat[0][0] == ():  # one loss for all outputs
        loss = model.loss
        named = [(name, loss) for name in names or [getattr(loss, "name", "")]]
    elif len(names) == len(flat) and all(isinstance(path[0], int) for path, _ in flat):
        named = list(zip(names, [loss for _, loss in flat], strict=True))
    else:
        named = [("/".join(map(str, path)), loss) for path, loss in flat]
    several = len(named) > 1
    return [
        _Named(name, position if several else None, loss)
        for position, (name, loss) in enumerate(named)
        if isinstance(loss, LongTailLoss)
    ]


def _different(losses: list[_Named]) -> list[LongTailLoss]:
    """Each loss object once: outputs may share one."""
    return list({id(named.loss): named.loss for named in losses}.values())


def _described(loss: LongTailLoss) -> str:
    return f"{type(loss).__name__} " + ("without counts" if loss.cls_counts is None else f"of {loss.cls_counts}")


def _of_output(named: _Named, values: Any) -> Any:
    """What of `fit`'s `y` or `sample_weight` belongs to an output; None if that cannot be told."""
    if isinstance(values, dict):
        return values.get(named.name)
    if named.position is not None and isinstance(values, (list, tuple)):
        return values[named.position] if named.position < len(values) else None
    return values


def _labels_and_weights(data: Any) -> tuple[Any, Any] | None:
    """The labels and weights of the first batch of a data set that can be read again; None: it has no weights."""
    batch: Any = None
    spec = getattr(data, "element_spec", None)
    if isinstance(spec, tuple) and len(spec) == 3 and hasattr(data, "take"):  # a distributed set has no `take`
        batch = next(iter(data.take(1)), None)
    elif isinstance(data, keras.utils.PyDataset):
        batch = data[0]
    return (batch[1], batch[2]) if isinstance(batch, tuple) and len(batch) == 3 else None


def _weigh_by_class(y: Any, sample_weight: Any) -> bool:
    """Whether weights (B,) or (B, ...) differ between classes and not within them."""
    if y is None or sample_weight is None:
        return False
    arrays = (keras.ops.convert_to_numpy(v) if keras.ops.is_tensor(v) else np.asarray(v) for v in (y, sample_weight))
    labels, weights = (v[..., 0] if v.ndim > 1 and v.shape[-1] == 1 else v for v in arrays)
    if labels.dtype.kind not in "biuf" or weights.dtype.kind not in "biuf":
        return False
    if labels.ndim > 1 and labels.shape != weights.shape and (labels >= 0).all() and np.allclose(labels.sum(-1), 1):
        labels = labels.argmax(axis=-1)  # one-hot rows, and not the labels of positions
    if not weights.ndim or weights.shape != labels.shape[: weights.ndim]:
        return False
    weights = weights.reshape(weights.shape + (1,) * (labels.ndim - weights.ndim))
    weights = np.broadcast_to(weights, labels.shape).astype(float).reshape(-1)
    labels = labels.reshape(-1)
    classes, labels = np.unique(labels, return_inverse=True)
    means = np.bincount(labels, weights) / np.bincount(labels)
    by_class = len(labels) > len(classes) and np.allclose(weights, means[labels], rtol=1e-3, atol=0)
    return bool(by_class and not np.allclose(means, means[0], rtol=1e-3, atol=0))

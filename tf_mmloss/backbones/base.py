"""What the kinds of backbones share."""


class BackboneError(ValueError):
    """The network cannot be built as it was asked for."""


def refuse_weights(spec: str, weights: str) -> None:
    """Raise if weights are asked for of a network that comes without."""
    if weights != "none":
        raise BackboneError(f"`pretrained` must be none for {spec}. Received: pretrained={weights!r}")

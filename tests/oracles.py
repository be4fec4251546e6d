"""Float64 oracles: the papers' equations in plain loops, without the package."""

import math

import numpy as np


def log_sum_exp(values):
    largest = max(values)
    return largest + math.log(math.fsum(math.exp(v - largest) for v in values))


def softmax_loss(u, y):
    """-log softmax(u)_y of one example."""
    return log_sum_exp(u) - u[y]


def rival(u, y):
    """max_{j != y} u_j of one example."""
    return max(v for j, v in enumerate(u) if j != y)


def per_example(labels, logits):
    return [(int(y), [float(v) for v in u]) for y, u in zip(labels, np.asarray(logits, np.float64), strict=True)]


def cross_entropy(labels, logits, margins=None, scale=1.0):
    """-log softmax(s (u - m 1_y))_y; margins: None or one for each example."""
    losses = []
    for i, (y, u) in enumerate(per_example(labels, logits)):
        lowered = list(u)
        lowered[y] -= 0.0 if margins is None else margins[i]
        losses.append(softmax_loss([scale * v for v in lowered], y))
    return np.array(losses)


def uniform_margin(labels, logits, margin=0.5, scale=30.0):
    """Additive-margin softmax, Wang et al. 2018."""
    return cross_entropy(labels, logits, [margin] * len(labels), scale)


def ldam_margins(counts, largest=0.5):
    """C_m n_c^(-1/4) with the largest one `largest`, Cao et al. 2019, Eq. 13."""
    return np.array([largest * (min(counts) / n) ** 0.25 for n in counts])


def ldam(labels, logits, counts, largest=0.5, scale=30.0):
    """Cao et al. 2019, Eq. 12."""
    margins = ldam_margins(counts, largest)
    return cross_entropy(labels, logits, [margins[int(y)] for y in labels], scale)


def logit_adjusted(labels, logits, counts, tau=1.0, scale=1.0):
    """Menon et al. 2021, Eq. 10."""
    raised = [tau * math.log(n / sum(counts)) for n in counts]
    return np.array(
        [
            softmax_loss([scale * v + r for v, r in zip(u, raised, strict=True)], y)
            for y, u in per_example(labels, logits)
        ]
    )


def maximum_margin(z, y, delta_neg, beta):
    """Delta_y of one example, Eq. 1-3 and 5; a tie counts as correct."""
    if z[y] >= rival(z, y):
        return math.exp(-(z[y] - rival(z, y)) - beta * delta_neg)
    return math.exp(-(rival(z, y) - z[y]) - delta_neg)


def max_margin(
    labels,
    logits,
    counts=None,
    delta_neg=0.6,
    beta=1.5,
    class_margin=None,
    scale=10.0,
    margin_space="logit",
    margin_at=None,
):
    """MM (Eq. 1-5) and, with class margins, MM-LDAM (Eq. 6, 7).

    `margin_at`: the logits from which Delta is computed, to freeze it in finite differences.
    """
    margins = []
    gammas = [0.0] * np.shape(logits)[1] if class_margin is None else ldam_margins(counts, class_margin)
    for y, u in per_example(labels, logits if margin_at is None else margin_at):
        unit = scale if margin_space == "logit" else 1.0
        margin = maximum_margin([unit * v for v in u], y, delta_neg - gammas[y], beta)
        margins.append(margin / unit)
    return cross_entropy(labels, logits, margins, scale)


def focal(labels, logits, gamma=1.0, scale=1.0):
    """Lin et al. 2017, Eq. 4, of a softmax."""
    losses = [softmax_loss([scale * v for v in u], y) for y, u in per_example(labels, logits)]
    return np.array([(1 - math.exp(-loss)) ** gamma * loss for loss in losses])


def hinge(labels, logits, margins=None, scale=1.0):
    """Cao et al. 2019, Eq. 10; margins: one for each example, None is 0.5."""
    margins = [0.5] * len(labels) if margins is None else margins
    rows = per_example(labels, logits)
    return np.array([scale * max(rival(u, y) - u[y] + margins[i], 0.0) for i, (y, u) in enumerate(rows)])


def ldam_hinge(labels, logits, counts, largest=0.5, scale=1.0):
    margins = ldam_margins(counts, largest)
    return hinge(labels, logits, [margins[int(y)] for y in labels], scale)


def effective_number_weights(counts, beta=0.9999):
    """1 / E_n with E_n = 1 + b + ... + b^(n-1), Cui et al. 2019, Eq. 2; normalised to sum to C."""
    return normalised([1 / math.fsum(beta**k for k in range(n)) for n in counts])


def inverse_frequency_weights(counts):
    """1 / n_c (Algorithm 1), normalised to sum to C."""
    return normalised([1 / n for n in counts])


def normalised(weights):
    return np.array([w * len(weights) / math.fsum(weights) for w in weights])


def weighted_mean(losses, weights):
    """sum_i w_i l_i / sum_i w_i."""
    return math.fsum(w * loss for w, loss in zip(weights, losses, strict=True)) / math.fsum(weights)


def gradient(function, x, step=2e-6):
    """Gradient of the sum of `function(x)` by central finite differences."""
    x = np.asarray(x, np.float64)
    result = np.zeros_like(x)
    for position in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[position] = step
        result[position] = (math.fsum(np.ravel(function(x + moved))) - math.fsum(np.ravel(function(x - moved)))) / (
            2 * step
        )
    return result

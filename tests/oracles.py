"""Float64 oracles: the papers' equations in plain loops, without the package."""

import math
import statistics

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


def la_ldam(labels, logits, counts, largest=0.5, scale=30.0, tau=1.0):
    """LDAM of logits that are raised by tau log pi."""
    raised = [tau / scale * math.log(n / sum(counts)) for n in counts]
    return ldam(labels, np.asarray(logits, np.float64) + raised, counts, largest, scale)


def logit_adjusted(labels, logits, counts, tau=1.0, scale=1.0):
    """Menon et al. 2021, Eq. 10."""
    raised = [tau * math.log(n / sum(counts)) for n in counts]
    return np.array(
        [
            softmax_loss([scale * v + r for v, r in zip(u, raised, strict=True)], y)
            for y, u in per_example(labels, logits)
        ]
    )


def vs(labels, logits, counts, gamma=0.15, tau=1.25, scale=1.0):
    """Kini et al. 2021: logits over (n_max / n_c)^gamma, plus tau log pi_c."""
    losses = []
    for y, u in per_example(labels, logits):
        z = [
            scale * v / (max(counts) / n) ** gamma + tau * math.log(n / sum(counts))
            for v, n in zip(u, counts, strict=True)
        ]
        losses.append(softmax_loss(z, y))
    return np.array(losses)


def hashed_uniforms(logits, seed):
    """What `tf_mmloss.losses.draws` says: a hash of the bits of the logits, in NumPy's 32-bit words."""

    def mixed(x):
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
        return x ^ (x >> np.uint32(16))

    bits = np.ascontiguousarray(np.asarray(logits, np.float32)).view(np.uint32)
    of_logit, of_row = np.random.SeedSequence(seed).generate_state(2 * bits.shape[1]).reshape(2, -1)
    rows = mixed(bits ^ of_logit).sum(axis=1, keepdims=True, dtype=np.uint32)
    return ((mixed(rows + of_row) >> np.uint32(9)) + 0.5) / 2**23


def hashed_normals(logits, seed):
    inverse = statistics.NormalDist().inv_cdf
    return np.vectorize(inverse)(hashed_uniforms(logits, seed))


def equalization(labels, logits, counts, gamma=0.9, threshold=0.05, scale=1.0, seed=0, frozen_at=None):
    """Tan et al. 2020, Eq. 5 to 7; `frozen_at`: the logits that the draw is made from, to freeze it."""
    drawn = hashed_uniforms(logits if frozen_at is None else frozen_at, seed) < gamma
    losses = []
    for (y, u), spared in zip(per_example(labels, logits), drawn, strict=True):
        rare = [n / sum(counts) < threshold for n in counts]
        rivals = [scale * v for k, v in enumerate(u) if k == y or not (spared[k] and rare[k])]
        losses.append(log_sum_exp(rivals) - scale * u[y])
    return np.array(losses)


def gcl(labels, logits, counts, noise=0.5, margin=0.0, scale=30.0, seed=0, gamma=0.0, frozen_at=None):
    """Li et al. 2022; `frozen_at` as above, also of the focal factor."""
    drawn = np.minimum(np.abs(hashed_normals(logits if frozen_at is None else frozen_at, seed) / 3), 1)
    rarity = np.array([math.log(max(counts)) - math.log(n) for n in counts])

    def losses(u):
        clouded = np.asarray(u, np.float64) - noise * drawn * rarity / rarity.max()
        return np.array(cross_entropy(labels, clouded, [margin] * len(labels), scale))

    return (1 - np.exp(-losses(logits if frozen_at is None else frozen_at))) ** gamma * losses(logits)


def label_aware_smoothing(labels, logits, counts, head=0.3, tail=0.0, shape="concave", scale=1.0):
    """Zhong et al. 2021, Eq. 4 to 6."""
    losses = []
    for y, u in per_example(labels, logits):
        share = (counts[y] - min(counts)) / (max(counts) - min(counts))
        risen = {
            "concave": math.sin(math.pi * share / 2),
            "linear": share,
            "convex": 1 + math.sin(1.5 * math.pi + math.pi * share / 2),
        }[shape]
        smoothing = tail + (head - tail) * risen
        each = [softmax_loss([scale * v for v in u], k) for k in range(len(u))]
        losses.append((1 - smoothing) * each[y] + smoothing * math.fsum(each) / len(each))
    return np.array(losses)


def class_balanced_sigmoid(labels, logits, counts, beta=0.9999, gamma=0.0, scale=1.0):
    """Cui et al. 2019, Eq. 10 and 12, with the weights of Eq. 2."""
    weights, losses = effective_number_weights(counts, beta), []
    for y, u in per_example(labels, logits):
        signed = [scale * v if k == y else -scale * v for k, v in enumerate(u)]
        terms = [log_sum_exp([0, -z]) * math.exp(-gamma * log_sum_exp([0, z])) for z in signed]
        losses.append(weights[y] * math.fsum(terms))
    return np.array(losses)


def lade(labels, logits, counts, alpha=0.1, penalty=0.1, scale=1.0):
    """Hong et al. 2021, Eq. 8 to 11, with the shift of the published code; the regulariser in every row."""
    logits, priors = scale * np.asarray(logits, np.float64), [n / sum(counts) for n in counts]
    regularizer = 0.0
    for c, prior in enumerate(priors):
        own = [u[c] for y, u in zip(labels, logits, strict=True) if y == c]
        of_class = math.fsum(own) / len(own) if own else 0.0
        of_all = log_sum_exp([u[c] - math.log(prior) - math.log(len(priors)) for u in logits]) - math.log(len(logits))
        regularizer -= prior * (of_class - of_all - penalty * of_all**2)
    return logit_adjusted(labels, logits, counts) + alpha * regularizer


def seesaw(labels, logits, counts, p=0.8, q=2.0, floor=0.01, scale=1.0, frozen_at=None):
    """Wang et al. 2021, Eq. 3 to 7; `frozen_at`: the logits that the probabilities are of."""
    losses = []
    frozen = per_example(labels, logits if frozen_at is None else frozen_at)
    for (y, u), (_, v) in zip(per_example(labels, logits), frozen, strict=True):
        share = [math.exp(-softmax_loss([scale * x for x in v], k)) for k in range(len(v))]
        z = []
        for k, x in enumerate(u):
            factor = min(1, max(counts[k], 1) / max(counts[y], 1)) ** p * max(1, share[k] / max(share[y], floor)) ** q
            z.append(scale * x + (0 if k == y else math.log(factor)))
        losses.append(softmax_loss(z, y))
    return np.array(losses)


def asymmetric(targets, logits, gamma_negative=4.0, gamma_positive=1.0, clip=0.05, frozen_at=None):
    """Ridnik et al. 2021, Eq. 5 to 7; `frozen_at`: the logits that the focusing factors are of."""
    losses, targets = [], np.asarray(targets, np.float64)
    for t, u, v in zip(targets, logits, logits if frozen_at is None else frozen_at, strict=True):
        total = 0.0
        for y, x, f in zip(*(a.astype(np.float64) for a in (t, u, v)), strict=True):
            p, frozen = 1 / (1 + math.exp(-x)), 1 / (1 + math.exp(-f))
            q, frozen_q = max(p - clip, 0), max(frozen - clip, 0)
            total -= y * (1 - frozen) ** gamma_positive * math.log(p)
            total -= (1 - y) * frozen_q**gamma_negative * math.log(1 - q)
        losses.append(total)
    return np.array(losses)


def distribution_balanced(
    targets,
    logits,
    counts,
    num_examples,
    alpha=0.1,
    beta=10.0,
    mu=0.2,
    negative_scale=2.0,
    kappa=0.05,
    gamma=2.0,
    focal_weight=2.0,
    scale=1.0,
):
    """Wu et al. 2020, Eq. 3 to 8, in the focal form of the published code."""
    losses = []
    for t, u in zip(np.asarray(targets, np.float64), np.asarray(logits, np.float64), strict=True):
        total, drawn = 0.0, math.fsum(y / n for y, n in zip(t, counts, strict=True))
        for y, x, n in zip(t, u, counts, strict=True):
            weight = alpha + (1 / (1 + math.exp(-beta * (1 / n / drawn - mu))) if drawn else 1)
            z = scale * x - kappa * math.log(num_examples / n - 1) / negative_scale
            for share, chance in ((y, z), ((1 - y) / negative_scale, -negative_scale * z)):
                q = 1 / (1 + math.exp(-chance))
                total -= weight * share * (focal_weight * (1 - q) ** gamma if gamma else 1) * math.log(q)
        losses.append(total / len(counts))
    return np.array(losses)


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


def influence_balanced(labels, logits, features, counts, alpha=1000.0, scale=1.0):
    """Park et al. 2021, Eq. 11, with the floor and the class weights of the published code."""
    weights, losses = inverse_frequency_weights(counts), []
    for (y, u), h in zip(per_example(labels, logits), np.asarray(features, np.float64), strict=True):
        p = [math.exp(-softmax_loss([scale * v for v in u], k)) for k in range(len(u))]
        influence = math.fsum(abs(q - (k == y)) for k, q in enumerate(p)) * math.fsum(abs(v) for v in h)
        losses.append(weights[y] * softmax_loss([scale * v for v in u], y) * alpha / (influence + 1e-3))
    return np.array(losses)

"""Float64 oracle of the published ResNets with a cosine head: forward, backward and SGD, in NumPy alone.

Parameters go by their PyTorch names and layouts; images are (B, H, W, D).
"""

import re

import numpy as np


class ResNet:
    """The network, its running statistics and its velocities."""

    def __init__(self, state):
        arrays = {name: np.asarray(a, np.float64) for name, a in state.items() if not name.endswith("tracked")}
        self.running = {name: a for name, a in arrays.items() if ".running_" in name}
        self.parameters = {name: a for name, a in arrays.items() if name not in self.running}
        self.velocities = {name: np.zeros_like(a) for name, a in self.parameters.items()}
        self.blocks = len([name for name in arrays if re.fullmatch(r"layer1\.\d+\.conv1\.weight", name)])

    def step(self, images, labels, margins, *, scale, rate, momentum, decay):
        """Return the LDAM loss of a batch, and take a step of SGD with coupled weight decay."""
        logits, back = self.forward(images, training=True)
        z = scale * logits
        z[np.arange(len(z)), labels] -= scale * margins[labels]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        loss = -np.log(p[np.arange(len(z)), labels]).mean()
        p[np.arange(len(z)), labels] -= 1
        for name, gradient in back(scale * p / len(z)).items():
            gradient = gradient + decay * self.parameters[name]
            self.velocities[name] = momentum * self.velocities[name] + gradient
            self.parameters[name] = self.parameters[name] - rate * self.velocities[name]
        return loss

    def forward(self, x, *, training):
        """Return the cosines, and the function from their gradient to the gradients of all parameters."""
        gradients, backs = {}, []

        def apply(function, *arguments):
            nonlocal x
            x, back = function(x, *arguments)
            backs.append(back)

        def unit(conv, bn, stride):
            apply(self._convolution, conv, stride, gradients)
            apply(self._normalise, bn, training, gradients)

        unit("conv1", "bn1", 1)
        apply(relu)
        for stage, filters in ((1, 16), (2, 32), (3, 64)):
            for block in range(self.blocks):
                stride = 2 if stage > 1 and block == 0 else 1
                name, entered, start = f"layer{stage}.{block}", x, len(backs)
                unit(f"{name}.conv1", f"{name}.bn1", stride)
                apply(relu)
                unit(f"{name}.conv2", f"{name}.bn2", 1)
                branch = backs[start:]
                del backs[start:]
                skipped, back_skipped = shortcut(entered, filters, stride)
                x = x + skipped
                backs.append(join(branch, back_skipped))
                apply(relu)
        apply(average)
        apply(self._cosines, "linear", gradients)

        def back(gradient):
            for function in reversed(backs):
                gradient = function(gradient)
            return gradients

        return x, back

    def _convolution(self, x, name, stride, gradients):
        """3x3, padded by one pixel on every side."""
        w = self.parameters[f"{name}.weight"]  # (out, in, 3, 3)
        filters, channels = w.shape[:2]
        matrix = w.transpose(2, 3, 1, 0).reshape(-1, filters)
        height, width = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
        padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])

        def windows(array):
            """The nine shifted views of the padded array, in the order of `matrix`'s rows."""
            for i in range(3):
                for j in range(3):
                    yield array[:, i : i + stride * height : stride, j : j + stride * width : stride]

        columns = np.concatenate(list(windows(padded)), axis=-1)

        def back(g):
            dw = columns.reshape(-1, 9 * channels).T @ g.reshape(-1, filters)
            gradients[f"{name}.weight"] = dw.reshape(3, 3, channels, filters).transpose(3, 2, 0, 1)
            dx = np.zeros_like(padded)
            for window, part in zip(windows(dx), np.split(g @ matrix.T, 9, axis=-1), strict=True):
                window += part
            return dx[:, 1:-1, 1:-1]

        return columns @ matrix, back

    def _normalise(self, x, name, training, gradients):
        """Batch normalisation; the running variance is the unbiased one."""
        running = [f"{name}.running_{statistic}" for statistic in ("mean", "var")]
        mean, variance = (self.running[key] for key in running)
        if training:
            mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
            count = x.size // x.shape[-1]
            for key, value in zip(running, (mean, variance * count / (count - 1)), strict=True):
                self.running[key] = 0.9 * self.running[key] + 0.1 * value
        gamma = self.parameters[f"{name}.weight"]
        inverse = 1 / np.sqrt(variance + 1e-5)
        normal = (x - mean) * inverse

        def back(g):
            gradients[f"{name}.weight"] = (g * normal).sum(axis=(0, 1, 2))
            gradients[f"{name}.bias"] = g.sum(axis=(0, 1, 2))
            centred = g - g.mean(axis=(0, 1, 2)) - normal * (g * normal).mean(axis=(0, 1, 2))
            return gamma * inverse * centred

        return gamma * normal + self.parameters[f"{name}.bias"], back

    def _cosines(self, x, name, gradients):
        w = self.parameters[f"{name}.weight"]
        x_norm, w_norm = np.linalg.norm(x, axis=1, keepdims=True), np.linalg.norm(w, axis=0, keepdims=True)
        x_unit, w_unit = x / x_norm, w / w_norm

        def back(g):
            dx, dw = g @ w_unit.T, x_unit.T @ g
            gradients[f"{name}.weight"] = (dw - w_unit * (w_unit * dw).sum(axis=0)) / w_norm
            return (dx - x_unit * (x_unit * dx).sum(axis=1, keepdims=True)) / x_norm

        return x_unit @ w_unit, back


def relu(x):
    return np.maximum(x, 0), lambda g: g * (x > 0)


def average(x):
    area = x.shape[1] * x.shape[2]
    return x.mean(axis=(1, 2)), lambda g: np.broadcast_to(g[:, None, None] / area, x.shape)


def shortcut(x, filters, stride):
    """Option A: every second pixel, zero channels half before and half behind."""
    added = (filters - x.shape[-1]) // 2

    def back(g):
        dx = np.zeros_like(x)
        dx[:, ::stride, ::stride] = g[..., added : added + x.shape[-1]]
        return dx

    return np.pad(x[:, ::stride, ::stride], [(0, 0), (0, 0), (0, 0), (added, added)]), back


def join(branch, back_skipped):
    """The backward pass of a block: through its branch, and past it."""

    def back(g):
        past = back_skipped(g)
        for function in reversed(branch):
            g = function(g)
        return g + past

    return back

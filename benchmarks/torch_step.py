"""The same training step in PyTorch: ResNet for CIFAR with option-A shortcuts, cosine head, LDAM loss, SGD."""

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two convolutions and the shortcut: every second pixel, zero channels before and behind."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.stride, self.added = stride, filters - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.added:
            half = self.added // 2
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.added - half))
        return functional.relu(y + x)


class ResNet(nn.Module):
    """Cosines (B, classes) of images (B, 3, H, W)."""

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        blocks, inputs = [], 16
        for filters in (16, 32, 64):
            for _ in range((depth - 2) // 6):
                blocks.append(Block(inputs, filters, 1 if filters == inputs else 2))
                inputs = filters
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Parameter(torch.empty(64, classes).uniform_(-1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.blocks(self.stem(x)).mean((2, 3))
        return functional.normalize(features) @ functional.normalize(self.head, dim=0)


def ldam(cosines: torch.Tensor, labels: torch.Tensor, margins: torch.Tensor, scale: float = 30.0) -> torch.Tensor:
    lowered = functional.one_hot(labels, cosines.shape[1]) * margins[labels][:, None]
    return functional.cross_entropy(scale * (cosines - lowered), labels)


def prepare(
    channels_last: bool,
    bfloat16: bool,
    compiled: bool,
    depth: int,
    batch: int,
    threads: int | None = None,
    device: str = "cpu",
    mode: str | None = None,
    steps: int = 1,
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return so many training steps on a batch that lies on the device, and what they are.

    Args:
        channels_last, bfloat16, compiled: the contestant. Off bfloat16, a GPU multiplies in TF32.
        depth, batch, threads: sizes.
        device: "cpu", or "auto" for a GPU where there is one.
        mode: of `torch.compile`; "reduce-overhead" and "max-autotune" replay CUDA graphs.
        steps: taken before the host waits for the device.
    """
    if compiled and not shutil.which(os.environ.get("CXX", "g++")):
        raise ModuleNotFoundError("torch.compile needs a C++ compiler", name="g++")
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 in matrix products; cuDNN's convolutions have it by default
        torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = ResNet(depth, 10).to(device, memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=2e-4, fused=compiled)
    images = torch.randn(batch, 3, 32, 32).to(device, memory_format=layout)
    labels = torch.randint(10, (batch,)).to(device)
    margins = (5000 * 0.01 ** (torch.arange(10) / 9)) ** -0.25
    margins = (margins * 0.5 / margins.max()).to(device)

    def loss() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            cosines = model(images)
        return ldam(cosines.float(), labels, margins)

    forward = torch.compile(loss, mode=mode) if compiled else loss

    def train() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            forward().backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    facts = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "parameters": sum(p.numel() for p in model.parameters()),
        "images": steps * batch,
        "versions": {"torch": torch.__version__},
    }
    return train, facts


def device_memory() -> int | None:
    """Peak bytes in use on the GPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None

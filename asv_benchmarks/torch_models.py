"""Print how much faster PyTorch's models are after `jitconv.torch.accelerate`.

    python asv_benchmarks/torch_models.py [--model vgg_cifar] [--steps 50] [--rounds 9] [--threads 2] [--batch 64]

For each model: the largest difference of the loss over `--steps` training steps with and without jitconv, as a part of
the first loss, beside that of PyTorch in its two memory formats; a training step
(forward, loss, backward, SGD) and inference of 1 and 32 images, as PyTorch's time over that of the accelerated model.
PyTorch's is the faster of its two memory formats, and so is jitconv's. All of them take turns in one process, and a
ratio is the median over the rounds. vgg_cifar, vgg11 and resnet18 see images of 32x32 pixels; vgg11_224 and
resnet18_224 are the same networks at 224x224, with `--batch` divided by 16.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator

try:
    import torch
    from torch import nn
except ImportError:
    sys.exit("This table is about PyTorch, which is not installed: pip install torch")

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def vgg(widths: list[int], *hidden: int, classes: int, features: int) -> nn.Sequential:
    """Return 3x3 convolutions with ReLU and the dense layers after them; a width of 0 is a pooling."""
    layers: list[nn.Module] = []
    channels = 3
    for width in widths:
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    if not hidden:
        layers.append(nn.AdaptiveAvgPool2d(1))
    layers.append(nn.Flatten())
    for width in hidden:
        layers += [nn.Linear(features, width), nn.ReLU(inplace=True)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, classes))


def vgg_cifar() -> nn.Sequential:
    """Return six convolutions of 64, 128 and 256 channels."""
    return vgg([64, 64, 0, 128, 128, 0, 256, 256, 0], classes=10, features=256)


def vgg11(size: int = 32) -> nn.Sequential:
    """Return configuration A of Simonyan and Zisserman (2015)."""
    widths = [64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0]
    if size == 32:
        return vgg(widths, 512, 512, classes=10, features=512)
    return vgg(widths, 4096, 4096, classes=1000, features=512 * (size // 32) ** 2)


class Block(nn.Module):
    """Two convolutions with a shortcut around them."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum of both ways, without what is below zero."""
        y: torch.Tensor = self.relu(self.body(x) + self.shortcut(x))
        return y


def resnet18(size: int = 32) -> nn.Sequential:
    """Return the residual network of He et al. (2016); at 32x32 with a first layer of 3x3 and no pooling after it."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 3, padding=1, bias=False) if size == 32 else nn.Conv2d(3, 64, 7, 2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
    ]
    if size != 32:
        layers.append(nn.MaxPool2d(3, 2, padding=1))
    channels = 64
    for width in (64, 128, 256, 512):
        layers += [Block(channels, width, 1 if width == 64 else 2), Block(width, width, 1)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10 if size == 32 else 1000))


MODELS: dict[str, tuple[Callable[[], nn.Sequential], int, int]] = {
    "vgg_cifar": (vgg_cifar, 32, 10),
    "vgg11": (vgg11, 32, 10),
    "resnet18": (resnet18, 32, 10),
    "vgg11_224": (lambda: vgg11(224), 224, 1000),
    "resnet18_224": (lambda: resnet18(224), 224, 1000),
}


class Trained:
    """A model in training: in a memory format, by PyTorch or by jitconv."""

    def __init__(self, model: nn.Module, memory_format: torch.memory_format, accelerated: bool) -> None:
        self.model = copy.deepcopy(model)
        self.format = memory_format
        if accelerated:
            from jitconv.torch import accelerate

            accelerate(self.model)  # the weights may stay as they are: images decide over the format
        else:
            self.model.to(memory_format=memory_format)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)

    def step(self, x: torch.Tensor, labels: torch.Tensor) -> float:
        """Take a step and return the loss before it."""
        self.model.train()
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(x.to(memory_format=self.format)), labels)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def use(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of images."""
        self.model.eval()
        with torch.inference_mode():
            y: torch.Tensor = self.model(x.to(memory_format=self.format))
        return y


def contenders(model: nn.Module) -> dict[tuple[str, str], Trained]:
    """Return PyTorch and jitconv in both memory formats, all from the same parameters."""
    pairs = itertools.product(("PyTorch", "jitconv"), FORMATS)
    return {(who, name): Trained(model, FORMATS[name], who == "jitconv") for who, name in pairs}


def loss_curves(
    model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]], steps: int
) -> dict[str, list[float]]:
    """Return the losses of PyTorch and of jitconv, both contiguous, and of PyTorch in channels_last."""
    curves = {}
    for name, memory_format in (("PyTorch", "contiguous"), ("jitconv", "contiguous"), ("other", "channels_last")):
        trained = Trained(model, FORMATS[memory_format], name == "jitconv")
        curves[name] = [trained.step(*batch) for batch in itertools.islice(itertools.cycle(batches), steps)]
    return curves


def apart(first: list[float], second: list[float]) -> str:
    """Return the largest difference of two curves, as a part of the first loss."""
    return f"{max(abs(a - b) for a, b in zip(first, second, strict=True)) / first[0]:.1e}"


def median_ratio(calls: dict[tuple[str, str], Callable[[], object]], rounds: int, calls_each: int) -> dict[str, float]:
    """Return PyTorch's time over jitconv's, the faster format of each, and the times, medians over rounds."""
    for call in calls.values():
        call()
    times: dict[tuple[str, str], list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()  # what ran before leaves the caches to it
            start = time.perf_counter()
            for _ in range(calls_each):
                call()
            times[name].append((time.perf_counter() - start) / calls_each)
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    best = {who: min((one for one in middle if one[0] == who), key=middle.__getitem__) for who, _ in middle}
    ratios = [a / b for a, b in zip(times[best["PyTorch"]], times[best["jitconv"]], strict=True)]
    made = {f"{who}, {name}": 1e3 * value for (who, name), value in middle.items()}
    return {"ratio": statistics.median(ratios), **made}


def rows(name: str, arguments: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the lines of a model."""
    make, size, classes = MODELS[name]
    batch = arguments.batch if size == 32 else max(1, arguments.batch // 16)
    torch.manual_seed(0)
    model = make()
    batches = [(torch.randn(batch, 3, size, size), torch.randint(classes, (batch,))) for _ in range(4)]
    if arguments.steps:
        curves = loss_curves(model, batches, arguments.steps)
        plain = curves["PyTorch"]
        told = f"loss of {arguments.steps} steps, {plain[0]:.4f} to {plain[-1]:.4f}"
        words = f"{apart(plain, curves['jitconv'])} apart (PyTorch's formats: {apart(plain, curves['other'])})"
        yield [name, told, words]
    x, labels = batches[0]
    everyone = contenders(model)
    steps = {who: lambda one=one: one.step(x, labels) for who, one in everyone.items()}
    yield [name, f"training step of {batch}", *cells(median_ratio(steps, arguments.rounds, 1))]
    for count in (1, 32):
        images = torch.randn(count, 3, size, size)
        uses = {who: lambda one=one, images=images: one.use(images) for who, one in everyone.items()}
        yield [name, f"inference of {count}", *cells(median_ratio(uses, arguments.rounds, 20 if count == 1 else 2))]


def cells(measured: dict[str, float]) -> list[str]:
    """Return the ratio and the times as text."""
    times = [f"{value:.2f}" for name, value in measured.items() if name != "ratio"]
    return [f"{measured['ratio']:.2f}", *times]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, action="append", help="default: the three at 32x32")
    parser.add_argument("--steps", type=int, default=50, help="of the loss curves; 0: none")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| model | | times faster | PyTorch, ms | channels_last | jitconv, ms | channels_last |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.model or ["vgg_cifar", "vgg11", "resnet18"]:
        for row in rows(name, arguments):
            print("| " + " | ".join(row + [""] * (7 - len(row))) + " |", flush=True)


if __name__ == "__main__":
    main()

"""The layers that are compared: those of LeNet-like networks, VGG, AlexNet and ResNet-50, and their poolings."""

from __future__ import annotations

from .problems import Conv, Pool

LAYERS: dict[str, Conv | Pool] = {
    "one image, 6 to 16": Conv(1, 6, 14, 14, 16, 5, 1, 0),
    "simple_convnet": Conv(100, 1, 28, 28, 30, 5, 1, 0),
    "deep_convnet_1": Conv(100, 1, 28, 28, 16, 3, 1, 1),
    "deep_convnet_2": Conv(100, 16, 28, 28, 16, 3, 1, 1),
    "deep_convnet_4": Conv(100, 32, 14, 14, 32, 3, 1, 2),
    "deep_convnet_6": Conv(100, 64, 8, 8, 64, 3, 1, 1),
    "vgg_cifar_1": Conv(64, 3, 32, 32, 64, 3, 1, 1),
    "vgg_cifar_2": Conv(64, 64, 32, 32, 64, 3, 1, 1),
    "vgg_cifar_4": Conv(64, 128, 16, 16, 128, 3, 1, 1),
    "vgg_cifar_6": Conv(64, 256, 8, 8, 256, 3, 1, 1),
    "vgg_cifar_8": Conv(64, 512, 4, 4, 512, 3, 1, 1),
    "alexnet_2": Conv(16, 64, 27, 27, 192, 5, 1, 2),
    "resnet50_stem": Conv(8, 3, 224, 224, 64, 7, 2, 3),
    "resnet50_56_1x1_up": Conv(8, 64, 56, 56, 256, 1, 1, 0),
    "resnet50_56_1x1_down": Conv(8, 256, 56, 56, 64, 1, 1, 0),
    "resnet50_28_3x3_s2": Conv(8, 128, 56, 56, 128, 3, 2, 1),
    "resnet50_14_3x3": Conv(8, 256, 14, 14, 256, 3, 1, 1),
    "resnet50_7_1x1": Conv(8, 512, 7, 7, 2048, 1, 1, 0),
    "one image, 2x2": Pool(1, 16, 10, 10, 2, 2),
    "2x2, stride 2": Pool(64, 64, 32, 32, 2, 2),
    "3x3, stride 2": Pool(8, 64, 112, 112, 3, 2, 1),
    "3x3, stride 1": Pool(16, 64, 28, 28, 3, 1, 1),
    "global": Pool(32, 512, 14, 14, 0),
}
CONVOLUTIONS = tuple(name for name, layer in LAYERS.items() if isinstance(layer, Conv))
POOLINGS = tuple(name for name, layer in LAYERS.items() if isinstance(layer, Pool))


def is_first(layer: Conv | Pool, each: str) -> bool:
    """Return whether this is the gradient of images: nobody needs it."""
    return isinstance(layer, Conv) and each == "backward_data" and layer.c <= 3

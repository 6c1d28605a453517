"""How the data sets are known elsewhere: title, licence, and name on the Hugging Face hub."""

from typing import NamedTuple


class Published(NamedTuple):
    """A data set's title, the licence that its publisher states, and its name on the hub."""

    title: str
    licence: str | None = None
    hub: str | None = None


_FASHION_MNIST = ("MIT", "zalando-datasets/fashion_mnist")

PUBLISHED: dict[str, Published] = {
    "embedded": Published(
        "Fashion-MNIST, the 6,000 training and 1,000 test images embedded in the repository",
        *_FASHION_MNIST,
    ),
    "fashion_mnist": Published("Fashion-MNIST", *_FASHION_MNIST),
    "cifar10": Published("CIFAR-10", None, "uoft-cs/cifar10"),
    "cifar100": Published("CIFAR-100", None, "uoft-cs/cifar100"),
    "imagenet": Published(
        "ImageNet (ILSVRC 2012)",
        "its own terms, for research that is not commercial",
        "ILSVRC/imagenet-1k",
    ),
    "dvs_gesture": Published("DVS128 Gesture", "CC BY 4.0"),
    "cifar10_dvs": Published("CIFAR10-DVS", "CC BY 4.0"),
    "image_folder": Published("a folder of images of one's own"),
}

"""Small valid files in the formats that are read here, as their publishers or we write them."""

import gzip
import hashlib
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping

import formats
from formats import tar_of, zip_of

SHA256 = hashlib.sha256(b"").hexdigest()
EXPERIMENT = "a"
CLASSES = 10  # of CIFAR-10

#: All keys that there must be, as short as YAML allows: it is read many times.
PARAMS = {
    "defaults": {
        "seeds": [0],
        "device": "cpu",
        "dataset": {"name": "embedded", "augmentation": "none"},
        "model": {
            **{"name": "vggsnn", "widths": [4, "P"], "norm": "osr", "stabilize_threshold": True},
            **{"online": True, "reset": "zero", "tau": 2.0, "v_threshold": 1.0},
            **{"surrogate_slope": 4.0, "dropout": 0.0, "inference_threshold": "live"},
            "fallback_ratio": 20.0,
        },
        "training": {
            **{"epochs": 4, "batch": 25, "steps": 4, "chunk": 4, "learning_rate": 0.1},
            **{"momentum": 0.9, "weight_decay": 5e-4, "mse_weight": 0.05, "precision": "float32"},
        },
        "evaluation": {"batch": 100, "steps": 4},
    },
    "experiments": {EXPERIMENT: {}},
}


def params() -> list[bytes]:
    """Whole, in few words, and what YAML has beside that."""
    return [
        json.dumps(PARAMS).encode(),
        b"defaults: &d\n  seeds: [0, 1]\n  model: {tau: 2.0}\nexperiments:\n  a: {}\n  b: *d\n",
        b"experiments: {a: {<<: {x: 1}, y: 5e-4, z: 2024-01-02, w: 0x1F, v: 1:30}}",
        b'experiments:\n- "\\u0041"\n- |\n  text\n- ? {k}\n  : v\n--- #\n...\n',
    ]


def cifar() -> list[bytes]:
    """A batch of one image, and the names of the classes."""
    import numpy as np

    image = np.arange(3072, dtype=np.uint8).reshape(1, 3072)
    tables = (formats.cifar_batch("one", image, [7]), formats.cifar_names(CLASSES))
    return [*map(formats.python2_pickle, tables), pickle.dumps({b"labels": [1]}, protocol=0)]


def idx() -> list[bytes]:
    """Images and labels of the MNIST family, in gzip and without."""
    images = struct.pack(">HBB3I", 0, 8, 3, 2, 3, 4) + bytes(range(24))
    labels = struct.pack(">HBBI", 0, 8, 1, 2) + b"\1\2"
    return [images, labels, gzip.compress(images, mtime=0), gzip.compress(labels, mtime=0)]


def aedat2() -> list[bytes]:
    """Two events of CIFAR10-DVS, and after another end of the header."""
    whole = formats.aedat2([(9, 1, 2, 0), (9, 127, 0, 0)])
    head = formats.AEDAT2
    return [whole, whole.replace(head, head + b"#End Of ASCII Header\r\n", 1)]


def aedat3() -> list[bytes]:
    """Two packets of DVS128 Gesture, one of another kind between them."""
    event = (1000, 5, 6, 1)
    packet = formats.packet([event])
    other = formats.packet([], kind=2, size=12, spare=1)
    late = formats.packet([event], overflow=3, spare=1)
    return [formats.aedat3(packet), formats.aedat3(packet, other, late)]


def gesture_labels() -> list[bytes]:
    """Labels of a recording, and the list of recordings."""
    rows = [(1, 100, 200), (11, 150, 400)]
    return [formats.gesture_labels(rows), b"user01_lab.aedat\nuser02_lab.aedat\n"]


def manifest() -> list[bytes]:
    entry = {"sha256": SHA256, "size": 0}
    return [
        json.dumps({"name": "a", "counts": {"train": 1}, "files": {"data.gz": entry}}).encode(),
        json.dumps({"files": {}, "steps": 10}).encode(),
    ]


MEMBERS: Mapping[str, bytes] = {"set/a.bin": bytes(200), "set/deep/b": b"", "c": b"see"}


def tar() -> list[bytes]:
    long = {"x" * 120 + "é": b"1"}
    plain = tar_of(MEMBERS)
    return [
        plain,
        gzip.compress(plain, mtime=0),
        tar_of(long, tarfile.PAX_FORMAT),
        tar_of(long, tarfile.GNU_FORMAT),
    ]


def zip_files() -> list[bytes]:
    return [
        zip_of(MEMBERS),
        zip_of({"ä": b"1", "folder/": b""}, zipfile.ZIP_STORED),
        zip_of({"a": b"abc"}, zipfile.ZIP_BZIP2),
        zip_of({"a": b"abc"}, zipfile.ZIP_LZMA),
    ]


def image(kind: str) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (9, 7), (200, 30, 60)).save(out, kind)
    return out.getvalue()


def images() -> list[bytes]:
    return [image("JPEG"), image("PNG")]


def shard() -> list[bytes]:
    """A WebDataset shard of two samples, the images of no interest."""
    return [
        tar_of({"a.jpg": b"\xff", "a.cls": b"1", "b.PNG": b"\x89", "b.cls": b"0", "c.txt": b""})
    ]


def clips() -> list[bytes]:
    """The header of one sample's frames, and of its label."""
    from numpy.lib import format as npy

    headers = []
    for kind, shape in (("|u1", (1, 1, 2, 128, 128)), ("<i8", (1,))):
        out = io.BytesIO()
        npy.write_array_header_1_0(out, {"descr": kind, "fortran_order": False, "shape": shape})
        headers.append(out.getvalue())
    return headers


def metrics() -> list[bytes]:
    accuracy = {"last": 70.0, "best": 71.5, "best_epoch": 2}
    provenance = {"code": [SHA256], "data": SHA256, "environment": [SHA256]}
    whole = {
        "experiment": EXPERIMENT,
        "parameters": 1000,
        "accuracy": accuracy,
        "loss": {"train": 0.3, "test": 0.9},
        "firing_rate": {"gross": 0.1, "per_step": [0.1, 0.2], "per_layer": {"layers.0": [0.1]}},
        "osr_fallbacks": 0,
        "weights_sha256": SHA256,
        "inference": {"live": 70.0, "fixed": None, "batch_1": 60.5},
        "seeds": {"0": accuracy, "1": accuracy},
        "evaluation": {
            **{"batch": 100, "steps": 4, "threshold": "live"},
            **{"code": SHA256, "environment": SHA256},
        },
        "provenance": {**provenance, "params": SHA256},
    }
    return [json.dumps(whole).encode()]


def digests() -> list[bytes]:
    provenance = {"code": [SHA256], "data": SHA256, "environment": [SHA256]}
    whole = {
        "batches": {"1": {"features.0.conv.weight": SHA256}},
        "fingerprint": SHA256,
        "provenance": provenance,
    }
    return [json.dumps(whole).encode()]


def history() -> list[bytes]:
    columns = (
        "epoch,learning_rate,train_loss,train_accuracy,test_loss,test_accuracy,osr_fallbacks,"
        "silent_layers,exploding_layers"
    )
    rows = ["1,0.1,2.3,10.5,2.2,11,0,,", "2,0.05,1.1,60.5,1.2,61,3,layers.0 layers.1,layers.0"]
    return ["\n".join([columns, *rows, ""]).encode()]


def membranes() -> list[bytes]:
    layer = {
        **{"name": "features.0", "counts": [[1, 2], [3, 4]], "below": [0, 1], "above": [2, 3]},
        **{"mean": [0.1, 0.2], "std": [0.5, 0.6], "threshold": [1.0, 1.0]},
    }
    return [
        json.dumps({"bins": {"low": -1.0, "high": 1.0, "count": 2}, "layers": [layer]}).encode()
    ]


def memory() -> list[bytes]:
    return [b"method,steps,bytes\nonline,2,1894572\nbptt,2,7025356\n"]


#: The smallest network that a released checkpoint can be of: VGGSNN(1, 1, widths=(1,)).
RELEASED = {
    "features.0.synapse.weight": (1, 1, 3, 3),
    "features.0.synapse.bias": (1,),
    **{f"features.0.bn.{name}": (1,) for name in ("gamma", "beta", "run_mean", "run_var")},
    "classifier.0.weight": (1, 1),
    "classifier.0.bias": (1,),
}


def released() -> list[bytes]:
    """A released checkpoint, one with parameters and odd values, and the pickles in them."""
    import torch
    from fuzz_edits import pickle_of

    net = {key: torch.ones(shape) for key, shape in RELEASED.items()}
    saved = []
    for content in (
        {"net": net, "epoch": 3, "max_test_acc": 0.5},
        {"net": {"a": torch.nn.Parameter(torch.zeros(2, 3).t())}, "list": [None, True, (1, 2.0)]},
    ):
        out = io.BytesIO()
        torch.save(content, out)
        saved.append(out.getvalue())
    return [*saved, *(pickle_of(content)[0] for content in saved)]


def weights() -> list[bytes]:
    """The safetensors file of a linear layer of one weight."""
    import safetensors.torch
    import torch

    return [safetensors.torch.save({"weight": torch.ones(1, 1), "bias": torch.ones(1)})]


def edits() -> list[bytes]:
    """Edits of a valid file, to begin with: see fuzz_edits."""
    return [bytes([0, *range(start, start + 6)]) for start in (0, 64, 128, 192)]

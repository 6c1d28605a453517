"""One time step of a folded network as ONNX, or as a program of `torch.export`.

Inputs are the frames (N, C, H, W), ``frame``, and the membranes of each layer of neurons (N, ...),
``membrane_NAME``, zeros before the first step. Outputs are ``logits`` (N, classes) and the
membranes after the step, ``membrane_NAME_next``. N is free.
"""

import io
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from steadyspike.deploy.folded import Folded
from steadyspike.extra import import_extra
from steadyspike.files import write_atomically


def write_program(path: Path, folded: Folded) -> None:
    """Write the step as a program that `torch.export.load` reads."""
    content = io.BytesIO()
    torch.export.save(exported(folded), content)
    write_atomically(path, content.getvalue())


def write_onnx(path: Path, folded: Folded) -> None:
    """Write the step as an ONNX model.

    Raises:
        UserError: `onnx` or `onnxscript` is not installed.
    """
    for package in ("onnx", "onnxscript"):
        import_extra(package)
    names = list(folded.neurons)
    program = torch.onnx.export(
        exported(folded),
        input_names=["frame", *(f"membrane_{name}" for name in names)],
        output_names=["logits", *(f"membrane_{name}_next" for name in names)],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    write_atomically(path, program.model_proto.SerializeToString())


def exported(folded: Folded) -> ExportedProgram:
    """The step as a graph of PyTorch's operators, for batches of any size."""
    frame = torch.zeros(2, *folded.input_shape, dtype=next(folded.parameters()).dtype)
    membranes = folded.membranes(2)
    batch: dict[int, Any] = {0: Dim("batch")}
    shapes = {"frame": batch, "membranes": (batch,) * len(membranes)}
    return torch.export.export(folded, (frame, *membranes), dynamic_shapes=shapes)

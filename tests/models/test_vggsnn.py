"""VGGSNN: the stored trajectories, its shape and beginning, chunks, dtypes, and no waiting."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from golden import assert_golden, load, noise
from no_waiting import NoReading, no_waiting
from steadyspike import sequence
from steadyspike.models import VGGSNN, build
from steadyspike.norm import OSR
from steadyspike.train import tet_loss

TINY = (4, "P", 6)
METHODS: dict[str, dict[str, Any]] = {
    "per_step": {"norm": "per_step", "stabilize_threshold": False},
    "ots": {"norm": "per_step", "stabilize_threshold": True},
    "osr": {"norm": "osr", "stabilize_threshold": False},
    "osr_ots": {"norm": "osr", "stabilize_threshold": True},
    "linear": {"norm": "linear", "stabilize_threshold": False},
    "bptt": {"norm": "batch", "stabilize_threshold": False, "online": False},
}
each_method = pytest.mark.parametrize("method", METHODS)
online_method = pytest.mark.parametrize("method", [name for name in METHODS if name != "bptt"])


def train_batch(
    model: nn.Module, clip: Tensor, labels: Tensor, chunks: Sequence[int], mse_weight: float = 0.05
) -> float:
    """One presentation with a backward pass a chunk; the batch's loss."""
    total = 0.0
    with sequence(model, steps=len(clip)):
        for frames in clip.split(chunks):
            loss = tet_loss(model(frames), labels, steps=len(clip), mse_weight=mse_weight)
            loss.backward()
            total += loss.item()
    return total


# --- stored trajectories ---


def trajectories() -> Iterator[Any]:
    for name in ("trajectory_static", "trajectory_events"):
        stored = load(name)
        t = stored["T"]
        for case in stored["cases"]:
            # BPTT needs all steps in one graph
            splits = [[1] * t, [2] * (t // 2), [t - 1, 1], [t]]
            for chunks in splits if case["method"] != "bptt" else [[t]]:
                yield pytest.param(
                    stored, case, chunks, id=f"{name}-{case['method']}-{'+'.join(map(str, chunks))}"
                )


def filled(stored: dict[str, Any], method: str) -> VGGSNN:
    """The tiny network of a stored trajectory with its first parameters."""
    widths = tuple("P" if width == "M" else width for width in stored["widths"])
    model = VGGSNN(
        stored["in_channels"], stored["num_classes"], widths=widths, **METHODS[method]
    ).double()
    parameters = list(model.parameters())
    with torch.no_grad():
        for j, parameter in enumerate(parameters):
            stream = stored["seed"] + 1000 + j
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(noise(parameter.shape, stream, 2.5 * math.sqrt(6 / fan_in)))
            elif j % 4 == 2 and j < len(parameters) - 2:  # γ: weight, bias, γ, β a layer
                parameter.copy_(noise(parameter.shape, stream, 0.2, 1.0))
            else:
                parameter.copy_(noise(parameter.shape, stream, 0.1))
    return model


def clip_of(stored: dict[str, Any], stream: int) -> Tensor:
    shape = (stored["batch"], stored["in_channels"], stored["image"], stored["image"])
    t = stored["T"]
    streams = [stream + step if stored["frames_differ"] else stream for step in range(t)]
    return torch.stack([noise(shape, each, 1.5) for each in streams])


@pytest.mark.parametrize(("stored", "case", "chunks"), list(trajectories()))
def test_golden_trajectory(stored: dict[str, Any], case: dict[str, Any], chunks: list[int]) -> None:
    model = filled(stored, case["method"])
    optimizer = torch.optim.SGD(
        model.parameters(), lr=stored["lr"], momentum=0.9, weight_decay=stored["weight_decay"]
    )
    classes = stored["num_classes"]
    for number, want in enumerate(case["losses"]):
        labels = (torch.arange(stored["batch"]) * 3 + number) % classes
        brightness = (labels.double() / classes - 0.5).reshape(-1, 1, 1, 1)
        clip = clip_of(stored, stored["seed"] + 2000 + 100 * number) + brightness
        optimizer.zero_grad()
        loss = train_batch(model, clip, labels, chunks, stored["mse_weight"])
        optimizer.step()
        # Batch by batch, so that the first wrong one is named
        assert loss == pytest.approx(want, rel=1e-8), f"loss of batch {number}"
    with torch.no_grad():
        parameters = list(model.parameters())
        sums = torch.stack([parameter.sum() for parameter in parameters])
        squares = torch.stack([parameter.square().sum() for parameter in parameters])
        assert_golden(sums, case["parameter_sums"], "sums of the parameters")
        assert_golden(squares, case["parameter_square_sums"], "sums of their squares")
        model.eval()
        clip = clip_of(stored, stored["seed"] + 101900)
        with sequence(model, steps=len(clip)):
            logits = torch.cat([model(frames) for frames in clip.split(chunks)])
        assert_golden(logits, case["eval_logits"], "logits at inference")
        assert_golden(model(clip), case["eval_logits"], "logits of a lone call")


# --- shape and beginning ---


def test_parameter_count_is_the_papers() -> None:
    model = VGGSNN(3, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 9_231_114
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 8
    assert sum(isinstance(module, OSR) for module in model.modules()) == 8


def test_initialization() -> None:
    torch.manual_seed(0)
    model = VGGSNN(2, 10)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            std = math.sqrt(2 / (module.out_channels * 9))  # Kaiming, fan-out
        elif isinstance(module, nn.Linear):
            std = 0.01
        else:
            continue
        weight = module.weight.detach()
        tolerance = 5 / math.sqrt(2 * weight.numel())  # five standard errors
        assert weight.std().item() == pytest.approx(std, rel=tolerance)
        assert abs(weight.mean().item()) < 5 * std / math.sqrt(weight.numel())
        assert module.bias is not None
        assert module.bias.abs().max() == 0
    for module in model.modules():
        if isinstance(module, OSR):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_initialization_is_seeded() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(VGGSNN(2, 3, widths=TINY).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["classifier.weight"], states[2]["classifier.weight"])


@each_method
@pytest.mark.parametrize(("k", "n", "image"), [(1, 1, (8, 8)), (3, 2, (5, 7)), (2, 3, (2, 2))])
def test_shapes(method: str, k: int, n: int, image: tuple[int, int]) -> None:
    model = VGGSNN(2, 7, widths=TINY, **METHODS[method])
    with sequence(model, steps=k):
        assert model(torch.randn(k, n, 2, *image)).shape == (k, n, 7)
    assert model.eval()(torch.randn(k, n, 2, *image)).shape == (k, n, 7)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"widths": (4, "M", 8)}, "width.*'M'"),
        ({"widths": (4, 0)}, "width.*not 0"),
        ({"widths": (4, -8)}, "width.*not -8"),
        ({"widths": (4, 2.5)}, r"width.*not 2\.5"),
        ({"norm": "group"}, "group"),
        ({"reset": "hard"}, "reset"),
        ({"tau": 0.0}, "tau"),
        ({"dropout": 1.5}, "dropout"),
        ({"inference_threshold": "frozen"}, "inference_threshold"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        VGGSNN(2, 3, **arguments)


def test_built_by_name() -> None:
    model = build("vggsnn", in_channels=2, num_classes=5, widths=TINY, norm="linear")
    assert isinstance(model, VGGSNN)
    with pytest.raises(ValueError, match="vgg16"):
        build("vgg16", in_channels=2, num_classes=5)


def test_options_reach_every_layer() -> None:
    torch.manual_seed(0)
    model = VGGSNN(
        1, 2, widths=(3, 3), norm="osr", reset="zero", tau=4.0, v_threshold=0.5, dropout=0.5,
        surrogate_slope=2.0, inference_threshold="fixed", fallback_ratio=50.0,
    )  # fmt: skip
    neurons = [module for module in model.modules() if type(module).__name__ == "LIF"]
    assert len(neurons) == 2
    for neuron in neurons:
        assert neuron.reset == "zero"
        assert neuron.leak == 0.75
        assert neuron.v_threshold == 0.5
        assert neuron.dropout == 0.5
        assert neuron.surrogate_slope == 2
        assert neuron.inference_threshold == "fixed"
        assert neuron.stabilize_threshold
    assert [m.fallback_ratio for m in model.modules() if isinstance(m, OSR)] == [50, 50]


# --- chunks ---


def small_batch(dtype: torch.dtype = torch.float64, t: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    clip = 2 * torch.randn(t, 4, 2, 6, 6, generator=generator, dtype=torch.float64)
    return clip.to(dtype), torch.arange(4) % 3


@online_method
@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_and_statistics_do_not_depend_on_chunks(
    method: str, reset: str, dropout: float
) -> None:
    clip, labels = small_batch()
    results = []
    for chunks in ([1, 1, 1, 1], [2, 2], [3, 1], [4]):
        torch.manual_seed(5)
        options = {"reset": reset, "dropout": dropout, **METHODS[method]}
        model = VGGSNN(2, 3, widths=TINY, **options).double()
        torch.manual_seed(6)  # of dropout
        loss = train_batch(model, clip, labels, chunks)
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        results.append((torch.tensor(loss), gradients, dict(model.named_buffers())))
        assert any(gradient.abs().max() > 0 for gradient in gradients.values())
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-9, atol=1e-11)


@online_method
def test_inference_does_not_depend_on_chunks(method: str) -> None:
    clip, labels = small_batch()
    model = VGGSNN(2, 3, widths=TINY, **METHODS[method]).double()
    train_batch(model, clip, labels, [4])
    model.eval()
    whole = model(clip)
    for chunks in ([1, 1, 1, 1], [2, 2], [3, 1]):
        with sequence(model, steps=4):
            logits = torch.cat([model(frames) for frames in clip.split(chunks)])
        torch.testing.assert_close(logits, whole, rtol=1e-9, atol=1e-11)


def test_state_dict_carries_everything_inference_needs() -> None:
    clip, labels = small_batch()
    options: dict[str, Any] = {"widths": TINY, "inference_threshold": "fixed"}
    model = VGGSNN(2, 3, **options).double()
    for chunks in ([1, 1, 1, 1], [4]):
        train_batch(model, clip, labels, chunks)
    fresh = VGGSNN(2, 3, **options).double()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(clip), model.eval()(clip))
    # with fixed thresholds, of each sample alone
    torch.testing.assert_close(model(clip[:, 1:2]), model(clip)[:, 1:2])


# --- dtypes ---


@each_method
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_model_of_any_dtype_trains_and_infers(method: str, dtype: torch.dtype) -> None:
    clip, labels = small_batch(dtype)
    model = VGGSNN(2, 3, widths=TINY, **METHODS[method]).to(dtype)
    chunks = [4] if method == "bptt" else [2, 2]
    assert math.isfinite(train_batch(model, clip, labels, chunks))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == dtype
        assert parameter.grad.isfinite().all()
    for name, buffer in model.named_buffers():
        assert buffer.isfinite().all(), name
        assert buffer.dtype == dtype or not buffer.is_floating_point()
    logits = model.eval()(clip)
    assert logits.dtype == dtype
    assert logits.isfinite().all()


@each_method
def test_autocast_to_bfloat16(method: str) -> None:
    clip, labels = small_batch(torch.float32)
    torch.manual_seed(0)
    model = VGGSNN(2, 3, widths=TINY, **METHODS[method])
    torch.manual_seed(0)
    exact = VGGSNN(2, 3, widths=TINY, **METHODS[method])
    chunks = [4] if method == "bptt" else [2, 2]
    want = train_batch(exact, clip, labels, chunks)
    with torch.autocast("cpu", torch.bfloat16):
        loss = train_batch(model, clip, labels, chunks)
        logits = model.eval()(clip)
    assert loss == pytest.approx(want, rel=0.05)
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()
    # The first layer sees the same currents but for bfloat16's rounding of them
    first, of_exact = model.features[0].norm, exact.features[0].norm
    assert first.running_var.dtype == torch.float32
    torch.testing.assert_close(first.running_var, of_exact.running_var, rtol=1e-2, atol=0)
    torch.testing.assert_close(first.running_mean, of_exact.running_mean, rtol=0, atol=1e-2)


# --- nothing waits for the device ---


class _ReadsInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2 if (grads[0] > 0).any() else grads[0]


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: torch.where(x > 0),
        lambda x: torch.equal(x, x),
        lambda x: _ReadsInBackward.apply(x).sum().backward(),
    ],
    ids=["item", "if", "mask", "where", "equal", "backward"],
)
def test_the_watch_sees_what_it_should(read: Any) -> None:
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(AssertionError, match="reads a tensor"), NoReading():
        read(x)


def without_reading_options() -> Iterator[Any]:
    for norm in ("osr", "per_step", "linear", "batch"):
        for ots in (False, True):
            yield pytest.param({"norm": norm, "stabilize_threshold": ots}, id=f"{norm}-ots={ots}")
    bptt = {"norm": "batch", "stabilize_threshold": True, "online": False}
    yield pytest.param(bptt, id="bptt-ots=True")
    yield pytest.param({"reset": "zero", "dropout": 0.2}, id="zero-dropout")
    yield pytest.param({"inference_threshold": "fixed"}, id="fixed")


def presentations(model: nn.Module, clip: Tensor, chunks: Sequence[int]) -> None:
    """Training and inference, two batches; no loss with labels, whose checks read them on a CPU."""
    for _ in range(2):
        with sequence(model.train(), steps=len(clip)):
            for frames in clip.split(chunks):
                model(frames).square().sum().backward()
        with torch.no_grad(), sequence(model.eval(), steps=len(clip)):
            for frames in clip.split(chunks):
                model(frames)
        with torch.no_grad():
            model(clip)


@pytest.mark.parametrize("options", list(without_reading_options()))
def test_nothing_is_read_on_the_host(options: dict[str, Any]) -> None:
    clip, _ = small_batch(torch.float32)
    model = VGGSNN(2, 3, widths=TINY, **options)
    with NoReading():
        presentations(model, clip, [4] if not options.get("online", True) else [1, 3])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", list(without_reading_options()))
def test_nothing_waits_for_the_gpu(options: dict[str, Any]) -> None:
    clip, labels = (tensor.cuda() for tensor in small_batch(torch.float32))
    model = VGGSNN(2, 3, widths=TINY, **options).cuda()
    chunks = [4] if not options.get("online", True) else [1, 3]

    def everything() -> None:
        presentations(model, clip, chunks)
        with sequence(model.train(), steps=len(clip)):
            for frames in clip.split(chunks):
                tet_loss(model(frames), labels, steps=len(clip), mse_weight=0.05).backward()

    everything()  # libraries load on first use, and wait
    with no_waiting():
        everything()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@online_method
def test_a_gpu_trains_like_a_cpu(method: str) -> None:
    clip, labels = small_batch()
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(5)
        model = VGGSNN(2, 3, widths=TINY, **METHODS[method]).double().to(device)
        train_batch(model, clip.to(device), labels.to(device), [3, 1])
        gradients = {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}
        results.append((gradients, {name: b.cpu() for name, b in model.named_buffers()}))
    torch.testing.assert_close(results[0], results[1], rtol=1e-8, atol=1e-9)

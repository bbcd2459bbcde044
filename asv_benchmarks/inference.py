"""Time one image through one convolution, beside PyTorch, ONNX Runtime and ncnn, whichever are installed.

    python asv_benchmarks/inference.py [--threads 2] [--rounds 5] [--seconds 0.1] [--only NAME ...]

jitconv gets a `Conv2d` after `eval`, which keeps its packed weights, in both layouts; PyTorch both memory formats under
`torch.inference_mode`; ONNX Runtime and ncnn a network of one layer. Each library runs in a process of its own, and
they take turns layer by layer, with a pause between, because threads that wait for work spin for a while. A figure is
the direct convolution's GFLOP/s, of the median over the rounds of the median call; the last columns divide the better
layout of jitconv by the others.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from variants.layers import CONVOLUTIONS
from variants.layers import LAYERS as LAYERS_OF_BATCHES

# [C, H, W, F, kernel, stride, padding]
LAYERS = {name: LAYERS_OF_BATCHES[name][1:] for name in CONVOLUTIONS if LAYERS_OF_BATCHES[name].n > 1}
Shape = tuple[int, ...]
Call = Callable[[], object]


def arrays(shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x (1, C, H, W), w and b."""
    c, h, w, f, kernel, _, _ = shape
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(size, np.float32) for size in ((1, c, h, w), (f, c, kernel, kernel), (f,)))


def jitconv_calls(shape: Shape, threads: int) -> dict[str, Call]:
    """Return a call in each layout."""
    import jitconv
    from jitconv.layers import Conv2d

    jitconv.set_num_threads(threads)
    x, w, b = arrays(shape)
    c, _, _, f, kernel, stride, padding = shape
    calls = {}
    for layout in ("NCHW", "NHWC"):
        layer = Conv2d(c, f, kernel, stride, padding, layout=layout)
        layer.weight[...], layer.bias[...] = w, b
        layer.eval()
        given = x if layout == "NCHW" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        calls[f"jitconv {layout}"] = lambda layer=layer, given=given: layer(given)
    return calls


def torch_calls(shape: Shape, threads: int) -> dict[str, Call]:
    """Return a call in each memory format."""
    import torch

    torch.set_num_threads(threads)
    torch.inference_mode().__enter__()
    x, w, b = map(torch.from_numpy, arrays(shape))
    stride, padding = shape[5], shape[6]
    calls = {}
    for name, form in (("torch NCHW", torch.contiguous_format), ("torch NHWC", torch.channels_last)):
        given = x.to(memory_format=form), w.to(memory_format=form), b
        calls[name] = lambda given=given: torch.nn.functional.conv2d(*given, stride, padding)
    return calls


def onnxruntime_calls(shape: Shape, threads: int) -> dict[str, Call]:
    """Return a call of a network of one layer."""
    import onnx
    import onnxruntime

    x, w, b = arrays(shape)
    _, _, _, _, kernel, stride, padding = shape
    node = onnx.helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[padding] * 4
    )
    weights = [onnx.numpy_helper.from_array(w, "w"), onnx.numpy_helper.from_array(b, "b")]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node], "layer", [value("x", 1, x.shape)], [value("y", 1, ["n", "f", "h", "w"])], weights
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {"onnxruntime": lambda: session.run(None, {"x": x})}


def ncnn_calls(shape: Shape, threads: int) -> dict[str, Call]:
    """Return a call of a network of one layer; input and output are copied as its Python interface does."""
    import ncnn

    x, w, b = arrays(shape)
    _, _, _, f, kernel, stride, padding = shape
    net = ncnn.Net()
    net.opt.num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        text, weights = pathlib.Path(folder, "text"), pathlib.Path(folder, "weights")
        text.write_text(
            "7767517\n2 2\nInput x 0 1 x\n"
            f"Convolution c 1 1 x y 0={f} 1={kernel} 3={stride} 4={padding} 5=1 6={w.size}\n"
        )
        weights.write_bytes(np.zeros(1, np.int32).tobytes() + w.tobytes() + b.tobytes())
        net.load_param(str(text))
        net.load_model(str(weights))

    def call() -> object:
        extractor = net.create_extractor()
        extractor.input("x", ncnn.Mat(x[0]))
        return extractor.extract("y")

    return {"ncnn": call}


LIBRARIES = {"jitconv": jitconv_calls, "torch": torch_calls, "onnxruntime": onnxruntime_calls, "ncnn": ncnn_calls}


def median_time(call: Call, seconds: float) -> float:
    """Return the median time of a call."""
    for _ in range(3):
        call()
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds or len(times) < 5:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def work(library: str) -> None:
    """Answer requests, one JSON a line: {shape, threads, seconds} -> {name: seconds}."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            calls = LIBRARIES[library](tuple(request["shape"]), request["threads"])
            answer = {name: median_time(call, request["seconds"]) for name, call in calls.items()}
        except ImportError:
            answer = {}
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--only", nargs="*", choices=LAYERS)
    parser.add_argument("--worker", choices=LIBRARIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    processes = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--worker", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in LIBRARIES
    }
    names = ("jitconv NCHW", "jitconv NHWC", "torch", "onnxruntime", "ncnn")
    print(f"{'layer':22s}" + "".join(f"{name:>14s}" for name in names) + "   over torch, onnxruntime, ncnn")
    for layer in options.only or LAYERS:
        shape = LAYERS[layer]
        c, h, w, f, kernel, stride, padding = shape
        flops = (
            2
            * f
            * c
            * kernel**2
            * ((h + 2 * padding - kernel) // stride + 1)
            * ((w + 2 * padding - kernel) // stride + 1)
        )
        samples: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for process in processes.values():
                time.sleep(0.2)
                request = {"shape": shape, "threads": options.threads, "seconds": options.seconds}
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                for name, seconds in json.loads(process.stdout.readline()).items():
                    samples.setdefault(name, []).append(seconds)
        times = {name: statistics.median(values) for name, values in samples.items()}
        if "torch NCHW" in times:
            times["torch"] = min(times["torch NCHW"], times["torch NHWC"])
        best = min(times["jitconv NCHW"], times["jitconv NHWC"])
        row = "".join(f"{flops / times[name] / 1e9:14.0f}" if name in times else f"{'-':>14s}" for name in names)
        ratios = "".join(f"{times[name] / best:8.2f}" if name in times else f"{'-':>8s}" for name in names[2:])
        print(f"{layer:22s}{row}   {ratios}", flush=True)
    for process in processes.values():
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()

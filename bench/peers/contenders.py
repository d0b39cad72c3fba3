"""How each tool runs a workload: prepared once, then compiled for a batch and a thread count.

Each contender is a function `(Workload) -> At`; calling it is what `convert s` counts. `At` returns
a run for a batch and a number of threads: what a serving stack would hold. Settings follow each
tool's own advice for latency on few cores.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from peers.workloads import Case, Workload

Run = Callable[[Tensor], Tensor]
At = Callable[[Case], Run]

EAGER, OURS, OPENVINO_INT8 = "eager", "fastinfer", "openvino int8"


def eager(work: Workload) -> At:
    """Return the model as it is, float32."""
    return partial(_torch_at, work.model)


def channels_last(work: Workload) -> At:
    """Return the model in channels_last, which torch recommends on CPU; inputs too."""
    model = copy.deepcopy(work.model).to(memory_format=torch.channels_last)
    return lambda case: _channels_last_first(_torch_at(model, case))


def bf16(work: Workload) -> At:
    """Return the model in bfloat16 and channels_last; converting the input is part of a call."""
    model = copy.deepcopy(work.model).to(torch.bfloat16).to(memory_format=torch.channels_last)
    return lambda case: _channels_last_first(_torch_at(model, case), torch.bfloat16)


def inductor_bf16(work: Workload) -> At:
    """Return torch.compile with freezing under bf16 autocast: inductor's best on this CPU."""
    model = torch.compile(work.model, options={"freezing": True})

    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            answer: Tensor = model(x)
        return answer

    return partial(_torch_at, run)


def fastinfer_auto(work: Workload, pruned: tuple[str, float] | None = None) -> At:
    """Return `fastinfer.convert`, as a user calls it, of a model pruned to a pattern and sparsity.

    With random weights the accuracy guard is off: no tool here has one, and no layer of such a
    network has an accuracy to keep.
    """
    import fastinfer
    from fastinfer.config import resolve_config

    config = resolve_config("auto")
    if work.is_random:
        config = replace(config, min_sqnr_db=-math.inf)
    batches = list(work.calibration.split(1))
    model = work.model
    if pruned is not None:
        pattern, sparsity = pruned
        model = fastinfer.prune(
            model, batches[0], pattern=pattern, sparsity=sparsity, method="magnitude"
        )
    fast = fastinfer.convert(model, batches[0], config=config, calibration=batches)
    return partial(_torch_at, fast)


def openvino(work: Workload, precision: str) -> At:
    """Return OpenVINO on the converted model; int8 by NNCF's post-training quantization.

    What int8 leaves in float runs in the precision that the plugin chooses here. Shapes are made
    static, and inputs and outputs are shared, not copied.
    """
    import openvino as ov

    # torch's fast path of encoders is one operator, which OpenVINO's tracing refuses.
    torch.backends.mha.set_fastpath_enabled(False)
    model = ov.convert_model(work.model, example_input=work.calibration[:1])
    if precision == "int8":
        model = _nncf(model, work)
    core = ov.Core()

    def at(case: Case) -> Run:
        static = model.clone()
        static.reshape([case.batch, *work.calibration.shape[1:]])
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": case.threads}
        if precision != "int8":
            options["INFERENCE_PRECISION_HINT"] = precision
        request = core.compile_model(static, "CPU", options).create_infer_request()

        def run(x: Tensor) -> Tensor:
            answers = request.infer([x.numpy()], share_inputs=True, share_outputs=True)
            return torch.from_numpy(answers[0])

        return run

    return at


def _nncf(model: Any, work: Workload) -> Any:
    import nncf

    samples = [part.numpy() for part in work.calibration.split(1)]
    # MIXED is NNCF's advice for networks with activations other than ReLU: asymmetric activations.
    preset = nncf.QuantizationPreset.MIXED
    kind = nncf.ModelType.TRANSFORMER if work.is_transformer else None
    return nncf.quantize(
        model, nncf.Dataset(samples), preset=preset, model_type=kind, subset_size=len(samples)
    )


def onnxruntime(work: Workload, precision: str) -> At:
    """Return ONNX Runtime; int8 by its static quantization: uint8 activations, int8 weights."""
    import onnxruntime as ort

    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "model.onnx"
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.onnx.export(
        work.model,
        (torch.cat([work.calibration[:1]] * 2),),
        path,
        input_names=["x"],
        dynamic_shapes=({0: batch},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    if precision == "int8":
        path = _ort_int8(path, work)

    def at(case: Case) -> Run:
        options = ort.SessionOptions()
        options.intra_op_num_threads = case.threads
        options.inter_op_num_threads = 1
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def run(x: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])

        run.folder = folder  # type: ignore[attr-defined]  # the files live as long as the run
        return run

    return at


def _ort_int8(path: Path, work: Workload) -> Path:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples = iter([{"x": part.numpy()} for part in work.calibration.split(1)])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.samples, None)

    ready, quantized = path.with_name("ready.onnx"), path.with_name("int8.onnx")
    quant_pre_process(path, ready, skip_symbolic_shape=True)
    quantize_static(
        ready,
        quantized,
        Samples(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,  # int8 activations are 2 to 4 times slower
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return quantized


def _torch_at(model: nn.Module | Run, case: Case) -> Run:
    torch.set_num_threads(case.threads)
    return model


def _channels_last_first(run: Run, dtype: torch.dtype = torch.float32) -> Run:
    def converted(x: Tensor) -> Tensor:
        if x.dim() == 4:
            x = x.to(dtype, memory_format=torch.channels_last)
        return run(x.to(dtype)).float()

    return converted


CONTENDERS: Mapping[str, Callable[[Workload], At]] = {
    EAGER: eager,
    "channels_last": channels_last,
    "torch bf16": bf16,
    "inductor bf16": inductor_bf16,
    "ort fp32": partial(onnxruntime, precision="fp32"),
    "ort int8": partial(onnxruntime, precision="int8"),
    "openvino fp32": partial(openvino, precision="f32"),
    "openvino bf16": partial(openvino, precision="bf16"),
    OPENVINO_INT8: partial(openvino, precision="int8"),
    OURS: fastinfer_auto,
    "fastinfer nm64x2 75%": partial(fastinfer_auto, pruned=("nm64x2", 0.75)),
    "fastinfer nm64x2 87.5%": partial(fastinfer_auto, pruned=("nm64x2", 0.875)),
}
#: Named to be run: a minute to compile each model, and models that are not the others'.
ON_REQUEST = ("inductor bf16", "fastinfer nm64x2 75%", "fastinfer nm64x2 87.5%")

"""Files as people push them: Parquet, CSV, JSON Lines, ONNX, diffusers, by the libraries that are for it."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper


def dataset(rows: int = 100) -> pa.Table:
    """A table of `rows` with a column of each usual kind, nested ones among them."""
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "text": pa.array([f"sentence {number}, with a comma" for number in range(rows)]),
            "score": pa.array([number / 7 for number in range(rows)], pa.float64()),
            "small": pa.array([number % 100 for number in range(rows)], pa.int8()),
            "good": pa.array([number % 2 == 0 for number in range(rows)]),
            "at": pa.array([number * 10**6 for number in range(rows)], pa.timestamp("us", "UTC")),
            "day": pa.array(list(range(rows)), pa.date32()),
            "price": pa.array([None] * rows, pa.decimal128(10, 2)),
            "tags": pa.array([["a", "b"]] * rows, pa.list_(pa.string())),
            "answer": pa.array(
                [{"start": number, "span": {"text": "x"}} for number in range(rows)],
                pa.struct([("start", pa.uint16()), ("span", pa.struct([("text", pa.large_string())]))]),
            ),
        }
    )


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def csv(table: pa.Table, **options: Any) -> bytes:
    """Of the flat columns of `table`."""
    flat = [name for name in table.column_names if not pa.types.is_nested(table.schema.field(name).type)]
    file = BytesIO()
    pyarrow.csv.write_csv(table.select(flat), file, pyarrow.csv.WriteOptions(**options))
    return file.getvalue()


def json_lines(table: pa.Table) -> bytes:
    """Of the columns that JSON has values for."""
    plain = [name for name in table.column_names if name not in {"at", "day", "price"}]
    return "".join(json.dumps(row) + "\n" for row in table.select(plain).to_pylist()).encode()


def onnx_model(weights: Mapping[str, np.ndarray[Any, Any]] | None = None, **model: Any) -> onnx.ModelProto:
    """A multiplication by `weights`, with an input of open size and a sequence among the outputs."""
    if weights is None:
        weights = {"w": np.ones((4, 8), np.float32), "b": np.zeros(8, np.float16)}
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("SequenceConstruct", ["y"], ["all"]),
        ],
        "tiny",
        [tensor("x", TensorProto.FLOAT, ["batch", None, 4]), tensor("n", TensorProto.INT64, [])],
        [
            tensor("y", TensorProto.FLOAT, ["batch", 2, 8]),
            helper.make_tensor_sequence_value_info("all", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    fixed = {"producer_name": "pytorch", "producer_version": "2.9", "ir_version": 10, "opset_imports": opsets}
    return helper.make_model(graph, **(fixed | model))


def diffusers_layout(root: Path) -> None:
    """The files of a Stable Diffusion pipeline that say what it is, without weights."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.31.0",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    files = {
        "model_index.json": index,
        "scheduler/scheduler_config.json": {"_class_name": "PNDMScheduler", "num_train_timesteps": 1000},
        "text_encoder/config.json": {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "vocab_size": 49408,
        },
        "unet/config.json": {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.31.0"},
        "vae/config.json": {"_class_name": "AutoencoderKL", "_diffusers_version": "0.31.0"},
    }
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2), encoding="utf-8")

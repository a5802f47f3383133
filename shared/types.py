"""Types of values that settings and code share. It imports nothing heavy, so that settings load at once."""

from __future__ import annotations

from typing import Literal

Role = Literal["query", "document"]
DType = Literal["float32", "float16", "bfloat16"]
VectorDType = Literal["float16", "int8"]
MarginStrategy = Literal["absolute", "relative"]
JudgeName = Literal["positive", "neighborhood"]

METRICS = ("ndcg@10", "mrr@10", "recall@10")
PRIMARY_METRIC = "ndcg@10"

"""On an accelerator: the guided step, what a pass costs, encoding, and top-50 search at a million rows.

    python tests/bench/accelerator.py                    on a CUDA device; says so and stops where there is none
    python tests/bench/accelerator.py --device cpu --batch-size 32 --rows 2000 --layers 2   a trial of the script

The guide has random weights of BERT-large's shape: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_data import STUDENT
from gistcache.precompute.guides.local_model import ModelGuide
from gistcache.precompute.settings import IndexSettings
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.shared.models.locate import find_model
from gistcache.train.batches.plan import PlanSettings, plan_of_index
from gistcache.train.loss.guided_loss import GuidedContrastiveLoss
from interleaved import WORK, Figures, by_turns, machine, median, ratio, say, spread
from neighbors import NEIGHBORS, clustered
from scale import hashing_guide, pairs_of
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss, MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel

ENCODED_TEXTS = 20_000
MEASURED = Path(__file__).parent / "accelerator.json"


def guide_folder(layers: int) -> Path:
    """A guide of BERT-large's shape with random weights."""
    folder = WORK / f"large-guide-{layers}"
    if not (folder / "modules.json").is_file():
        tokenizer = load_model(find_model(STUDENT)).tokenizer
        torch.manual_seed(0)
        sizes = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
        with tempfile.TemporaryDirectory() as base:
            BertModel(BertConfig(vocab_size=len(tokenizer), num_hidden_layers=layers, **sizes)).save_pretrained(base)
            tokenizer.save_pretrained(base)
            modules = [Transformer(base, max_seq_length=128), Pooling(1024, "mean"), Normalize()]
            SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder))
    return folder


def training_step(device: str, batch_size: int, rounds: int, layers: int) -> Figures:
    """Seconds a step in bf16: ours, GISTEmbedLoss, unguided MultipleNegativesRankingLoss."""
    from bench_data import gistcache

    out = WORK / "scale-100000"
    if not (out / "manifest.json").is_file():
        gistcache("index", pairs_of(100_000), "--guide", hashing_guide(), "--out", out)
    index = GuideIndex.open(out)
    plan = plan_of_index(index, np.arange(len(index)), PlanSettings(batch_size))
    rows = index.to_dataset(0)
    guide = load_model(guide_folder(layers), device=device, dtype="bfloat16").eval()
    losses: dict[str, Callable[[SentenceTransformer], torch.nn.Module]] = {
        "gistcache, guided": lambda model: GuidedContrastiveLoss(model, index, temperature=0.05),
        "GISTEmbedLoss": lambda model: GISTEmbedLoss(model, guide, temperature=0.05),
        "MultipleNegativesRankingLoss (unguided)": lambda model: MultipleNegativesRankingLoss(model, scale=20.0),
    }

    def stepper(make: Callable[[SentenceTransformer], torch.nn.Module]) -> Callable[[int], None]:
        model = load_model(find_model(STUDENT), device=device, max_length=128).train()
        loss, optimizer = make(model), torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)

        def step(number: int) -> None:
            batch = rows[plan[number % len(plan)].tolist()]
            features = [model.preprocess(batch[column]) for column in ("anchor", "positive")]
            features = [{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in f.items()} for f in features]
            with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16):
                value = loss(features, torch.tensor(batch["label"], device=device))
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            _wait(device)

        return step

    return by_turns({name: stepper(make) for name, make in losses.items()}, rounds, warmup=3)


def encoding(device: str, layers: int, texts: int) -> Figures:
    """Texts a second of the large guide in bf16 and the share of the card's matrix rate."""
    guide = ModelGuide(IndexSettings(guide=str(guide_folder(layers)), dtype="bfloat16", device=device))
    import pyarrow.parquet as pq

    sample = pq.read_table(pairs_of(100_000))["anchor"].to_pylist()[:texts]
    guide.encode(sample[:2048], "document")
    begun = time.perf_counter()
    guide.encode(sample, "document")
    seconds = time.perf_counter() - begun
    tokens = int(guide.model.preprocess(sample)["attention_mask"].sum())
    flops = 2 * tokens * layers * 12 * 1024**2
    left = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) if device != "cpu" else torch.randn(512, 512)
    rates = []
    for _ in range(10):
        begun = time.perf_counter()
        left @ left
        _wait(device)
        rates.append(2 * len(left) ** 3 / (time.perf_counter() - begun))
    rate = flops / seconds
    return {
        "texts/s": texts / seconds,
        "rate": rate / median(rates),
        "tokens": tokens / texts,
        "teraflops": rate / 1e12,
    }


def pass_cost(device: str, precision: str, batch_size: int) -> Figures:
    """What one more pass of the student costs in training, in tokens: see ``shared/models/lengths.py``."""
    model = load_model(find_model(STUDENT), device=device, max_length=128).train()
    generator = torch.Generator().manual_seed(0)

    def step(rows: int, width: int) -> float:
        ids = torch.randint(1000, 20_000, (rows, width), generator=generator)
        features = {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids).to(device)}
        begun = time.perf_counter()
        with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=precision == "bf16"):
            value = model(features)["sentence_embedding"].square().sum()
        value.backward()
        _wait(device)
        return time.perf_counter() - begun

    sizes = {"small": (8, 8), "large": (batch_size, 64)}
    seconds = {name: median([step(*size) for _ in range(13)][3:]) for name, size in sizes.items()}
    tokens = {name: rows * width for name, (rows, width) in sizes.items()}
    each = (seconds["large"] - seconds["small"]) / (tokens["large"] - tokens["small"])
    return {"pass ms": 1e3 * seconds["small"], "tokens/s": 1 / each, "tokens": seconds["small"] / each}


def search(device: str, rows: int) -> Figures:
    """Seconds of exact top-50 search of rows among rows: with faiss-gpu where it is there, else with torch."""
    import faiss
    from gistcache.precompute.search import faiss_index
    from gistcache.precompute.search.exact import exact_search

    anchors, documents = (clustered(rows, seed).astype(np.float16) for seed in (1, 2))
    flat = faiss.IndexFlatIP(documents.shape[1])
    flat.add(documents.astype(np.float32))
    index = faiss_index.on_gpu(flat)
    begun = time.perf_counter()
    if index is flat:
        neighbors = exact_search(anchors, documents.__getitem__, np.arange(rows), NEIGHBORS, device=device)
    else:
        neighbors = faiss_index.search(index, anchors, NEIGHBORS)
    seconds = time.perf_counter() - begun
    sample = np.random.default_rng(0).integers(0, rows, 20)
    truth = np.argsort(-(anchors[sample].astype(np.float64) @ documents.astype(np.float64).T), axis=1)[:, :NEIGHBORS]
    right = np.mean([len(np.intersect1d(*each)) for each in zip(neighbors.ids[sample], truth, strict=True)]) / NEIGHBORS
    return {"rows": rows, "seconds": seconds, "by": "torch" if index is flat else "faiss-gpu", "recall": float(right)}


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def report(figures: Figures) -> str:
    """The figures as text."""
    steps = figures["step"]
    ours = steps["gistcache, guided"]
    lines = [figures["machine"] + ".", "", "| loss | seconds a step | times ours, round by round |", "|---|---|---|"]
    lines += [f"| {name} | {spread(values, 3)} | {ratio(values, ours)} |" for name, values in steps.items()]
    lines += ["", "| student | ms of a pass of 64 tokens | tokens/s of a large pass | the small pass in tokens |"]
    lines += ["|---|---|---|---|"]
    for precision, cost in figures["pass"].items():
        lines += [f"| {precision} | {cost['pass ms']:.1f} | {cost['tokens/s']:,.0f} | {cost['tokens']:,.0f} |"]
    encoded, searched = figures["encoding"], figures["search"]
    rows, seconds, by = searched["rows"], searched["seconds"], searched["by"]
    lines += [
        "",
        f"Encoding: {encoded['texts/s']:,.0f} texts/s of {encoded['tokens']:.0f} tokens, {encoded['teraflops']:.0f} "
        f"teraflops, {encoded['rate']:.0%} of the card's matrix rate.",
        f"Exact top {NEIGHBORS} of {rows:,} rows among {rows:,}, 384 dimensions, by {by}: {seconds:.1f} s; "
        f"{searched['recall']:.3f} of what a search in float64 finds.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--layers", type=int, default=24, help="layers of the guide")
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here: not run. `--device cpu` with small sizes tries the script.")
    parts: dict[str, Callable[[], Figures]] = {
        "step": lambda: training_step(args.device, args.batch_size, args.rounds, args.layers),
        "pass": lambda: {each: pass_cost(args.device, each, args.batch_size) for each in ("fp32", "bf16")},
        "encoding": lambda: encoding(args.device, args.layers, min(ENCODED_TEXTS, args.rows)),
        "search": lambda: search(args.device, args.rows),
    }
    figures: Figures = {"machine": machine()}
    for name, measure in parts.items():
        figures[name] = measure()
        say(f"{name}: {json.dumps(figures[name])}")  # a rented card may be gone before the end
    if args.device != "cpu":
        MEASURED.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(report(figures))


if __name__ == "__main__":
    main()

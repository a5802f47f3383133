"""Files of pairs that nobody should have: valid ones of every format, damaged in many ways, and awkward ones."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Chance = random.Random
FORMATS = ("jsonl", "csv", "tsv", "parquet", "jsonl.gz", "csv.gz", "tsv.zst", "jsonl.zst")
NAMES = ("anchor", "positive", "negative", "negative_1", "query", "pos", "neg", "task", "other")
TEXTS = [
    "plain", "", " ", "\t", "\ud800", "a\x00b", "\x1b[31m", "\ufeffmark", "line\nbreak", "cr\r\nlf", '"', "'", ",",
    "\\", "ümlaut", "漢字", "🙂", "e\u0301", "\u202eright", "\x7f", "\u2028", "null", "NaN", "x" * 3000,
]  # fmt: skip


def value(chance: Chance, depth: int = 0) -> Any:
    """Any JSON value."""
    kind = chance.randrange(9 if depth < 3 else 7)
    if kind < 4:
        return chance.choice(TEXTS)
    if kind == 7:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 8:
        return {chance.choice(TEXTS[:4]): value(chance, depth + 1)}
    return (None, chance.choice([0, -1, 2**63, 10**30, 1.5, float("inf")]), chance.random() < 0.5)[kind - 4]


def rows(chance: Chance) -> list[dict[str, Any]]:
    """Rows with names that are known and values that may be anything; most are good."""
    made = []
    for number in range(chance.randrange(12)):
        row: dict[str, Any] = {"anchor": f"a {number}", "positive": f"p {number}"}
        if chance.random() < 0.4:
            row |= {chance.choice(NAMES): value(chance) for _ in range(chance.randrange(3))}
        made.append(row)
    return made


def content(kind: str, chance: Chance) -> bytes:
    """A valid file of a format."""
    made = rows(chance)
    if kind.startswith("jsonl"):
        lines = [json.dumps(row, ensure_ascii=chance.random() < 0.5) for row in made]
        data = chance.choice(["\n", "\r\n", "\n\n"]).join(lines).encode("utf-8", "surrogatepass")
    elif kind.startswith("parquet"):
        return parquet(made, chance)
    else:
        data = delimited(made, "\t" if kind.startswith("tsv") else ",", chance)
    if chance.random() < 0.1:
        data = b"\xef\xbb\xbf" + data
    if chance.random() < 0.05:
        data = data.decode("utf-8", "replace").encode(chance.choice(["utf-16", "latin-1", "utf-32"]), "replace")
    if kind.endswith(".gz"):
        return gzip.compress(data)
    if kind.endswith(".zst"):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        return sink.getvalue().to_pybytes()
    return data


def delimited(made: list[dict[str, Any]], delimiter: str, chance: Chance) -> bytes:
    """Lines that are mostly of one length, quoted at random."""
    names = sorted({name for row in made for name in row}) or ["anchor"]
    if chance.random() < 0.05:
        names.append(names[0])
    out = [delimiter.join(names)]
    for row in made:
        cells = [str(row.get(name, "")) for name in names]
        if chance.random() < 0.1:
            cells = cells[: chance.randrange(len(cells) + 1)]
        out.append(delimiter.join(f'"{cell}"' if chance.random() < 0.3 else cell for cell in cells))
    return chance.choice(["\n", "\r\n"]).join(out).encode("utf-8", "surrogatepass")


def parquet(made: list[dict[str, Any]], chance: Chance) -> bytes:
    """Columns of strings, and now and then of something else."""
    columns: dict[str, pa.Array] = {}
    others: list[Callable[[int], pa.Array]] = [
        lambda n: pa.array([{"a": None}] * n),
        lambda n: pa.array([2**62] * n, pa.timestamp("us")),
        lambda n: pa.array([b"\xff\xfe"] * n),
        lambda n: pa.array([[["x", None], None]] * n),
        lambda n: pa.array([None] * n),
        lambda n: pa.array([["a", "b"], []][: n % 2 + 1] * n).slice(0, n),
        lambda n: pa.array(["x"] * n).dictionary_encode(),
        lambda n: pa.array([1.5] * n),
        lambda n: pa.Array.from_buffers(pa.string(), n, pa.array([b"\xff\xff"] * n, pa.binary()).buffers()),
    ]
    for name in ("anchor", "positive", chance.choice(NAMES)):
        texts = [str(row.get(name, "x")).encode("utf-8", "replace").decode() for row in made]
        columns[name] = chance.choice(others)(len(made)) if chance.random() < 0.25 else pa.array(texts, pa.string())
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def damaged(data: bytes, chance: Chance) -> bytes:
    """The content as it is, or cut, flipped, stretched or mixed up."""
    changed = bytearray(data)
    for _ in range(chance.choice([0, 1, 1, 1, 3, 10])):
        place = chance.randrange(len(changed) + 1)
        other = chance.randrange(len(changed) + 1)
        action = chance.randrange(6)
        if action == 0:
            del changed[place:]
        elif action == 1 and place < len(changed):
            changed[place] ^= 1 << chance.randrange(8)
        elif action == 2:
            changed[place:place] = chance.randbytes(chance.randrange(1, 20))
        elif action == 3:
            del changed[min(place, other) : max(place, other)]
        elif action == 4:
            changed[place:place] = changed[min(place, other) : max(place, other)]
        else:
            changed[place:place] = chance.choice([b'"', b"\n", b"\x00", b"\xff\xfe", b"{", b"[" * 500, b","])
    return bytes(changed)


def awkward_files(folder: Path) -> Iterator[Path]:
    """Files that are large, deep, wide, endless or oddly named."""
    good = b'{"anchor": "a", "positive": "b"}\n'
    long = json.dumps({"anchor": "a", "positive": "x" * 10**7}).encode()
    contents = {
        "ten megabytes of one text.jsonl": long + b"\n" + good,
        "longest line.jsonl": b'{"anchor": "' + b"x" * (65 * 2**20),
        "deep.jsonl": b"[" * 10**6 + b"\n" + good,
        "million columns.csv": b",".join(b"c%d" % n for n in range(10**6)) + b"\n" + b"," * (10**6 - 1) + b"\n",
        "million columns with pairs.csv": b",".join([b"anchor", b"positive", *(b"c%d" % n for n in range(10**6))])
        + (b"\n" + b",".join([b"a", b"b", *([b""] * 10**6)])) * 3,
        "quote never closed.csv": b'anchor,positive\n"a,b\n' + b"c,d\n" * 10**6,
        "nothing but commas.csv": b"anchor,positive\n" + b",\n" * 10**6,
        "empty.jsonl": b"",
        "empty.csv": b"",
        "empty.parquet": b"",
        "only nulls.jsonl": b"\x00" * 10**7,
        "path with spaces.jsonl": good,
        "path\nwith\nnew lines.jsonl": good,
        "[brackets]*?.jsonl": good,
        "no gzip.csv.gz": good,
        "cut gzip.jsonl.gz": gzip.compress(good * 1000)[:-20],
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
        yield folder / name
    wide = pa.table({f"c{n}": pa.array(["x"]) for n in range(20_000)} | {"anchor": ["a"], "positive": ["b"]})
    pq.write_table(wide, folder / "wide.parquet")
    yield folder / "wide.parquet"
    loop = folder / "loop"
    (loop / "sub").mkdir(parents=True)
    (loop / "sub" / "a.jsonl").write_bytes(good)
    for name, target in {"up": "..", "self": "self", "sub/up": "../..", "sub/nowhere.jsonl": "gone"}.items():
        (loop / name).symlink_to(target)
    yield loop
    yield loop / "self"
    yield folder / "is not there.jsonl"
    nameless = Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.jsonl"))
    nameless.write_bytes(b"{}\n" + good)
    yield nameless

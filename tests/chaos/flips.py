"""One flipped bit anywhere in any file of an index: `verify` names the file, `index` and `train` refuse it."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

from tests.chaos.commands import Command, finish
from tests.chaos.kills import index_words, train_words, write_corpus

REFUSED = 5


def flip_bits(folder: Path, guide: Path, student: Path, times: int, seed: int, *, each: bool) -> Counter[str]:
    """Flip ``times`` bits in random files of an index, and with ``each`` one in every file; counts by kind of file.

    Raises:
        AssertionError: A command took the damaged index, or did not name the file.
    """
    write_corpus(folder)
    shutil.rmtree(folder / "whole", ignore_errors=True)
    finish(*index_words(guide, "whole"), cwd=folder)
    files = sorted(path for path in (folder / "whole").rglob("*") if path.is_file())
    chance, kinds = random.Random(seed), Counter[str]()
    hurt = folder / "hurt"
    shutil.rmtree(hurt, ignore_errors=True)
    shutil.copytree(folder / "whole", hurt)
    for path in [*(files if each else ()), *chance.choices(files, k=times)]:
        name = path.relative_to(folder / "whole")
        whole = path.read_bytes()
        bit = chance.randrange(8 * len(whole))
        (hurt / name).write_bytes(flipped(whole, bit))
        for words in (["verify", "hurt"], index_words(guide, "hurt"), train_words(hurt, student, "never")):
            code, said, _ = Command(*words, cwd=folder).end()
            assert code == REFUSED, (name, bit, words[0], code, said)
            assert name.as_posix() in said, (name, bit, said)
            assert "Traceback" not in said, said
        (hurt / name).write_bytes(whole)
        kinds[name.parts[0]] += 1
    assert not (folder / "never" / "metrics.json").exists()
    return kinds


def flipped(content: bytes, bit: int) -> bytes:
    """The content with one bit changed."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)

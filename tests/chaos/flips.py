"""One flipped bit anywhere in any file of an index: `verify` names the file, `index` and `train` refuse it."""

from __future__ import annotations

import random
import shutil
from collections import Counter

from tests.chaos.arena import Arena
from tests.chaos.commands import Command

REFUSED = 5


def flip_bits(arena: Arena, times: int, seed: int, *, each: bool) -> Counter[str]:
    """Flip ``times`` bits in random files of an index, and with ``each`` one in every file; counts by kind of file.

    Raises:
        AssertionError: A command took the damaged index, or did not name the file.
    """
    files = sorted(path for path in arena.index.rglob("*") if path.is_file())
    chance, kinds = random.Random(seed), Counter[str]()
    hurt = arena.folder / "hurt"
    shutil.rmtree(hurt, ignore_errors=True)
    shutil.copytree(arena.index, hurt)
    for path in [*(files if each else ()), *chance.choices(files, k=times)]:
        name = path.relative_to(arena.index)
        whole = path.read_bytes()
        bit = chance.randrange(8 * len(whole))
        (hurt / name).write_bytes(flipped(whole, bit))
        for words in (["verify", "hurt"], arena.index_words("hurt"), arena.train_words("never", hurt)):
            code, said, _ = Command(*words, cwd=arena.folder).end()
            assert code == REFUSED, (name, bit, words[0], code, said)
            assert name.as_posix() in said, (name, bit, said)
            assert "Traceback" not in said, said
        (hurt / name).write_bytes(whole)
        kinds[name.parts[0]] += 1
    assert not (arena.folder / "never" / "metrics.json").exists()
    return kinds


def flipped(content: bytes, bit: int) -> bytes:
    """The content with one bit changed."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)

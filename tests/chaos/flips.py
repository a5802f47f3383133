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
        AssertionError: A command accepted the damaged index, or did not name the file.
    """
    files = sorted(path for path in arena.index.rglob("*") if path.is_file())
    chance, kinds = random.Random(seed), Counter[str]()
    damaged = arena.folder / "damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(arena.index, damaged)
    for path in [*(files if each else ()), *chance.choices(files, k=times)]:
        name = path.relative_to(arena.index)
        content = path.read_bytes()
        bit = chance.randrange(8 * len(content))
        (damaged / name).write_bytes(flipped(content, bit))
        for words in (["verify", "damaged"], arena.index_words("damaged"), arena.train_words("never", damaged)):
            code, output, _ = Command(*words, cwd=arena.folder).end()
            assert code == REFUSED, (name, bit, words[0], code, output)
            assert name.as_posix() in output, (name, bit, output)
            assert "Traceback" not in output, output
        (damaged / name).write_bytes(content)
        kinds[name.parts[0]] += 1
    assert not (arena.folder / "never" / "metrics.json").exists()
    return kinds


def flipped(content: bytes, bit: int) -> bytes:
    """The content with one bit changed."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)

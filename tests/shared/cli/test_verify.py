"""What `gistcache verify` prints and returns."""

from __future__ import annotations

from gistcache.shared.cli.verify import verify

from tests.shared.guide_index.index_folder import small


def test_rounding_is_printed_where_it_was_measured(tmp_path):
    folder = small()
    plain = verify(str(folder.write(tmp_path / "plain")))
    assert [str(line) for line in plain.text] == [f"{tmp_path / 'plain'}: 13 files checked, no fault"]
    folder.measured["rounding"] = {"pairs": 512, "candidates": 786_432, "changed": 97}
    root = folder.write(tmp_path / "index")
    line = "mask decisions that change by rounding vectors to float16: 0.0123 % (786,432 candidates of 512 pairs)"
    assert str(verify(str(root)).text[-1]) == line
    (root / "vectors" / "shard-00000.npy").unlink()
    damaged = verify(str(root))
    assert damaged.exit_code == 5
    assert str(damaged.text[0]) == "fault: vectors/shard-00000.npy: missing"

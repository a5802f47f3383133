"""`torchrun --nproc-per-node N -m gistcache.train ...`: `gistcache train` in several processes."""

import sys

from ..shared.cli.main import main

if __name__ == "__main__":
    sys.argv[1:1] = ["train"]
    main()

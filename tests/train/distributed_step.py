"""One step of the loss over fixed pairs, in as many processes as there are; the first saves loss and gradients.

test_ranks.py runs it in one process and in two.
"""

from __future__ import annotations

from typing import Any

import torch
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.train import GuidedContrastiveLoss
from gistcache.train.distributed import process_group, wait
from gistcache.train.settings import DistillationSettings
from sentence_transformers.util.distributed import get_rank, get_world_size
from torch.nn.parallel import DistributedDataParallel


def take_step(given: dict[str, Any]) -> None:
    """What this process has to do."""
    with process_group("cpu"):
        _step(given)


def _step(given: dict[str, Any]) -> None:
    processes, rank = get_world_size(), get_rank()
    index = GuideIndex.open(given["index"])
    student = load_model(given["student"]).eval()
    model = DistributedDataParallel(student, find_unused_parameters=True) if processes > 1 else student
    terms = DistillationSettings(**given["terms"])
    loss = GuidedContrastiveLoss(
        student, index, judge=given["judge"], terms=terms, mini_batch_num_tokens=given["tokens"]
    )
    loss.model = model
    share = len(given["labels"]) // processes
    labels = given["labels"][rank * share : (rank + 1) * share]
    batch = index.to_dataset()[labels]
    columns = [name for name in batch if name != "label"]
    value = loss([student.preprocess(batch[name]) for name in columns], torch.tensor(labels))
    value.backward()
    counts = tuple(loss.statistics.counts())
    mean = value.detach().clone()
    if processes > 1:
        torch.distributed.all_reduce(mean)
        mean /= processes
    weights = [*student.named_parameters(), *(loss.guide_map.named_parameters("map") if loss.guide_map else ())]
    gradients = {name: each.grad for name, each in weights if each.grad is not None}
    if rank == 0:
        torch.save({"loss": mean, "gradients": gradients, "counts": counts}, given["out"])
    wait()  # nobody leaves before the others

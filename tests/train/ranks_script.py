"""One step of the loss over fixed pairs, in as many processes as there are; the first saves loss and gradients.

Run by test_ranks.py, alone and under torchrun.
"""

from __future__ import annotations

import json
import sys

import torch
from accelerate import PartialState
from gistcache.shared.index import GuideIndex
from gistcache.shared.models import load_model
from gistcache.train import GuidedContrastiveLoss
from gistcache.train.ranks import sum_of_all
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    given = json.loads(sys.argv[1])
    state = PartialState(cpu=True)
    index = GuideIndex.open(given["index"])
    student = load_model(given["student"]).eval()
    model = DistributedDataParallel(student, find_unused_parameters=True) if state.num_processes > 1 else student
    loss = GuidedContrastiveLoss(student, index, temperature=0.05, mini_batch_num_tokens=given["tokens"])
    loss.model = model
    share = len(given["labels"]) // state.num_processes
    labels = given["labels"][state.process_index * share : (state.process_index + 1) * share]
    batch = index.to_dataset()[labels]
    columns = [name for name in batch if name != "label"]
    value = loss([student.preprocess(batch[name]) for name in columns], torch.tensor(labels))
    value.backward()
    counts = loss.removed_cells.counts()
    mean = value.detach().clone()
    if state.num_processes > 1:
        torch.distributed.all_reduce(mean)
        mean /= state.num_processes
    gradients = {name: each.grad for name, each in student.named_parameters() if each.grad is not None}
    if state.process_index == 0:
        torch.save({"loss": mean, "gradients": gradients, "counts": counts}, given["out"])
    sum_of_all([0])  # nobody leaves before the others


if __name__ == "__main__":
    main()

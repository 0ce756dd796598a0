"""The steps of training, from a checkpoint or from the first to the last."""

import copy
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from accent.ecapa.network import AccentNetwork
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from aurea.lab.features.augment import spec_augment
from aurea.lab.training.checkpoint import WORK_FOLDER, Checkpoint, Progress, cut_log
from aurea.lab.training.distillation import Student, losses_of
from aurea.lab.training.recipe import Recipe
from aurea.lab.training.sampler import Batch, Sampler

LOG_FILE: Final = "training_log.jsonl"

_LOG_EVERY: Final = 10
_JUDGE_EVERY: Final = 100
_MAX_GRADIENT_NORM: Final = 5.0


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up to the peak, then half a cosine down to `decay_to` of it."""
    warmup_steps = max(1, round(recipe.warmup * recipe.steps))
    if step < warmup_steps:
        return recipe.learning_rate * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, recipe.steps - warmup_steps)
    height = 0.5 * (1.0 + math.cos(math.pi * done))
    return recipe.learning_rate * (recipe.decay_to + (1.0 - recipe.decay_to) * height)


def train(
    network: AccentNetwork,
    sampler: Sampler,
    recipe: Recipe,
    out: Path,
    fingerprint: str,
    judge_dev: Callable[[AccentNetwork], Mapping[str, float]],
    checkpoint_every: int,
    device: torch.device,
) -> tuple[AccentNetwork, float]:
    """Train, going on from `out`/.train where a run of the same `fingerprint` was stopped.

    `network` is moved to `device`. Crops are drawn and masked on the CPU: which they are does
    not depend on what computes. Writes one line of JSON every 10 steps to
    `out`/training_log.jsonl. Returns the moving average of the weights, in evaluation mode
    and on the CPU, and the seconds spent by all runs together.

    Raises `SystemExit` if the checkpoint belongs to another recipe or other data.
    """
    (out / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
    average = AveragedModel(
        network.to(device),
        multi_avg_fn=get_ema_multi_avg_fn(recipe.average_decay),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )
    student = Student(network).to(device)
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    checkpoint = Checkpoint(out, fingerprint, student, average, optimizer)
    before = checkpoint.load(device)
    if before.step:
        print(f"going on from step {before.step}", flush=True)
    cut_log(out / LOG_FILE, before.step)

    started_s = time.monotonic()

    def spent_s() -> float:
        return before.spent_s + time.monotonic() - started_s

    means = _Means()
    student.train()
    bar = tqdm(
        range(before.step, recipe.last_step),
        initial=before.step,
        total=recipe.last_step,
        desc="train",
        unit="step",
        disable=None,
    )
    # The next step's crops are drawn while this one is computed; which they are, its number
    # alone decides.
    drawing = ThreadPoolExecutor(1)
    coming = drawing.submit(sampler.batch, before.step)
    for step in bar:
        rate = learning_rate(recipe, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = coming.result()
        if step + 1 < recipe.last_step:
            coming = drawing.submit(sampler.batch, step + 1)
        parts, accuracy = descend(
            student, optimizer, _masked(batch, recipe, step).to(device), recipe, step
        )
        average.update_parameters(network)
        means.add({name: part.item() for name, part in parts.items()}, accuracy.item())

        done = step + 1
        last = done == recipe.last_step
        if done % _LOG_EVERY == 0 or last:
            line = {"step": done, **means.start_anew(), "learning_rate": rate}
            line["spent_s"] = round(spent_s(), 1)
            if done % _JUDGE_EVERY == 0 or last:
                line |= judge_dev(_averaged(average))
            with (out / LOG_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            bar.set_postfix(loss=line["loss"], accuracy=line["accuracy"])
        if done % checkpoint_every == 0 and not last:
            checkpoint.save(Progress(done, spent_s()))
    return _averaged(average), spent_s()


def descend(
    student: Student, optimizer: torch.optim.Optimizer, batch: Batch, recipe: Recipe, step: int
) -> tuple[dict[str, Tensor], Tensor]:
    """One step down the loss, on the device that all of it is on.

    Returns the parts of the loss with their sum, and the share of labelled crops that were
    named right.
    """
    with torch.autocast(batch.features.device.type, torch.bfloat16, enabled=recipe.bf16):
        cosines, sounds, hidden = student(batch.features)
    parts = losses_of(batch, cosines, sounds, hidden, recipe, step)
    loss = torch.stack(list(parts.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(student.parameters(), _MAX_GRADIENT_NORM)
    optimizer.step()
    labelled = batch.targets >= 0
    right = cosines.detach().squeeze(1).argmax(dim=1) == batch.targets
    return {**parts, "loss": loss}, (right & labelled).sum() / labelled.sum()


def _masked(batch: Batch, recipe: Recipe, step: int) -> Batch:
    """`batch` with each crop's mean taken off and, with augmentation, stretches hidden."""
    features = batch.features - batch.features.mean(dim=1, keepdim=True)
    # SpeechBrain's masks draw from torch's generator, which nothing else uses here.
    torch.manual_seed(recipe.seed * 1_000_003 + step)
    return replace(batch, features=spec_augment(features) if recipe.augment else features)


class _Means:
    """Losses and accuracy since the last line of the log."""

    def __init__(self) -> None:
        self._found: dict[str, list[float]] = defaultdict(list)

    def add(self, losses: Mapping[str, float], accuracy: float) -> None:
        for name, value in {**losses, "accuracy": accuracy}.items():
            self._found[name].append(value)

    def start_anew(self) -> dict[str, float]:
        """Their means, with which a new stretch begins."""
        means = {name: round(float(np.mean(values)), 4) for name, values in self._found.items()}
        self._found.clear()
        return means


def _averaged(average: AveragedModel) -> AccentNetwork:
    network = copy.deepcopy(average.module).cpu()
    if not isinstance(network, AccentNetwork):
        raise TypeError(type(network))
    return network.eval().requires_grad_(False)

"""Labelled speech -> an ECAPA-TDNN accent model in the folder layout that `MODEL=` takes.

The recipe is that of CommonAccent (Zuluaga-Gomez et al., 2023) at any width: cosine head,
additive angular margin, speaker-disjoint split, balance over accents and speakers. A teacher
can be added: it says frame by frame and clip by clip what it hears, in unlabelled speech too.
Features are computed once. What step k sees depends on the seed and k alone: a run that was
killed goes on where its last checkpoint stands and ends with the weights it would have had.
"""

import argparse
import copy
import hashlib
import json
import math
import platform
import shlex
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from accent.decode import decode
from accent.errors import ModelFolderError, Refusal
from accent.layout import CLASSIFIER_FILE, EMBEDDING_FILE, HYPERPARAMS_FILE, LABELS_FILE, US_LABEL
from accent.loading import AccentModel, load_model
from accent.network import AccentNetwork
from accent.specification import NetworkSpec
from accent.waveform import SAMPLE_RATE_HZ, Waveform
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from aurea.archive.distort import DISTORTIONS
from aurea.archive.layout import CALIBRATION_FILE
from aurea.files import whole_file, write_whole
from aurea.lab.augment import crop_at, perturbed_crop, spec_augment
from aurea.lab.corpus import Clip, Split, choose_labels, merge_accents, read_clips, split_by_speaker
from aurea.lab.evaluate import RESULTS_FILE, evaluate_clips, model_facts
from aurea.lab.figures import ClipResult, Evaluation, summarise
from aurea.lab.packages import PackageUnavailable
from aurea.lab.prepare import DEFAULT_CACHE, FRAMES_PER_S, Plan, PreparedClip, prepare
from aurea.lab.reporting.card import Heard, Making, model_card
from aurea.lab.reporting.report import write_training_report
from aurea.lab.statistics import Floats, area_under_roc, fit_scale
from aurea.lab.teacher import (
    FIRST_CENTRE_S,
    HOP_S,
    SOUND_HOP_S,
    SOUND_SIZE,
    AccentProbe,
    CrossFittedProbe,
    norm_of,
    train_probe,
)
from aurea.paths import ROOT

CARD_FILE: Final = "README.md"
LOG_FILE: Final = "training_log.jsonl"
WORK_FOLDER: Final = ".train"
REPORTS: Final = ROOT / "build" / "training"
CHECKPOINT_FILE: Final = "checkpoint.pt"

CPU: Final = torch.device("cpu")

CALIBRATION_WINDOW_S: Final = 3.0
MAX_PROBE_FOLDS: Final = 5
# Within a label, a kind of speech is drawn in proportion to this power of its seconds: a
# large synthetic part does not drown a few real voices, nor are two clips heard all day.
_KIND_POWER: Final = 1.0 / 3.0


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, apart from the data.

    `channels` is the width of the blocks; the aggregation has three times as many.
    `learning_rate` is the peak, reached after `warmup` of the steps; at the last it stands at
    `decay_to` of that. Training ends with step `stop_at`, where it is not 0: earlier than the
    rate is planned for, since the last steps of a long fall learn voices by heart. `versions` of
    each clip are prepared, itself included. With a teacher, `unlabelled_share` of a batch comes
    from speech without labels, and the loss is the sum of the margin loss on labelled crops, the
    divergence from the teacher's posterior and the squared distance from its sounds, each times
    its weight; labels and posterior come in over the first `labels_after` of the steps.
    """

    seed: int = 0
    steps: int = 500
    batch_size: int = 32
    channels: int = 128
    embedding_size: int = 128
    attention_channels: int = 64
    n_mels: int = 80
    min_crop_s: float = 1.5
    max_crop_s: float = 3.0
    learning_rate: float = 1e-3
    warmup: float = 0.05
    decay_to: float = 0.0
    stop_at: int = 0
    weight_decay: float = 0.02
    margin: float = 0.2
    scale: float = 30.0
    average_decay: float = 0.98
    augment: bool = True
    versions: int = 3
    bf16: bool = True
    teacher: bool = False
    unlabelled_share: float = 0.3
    margin_weight: float = 0.1
    posterior_weight: float = 1.0
    sound_weight: float = 2.0
    labels_after: float = 0.3

    @property
    def last_step(self) -> int:
        """The number of steps that are run."""
        return self.stop_at or self.steps


@dataclass(frozen=True)
class Sound:
    """A decoded clip: `waveform` is (samples,) float32, mono at 16 kHz."""

    clip: Clip
    waveform: Waveform

    @property
    def duration_s(self) -> float:
        return self.waveform.size / SAMPLE_RATE_HZ


def load_sounds(clips: Sequence[Clip], name: str) -> list[Sound]:
    """Decode `clips`; those that the server would refuse are named and left out."""
    sounds: list[Sound] = []
    for clip in tqdm(clips, desc=f"decode {name}", unit="clip", disable=None):
        try:
            waveform = decode(clip.path.read_bytes()).waveform
        except (Refusal, OSError) as error:
            print(f"left out {clip.path}: {error}", flush=True)
            continue
        sounds.append(Sound(clip, waveform))
    return sounds


@dataclass(frozen=True)
class Batch:
    """What one step trains on.

    `features` is (batch, frames, n_mels) in dB. `targets` is (batch,), -1 where there is no
    label. With a teacher, `sounds` is (batch, ceil(frames / 2), 96), what it hears at every
    other frame, standardised, and `posterior` (batch, labels) what it says of the crop.
    """

    features: Tensor
    targets: Tensor
    sounds: Tensor | None = None
    posterior: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(
            self.features.to(device),
            self.targets.to(device),
            None if self.sounds is None else self.sounds.to(device),
            None if self.posterior is None else self.posterior.to(device),
        )


class Sampler:
    """Draws crops of log-mel features, balanced over labels, kinds of speech and speakers."""

    def __init__(
        self,
        labelled: Sequence[PreparedClip],
        unlabelled: Sequence[PreparedClip],
        labels: Sequence[str],
        recipe: Recipe,
        probe: CrossFittedProbe | None = None,
    ) -> None:
        self._recipe = recipe
        self._probe = probe
        self._unlabelled = list(unlabelled)
        if probe is not None:
            self._sound_norm = norm_of([clip.sounds for clip in (*labelled, *unlabelled)])
        self._groups: list[list[tuple[float, list[list[PreparedClip]]]]] = []
        for label in labels:
            kinds = by_kind(labelled, label)
            if not kinds:
                raise SystemExit(f"label {label}: no clip to train on could be decoded.")
            self._groups.append([])
            for clips in kinds:
                speakers: dict[str, list[PreparedClip]] = defaultdict(list)
                for clip in clips:
                    speakers[clip.clip.speaker].append(clip)
                self._groups[-1].append((kind_weight(clips), list(speakers.values())))

    def batch(self, step: int) -> Batch:
        """What step `step` trains on, whatever was drawn before."""
        recipe = self._recipe
        rng = np.random.default_rng((recipe.seed, step))
        frames = round(rng.uniform(recipe.min_crop_s, recipe.max_crop_s) * FRAMES_PER_S)
        offset = int(rng.integers(len(self._groups)))
        n_unlabelled = round(recipe.unlabelled_share * recipe.batch_size)
        if self._probe is None or not self._unlabelled:
            n_unlabelled = 0
        crops: list[Tensor] = []
        targets: list[int] = []
        speakers: list[str] = []
        heard: list[Tensor] = []
        sounds: list[Tensor] = []
        for index in range(recipe.batch_size):
            if index < n_unlabelled:
                target = -1
                clip = self._unlabelled[int(rng.integers(len(self._unlabelled)))]
            else:
                target = (offset + index) % len(self._groups)
                clip = self._draw(target, rng)
            version = int(rng.integers(len(clip.versions))) if recipe.augment else 0
            features = torch.from_numpy(clip.versions[version])
            if recipe.augment:
                crop, positions = perturbed_crop(features, frames, rng)
            else:
                crop, positions = crop_at(features, frames, rng.uniform(), 1.0)
            crops.append(crop)
            targets.append(target)
            speakers.append(clip.clip.speaker)
            if self._probe is not None:
                times_s = positions[::2] * clip.speeds[version] / FRAMES_PER_S
                heard.append(frames_at(clip.frames, times_s, FIRST_CENTRE_S, HOP_S))
                sounds.append(frames_at(clip.sounds, times_s, 0.0, SOUND_HOP_S))
        batch = Batch(torch.stack(crops), torch.tensor(targets))
        if self._probe is None:
            return batch
        mean, deviation = self._sound_norm
        says = self._probe.posterior(torch.stack(heard), speakers)
        return replace(batch, sounds=(torch.stack(sounds) - mean) / deviation, posterior=says)

    def _draw(self, target: int, rng: np.random.Generator) -> PreparedClip:
        weights = np.array([weight for weight, _ in self._groups[target]])
        kind = int(rng.choice(len(weights), p=weights / weights.sum()))
        speakers = self._groups[target][kind][1]
        clips = speakers[int(rng.integers(len(speakers)))]
        return clips[int(rng.integers(len(clips)))]


def by_kind(clips: Sequence[PreparedClip], label: str) -> list[list[PreparedClip]]:
    """The clips of a label, one list a kind of speech."""
    kinds: dict[str, list[PreparedClip]] = defaultdict(list)
    for clip in clips:
        if clip.clip.accent == label:
            kinds[clip.clip.kind].append(clip)
    return list(kinds.values())


def kind_weight(clips: Sequence[PreparedClip]) -> float:
    """How often a kind of speech is drawn within its label, to no unit."""
    return float(sum(clip.duration_s for clip in clips) ** _KIND_POWER)


def frames_at(
    frames: npt.NDArray[np.float16], times_s: Tensor, first_s: float, hop_s: float
) -> Tensor:
    """(frames, size), the first at `first_s`, read at (n,) seconds, linear between two."""
    rows = torch.from_numpy(frames)
    positions = ((times_s - first_s) / hop_s).clamp(0, len(rows) - 1)
    lower = positions.long()
    upper = (lower + 1).clamp(max=len(rows) - 1)
    return torch.lerp(
        rows[lower].float(), rows[upper].float(), (positions - lower)[:, None].float()
    )


def probe_for(
    labelled: Sequence[PreparedClip],
    unlabelled: Sequence[PreparedClip],
    labels: Sequence[str],
) -> CrossFittedProbe:
    """The teacher's accent probe, drawn on clips as the sampler draws them.

    Where every label has two speakers or more, those of each are dealt to as many folds as
    all labels can fill, and as many probes hear the rest.
    """
    speakers = [sorted({c.clip.speaker for c in labelled if c.clip.accent == x}) for x in labels]
    folds = min(MAX_PROBE_FOLDS, *map(len, speakers))
    order = np.random.default_rng(0)
    fold_of = {
        speaker: place % folds
        for known in speakers
        for place, speaker in enumerate(order.permutation(known).tolist())
    }
    if folds < 2:
        folds, fold_of = 1, {}
    probes: list[AccentProbe] = []
    for fold in range(folds):
        by_label: dict[str, list[tuple[float, npt.NDArray[np.float16]]]] = {}
        kept = [clip for clip in labelled if fold_of.get(clip.clip.speaker) != fold]
        for label in labels:
            by_label[label] = []
            for clips in by_kind(kept, label):
                counts = Counter(clip.clip.speaker for clip in clips)
                share = kind_weight(clips) / len(counts)
                by_label[label] += [(share / counts[c.clip.speaker], c.frames) for c in clips]
        probes.append(train_probe(by_label, [clip.frames for clip in unlabelled]))
    return CrossFittedProbe(tuple(probes), fold_of)


class Pupil(nn.Module):
    """A network and the matrix that maps its aggregated frames to the teacher's sounds."""

    def __init__(self, network: AccentNetwork) -> None:
        super().__init__()
        self.network = network
        self.to_sounds = nn.Linear(network.embedding_model.channels[-1], SOUND_SIZE)
        self._aggregated: Tensor | None = None
        network.embedding_model.mfa.register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: Any, output: Tensor) -> None:
        self._aggregated = output

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, n_mels) -> (batch, 1, labels) cosines, (batch, frames / 2, 96)."""
        lengths = features.new_ones(len(features))
        embeddings = self.network.embedding_model(features, lengths)
        # bfloat16 has steps of 0.004 near a cosine of 1, which the scale would magnify.
        with torch.autocast(features.device.type, enabled=False):
            cosines = self.network.classifier(embeddings.float())
        if self._aggregated is None:
            raise RuntimeError("the aggregation did not run")
        sounds = self.to_sounds(self._aggregated[:, :, ::2].transpose(1, 2))
        self._aggregated = None
        return cosines, sounds.float()


def losses_of(
    batch: Batch, cosines: Tensor, sounds: Tensor, recipe: Recipe, step: int
) -> dict[str, Tensor]:
    """The parts of the loss, weighted, by name: their sum is what falls.

    The margin loss is on what has a label. A teacher adds the divergence from its posterior,
    Hinton et al.'s (2015) at the network's own scale, and the squared distance from its
    sounds. What a label or a posterior teaches comes in over the first `labels_after` of the
    steps: earlier, a network learns speakers by heart instead.
    """
    margin = LogSoftmaxWrapper(AdditiveAngularMargin(margin=recipe.margin, scale=recipe.scale))
    labelled = batch.targets >= 0
    loss: Tensor = margin(cosines[labelled], batch.targets[labelled][:, None])
    if batch.sounds is None or batch.posterior is None:
        return {"margin": loss}
    logs = torch.log_softmax(recipe.scale * cosines.squeeze(1), dim=-1)
    divergence = nn.functional.kl_div(logs, batch.posterior, reduction="batchmean")
    trusted = min(1.0, step / max(1.0, recipe.labels_after * recipe.steps))
    return {
        "margin": trusted * recipe.margin_weight * loss,
        "divergence": trusted * recipe.posterior_weight * divergence,
        "sounds": recipe.sound_weight * nn.functional.mse_loss(sounds, batch.sounds),
    }


def new_network(recipe: Recipe, n_labels: int, init: AccentModel | None) -> AccentNetwork:
    """A network with weights drawn by the seed, or with the embedding of `init`."""
    torch.manual_seed(recipe.seed)
    network = AccentNetwork(network_spec(recipe, n_labels, init))
    if init is not None:
        network.embedding_model.load_state_dict(init.network.embedding_model.state_dict())
    return network


def network_spec(recipe: Recipe, n_labels: int, init: AccentModel | None) -> NetworkSpec:
    """The network's shape: that of `init`, else the recipe's."""
    if init is not None:
        return replace(init.spec, n_labels=n_labels, softmax_scale=recipe.scale)
    return NetworkSpec(
        n_mels=recipe.n_mels,
        channels=(recipe.channels,) * 4 + (3 * recipe.channels,),
        kernel_sizes=(5, 3, 3, 3, 1),
        dilations=(1, 2, 3, 4, 1),
        attention_channels=recipe.attention_channels,
        se_channels=min(recipe.channels, 128),
        res2net_scale=8,
        embedding_size=recipe.embedding_size,
        n_labels=n_labels,
        activation="torch.nn.LeakyReLU",
        std_norm=False,
        softmax_scale=recipe.scale,
    )


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
    checkpoint = out / WORK_FOLDER / CHECKPOINT_FILE
    log = out / LOG_FILE
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    average = AveragedModel(
        network.to(device),
        multi_avg_fn=get_ema_multi_avg_fn(recipe.average_decay),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )
    pupil = Pupil(network).to(device)
    optimizer = torch.optim.AdamW(
        pupil.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    first_step, spent_s = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state["fingerprint"] != fingerprint:
            raise SystemExit(
                f"{checkpoint.parent} holds a stopped run with another recipe or other data: "
                "finish that one, or delete the folder."
            )
        pupil.load_state_dict(state["pupil"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first_step, spent_s = state["step"], state["spent_s"]
        print(f"going on from step {first_step}", flush=True)
    _truncate_log(log, first_step)

    started_s = time.monotonic()
    losses: dict[str, list[float]] = defaultdict(list)
    hits: list[float] = []
    pupil.train()
    bar = tqdm(
        range(first_step, recipe.last_step),
        initial=first_step,
        total=recipe.last_step,
        desc="train",
        unit="step",
        disable=None,
    )
    # The next step's crops are drawn while this one is computed; which they are, its number
    # alone decides.
    drawing = ThreadPoolExecutor(1)
    coming = drawing.submit(sampler.batch, first_step)
    for step in bar:
        rate = learning_rate(recipe, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = coming.result()
        if step + 1 < recipe.last_step:
            coming = drawing.submit(sampler.batch, step + 1)
        features = batch.features - batch.features.mean(dim=1, keepdim=True)
        # SpeechBrain's masks draw from torch's generator, which nothing else uses here.
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        if recipe.augment:
            features = spec_augment(features)
        batch = replace(batch, features=features).to(device)
        parts, accuracy = descend(pupil, optimizer, batch, recipe, step)
        average.update_parameters(network)

        for name, part in parts.items():
            losses[name].append(part.item())
        hits.append(accuracy.item())
        done = step + 1
        if done % 10 == 0 or done == recipe.last_step:
            line: dict[str, float] = {
                "step": done,
                **{name: round(float(np.mean(found)), 4) for name, found in losses.items()},
                "accuracy": round(float(np.mean(hits)), 4),
                "learning_rate": rate,
                "spent_s": round(spent_s + time.monotonic() - started_s, 1),
            }
            if done % 100 == 0 or done == recipe.last_step:
                line |= judge_dev(_plain(average))
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            bar.set_postfix(loss=line["loss"], accuracy=line["accuracy"])
            losses.clear()
            hits.clear()
        if done % checkpoint_every == 0 and done < recipe.last_step:
            state = {
                "fingerprint": fingerprint,
                "step": done,
                "spent_s": spent_s + time.monotonic() - started_s,
                "pupil": pupil.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            _save(state, checkpoint)
    return _plain(average), spent_s + time.monotonic() - started_s


def descend(
    pupil: Pupil, optimizer: torch.optim.Optimizer, batch: Batch, recipe: Recipe, step: int
) -> tuple[dict[str, Tensor], Tensor]:
    """One step down the loss, on the device that all of it is on.

    Returns the parts of the loss with their sum, and the share of labelled crops that were
    named right.
    """
    with torch.autocast(batch.features.device.type, torch.bfloat16, enabled=recipe.bf16):
        cosines, sounds = pupil(batch.features)
    parts = losses_of(batch, cosines, sounds, recipe, step)
    loss = torch.stack(list(parts.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(pupil.parameters(), 5.0)
    optimizer.step()
    labelled = batch.targets >= 0
    right = cosines.detach().squeeze(1).argmax(dim=1) == batch.targets
    return {**parts, "loss": loss}, (right & labelled).sum() / labelled.sum()


def _plain(average: AveragedModel) -> AccentNetwork:
    network = copy.deepcopy(average.module).cpu()
    if not isinstance(network, AccentNetwork):
        raise TypeError(type(network))
    return network.eval().requires_grad_(False)


def _truncate_log(log: Path, last_step: int) -> None:
    """Drop what was logged after the checkpoint: those steps are about to be run again."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    # A kill can leave half a line, and only at the end.
    whole = [line for line in lines if line.endswith("}")]
    kept = [line for line in whole if json.loads(line)["step"] <= last_step]
    write_whole(log, "".join(line + "\n" for line in kept))


def _save(state: Mapping[str, Any], path: Path) -> None:
    # Of a path, torch would write the name into the file.
    with whole_file(path) as part, part.open("wb") as file:
        torch.save(state, file)


@torch.inference_mode()
def window_cosines(
    network: AccentNetwork, sounds: Sequence[Sound], labels: Sequence[str]
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Cosines and labels of every short window of `sounds`: clips as short as real ones."""
    rows: list[Floats] = []
    targets: list[int] = []
    for sound in sounds:
        count = math.ceil(sound.duration_s / CALIBRATION_WINDOW_S)
        size = sound.waveform.size // count
        windows = sound.waveform[: count * size].reshape(count, size)
        rows.append(network(torch.from_numpy(windows)).double().numpy())
        targets += [labels.index(sound.clip.accent)] * len(windows)
    return np.concatenate(rows), np.array(targets)


def write_model(
    network: AccentNetwork, spec: NetworkSpec, labels: Sequence[str], out: Path
) -> None:
    """Write the four files of a model folder, each of them whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    for module, name in (
        (network.embedding_model, EMBEDDING_FILE),
        (network.classifier, CLASSIFIER_FILE),
    ):
        _save({key: value.contiguous() for key, value in module.state_dict().items()}, out / name)
    encoder = CategoricalEncoder()
    encoder.expect_len(len(labels))
    encoder.update_from_iterable(labels)
    with whole_file(out / LABELS_FILE) as part:
        encoder.save(part)
    write_whole(out / HYPERPARAMS_FILE, hyperparams_yaml(spec))


def hyperparams_yaml(spec: NetworkSpec) -> str:
    """The HyperPyYAML that SpeechBrain's EncoderClassifier and the server both read."""
    return f"""\
# ECAPA-TDNN for accent identification, written by make train
softmax_scale: {spec.softmax_scale:g}

# SpeechBrain's from_hparams needs overrides={{"pretrained_path": this folder}}.
pretrained_path: .

n_mels: {spec.n_mels}
n_languages: {spec.n_labels}
emb_dim: {spec.embedding_size}

compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: {spec.std_norm}

embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    activation: !name:{spec.activation}
    channels: {list(spec.channels)}
    kernel_sizes: {list(spec.kernel_sizes)}
    dilations: {list(spec.dilations)}
    attention_channels: {spec.attention_channels}
    se_channels: {spec.se_channels}
    res2net_scale: {spec.res2net_scale}
    lin_neurons: !ref <emb_dim>

classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: !ref <emb_dim>
    out_neurons: !ref <n_languages>

modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>

label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
    paths:
        embedding_model: !ref <pretrained_path>/{EMBEDDING_FILE}
        classifier: !ref <pretrained_path>/{CLASSIFIER_FILE}
        label_encoder: !ref <pretrained_path>/{LABELS_FILE}
"""


def device_called(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one.

    Raises `SystemExit` for one that torch does not have here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SystemExit(f"--device {name}: cannot be used here: {reason}") from None
    return device


def _device_text(device: torch.device) -> str:
    if device.type == "cuda":
        return f"a GPU ({torch.cuda.get_device_name(device)})"
    return f"{torch.get_num_threads()} thread(s) of an {platform.machine()} CPU"


def _recipe_text(recipe: Recipe, scale: float) -> str:
    recorded = (
        f"{recipe.versions} versions of each clip (itself; speed, room, noise, babble, MP3, Opus, "
        "AAC, telephone by chance), then "
        if recipe.versions > 1
        else ""
    )
    augmentation = (
        f"{recorded}tempo, vocal tract length, silence, colour, noise, cut-off and SpecAugment on "
        "log-mel features"
        if recipe.augment
        else "none"
    )
    teaching = (
        f" Loss: {recipe.margin_weight:g} x margin + {recipe.posterior_weight:g} x divergence from "
        f"the teacher's posterior + {recipe.sound_weight:g} x squared distance from its sounds, "
        f"the first two rising over {100 * recipe.labels_after:g} % of the steps; "
        f"{100 * recipe.unlabelled_share:g} % of a batch without labels."
        if recipe.teacher
        else ""
    )
    stopped = f", ended at step {recipe.stop_at}" if recipe.stop_at else ""
    return (
        f"Seed {recipe.seed}, {recipe.steps} steps of {recipe.batch_size} crops of "
        f"{recipe.min_crop_s:g} to {recipe.max_crop_s:g} s, balanced over labels, kinds and "
        f"speakers. Additive angular margin {recipe.margin:g}, scale {recipe.scale:g}.{teaching} "
        f"AdamW, peak learning rate {recipe.learning_rate:g}, {100 * recipe.warmup:g} % warm-up, "
        f"cosine to {100 * recipe.decay_to:g} % of it{stopped}, weight decay "
        f"{recipe.weight_decay:g}; weights averaged with decay {recipe.average_decay:g}. "
        f"Augmentation: {augmentation}. Softmax scale {scale:g}: fitted by negative "
        "log-likelihood on windows of the development speakers, which served nothing else, or "
        "that of training where the fit is above it. The weights are the moving average at the "
        "last step. "
        f"The log of the run is in {LOG_FILE}."
    )


def fingerprint_of(
    recipe: Recipe, clips: Sequence[Clip], labels: Sequence[str], init: AccentModel | None
) -> str:
    """What a run must share with a stopped one to go on where that stood."""
    digest = hashlib.sha256()
    digest.update(json.dumps([asdict(recipe), list(labels)]).encode())
    for clip in clips:
        digest.update(f"{clip.path.name}\0{clip.path.stat().st_size}\0".encode())
    if init is not None:
        for tensor in init.network.embedding_model.state_dict().values():
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def make_model(
    clips: Sequence[Clip],
    out: Path,
    recipe: Recipe,
    *,
    labels: Sequence[str],
    kinds: Sequence[str],
    extra: Sequence[Clip] = (),
    init: AccentModel | None = None,
    commands: Sequence[str] = (),
    checkpoint_every: int = 50,
    cache: Path = DEFAULT_CACHE,
    jobs: int = 1,
    robustness: bool = False,
    device: torch.device = CPU,
) -> dict[str, Evaluation]:
    """Train on `clips`, judge on speakers that were held out, write the folder `out`.

    `extra` is heard in training only: synthetic voices with an accent, and speech with none,
    of which a teacher is needed to learn. `commands` are what the card says it was made by.
    Returns what the card tells, by the name of the set that was judged.

    Raises `SystemExit` with a sentence for people where data or folder will not do.
    """
    if US_LABEL not in labels:
        raise SystemExit(f"the labels are {', '.join(labels) or 'none'}: '{US_LABEL}' is needed.")
    split = split_by_speaker(clips, labels, kinds, recipe.seed)
    _print_split(split)
    spec = network_spec(recipe, len(labels), init)
    versions = recipe.versions if recipe.augment else 1
    plan = Plan(spec.n_mels, versions, recipe.seed, recipe.teacher)
    labelled_extra = [clip for clip in extra if clip.accent in labels]
    unlabelled_extra = [clip for clip in extra if not clip.accent and recipe.teacher]

    def ready(chosen: Sequence[Clip], title: str) -> list[PreparedClip]:
        return prepare(chosen, plan, jobs=jobs, title=title, cache=cache) if chosen else []

    labelled = ready([*split.train, *labelled_extra], "prepare labelled speech")
    unlabelled = ready(unlabelled_extra, "prepare other speech")
    probe = probe_for(labelled, unlabelled, labels) if recipe.teacher else None
    dev = load_sounds(split.dev, "development clips")
    network = new_network(recipe, len(labels), init)
    us = labels.index(US_LABEL)

    def judge_dev(network: AccentNetwork) -> dict[str, float]:
        cosines, targets = window_cosines(network, dev, labels)
        recalls = [np.mean(cosines[targets == t].argmax(axis=1) == t) for t in set(targets)]
        others = np.delete(cosines, us, axis=1).max(axis=1)
        auc = area_under_roc(cosines[:, us] - others, targets == us)
        return {
            "dev_auc": round(auc, 4),
            "dev_balanced_accuracy": round(float(np.mean(recalls)), 4),
        }

    averaged, spent_s = train(
        network,
        Sampler(labelled, unlabelled, labels, recipe, probe),
        recipe,
        out,
        fingerprint_of(recipe, [clip.clip for clip in (*labelled, *unlabelled)], labels, init),
        judge_dev,
        checkpoint_every,
        device,
    )
    # Voices to develop by are few and often synthesised, and so easier than those to come:
    # they may take confidence away, not add any to what was trained.
    scale = min(recipe.scale, fit_scale(*window_cosines(averaged, dev, labels)))

    write_model(averaged, replace(spec, softmax_scale=scale), labels, out)
    # Of weights that stood here before.
    (out / CALIBRATION_FILE).unlink(missing_ok=True)
    # The card speaks of the folder as it will be served, so the handler itself judges it.
    results = evaluate_clips(
        out,
        [*split.test, *split.rest],
        jobs=jobs,
        log=out / WORK_FOLDER / RESULTS_FILE,
        distortions=tuple(DISTORTIONS) if robustness else (),
        seed=recipe.seed,
    )
    evaluations = {
        name: summarise(chosen, model_facts(out), jobs=jobs, seed=recipe.seed)
        for name, chosen in _judged_sets(results, labels).items()
    }
    making = Making(
        labels=tuple(labels),
        parameters=sum(parameter.numel() for parameter in averaged.parameters()),
        parts={
            "training": [Heard(c.clip, c.duration_s) for c in (*labelled, *unlabelled)],
            "development": [Heard(sound.clip, sound.duration_s) for sound in dev],
            "judging": [
                Heard(result.clip, result.duration_s)
                for result in results
                if result.duration_s is not None and not result.distortion
            ],
        },
        teacher=recipe.teacher,
        recipe=_recipe_text(recipe, scale),
        commands=tuple(commands),
        spent_s=spent_s,
        computed_on=_device_text(device),
    )
    write_whole(out / CARD_FILE, model_card(making, evaluations))
    shutil.rmtree(out / WORK_FOLDER)
    return evaluations


def _judged_sets(
    results: Sequence[ClipResult], labels: Sequence[str]
) -> dict[str, list[ClipResult]]:
    """What a card tells of: natural speech first, all accents and the labels, then all kinds."""
    natural = sorted({r.clip.kind for r in results} - {"synthesised"})
    sets: dict[str, list[ClipResult]] = {}
    for kinds in (natural, sorted({r.clip.kind for r in results})):
        for name, accents in (("all accents", None), ("the model's labels", labels)):
            chosen = [
                result
                for result in results
                if result.clip.kind in kinds and (accents is None or result.clip.accent in accents)
            ]
            us = {
                result.clip.accent == US_LABEL for result in chosen if result.us_score is not None
            }
            if us == {True, False} and chosen not in sets.values():
                sets[f"{' + '.join(kinds)}, {name}"] = chosen
    return sets


def _print_split(split: Split) -> None:
    for name, clips in vars(split).items():
        print(f"{name}:", flush=True)
        by_accent: dict[str, Counter[str]] = defaultdict(Counter)
        for clip in clips:
            by_accent[clip.accent][clip.speaker] += 1
        for accent, speakers in sorted(by_accent.items()):
            print(f"  {accent}: {', '.join(sorted(speakers))} ({speakers.total()} clips)")


def with_parts(recipe: Recipe, parts: Sequence[str]) -> Recipe:
    """`recipe` with each NAME=VALUE of `parts` in it.

    Raises `SystemExit` for a name that no recipe has, or a value of another kind.
    """
    known = asdict(recipe)
    for part in parts:
        name, _, text = part.partition("=")
        if name not in known or isinstance(known[name], bool):
            raise SystemExit(f"{part}: a recipe has {', '.join(sorted(known))}.")
        try:
            known[name] = type(known[name])(text)
        except ValueError:
            raise SystemExit(f"{part}: {name} is {known[name]!r} by default.") from None
    return Recipe(**known)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and make a model."""
    parser = argparse.ArgumentParser(prog="train", description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders and CSV files of clips"
    )
    parser.add_argument(
        "--extra", type=Path, nargs="*", default=[], help="more speech, heard in training only"
    )
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--init", type=Path, help="model folder whose embedding to start from")
    parser.add_argument(
        "--teacher", action="store_true", help="learn from a speech recogniser's encoder as well"
    )
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--batch-size", type=int, default=Recipe.batch_size)
    parser.add_argument("--channels", type=int, default=Recipe.channels)
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--scale", type=float, default=Recipe.scale, help="of the cosines")
    parser.add_argument(
        "--average-decay", type=float, default=Recipe.average_decay, help="of the mean weights"
    )
    parser.add_argument(
        "--versions", type=int, default=Recipe.versions, help="of each clip, itself included"
    )
    parser.add_argument(
        "--recipe", nargs="*", default=[], metavar="NAME=VALUE", help="any other part of the recipe"
    )
    parser.add_argument("--labels", help="accents to tell apart, with commas; must have us")
    parser.add_argument(
        "--merge",
        nargs="*",
        default=[],
        metavar="ACCENT=LABEL",
        help="accents that are one label together, such as indian=other african=other",
    )
    parser.add_argument(
        "--min-speakers", type=int, default=8, help="how many an accent needs to be a label"
    )
    parser.add_argument(
        "--kinds", default="recorded,synthesised", help="kinds of clip that may train"
    )
    parser.add_argument("--threads", type=int, default=1, help="of the CPU, and processes")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or one such as cuda:1")
    parser.add_argument("--fp32", action="store_true", help="no bfloat16, for what lacks it")
    parser.add_argument(
        "--robustness", action="store_true", help="judge distorted clips as well, for the card"
    )
    parser.add_argument(
        "--extra-licence", default="", help="of speech in --extra whose list names no licence"
    )
    args = parser.parse_args(arguments)

    torch.set_num_threads(args.threads)
    device = device_called(args.device)
    kinds = tuple(args.kinds.split(","))
    clips = read_clips(args.data)
    extra = [
        replace(clip, licence=clip.licence or args.extra_licence)
        for clip in (read_clips(args.extra, unlabelled=True) if args.extra else ())
    ]
    merged = merge_accents([*clips, *extra], args.merge)
    clips, extra = merged[: len(clips)], merged[len(clips) :]
    trainable = [clip for clip in clips if clip.kind in kinds]
    labels = (
        tuple(args.labels.split(","))
        if args.labels
        else choose_labels(trainable, args.min_speakers)
    )
    recipe = Recipe(
        seed=args.seed,
        steps=args.steps,
        batch_size=args.batch_size,
        channels=args.channels,
        learning_rate=args.learning_rate,
        scale=args.scale,
        average_decay=args.average_decay,
        versions=args.versions,
        bf16=not args.fp32,
        teacher=args.teacher,
    )
    recipe = with_parts(recipe, args.recipe)
    made_by = ["make speech"] if any(clip.kind == "kokoro" for clip in extra) else []
    command = "python -m aurea.lab.train " + shlex.join(
        sys.argv[1:] if arguments is None else arguments
    )
    try:
        figures = make_model(
            clips,
            args.out,
            recipe,
            labels=labels,
            kinds=kinds,
            extra=extra,
            init=load_model(args.init) if args.init else None,
            commands=[*made_by, command],
            jobs=args.threads,
            robustness=args.robustness,
            device=device,
        )
    except (ModelFolderError, PackageUnavailable) as error:
        raise SystemExit(str(error)) from None
    for name, found in figures.items():
        auc = found.us.auc
        print(f"{name}: AUC {auc.value:.3f} [{auc.low:.2f}, {auc.high:.2f}]")
    print(f"written: {args.out}")
    print(write_training_report(args.out / LOG_FILE, REPORTS / f"{args.out.name}.html"))


if __name__ == "__main__":
    main()

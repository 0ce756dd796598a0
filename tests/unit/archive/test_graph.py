"""The graph against SpeechBrain's own modules, which stay the reference."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from accent.bounds import MAX_POINTS
from accent.ecapa.compiled import hardware_precisions
from accent.ecapa.loading import EcapaModel, load_model
from accent.engine import Precision
from accent.openvino_runtime import openvino as ov
from accent.waveform import Waveform

from aurea.archive.graph import build_graph, build_int8_variants
from aurea.archive.reference import SpeechClip, calibration_speech
from aurea.models.stand_in import FULL_CHANNELS
from tests.clips import voice
from tests.models import write_stand_in

Array = npt.NDArray[np.float32]

LENGTHS_S = (0.5, 1.0, 3.7, 10.0)


@pytest.fixture(scope="module")
def shortcut_model(tmp_path_factory: pytest.TempPathFactory) -> EcapaModel:
    """A block that changes the width adds its input through a product of its own."""
    folder = tmp_path_factory.mktemp("shortcut") / "model"
    return load_model(write_stand_in(folder, channels=(32, 64, 64, 64, 192)))


def compiled(graph: ov.Model, precision: Precision) -> ov.CompiledModel:
    """The graph on one thread. Products in 8 bits are computed in floating point where the
    processor has no instructions for them: put together from 16-bit ones, they saturate.
    """
    config = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
        "INFERENCE_NUM_THREADS": 1,
    }
    if "int8" not in hardware_precisions():
        config["LP_TRANSFORMS_MODE"] = False
    return ov.compile_model(graph, "CPU", config)


def features_of(model: EcapaModel, waveform: npt.ArrayLike) -> Array:
    samples = np.asarray(waveform, dtype=np.float32)
    with torch.inference_mode():
        features = model.network.features(torch.from_numpy(samples)[None])
    return np.asarray(features.numpy())


def expected_cosines(model: EcapaModel, features: Array) -> Array:
    with torch.inference_mode():
        return np.asarray(model.network.cosines(torch.from_numpy(features)).numpy())


def types_of_weights(graph: ov.Model) -> list[str]:
    """The element type of each large constant."""
    return [
        node.get_element_type().get_type_name()
        for node in graph.get_ops()
        if node.get_type_name() == "Constant" and np.prod(node.get_output_shape(0)) >= 4096
    ]


@pytest.mark.slow
@pytest.mark.parametrize("model_name", ["small_model", "shortcut_model", "embedded"])
def test_the_fp32_graph_computes_what_speechbrain_does(
    model_name: str, request: pytest.FixtureRequest
) -> None:
    model: EcapaModel = request.getfixturevalue(model_name)
    graph = compiled(build_graph(model, "fp32", []), "fp32")
    for length_s in LENGTHS_S:
        features = features_of(model, voice(length_s))
        np.testing.assert_allclose(
            graph(features)[0], expected_cosines(model, features), atol=1e-5, err_msg=f"{length_s}"
        )


@pytest.mark.slow
def test_the_fp32_graph_takes_the_pretrained_width(tmp_path: Path) -> None:
    labels = [f"accent-{index}" for index in range(15)] + ["us"]
    model = load_model(
        write_stand_in(tmp_path, labels=labels, channels=FULL_CHANNELS, embedding_size=192)
    )
    features = features_of(model, voice(1.0))
    found = compiled(build_graph(model, "fp32", []), "fp32")(features)[0]
    assert found.shape == (1, 16)
    np.testing.assert_allclose(found, expected_cosines(model, features), atol=1e-5)


@pytest.mark.slow
def test_one_graph_serves_any_length_as_a_graph_of_that_length_alone_does(
    small_model: EcapaModel, little_calibration: list[Waveform]
) -> None:
    graph = build_graph(small_model, "int8", little_calibration[:2])
    free = compiled(graph, "fp32")
    alone = {}
    for length_s in (1.0, 0.5, 1.0):
        features = features_of(small_model, voice(length_s))
        if length_s not in alone:
            fixed = graph.clone()
            fixed.reshape(list(features.shape))
            alone[length_s] = compiled(fixed, "fp32")(features)[0]
        np.testing.assert_allclose(free(features)[0], alone[length_s], atol=1e-5)


def test_clips_of_a_batch_do_not_meet(embedded: EcapaModel) -> None:
    model = compiled(build_graph(embedded, "fp32", []), "fp32")
    clips = [features_of(embedded, voice(2.0, seed=seed)) for seed in range(3)]
    together = model(np.concatenate(clips))[0]
    assert np.ptp(together, axis=0).max() > 0.01, "the clips differ"
    for row, clip in zip(together, clips, strict=True):
        np.testing.assert_allclose(row, model(clip)[0][0], atol=1e-5)


def test_bf16_is_the_graph_of_fp32(small_model: EcapaModel) -> None:
    assert types_of_weights(build_graph(small_model, "bf16", [])) == types_of_weights(
        build_graph(small_model, "fp32", [])
    )


@pytest.mark.slow
def test_int8_stores_the_large_products_in_8_bits(
    small_model: EcapaModel, little_calibration: list[Waveform]
) -> None:
    types = types_of_weights(build_graph(small_model, "int8", little_calibration[:2]))
    assert types.count("i8") == 8, "the first, two in each of three blocks, and the aggregation"
    assert "i8" not in types_of_weights(build_graph(small_model, "fp32", []))


@pytest.mark.slow
def test_each_variant_has_more_in_8_bits_and_stays_near_what_speechbrain_computes(
    embedded: EcapaModel, little_calibration: list[Waveform]
) -> None:
    clips = [features_of(embedded, clip) for clip in little_calibration[:6]]
    expected = np.concatenate([expected_cosines(embedded, features) for features in clips])
    variants = dict(build_int8_variants(embedded, little_calibration))
    counts = {
        name: sum(
            node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8"
            for node in graph.get_ops()
        )
        for name, graph in variants.items()
    }
    # Seven branches in each of three blocks, and two products of the attention.
    assert counts == {"": 8, "res2net": 8 + 21, "attention": 8 + 21 + 2}
    for name, graph in variants.items():
        model = compiled(graph, "fp32")
        found = np.concatenate([model(features)[0] for features in clips])
        strayed = np.abs(found - expected)
        assert 0 < strayed.max() < 0.05, name


@pytest.mark.long
def test_the_shipped_model_stays_near_fp32_on_speech_that_calibration_has_not_seen(
    embedded: EcapaModel, verification: list[SpeechClip]
) -> None:
    clips = [features_of(embedded, clip.waveform) for clip in verification]
    expected = [embedded.posterior(expected_cosines(embedded, features)) for features in clips]
    calibration = calibration_speech()
    precisions: tuple[Precision, ...] = ("bf16", "int8")
    for precision in precisions:
        model = compiled(build_graph(embedded, precision, calibration), precision)
        found = [embedded.posterior(model(features)[0]) for features in clips]
        deviations = 100 * np.abs(np.subtract(found, expected))[:, 0, embedded.us_index]
        # Plain ranges without headroom make int8 6 points at the most and 0.5 in the middle.
        assert deviations.max() <= MAX_POINTS, precision
        assert np.median(deviations) <= 0.3, precision
        assert deviations.max() > 0, "another precision computes something else"


def test_int8_needs_calibration(small_model: EcapaModel) -> None:
    with pytest.raises(ValueError, match="calibration"):
        build_graph(small_model, "int8", [])

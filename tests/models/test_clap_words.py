import os

import numpy as np
import pytest

from helpers.claps import RATE, low_or_high, write_band_clap
from helpers.hub_server import HubServer
from spectag.config.clap import ClapCard, ClapFeatures
from spectag.errors import BundleError, ConfigError, DataError, WeightsError
from spectag.models.card_files import front_end_of
from spectag.models.clap_store import CLAP_FILES, clap_store, install_clap
from spectag.models.clap_words import clap_bundle, is_clap_name, label_vectors, text_vector
from spectag.models.pretrained import load, tagger_folder
from spectag.models.word_list import WordList
from spectag.system.atomic_files import sha256_of
from spectag.system.cache_content import cached_files, clean_cache


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cäche"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cäche"


@pytest.fixture
def clap(tmp_path):
    return install_clap(write_band_clap(tmp_path / "clap"))


def cosine(a, b):
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("kind", ["low", "high"])
def test_probabilities_are_the_cosines_of_sound_and_words_and_0_below(clap, kind):
    tagger = load("clap:low, high, both")
    log_mel = front_end_of(clap.card.network).input_of_waveform(low_or_high(kind))[0]
    sound = log_mel.mean(axis=1) - log_mel.mean()
    outputs = tagger.outputs(low_or_high(kind), RATE)
    np.testing.assert_allclose(outputs.features, sound, atol=1e-4)
    for word, probability in zip(tagger.labels.names, outputs.probabilities, strict=True):
        text = clap.text_vectors([f"This is a sound of {word}."])[0]
        assert probability == pytest.approx(max(cosine(sound, text), 1e-3), abs=1e-5)
    assert tagger.labels.names[int(np.argmax(outputs.probabilities[:2]))] == kind


def test_sound_shorter_than_the_input_is_repeated_and_a_longer_one_is_processed_in_parts(clap):
    tagger = load("clap:low, high")
    whole = tagger.probabilities(low_or_high("low"), RATE)
    np.testing.assert_allclose(tagger.probabilities(low_or_high("low", 0.25), RATE), whole, atol=0.02)
    np.testing.assert_allclose(tagger.probabilities(low_or_high("low", 3.0), RATE), whole, atol=0.02)


def test_every_word_is_listed_because_no_threshold_is_known(clap):
    assert [tag.label for tag in load("clap:high, low").tag(low_or_high("low"), sample_rate=RATE)] == ["low", "high"]


def test_model_says_once_that_its_numbers_are_no_probabilities(clap):
    messages = []
    clap_bundle("clap:low, high", log=messages.append)
    assert len(messages) == 1
    assert "cosine similarities of sound and words, not probabilities" in messages[0]
    assert "Segments come from windows of 1.5 s" in messages[0]


def test_message_has_the_length_of_windows_for_a_network_with_a_longer_input(tmp_path):
    install_clap(write_band_clap(tmp_path / "clap", seconds=10))
    messages = []
    assert load("clap:low", log=messages.append).segment_window.window_seconds == 10
    assert "Segments come from windows of 10 s" in messages[0]


def test_only_the_models_that_were_used_last_are_kept(clap, cache, monkeypatch):
    folders = []
    for number, word in enumerate(("a", "b", "c", "d", "e")):
        folder = clap_bundle(f"clap:{word}")
        os.utime(folder, (number, number))
        folders.append(folder)
    assert all(folder.exists() for folder in folders)  # this process may still open them
    monkeypatch.setattr("spectag.models.clap_words._used", set())
    clap_bundle("clap:a")
    new = clap_bundle("clap:f")
    assert {folder for folder in [*folders, new] if folder.exists()} == {folders[0], *folders[3:], new}
    assert load("clap:b").labels.names == ("b",)  # built again


def test_model_without_its_network_is_built_again(clap):
    folder = clap_bundle("clap:low")
    (folder / "model.onnx").unlink()
    assert load("clap:low").tag(low_or_high("low"), sample_rate=RATE)


def test_vector_of_a_label_is_the_mean_of_those_of_its_sentences(clap, tmp_path):
    path = tmp_path / "words.toml"
    path.write_text('templates = ["{}", "a {} sound"]\n[words]\nhum = ["low", "both"]\n', encoding="utf-8")
    words = WordList.parse(str(path))
    assert words.sentences == {"hum": ["low", "both", "a low sound", "a both sound"]}
    mean = clap.text_vectors(words.sentences["hum"]).mean(axis=0)
    [vector] = label_vectors(clap, words)
    assert cosine(vector, mean) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert load(f"clap:{path}").labels.names == ("hum",)


def test_words_come_from_the_lines_of_a_text_file_or_between_commas(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("dog, barking\n\n rain \n", encoding="utf-8")
    assert list(WordList.parse(str(path)).words) == ["dog, barking", "rain"]
    assert list(WordList.parse(' dog, "hiss, steam",rain,').words) == ["dog", "hiss, steam", "rain"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" , ", "no words; write them between commas"),
        ('templates = ["no place"]\n[words]\na = ["b"]', r"'no place' needs \{\} once"),
        ("[words]\na = []", "'a' has no description"),
        ("[words]\n", "words"),
    ],
)
def test_wrong_words_are_refused(tmp_path, text, message):
    if "[" in text:
        (tmp_path / "w.toml").write_text(text, encoding="utf-8")
        text = str(tmp_path / "w.toml")
    with pytest.raises(ConfigError, match=message):
        WordList.parse(text)


def test_without_clap_the_message_says_what_to_do_and_names_the_way_without_it():
    with pytest.raises(ConfigError, match=r"spectag models clap.*spectag tag audioset-mn04 --words"):
        tagger_folder("clap:low")


def test_clap_without_words_is_for_embeddings_only(clap):
    with pytest.raises(ConfigError, match="clap needs words"):
        tagger_folder("clap")
    assert tagger_folder("clap", needs_labels=False).is_dir()


def test_names_of_clap(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_clap_name("clap")
    assert is_clap_name("clap:" + "many words, " * 100)
    assert not is_clap_name("clapping")
    (tmp_path / "clap").mkdir()
    assert is_clap_name("clap")
    (tmp_path / "clap" / "spectag.json").touch()
    assert not is_clap_name("clap")


def test_another_clap_gives_another_model_and_does_not_read_vectors_of_the_first(clap, tmp_path):
    first = load("clap:low")
    install_clap(write_band_clap(tmp_path / "other", shift=0.1))
    assert load("clap:low").folder != first.folder
    text_vector("low", first.info)  # the same audio encoder
    changed = first.info.model_copy(update={"backbone": first.info.backbone.model_copy(update={"name": "another"})})
    other = changed.backbone.model_copy(update={"weights_sha256": "0" * 64})
    with pytest.raises(DataError, match=r"'low': words can be compared only with features of CLAP.*another"):
        text_vector("low", changed.model_copy(update={"backbone": other}))


def test_files_of_clap_are_downloaded_and_pinned(tmp_path, monkeypatch):
    card = write_band_clap(tmp_path / "clap")
    server = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.add("me/net", {name: (tmp_path / "clap" / name).read_bytes() for name in CLAP_FILES.values()})
    remote = {
        kind: {"file": f"hf:me/net/{name}", "sha256": sha256_of(tmp_path / "clap" / name)}
        for kind, name in CLAP_FILES.items()
    }
    try:
        card = write_band_clap(tmp_path / "card", **remote)
        store = install_clap(card)
        assert store.card.audio.sha256 == remote["audio"]["sha256"]
        assert load("clap:low, high").tag(low_or_high("high"), sample_rate=RATE)[0].label == "high"
        remote["text"]["sha256"] = "0" * 64
        with pytest.raises(WeightsError, match="SHA-256 of the download is"):
            install_clap(write_band_clap(tmp_path / "card", **remote))
        remote["text"] = {"file": "hf:me/net/none.onnx"}
        with pytest.raises(WeightsError, match="cannot download"):
            install_clap(write_band_clap(tmp_path / "card", **remote))
    finally:
        server.close()
    assert clap_store().card == store.card  # those that were refused replaced nothing


def test_local_file_with_another_sha256_is_refused(tmp_path):
    card = write_band_clap(tmp_path / "clap", text={"file": "text.onnx", "sha256": "0" * 64})
    with pytest.raises(WeightsError, match=r"text\.onnx: SHA-256 is"):
        install_clap(card)


def test_encoders_that_are_not_a_pair_are_refused(tmp_path):
    with pytest.raises(BundleError, match="vectors of sounds have 16 numbers, those of texts 9"):
        install_clap(write_band_clap(tmp_path / "clap", n_text=9))


def test_damaged_tokenizer_is_refused_in_one_line(tmp_path):
    card = write_band_clap(tmp_path / "clap")
    (tmp_path / "clap" / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match=r"not a tokenizer\.json"):
        install_clap(card)


def test_all_files_of_clap_in_the_cache_are_known_and_can_be_deleted(clap, cache):
    load("clap:low")
    known = {file.path for file in cached_files()}
    assert {path for path in cache.rglob("*") if path.is_file() and "in-use" not in path.parts} == known
    assert {file.kind for file in cached_files()} == {"clap", "models"}
    assert [(usage.kind, usage.n_files) for usage in clean_cache(["clap"])] == [("clap", 5)]
    assert not (cache / "clap" / "model").exists()


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
@pytest.mark.parametrize("seconds", [0.3, 4.0, 9.99, 10.0])
def test_features_equal_those_of_transformers(rng, truncation, seconds):
    transformers = pytest.importorskip("transformers")
    waveform = rng.standard_normal(round(48_000 * seconds)).astype(np.float32) * 0.1
    waveform[::2] += 0.3 * np.sin(0.01 * np.arange(len(waveform[::2])))
    extractor = transformers.ClapFeatureExtractor(truncation=truncation, frequency_min=50)
    expected = extractor(waveform, sampling_rate=48_000, return_tensors="np")["input_features"][0, 0]
    features = ClapFeatures.of_preprocessor(extractor.to_dict())
    assert features.truncation == truncation
    found = front_end_of_features(features).input_of_waveform(waveform)[0]
    np.testing.assert_allclose(found.T, expected, atol=1e-4)


def test_mel_scales_of_the_two_truncations_differ_visibly(rng):
    waveform = rng.standard_normal(480_000).astype(np.float32) * 0.1
    htk, slaney = (
        front_end_of_features(ClapFeatures(truncation=truncation)).input_of_waveform(waveform)
        for truncation in ("fusion", "rand_trunc")
    )
    assert np.abs(htk - slaney).mean() > 10  # dB: a wrong choice could not go unnoticed above


def front_end_of_features(features):
    file = {"file": "a.onnx"}
    card = ClapCard(name="a", features=features, audio=file, text=file, tokenizer=file)
    return front_end_of(card.network)

"""The commands: one module for each, and the table that `spectag --help` prints."""

from typing import NamedTuple


class CommandHelp(NamedTuple):
    """What the help pages show of a command beside its options.

    `example` contains the arguments of the example. `main_options` names the options on the short page, in order; if
    it is empty, the page shows every option.
    """

    summary: str
    example: str = ""
    main_options: str = ""


COMMANDS = {
    "First run": {
        "demo": CommandHelp("Make example sounds, train a model on them and tag with it."),
        "app": CommandHelp("Open the page in a window of its own."),
        "doctor": CommandHelp("Show what is installed, what else there is, and how to get it."),
        "models": CommandHelp(
            "List or download published models, and add networks of others.", "download audioset-mn04"
        ),
        "labels": CommandHelp("List the labels of a model, with thresholds and training clips.", "model"),
        "upgrade": CommandHelp("Rewrite a model of an earlier version of spectag for this one.", "model --in-place"),
        "cache": CommandHelp("Show the size of the cache, delete files in it, or limit it.", "limit 5GB"),
    },
    "Data": {
        "inspect": CommandHelp(
            "Check a manifest: labels, durations, faults, shared audio, leaks.", "labels.csv --folds 5"
        ),
        "split": CommandHelp(
            "Split a manifest into balanced folds or a validation set.",
            "labels.csv --folds 5 -o folds.csv",
            "output folds test-size random-state group-column find-shared-audio corrections audio-dir",
        ),
        "relabel": CommandHelp(
            "Merge, rename, drop or nest the labels of a manifest.",
            "labels.csv --map map.csv -o new.csv",
        ),
        "prepare": CommandHelp(
            "Compute and cache the spectrograms of a manifest.", "labels.csv", "cache png backbone audio-dir workers"
        ),
        "show": CommandHelp(
            "Draw a sound, or a grid of a manifest's clips.",
            "labels.csv -o grid.png --grid 4x4",
            "output grid seed audio-dir",
        ),
        "augment": CommandHelp(
            "Show what augmentation does to a manifest's clips.",
            "labels.csv -o page.html --augment.spec-augment 1",
            "output clips backbone augment.mix augment.mixup augment.gain-db augment.spec-augment seed audio-dir",
        ),
        "soundscapes": CommandHelp(
            "Mix clips into long test recordings with known event times.",
            "labels.csv -o soundscapes --recordings 5 --seconds 120",
            "output recordings seconds sounds-per-minute max-at-once background background-db snr-low-db snr-high-db"
            " sample-rate audio-dir seed",
        ),
    },
    "Train": {
        "train": CommandHelp(
            "Train a model on a manifest.",
            "labels.csv -o model --folds 5",
            "output recipe budget mode backbone folds validation-fraction noisy background corrections"
            " audio-dir group-column resume json",
        ),
        "tune": CommandHelp(
            "Search for the best training settings.",
            "labels.csv -o study --budget 30m",
            "output budget trials over recipe mode backbone noisy corrections audio-dir group-column json",
        ),
        "lr-find": CommandHelp(
            "Find a learning rate for fine-tuning.",
            "labels.csv -o curve.png --backbone efficientnet_lite0",
            "output recipe backbone batch-size noisy corrections audio-dir group-column json",
        ),
    },
    "Tag": {
        "tag": CommandHelp(
            "Tag recordings of any length and number.",
            "model recordings/ -o tags.csv",
            "output format segments window overlap clip-level top min-confidence labels prior max-novelty template"
            " files-from workers",
        ),
        "embed": CommandHelp("Compute the embeddings of recordings.", "recordings/ -o embeddings.npz"),
        "listen": CommandHelp(
            "Tag live sound from a microphone or stdin.",
            "audioset-mn04",
            "- window overlap min-confidence hysteresis smooth-windows rate channels channel encoding microphone"
            " list-microphones device json",
        ),
        "serve": CommandHelp(
            "Serve a model, as a page in the browser and over HTTP.",
            "my-model",
            "project folder host port token no-browser index workers max-megabytes max-minutes max-seconds"
            " max-per-minute",
        ),
        "push": CommandHelp("Upload a model to the Hugging Face Hub.", "model hf:user/name --license cc-by-4.0"),
        "export": CommandHelp(
            "Export a model as one ONNX file that runs without spectag.", "audioset-mn04 -o model.onnx"
        ),
    },
    "Findings": {
        "clips": CommandHelp(
            "Cut detections out of their recordings.",
            "tags.csv -o clips --per-label 100",
            "output per-label mode min max pad format dry-run audio-dir site-from workers",
        ),
        "check": CommandHelp(
            "Check a sample of detections by ear, on a page.",
            "model tags.csv -o check --per-label 96",
            "output per-label across presence labels min max context training-clips reviewer no-page no-browser port"
            " audio-dir",
        ),
        "summary": CommandHelp(
            "Count detections by site, day and hour, beside recorded hours.",
            "tags.csv -o summary.html --tables tables",
            "output tables by min recordings status timezone recorder-timezone site-from deployments model"
            " apply-thresholds checked audio-dir",
        ),
        "write-tags": CommandHelp(
            "Write labels into copies of the recordings, or into XMP sidecars.",
            "tags.csv -o copies --min 0.5",
        ),
    },
    "Evaluate": {
        "evaluate": CommandHelp(
            "Score a model, with confidence intervals and a report.",
            "model test.csv -o evaluation",
            "output events compare by common-labels corrections audio-dir group-column report workers json",
        ),
        "calibrate": CommandHelp(
            "Refit a model's probabilities and thresholds, or set thresholds.",
            "model --precision 0.9",
            "output in-place f1 precision recall confidence checked false-alarms background calibration set audio-dir"
            " workers json",
        ),
        "explain": CommandHelp("Draw where in time and frequency a model detects a label.", "model dog.wav -o dog.png"),
    },
    "Curate": {
        "review": CommandHelp(
            "Find labels that are probably wrong, and review them.",
            "model labels.csv -o review",
            "output corrections accept-above reviewer max-shown labels-only audio-dir group-column workers json",
        ),
        "suggest": CommandHelp("Choose the clips to label next.", "model recordings/ -o next.csv"),
        "index": CommandHelp("Build a search index of recordings.", "recordings/ -o index"),
        "search": CommandHelp(
            "Find similar sounds, also by words, or the source of an excerpt.",
            "index call.wav --number 20",
            "fingerprint number start after before label not-label in same-file one-per-file output clips json",
        ),
    },
}
"""The commands by group, in the order in which they are shown."""

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
        "models": CommandHelp("List or download published models.", "download audioset-mn04"),
    },
    "Data": {
        "inspect": CommandHelp(
            "Check a manifest: labels, durations, faults, shared audio, leaks.", "labels.csv --folds 5"
        ),
        "split": CommandHelp(
            "Split a manifest into balanced folds or a validation set.", "labels.csv --folds 5 -o folds.csv"
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
            "output recipe budget mode backbone folds validation-fraction noisy corrections audio-dir"
            " group-column resume json",
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
            "model recordings/ -o tags.csv --window 3",
            "output format window overlap segments top min-confidence max-novelty template files-from workers",
        ),
        "listen": CommandHelp("Tag live sound from a microphone or stdin.", "audioset-mn04"),
    },
    "Evaluate": {
        "evaluate": CommandHelp(
            "Score a model, with confidence intervals and a report.",
            "model test.csv -o evaluation",
            "output compare by common-labels corrections audio-dir group-column report workers json",
        ),
        "calibrate": CommandHelp(
            "Refit a model's probabilities and thresholds, or set thresholds.",
            "model --precision 0.9",
            "output in-place f1 precision recall confidence calibration set corrections audio-dir group-column workers"
            " json",
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
        "search": CommandHelp("Find similar sounds, or the recording of an excerpt.", "index call.wav --number 20"),
    },
}
"""The commands by group, in the order in which they are shown."""

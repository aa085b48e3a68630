"""The page finds segments in the browser: the same ones as find_segments, for any timeline."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from helpers.paths import PROJECT
from spectag.config.base import SegmentConfig
from spectag.models.frames_info import FramesInfo
from spectag.models.timeline import Timeline, find_segments
from spectag.serving.sound_answers import joining_of

NODE = shutil.which("node")
SCRIPT = PROJECT / "src" / "spectag" / "serving" / "static" / "segments.js"
RUN = """
import { readFileSync } from "node:fs";
import { findSegments } from "./segments.mjs";
const cases = JSON.parse(readFileSync("cases.json"));
const found = cases.map((one) => findSegments(one.windows, Float32Array.from(one.probabilities), one.options));
process.stdout.write(JSON.stringify(found));
"""

pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")


def in_the_browser(cases, folder):
    shutil.copyfile(SCRIPT, folder / "segments.mjs")
    (folder / "run.mjs").write_text(RUN, encoding="utf-8")
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    done = subprocess.run([NODE, "run.mjs"], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def case_of(timeline, threshold, config):
    return {
        "windows": {
            "starts": timeline.starts.tolist(),
            "ends": timeline.ends.tolist(),
            "frames": joining_of(timeline.frames),
        },
        "probabilities": timeline.probabilities[:, 0].astype(float).tolist(),
        "options": {
            "threshold": float(threshold),
            "hysteresis": config.hysteresis,
            "smoothing": config.smooth_windows,
            "minWindows": config.min_windows,
            "minSeconds": config.min_duration_seconds,
            "maxGap": config.max_gap_seconds,
        },
    }


def random_case(rng):
    n = int(rng.integers(1, 80))
    length = float(rng.choice([0.3, 1.0, 1.5, 3.0]))
    starts = (
        np.cumsum(rng.choice([0.1, 0.5, 1.0, 2.0], n))
        if rng.random() < 0.3
        else np.arange(n) * rng.choice([0.1, 0.5, 1.0])
    )
    ends = starts + length
    ends[-1] = max(starts[-1] + 0.01, ends[-1] - rng.random() * length / 2, ends[-2] if n > 1 else 0)
    values = np.cumsum(rng.normal(0, 0.25, n)) % 1 if rng.random() < 0.5 else rng.random(n).round(1)
    frames = FramesInfo(
        closed_frames=int(rng.choice([1, 3, 13])),
        smooth_frames=int(rng.choice([1, 3, 9])),
        hysteresis=float(rng.choice([0.3, 0.5])),
    )
    frames = frames if rng.random() < 0.5 else None
    timeline = Timeline(starts, ends, values[:, None].astype(np.float32), frames=frames)
    config = SegmentConfig(
        smooth_windows=[None, 1, 3, 5, 9][rng.integers(5)],
        hysteresis=[None, 0.0, 0.5, 0.7, 1.0][rng.integers(5)],
        min_windows=int(rng.integers(1, 4)),
        min_duration_seconds=float(rng.choice([0.0, 0.3, 1.0, 2.5])),
        max_gap_seconds=float(rng.choice([0.0, 0.1, 0.5, 1.0])),
    )
    return timeline, np.float32(rng.choice([0.1, 0.3, 0.5, 0.7, 0.95])), config


def test_segments_equal_those_of_python_on_random_timelines(tmp_path, rng):
    cases = [random_case(rng) for _ in range(1_500)]
    found = in_the_browser([case_of(*case) for case in cases], tmp_path)
    n_segments = 0
    for (timeline, threshold, config), segments in zip(cases, found, strict=True):
        expected = find_segments(timeline, np.array([threshold]), config)
        assert [(one["start"], one["end"], one["probability"]) for one in segments] == [
            (one.start_seconds, one.end_seconds, one.probability) for one in expected
        ], config
        n_segments += len(segments)
    assert n_segments > 1_000


def test_example_of_the_documentation(tmp_path):
    starts = np.arange(5.0)
    timeline = Timeline(starts, starts + 1, np.array([[0.1], [0.5], [0.9], [0.4], [0.2]], np.float32))
    case = case_of(timeline, np.float32(0.6), SegmentConfig(hysteresis=0.5))
    [[segment]] = in_the_browser([case], tmp_path)
    assert (segment["start"], segment["end"]) == (1.0, 4.0)
    assert segment["probability"] == pytest.approx(0.9)

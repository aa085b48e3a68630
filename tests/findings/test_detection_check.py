"""Checking detections from the table to decisions, protocol and training clips; kills, and a browser."""

import csv
import http.client
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape

import numpy as np
import pytest
import soundfile

import spectag
from helpers.bundles import LABELS
from helpers.checks import RATE, make_checked, write_table
from helpers.command import start
from spectag.audio.files import read_audio
from spectag.cli import main
from spectag.cli.app import app
from spectag.config.findings import CheckSettings
from spectag.data.checked_detections import read_check_info, read_decisions, write_decisions
from spectag.data.manifest import read_manifest
from spectag.errors import ConfigError, DataError
from spectag.findings import check
from spectag.findings.check_server import make_check_app, serve_check
from spectag.findings.checked_sample import presence_unit
from spectag.findings.decision_store import DecisionStore
from spectag.reporting.check_page import render_check_card, render_check_page
from spectag.reporting.detection_view import view_detection

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NOW = datetime(2026, 5, 1, 14, 30, tzinfo=UTC)


@pytest.fixture
def data(tmp_path):
    return make_checked(tmp_path)


def draw(data, output, settings=None, **options):
    model, table = data
    return check(model, table, output, settings or CheckSettings(per_label=8), page=False, **options)


def decide(output, decision_of):
    """Store decisions as the page does, in a table."""
    rows = read_decisions(output / "decisions.csv")
    decided = [
        replace(row, decision=decision_of(row), reviewer="Zoë", time=NOW) if decision_of(row) else row for row in rows
    ]
    write_decisions(output / "decisions.csv", decided)
    return decided


def test_sample_has_its_sites_times_and_weights_and_check_json_describes_the_table(data, tmp_path):
    result = draw(data, tmp_path / "check")
    rows = read_decisions(result.decisions)
    info = read_check_info(result.decisions)
    assert {row.site for row in rows} == {"pond", "ridge"}
    first = rows[0]
    day = int(first.file.split("_")[1][-1])
    assert first.recorded == datetime(2024, 5, day, 4, 30, int(first.start_seconds))
    for label in LABELS:
        of_label = [row for row in rows if row.label == label]
        assert info.labels[label].n_detections == pytest.approx(sum(row.weight for row in of_label))
        assert info.labels[label].n_sampled == len(of_label) == 8
    assert info.labels["low"].lowest_probability == 0.05
    assert (info.seed, info.n_per_label, info.across) == (0, 8, ("scores", "sites", "hours"))
    with (tmp_path / "check" / "sample.csv").open(encoding="utf-8") as file:
        sample = list(csv.DictReader(file))
    assert [float(row["weight"]) for row in sample] == [row.weight for row in rows]
    assert "decision" not in sample[0]


def test_the_same_call_continues_with_the_same_sample_and_decisions(data, tmp_path):
    draw(data, tmp_path / "check")
    decided = decide(tmp_path / "check", lambda row: "yes" if row.start_seconds < 5 else "")
    result = draw(data, tmp_path / "check")
    assert read_decisions(result.decisions) == decided
    assert sum(count.yes for count in result.counts.values()) == sum(row.decision == "yes" for row in decided) > 0
    assert result.next_command.startswith(f"spectag calibrate {data[0]} --checked {result.decisions} --precision 0.9")


def test_options_that_are_left_out_are_those_of_the_sample(data, tmp_path, run):
    (tmp_path / "labels.txt").write_text("low\n", encoding="utf-8")
    command = ("check", *data, "-o", tmp_path / "check", "--no-page")
    options = ("--per-label", "3", "--across", "none", "--seed", "5", "--min", "0.2", "--site-from", "pond|ridge")
    first = run(*command, *options, "--labels", tmp_path / "labels.txt")
    assert first.status == 0, first.err
    sample = (tmp_path / "check" / "decisions.csv").read_bytes()
    again = run(*command)
    assert (again.status, again.out) == (0, first.out)
    assert (tmp_path / "check" / "decisions.csv").read_bytes() == sample
    for other in (("--per-label", "none"), ("--across", "sites"), ("--seed", "0"), ("--min", "0"), ("--max", "0.9")):
        done = run(*command, *other)
        assert done.status == 1
        assert "leave out the option to continue it" in done.err


def test_presence_is_continued_without_its_option(data, tmp_path, run):
    draw(data, tmp_path / "check", CheckSettings(presence=True))
    done = run("check", *data, "-o", tmp_path / "check", "--no-page")
    assert (done.status, "not needed" in done.out) == (0, True)
    assert "calibrate" not in done.err


def test_next_steps_name_the_training_on_the_clips(data, tmp_path, run):
    draw(data, tmp_path / "check")
    decide(tmp_path / "check", lambda row: "yes")
    done = run("check", *data, "-o", tmp_path / "check", "--no-page", "--training-clips")
    assert f"spectag train {tmp_path / 'check' / 'clips' / 'clips.csv'} -o next-model" in done.err
    assert "spectag calibrate" in done.err


def test_other_settings_or_another_table_do_not_mix_with_an_old_sample(data, tmp_path):
    draw(data, tmp_path / "check")
    with pytest.raises(ConfigError, match=r"a sample with per_label = 8, not 9; leave out the option to continue it"):
        draw(data, tmp_path / "check", CheckSettings(per_label=9))
    with pytest.raises(ConfigError, match=r"across = scores,sites,hours, not none"):
        draw(data, tmp_path / "check", CheckSettings(per_label=8, across=()))
    write_table(data[1], [("pond_20240501_043000.wav", 1, 2, "low", 0.5)])
    with pytest.raises(ConfigError, match="a sample of other detections; the table has changed"):
        draw(data, tmp_path / "check")


def test_damaged_decisions_end_the_command_in_one_line(data, tmp_path, capsys):
    draw(data, tmp_path / "check")
    path = tmp_path / "check" / "decisions.csv"
    path.write_text(path.read_text().replace("decision", "verdict", 1))
    assert main(["check", *map(str, data), "-o", str(tmp_path / "check"), "--per-label", "8", "--no-page"]) == 1
    assert capsys.readouterr().err.startswith(f"spectag: {path}: no column decision; expected")
    (tmp_path / "check" / "check.json").unlink()
    with pytest.raises(DataError, match="no column decision"):
        draw(data, tmp_path / "check")


def test_table_of_another_model_and_missing_recordings_are_errors_that_say_what_to_do(data, tmp_path):
    model, table = data
    write_table(table.with_name("other.csv"), [("pond_20240501_043000.wav", 1, 2, "lou", 0.5)])
    with pytest.raises(DataError, match=r"other\.csv: unknown label 'lou'; did you mean 'low'\?"):
        draw((model, table.with_name("other.csv")), tmp_path / "check")
    (tmp_path / "elsewhere").mkdir()
    alone = shutil.copy(table, tmp_path / "elsewhere" / "tags.csv")
    with pytest.raises(DataError, match=r"none of its 4 recordings is found.*--audio-dir"):
        draw((model, tmp_path / "elsewhere" / "tags.csv"), tmp_path / "check")
    assert draw((model, alone), tmp_path / "check", audio_dir=table.parent).counts["low"].n_sampled == 8


def test_limits_and_chosen_labels_restrict_the_sample(data, tmp_path):
    (tmp_path / "labels.txt").write_text("low\nhigh\n")
    result = draw(data, tmp_path / "check", labels=tmp_path / "labels.txt", min_probability=0.5, max_probability=0.8)
    rows = read_decisions(result.decisions)
    assert {row.label for row in rows} == {"low", "high"}
    assert all(0.5 <= row.probability < 0.8 for row in rows)
    assert "probabilities of at least 0.5 and below 0.8" in result.protocol.read_text()
    low = draw(data, tmp_path / "low", max_probability=0.8)
    assert "labels with probabilities below 0.8. Of these" in low.protocol.read_text()


def test_empty_sample_has_tables_a_protocol_and_a_page_that_says_so(data, tmp_path, capsys):
    model, table = data
    assert main(["check", str(model), str(table), "-o", str(tmp_path / "check"), "--min", "1", "--no-page"]) == 0
    assert "no detections within these limits" in capsys.readouterr().out
    assert read_decisions(tmp_path / "check" / "decisions.csv") == []
    page = render_check_page([], LABELS, title="Check", about="", finished="", command="")
    assert "There is nothing to check" in page
    table.write_text("file,start,end,label,probability\n")
    assert main(["check", str(model), str(table), "-o", str(tmp_path / "none"), "--no-page"]) == 0
    assert "no detections within these limits" in capsys.readouterr().out


def test_presence_needs_no_other_detections_of_a_label_site_and_day_after_a_confirmed_one(data, tmp_path):
    settings = CheckSettings(per_label=20, presence=True)
    draw(data, tmp_path / "check", settings)
    sample = read_decisions(tmp_path / "check" / "decisions.csv")
    first = sample[0]
    assert first.probability == max(row.probability for row in sample if row.label == first.label)
    rows = decide(tmp_path / "check", lambda row: "yes" if row.key == first.key else "")
    result = draw(data, tmp_path / "check", settings)
    same = [row for row in rows if presence_unit(row) == presence_unit(first)]
    count = result.counts[first.label]
    assert len({row.recorded.date() for row in same}) == 1
    assert (count.yes, count.not_needed, count.n_open) == (1, len(same) - 1, count.n_sampled - len(same))
    assert result.next_command == ""
    assert "After the first confirmed detection" in result.protocol.read_text()


def test_protocol_says_who_decided_when_how_the_sample_was_drawn_and_what_came_out(data, tmp_path):
    draw(data, tmp_path / "check")
    rows = decide(tmp_path / "check", lambda row: "yes" if row.label == "low" else "no" if row.label == "high" else "")
    text = draw(data, tmp_path / "check").protocol.read_text(encoding="utf-8")
    assert "80 detections of 3 labels. Of these, 24 detections were drawn" in text
    assert "at most 8 of each label. The strata are made of score band (0.1 wide), site and hour of the day" in text
    assert "Decided on 2026-05-01 by Zoë (16 decisions)." in text
    assert "8 detections of the sample are not decided yet." in text
    numbers = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert [cell.strip() for cell in numbers["high"].strip("|").split("|")[1:]] == ["24", "8", "0", "8", "0", "0"]
    assert len(rows) == 24


def test_decisions_become_positives_and_hard_negatives_to_train_on(data, tmp_path):
    """A clip has only the labels that somebody heard; what was detected there but not decided is unknown."""
    _, table = data
    recording = "pond_20240501_043000.wav"
    rows = [
        (recording, 1, 3, "low", 0.9),
        (recording, 1, 3, "high", 0.4),
        (recording, 2, 4, "middle", 0.3),
        (recording, 8, 10, "high", 0.6),
        (recording, 12, 14, "high", 0.7),
        (recording, 16, 18, "low", 0.8),
    ]
    write_table(table, rows)
    draw(data, tmp_path / "check")
    decisions = {(1, "low"): "yes", (1, "high"): "no", (8, "high"): "no", (12, "high"): "unsure"}
    stored = decide(tmp_path / "check", lambda row: decisions.get((row.start_seconds, row.label), ""))
    write_decisions(
        tmp_path / "check" / "decisions.csv",
        [replace(row, other_labels=("middle",)) if row.start_seconds == 8 else row for row in stored],
    )
    clips = draw(data, tmp_path / "check", training_clips=True, workers=1).clips
    assert (clips.n_positives, clips.n_negatives, clips.skipped) == (1, 1, ())
    with clips.manifest.open(encoding="utf-8") as file:
        found = {float(row["from_seconds"]): row for row in csv.DictReader(file)}
    assert [found[1]["labels"], found[1]["unknown"]] == ["['low']", "['middle']"]
    assert [found[8]["labels"], found[8]["unknown"], found[8]["decision"]] == ["['middle']", "[]", "no"]
    manifest = read_manifest(clips.manifest)
    assert {clip.labels for clip in manifest.clips} == {("low",), ("middle",)}
    assert set(manifest.groups) == {recording}
    waveform, rate = soundfile.read(clips.manifest.parent / found[1]["fname"])
    whole, _ = soundfile.read(table.parent / recording)
    assert rate == RATE
    np.testing.assert_array_equal(waveform, whole[RATE : 3 * RATE])


def test_card_shows_only_the_excerpt_of_a_long_recording_or_why_it_cannot_be_read(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "spectag.reporting.detection_view.read_audio",
        lambda path, **times: read.append(times) or read_audio(path, **times),
    )
    soundfile.write(tmp_path / "day.wav", np.zeros(100 * 8000, "int16"), 8000)
    view = view_detection(tmp_path / "day.wav", "day.wav", 50.0, 52.0, None, context=3.0)
    assert (read[0]["start_seconds"], read[0]["end_seconds"]) == (47, 55)
    assert view.figure.seconds == 8
    assert [(mark.start, mark.end) for mark in view.figure.marks] == [(3, 5)]
    long = view_detection(tmp_path / "day.wav", "day.wav", 1.0, 99.0, None, context=3.0)
    assert long.figure.seconds == 64
    assert "first 60 s are shown" in long.excerpt_text
    gone = view_detection(tmp_path / "gone <b>.wav", "gone <b>.wav", 1.0, 2.0, None, context=3.0)
    assert "gone &lt;b&gt;.wav: can&#39;t read the sound" in render_check_card(gone)
    assert str(tmp_path) not in render_check_card(gone)
    late = view_detection(tmp_path / "day.wav", "day.wav", 1e9, None, None, context=3.0)
    assert "day.wav" in late.problem


def test_page_escapes_every_name(tmp_path):
    rows = read_decisions(draw(make_checked(tmp_path), tmp_path / "check").decisions)
    evil = "</script><img src=x onerror=alert(1)>"
    hostile = replace(rows[0], file=evil, label=evil, site=evil, comment=evil, reviewer=evil, other_labels=(evil,))
    page = render_check_page(
        [hostile], [evil], title=evil, about=evil, finished=evil, command=evil, reviewer=evil, units=[evil]
    )
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert "connect-src 'self'" in unescape(page)


def ask(address, decision):
    """Send a decision; the status of the answer."""
    host, token = address.split("/")[2:4]
    connection = http.client.HTTPConnection(host, timeout=20)
    headers = {"origin": f"http://{host}", "content-type": "application/json"}
    connection.request("POST", f"/{token}/decisions", json.dumps(decision), headers)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_server_that_is_killed_has_lost_no_decision_that_it_confirmed(data, tmp_path):
    arguments = ["check", *data, "-o", tmp_path / "check", "--per-label", "20", "--no-browser"]
    process = start(*arguments)
    address = process.stdout.readline().strip()
    confirmed, is_killed = {}, threading.Event()

    def reviewer(first):
        for index in range(first, 60, 3):
            decision = ("yes", "no", "unsure")[index % 3]
            try:
                if ask(address, {"index": index, "decision": decision, "reviewer": "Z"}) == 200:
                    confirmed[index] = decision
            except (OSError, http.client.HTTPException):
                return
            if len(confirmed) > 20 and not is_killed.is_set():
                is_killed.set()
                os.kill(process.pid, signal.SIGKILL)

    threads = [threading.Thread(target=reviewer, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    process.stderr.close()
    rows = read_decisions(tmp_path / "check" / "decisions.csv")
    assert len(confirmed) > 20
    assert {index: rows[index].decision for index in confirmed} == confirmed
    assert sum(bool(row.decision) for row in rows) <= len(confirmed) + 3
    again = start(*arguments)  # and the same command goes on
    assert ask(again.stdout.readline().strip(), {"index": 59, "decision": "yes", "reviewer": "Z"}) == 200
    refused = start(*arguments)
    assert "another spectag check is open on this folder" in refused.communicate()[1]
    again.send_signal(signal.SIGINT)
    out, err = again.communicate(timeout=60)
    assert (again.returncode, refused.returncode) == (0, 1)
    assert re.search(r"decisions: .*decisions\.csv\nprotocol: ", out)
    assert "Traceback" not in err
    assert f"next: spectag calibrate {data[0]} --checked {tmp_path / 'check' / 'decisions.csv'} --precision 0.9" in err


def test_without_the_packages_of_the_page_the_error_names_the_extra(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "starlette", None)
    arguments = ["check", *map(str, data), "-o", str(tmp_path / "check")]
    assert main(arguments) == 1
    expected = "spectag: the page of spectag check needs the package starlette: pip install 'spectag[serve]'\n"
    assert capsys.readouterr().err == expected
    assert main([*arguments, "--no-page"]) == 0


def test_function_has_the_options_of_the_command():
    of_function = set(inspect.signature(spectag.check).parameters) - {"progress", "log"}
    of_command = set(inspect.signature(app["check"].default_command).parameters)
    settings = set(CheckSettings.model_fields)
    assert of_command - of_function == settings | {"no_page", "no_browser"}
    assert of_function - of_command == {"settings", "page", "browser", "show_address"}


DRIVE = """<script>
const key = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const wait = async (condition) => { while (!condition()) await new Promise((done) => setTimeout(done, 20)); };
const steps = [];
const press = async (letter) => { const before = revision; key(letter); await wait(() => revision > before); };
(async () => {
  await wait(() => document.querySelector("svg.spectrogram"));
  await press("y");
  steps.push(byId("name-hint").checkVisibility() && document.activeElement.id);
  byId("reviewer").value = "Zoë";
  byId("reviewer").dispatchEvent(new Event("input"));
  key("Enter");
  steps.push(byId("name-hint").checkVisibility());
  key("o");
  steps.push(document.activeElement.id);
  byId("other-label").value = "middle";
  byId("other-label").dispatchEvent(new Event("change"));
  key("Enter");
  key("c");
  byId("comment").value = "=wind, loud";
  key("Escape");
  await press("n");
  await press("s");
  await press("u");
  steps.push(byId("state").textContent);
  while (!byId("card").hidden) await press("n");
  steps.push(byId("done").innerText);
  const result = Object.assign(document.createElement("pre"), { id: "result", textContent: JSON.stringify(steps) });
  document.body.append(result);
})();
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_decisions_by_keyboard_in_a_browser_are_in_the_table_and_the_console_is_clean(data, tmp_path):
    draw(data, tmp_path / "check", CheckSettings(per_label=2))
    store = DecisionStore(tmp_path / "check" / "decisions.csv")

    def page():
        text = render_check_page(store.rows, LABELS, title="Check", about="", finished="The end.", command="next")
        return re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", DRIVE)

    def card(index):
        row = store.rows[index]
        path = data[1].parent / row.file
        return render_check_card(view_detection(path, row.file, row.start_seconds, row.end_seconds, None, context=1.0))

    with serve_check(lambda token, port: make_check_app(store, page, card, token=token, port=port), None) as (
        address,
        _,
    ):
        options = ("--headless=new", "--no-sandbox", "--enable-logging=stderr", "--timeout=20000", "--dump-dom")
        done = subprocess.run(
            [CHROMIUM, *options, "--virtual-time-budget=20000", f"--user-data-dir={tmp_path / 'profile'}", address],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    assert "CONSOLE" not in done.stderr
    steps = json.loads(unescape(re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.S)[1]))
    assert steps[:4] == ["card", False, "other-label", "2 of 6 checked"]  # a missing name stops no key
    assert steps[4].startswith("All 6 are checked.")
    rows = read_decisions(tmp_path / "check" / "decisions.csv")
    assert [row.decision for row in rows] == ["yes", *["no"] * 5]
    assert (rows[1].other_labels, rows[1].comment, rows[1].reviewer) == (("middle",), "=wind, loud", "Zoë")
    assert rows[0].reviewer == ""  # decided before the name was entered

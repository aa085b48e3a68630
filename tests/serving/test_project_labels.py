"""The labels of a project: every edit is kept, can be undone, and reaches the table of the command line."""

import os
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.bundles import tone
from spectag.audio.files import write_audio
from spectag.data.clips import Clip
from spectag.data.manifest import read_manifest
from spectag.errors import ConfigError, DataError
from spectag.serving.project.label_clips import ClipChange, ClipState, origin_of
from spectag.serving.project.label_rows import FoundClip
from spectag.serving.project.labels import ChangedClipsError
from spectag.serving.project.project import Project, open_project

ANNA, BEN = "Anna", "Ben"


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds").resolve()
    for number in range(6):
        write_audio(folder / f"=clip {number}, ä.wav", tone("low", 2.0), 16_000)
    return sorted(folder.iterdir())


@pytest.fixture
def project(tmp_path):
    with open_project(tmp_path / "project") as project:
        yield project


STATES = (
    ClipState(labels=("Dog", "Chicken, rooster")),
    ClipState(labels=("nan",), unknown=("Dog", "a \"b\", 'c'"), weight=1 / 3, fold="2", recording_group="site 1"),
    ClipState(),
    ClipState(labels=("-=formula",), weight=0.0),
    ClipState(labels=("Dog",)),
)


def filled(project, sounds, n=5):
    """Add clips; those without labels are unlabelled from the sixth on."""
    found = [FoundClip(str(sounds[i]), sounds[i].name, 0.0, None, STATES[i]) for i in range(n)]
    found.append(FoundClip(str(sounds[0]), sounds[0].name, 0.25, 1.5, ClipState(labels=("Cat",))))
    found.append(FoundClip(str(sounds[5]), sounds[5].name, 0.0, None, ClipState(is_labelled=False)))
    project.labels.add_clips(found, ["Dog", "Cat", "Owl"], reviewer=ANNA)
    return [clip.number for clip in project.labels.all_clips()]


def edit(project, number, *, reviewer=ANNA, revision=None, **change):
    clip = project.labels.clip(number)
    seen = [(number, clip.revision if revision is None else revision)]
    return project.labels.edit(seen, ClipChange(**change), reviewer=reviewer)[0]


def in_table(project):
    """What other programs read from the table of a project."""
    path = project.labels.manifest_path()
    return {(clip.path, clip.start_seconds, clip.end_seconds): clip for clip in read_manifest(path).clips}


def assert_table_is_right(project):
    expected = {(c.path, c.start_seconds, c.end_seconds): c.clip for c in project.labels.training_clips()}
    found = in_table(project)
    assert found.keys() == expected.keys()
    for key, clip in found.items():
        same = replace(clip, fname="", line=None)
        assert same == replace(expected[key], fname=""), key


def test_the_table_reads_back_as_the_labels(project, sounds):
    numbers = filled(project, sounds)
    assert_table_is_right(project)
    edit(project, numbers[0], add=["Owl"], remove=["Dog"], mark_unknown=["Cat"])
    edit(project, numbers[6], confirmed=True)
    edit(project, numbers[1], dropped=True)
    assert_table_is_right(project)
    assert len(in_table(project)) == 6


def test_sounds_in_the_project_have_relative_names(project, sounds):
    inside = project.folder / "sounds" / "a.wav"
    inside.parent.mkdir()
    shutil.copy(sounds[0], inside)
    found = [FoundClip(str(inside), "a.wav", 0.0, None, ClipState(labels=("Dog",)))]
    project.labels.add_clips(found, [], reviewer=ANNA)
    assert "sounds/a.wav,Dog" in project.labels.manifest_path().read_text("utf-8")
    assert_table_is_right(project)


def test_there_is_no_table_without_labelled_clips(project, sounds):
    assert project.labels.manifest_path() is None
    found = [FoundClip(str(sounds[0]), "a.wav", 0.0, None, ClipState(is_labelled=False))]
    project.labels.add_clips(found, [], reviewer=ANNA)
    assert project.labels.manifest_path() is None
    edit(project, 1, mark_unknown=["Dog"])
    assert project.labels.manifest_path() is None, "an unknown label says nothing of the others"
    edit(project, 1, add=["Dog"])
    assert project.labels.manifest_path() == project.folder / "labels.csv"


def test_an_edit_is_in_the_database_before_it_returns(project, sounds):
    numbers = filled(project, sounds)
    edit(project, numbers[0], labels=["Owl"])
    copy = project.folder.parent / "copy"
    copy.mkdir()
    for file in project.folder.glob("project.sqlite*"):
        shutil.copy(file, copy)
    after_power_cut = Project(copy)
    assert after_power_cut.labels.clip(numbers[0]).state.labels == ("Owl",)
    assert "Owl" in after_power_cut.labels.manifest_path().read_text("utf-8")
    after_power_cut.close()


def test_a_stale_edit_is_refused_and_changes_nothing(project, sounds):
    numbers = filled(project, sounds)
    seen = [(number, 1) for number in numbers[:3]]
    edit(project, numbers[1], reviewer=BEN, add=["Owl"])
    with pytest.raises(ChangedClipsError) as caught:
        project.labels.edit(seen, ClipChange(add=("Cat",)), reviewer=ANNA)
    assert [(clip.number, clip.revision) for clip in caught.value.clips] == [(numbers[1], 2)]
    assert all("Cat" not in project.labels.clip(number).state.labels for number in numbers[:3])
    same = project.labels.edit([(numbers[1], 1)], ClipChange(add=("Owl",)), reviewer=ANNA)
    assert same[0].revision == 2, "who wants the same is not refused"


def test_undo_and_redo_also_after_a_restart(tmp_path, sounds):
    with open_project(tmp_path / "project") as project:
        numbers = filled(project, sounds)
        edit(project, numbers[0], labels=["Owl"])
        edit(project, numbers[2], reviewer=BEN, add=["Cat"])
        edit(project, numbers[4], dropped=True)
    with open_project(tmp_path / "project") as project:
        labels = project.labels
        [back] = labels.undo(reviewer=ANNA)
        assert (back.number, back.state.is_dropped) == (numbers[4], False)
        [back] = labels.undo(reviewer=ANNA)
        assert back.state == STATES[0]
        with pytest.raises(ConfigError, match="nothing to undo"):
            labels.undo(reviewer=ANNA)
        undo_step = labels.history()[0]
        assert (undo_step.action, undo_step.before.labels) == ("undo", ("Owl",))
        [again] = labels.undo(undo_step.number, reviewer=ANNA)
        assert again.state.labels == ("Owl",)
        [back] = labels.undo(reviewer=ANNA)
        assert back.state == STATES[0]
        assert labels.clip(numbers[2]).state.labels == ("Cat",)


def test_what_was_changed_later_is_not_undone(project, sounds):
    numbers = filled(project, sounds)
    edit(project, numbers[0], labels=["Owl"])
    step = project.labels.history()[0]
    edit(project, numbers[0], reviewer=BEN, add=["Cat"])
    with pytest.raises(ChangedClipsError):
        project.labels.undo(step.number, reviewer=ANNA)
    assert project.labels.clip(numbers[0]).state.labels == ("Owl", "Cat")


def test_a_part_becomes_a_clip_in_the_same_fold(project, sounds):
    numbers = filled(project, sounds)
    part = project.labels.add_part(numbers[1], 0.5, 1.25, ["Owl"], reviewer=ANNA)
    assert (part.state.fold, part.state.recording_group, part.state.labels) == ("2", "site 1", ("Owl",))
    assert_table_is_right(project)
    for start, end, words in ((0.5, 1.25, "already"), (1.0, 1.0, "not within"), (-1.0, 1.0, "not within")):
        with pytest.raises(ConfigError, match=words):
            project.labels.add_part(numbers[1], start, end, None, reviewer=ANNA)
    [gone] = project.labels.undo(reviewer=ANNA)
    assert gone.state.is_dropped


def test_an_import_changes_known_clips_and_keeps_what_people_did(project, sounds):
    numbers = filled(project, sounds)
    edit(project, numbers[0], comment="listen again")
    again = [
        FoundClip(str(sounds[0]), "other name.wav", 0.0, None, ClipState(labels=("Owl",))),
        FoundClip(str(sounds[1]), "x.wav", 0.0, None, STATES[1]),
        FoundClip(str(sounds[4]), "x.wav", 0.0, None, ClipState(is_labelled=False)),
        FoundClip(str(sounds[5]), "x.wav", 0.5, None, ClipState(labels=("Owl",))),
    ]
    counts = project.labels.add_clips(again, ["Owl"], reviewer=BEN)
    assert (counts.n_added, counts.n_changed, counts.n_same) == (1, 1, 2)
    first = project.labels.clip(numbers[0])
    assert (first.state.labels, first.state.comment, first.fname) == (("Owl",), "listen again", sounds[0].name)
    project.labels.undo(reviewer=BEN)
    assert project.labels.clip(numbers[0]).state.labels == STATES[0].labels


def rewrite(project, *replacements):
    path = project.folder / "labels.csv"
    text = path.read_text("utf-8")
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, "utf-8")


def test_changes_of_another_program_are_taken_over_and_can_be_undone(project, sounds):
    numbers = filled(project, sounds)
    project.labels.manifest_path()
    lines = (project.folder / "labels.csv").read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if "clip 4" not in line]
    header = kept[0].strip().split(",")
    new = {"fname": f'"{sounds[5]}"', "labels": "Owl", "start": "0.5"}
    kept.append(",".join(new.get(name, "") for name in header) + "\n")
    (project.folder / "labels.csv").write_text("".join(kept).replace("Cat", "Owl"), "utf-8")
    edit(project, numbers[2], add=["Dog"])  # which is not in the table yet
    changes = project.labels.file.update()
    assert (changes.n_changed, changes.n_added, changes.n_dropped) == (1, 1, 1)
    assert project.labels.clip(numbers[5]).state.labels == ("Owl",)
    assert project.labels.clip(numbers[4]).state.is_dropped
    assert project.labels.clip(numbers[2]).state.labels == ("Dog",)
    assert not project.labels.clip(numbers[6]).state.is_dropped, "an unlabelled clip is not in the table"
    assert_table_is_right(project)
    assert project.labels.file.update() is None
    step = next(step for step in project.labels.history() if step.action == "table")
    project.labels.undo(step.number, reviewer=ANNA)
    assert project.labels.clip(numbers[5]).state.labels == ("Cat",)
    assert not project.labels.clip(numbers[4]).state.is_dropped


def test_a_table_that_cannot_be_read_is_not_overwritten(project, sounds):
    numbers = filled(project, sounds)
    project.labels.manifest_path()
    rewrite(project, ("clip 0", "gone"))
    edit(project, numbers[2], add=["Dog"])
    with pytest.raises(DataError, match="files are missing"):
        project.labels.manifest_path()
    assert "gone" in (project.folder / "labels.csv").read_text("utf-8")
    assert project.labels.clip(numbers[2]).state.labels == ("Dog",)
    project.labels.file.update(overwrite=True)
    assert_table_is_right(project)


def test_a_deleted_table_is_written_again(project, sounds):
    numbers = filled(project, sounds)
    project.labels.manifest_path().unlink()
    edit(project, numbers[2], add=["Dog"])
    assert_table_is_right(project)


def test_a_table_that_was_deleted_is_there_for_the_next_training(project, sounds):
    filled(project, sounds)
    project.labels.manifest_path().unlink()
    assert project.labels.manifest_path().exists()
    assert_table_is_right(project)


def test_a_table_that_could_not_be_written_is_written_later_and_the_reason_is_told(project, sounds, monkeypatch):
    numbers = filled(project, sounds)
    project.labels.manifest_path()
    file = project.labels.file
    with monkeypatch.context() as patched:
        patched.setattr(file, "_write", partial(throw, DataError("labels.csv: can't be written: no space left")))
        edit(project, numbers[2], add=["Dog"])
        file.close()
        assert file.look() is None
        assert "no space left" in file.problem
        assert file._timer is not None, "it will be tried again"
    file.close()
    assert file.problem == ""
    assert_table_is_right(project)


def throw(error):
    raise error


def test_links_to_one_sound_are_one_clip(project, sounds):
    one = FoundClip(str(sounds[0]), "a.wav", 0.0, None, ClipState(labels=("Dog",)))
    counts = project.labels.add_clips([one, one._replace(fname="b.wav")], [], reviewer=ANNA)
    assert (counts.n_added, counts.n_changed, counts.n_same) == (1, 0, 1)
    other = one._replace(path=str(sounds[1]))
    with pytest.raises(ConfigError, match=r"a.wav and b.wav are the same sound, .* differ in their labels; keep one"):
        project.labels.add_clips([other, other._replace(fname="b.wav", state=ClipState())], [], reviewer=ANNA)
    assert len(project.labels.all_clips()) == 1


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="links")
def test_a_table_with_two_names_of_a_sound_is_told_and_not_overwritten(project, sounds):
    filled(project, sounds)
    path = project.labels.manifest_path()
    (project.folder / "link.wav").symlink_to(sounds[4])
    path.write_text(path.read_text("utf-8").rstrip() + "\nlink.wav,Dog" + "," * 6, "utf-8")
    assert project.labels.file.look() is None
    assert "are the same sound" in project.labels.file.problem
    assert "link.wav" in path.read_text("utf-8")


def test_a_restart_writes_what_the_table_lacks(tmp_path, sounds):
    with open_project(tmp_path / "project") as project:
        numbers = filled(project, sounds)
        edit(project, numbers[0], labels=["Owl"])
        project.labels.file._stop_timer()  # as if it was killed now
        project.labels.file.close()
        assert not (project.folder / "labels.csv").exists()
    with open_project(tmp_path / "project"):
        pass  # which writes at the end what it has planned at the start
    assert "Owl" in (tmp_path / "project" / "labels.csv").read_text("utf-8")


def test_changes_since_a_version(project, sounds):
    numbers = filled(project, sounds)
    assert project.labels.n_changes_since(None) == 6
    version = SimpleNamespace(created="2999-01-01T00:00:00+00:00")
    assert project.labels.n_changes_since(version) == 0
    with project.database.transaction() as connection:
        connection.execute("UPDATE clip SET added = '2020-01-01T00:00:00.000+00:00'")
        connection.execute("UPDATE label_step SET time = '2020-01-01T00:00:00.000+00:00'")
    version = SimpleNamespace(created="2021-01-01T00:00:00+00:00")
    assert project.labels.n_changes_since(version) == 0
    edit(project, numbers[0], comment="listen again")
    edit(project, numbers[2], confirmed=True)
    assert project.labels.n_changes_since(version) == 0, "training sees neither comments nor confirmations"
    edit(project, numbers[0], add=["Owl"])
    edit(project, numbers[4], dropped=True)
    edit(project, numbers[6], confirmed=True)
    project.labels.add_part(numbers[1], 0.5, 1.25, ["Owl"], reviewer=ANNA)
    assert project.labels.n_changes_since(version) == 4
    edit(project, numbers[0], remove=["Owl"])
    assert project.labels.n_changes_since(version) == 3, "back to what it was"


def test_labels_are_checked_and_counted(project, sounds):
    numbers = filled(project, sounds)
    assert project.labels.add_label("  Fox ") == "Fox"
    counts = project.labels.label_counts()
    assert (counts["Fox"], counts["Dog"], counts["Owl"], counts["Cat"]) == (0, 2, 0, 1)
    for name in ("", " ", "a\nb", "x" * 300, "\x00"):
        with pytest.raises(ConfigError):
            project.labels.add_label(name)
        with pytest.raises(ValueError, match="label"):
            ClipChange(add=(name,))
    with pytest.raises(ValueError, match="true and false"):
        ClipChange(add=("Dog",), remove=("Dog",))
    with pytest.raises(ConfigError, match="no clip 99"):
        project.labels.edit([(99, 1)], ClipChange(confirmed=True), reviewer=ANNA)
    edit(project, numbers[0], add=["New one"])
    assert project.labels.label_counts()["New one"] == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("North_20240501_053000.wav", ("North", "2024-05-01T05:30:00")),
        ("pond/20240501_053000.wav", ("pond", "2024-05-01T05:30:00")),
        ("a/dog.wav", ("", "")),
    ],
)
def test_sites_and_times_come_from_the_names_of_recorders(name, expected):
    assert origin_of(name) == expected


def test_random_edits_and_undos_give_the_state_that_a_simple_model_has(project, sounds):
    numbers = filled(project, sounds)
    rng = np.random.default_rng(0)
    states = {number: [project.labels.clip(number).state] for number in numbers}
    names = ("Dog", "Cat", "Owl", "Fox")
    undone = []
    for _ in range(150):
        number = int(rng.choice(numbers))
        if rng.random() < 0.3 and undone:
            number = undone.pop()
            project.labels.undo(reviewer=ANNA)
            states[number].pop()
            continue
        kind, label = rng.choice(["add", "remove", "mark_unknown", "labels"]), str(rng.choice(names))
        change = ClipChange(**{kind: (label,)})
        after = change.applied(states[number][-1])
        if after != states[number][-1]:
            states[number].append(after)
            undone.append(number)
        edit(project, number, **{kind: (label,)})
    assert {number: project.labels.clip(number).state for number in numbers} == {n: s[-1] for n, s in states.items()}
    assert_table_is_right(project)


def test_unlabelled_clips_are_not_negatives():
    clip = Clip("a.wav", "a.wav", ())
    assert ClipState.of(clip, is_labelled=False).in_training == ()
    assert ClipState.of(clip).in_training != ()

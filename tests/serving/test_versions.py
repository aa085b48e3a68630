"""Versions of the model: they count when they are complete, one is in use, and old ones come back."""

import os
import sqlite3

import pytest

from helpers.bundles import make_bundle, make_info
from spectag.errors import BundleError, ConfigError, DataError
from spectag.evaluation.recalibration import calibrate
from spectag.models.bundle import write_info
from spectag.models.tagger import Tagger
from spectag.serving.project.database import DATABASE
from spectag.serving.project.project import open_project


@pytest.fixture
def project(tmp_path):
    with open_project(tmp_path / "project") as project:
        yield project


def add(project, origin="trained", parent=None, **results):
    with project.versions.new(origin, parent=parent) as (folder, found):
        make_bundle(folder, make_info())
        found.update(results)
    return list(project.versions)[-1]


def test_first_model_is_copied_and_used(project, tmp_path):
    model = make_bundle(tmp_path / "model", make_info())
    version = project.versions.add_copy(model)
    assert (version.number, version.origin, version.parent) == (1, "first", None)
    assert project.versions.current == version
    assert Tagger(version.folder).labels.names == ("low", "middle", "high")
    assert version.folder.is_relative_to(project.folder)
    assert project.versions.add_copy(model) == version, "the same model is not copied again"


def make_and_fail(project):
    with project.versions.new("trained") as (folder, _):
        make_bundle(folder, make_info())
        raise ZeroDivisionError


def test_new_version_counts_when_it_is_complete(project):
    with pytest.raises(BundleError), project.versions.new("trained"):
        pass
    with pytest.raises(ZeroDivisionError):
        make_and_fail(project)
    assert list(project.versions) == []
    version = add(project, "refitted", lwlrap=0.5)
    assert (version.number, version.origin, version.results) == (3, "refitted", {"lwlrap": 0.5})
    assert project.versions.current is None, "a new version is not used without being asked for"


def test_ancestors_with_the_same_networks_are_found_beyond_deleted_ones(project, tmp_path):
    first = project.versions.add_copy(make_bundle(tmp_path / "model", make_info()))
    write_info(first.folder, make_info())  # with the hash of the network
    for parent in (1, 2):
        with project.versions.new("thresholds", parent=parent) as (folder, _):
            calibrate(first.folder, thresholds={"low": 0.1 * parent}, output=folder, log=lambda _: None)
    with project.versions.new("trained", parent=3) as (folder, _):
        make_bundle(folder, make_info(labels=("low", "middle", "dog")))
    assert project.versions.with_same_networks(3) == [3, 2, 1]
    assert project.versions.with_same_networks(4) == [4]
    project.versions.delete(2)
    assert project.versions.with_same_networks(3) == [3, 1]
    assert project.versions.with_same_networks(0) == [0], "a project without a model"


def test_version_is_used_and_the_one_before_comes_back(project):
    first, second = add(project), add(project, parent=1)
    assert second.parent == first.number
    for number in (1, 2, 1):
        project.versions.use(number)
        assert project.versions.current.number == number
    with pytest.raises(DataError, match="there is no version 7"):
        project.versions.use(7)


def test_version_in_use_is_still_in_use_when_the_project_is_opened_again(tmp_path):
    with open_project(tmp_path) as project:
        add(project)
        add(project)
        project.versions.use(2)
    with open_project(tmp_path) as project:
        assert project.versions.current.number == 2


def test_deleted_version_is_gone_with_its_files_and_its_number_is_not_used_again(project):
    first, _ = add(project), add(project)
    project.versions.use(2)
    with pytest.raises(ConfigError, match="version 2 is in use"):
        project.versions.delete(2)
    project.versions.delete(1)
    assert not first.folder.exists()
    assert [version.number for version in project.versions] == [2]
    with pytest.raises(DataError, match="there is no version 1"):
        project.versions.delete(1)
    assert add(project).number == 3


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_among_the_versions_is_not_followed_when_it_is_deleted(project, tmp_path):
    other = make_bundle(tmp_path / "other", make_info())
    with project.versions.new("trained") as (folder, _):
        folder.symlink_to(other)
    add(project)
    project.versions.use(2)
    with pytest.raises(DataError, match="delete this folder by hand"):
        project.versions.delete(1)
    assert (other / "spectag.json").exists()


def test_results_that_are_no_object_are_empty(tmp_path):
    with open_project(tmp_path) as project:
        add(project)
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("UPDATE version SET results = '[1', origin = x'ff'")
    connection.close()
    with open_project(tmp_path) as project:
        [version] = project.versions
        assert (version.results, version.origin) == ({}, "")

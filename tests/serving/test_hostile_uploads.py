"""A small part of the campaign with hostile uploads."""

import itertools
import random

import pytest
from benchmarks import hostile_uploads
from benchmarks.hostile_uploads import UploadCampaign


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    campaign = UploadCampaign(tmp_path_factory.mktemp("campaign"))
    yield campaign
    campaign.end()
    assert campaign.faults == []


def uploads(folder):
    yield from itertools.islice(hostile_uploads.odd_names(), 12)
    yield from (upload for upload in hostile_uploads.odd_requests() if b"Length: 100000\r" not in upload.head)
    yield from itertools.islice(hostile_uploads.slow_and_leaving(random.Random(0)), 2, 6)
    yield from hostile_uploads.damaged_uploads(folder, 20, seed=1)


def test_hostile_uploads_get_a_reason_or_the_right_answer_and_the_next_good_one_is_served(campaign, tmp_path):
    for upload in uploads(tmp_path / "damaged"):
        campaign.check(upload)
    campaign.check_good("all")
    assert campaign.faults == []

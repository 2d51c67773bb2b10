"""Commits on a real S3 server while processes die, race, and the server fails: nothing goes wrong.

`make chaos` runs the same lanes with more seeds and longer outages.
"""

import pytest

from tests.support.commit_fire import brown_out, kill_everywhere, race_commits, server_killed
from tests.support.lease_fire import contend
from tests.support.row_checker import Violations
from tests.support.s3 import s3_under_fire


@pytest.fixture(scope="module")
def fire(tmp_path_factory):
    with s3_under_fire(tmp_path_factory.mktemp("fire")) as running:
        yield running


def test_a_writer_killed_at_any_request_of_a_commit_loses_and_doubles_nothing(fire):
    report = kill_everywhere(fire)
    assert report.num_operations == 3  # a file for each of two kinds, then the commit
    assert report.num_kills == 3 * 3 * 2
    assert report.violations == Violations()


@pytest.mark.parametrize("seed", [1, 2])
def test_of_eight_processes_that_commit_the_same_rows_one_wins(fire, seed):
    report = race_commits(fire, seed, num_races=10)
    assert report.num_one_winner == report.num_races == 10
    assert report.violations == Violations()


def test_commits_ride_out_a_brown_out(fire):
    report = brown_out(fire, seed=1, outage_s=6)
    assert report.num_faults >= 3
    assert report.violations == Violations()


def test_commits_ride_out_a_killed_server(fire):
    report = server_killed(fire, "killed", away_s=1)
    assert report.violations == Violations()


def test_of_the_drivers_that_contend_for_a_run_on_s3_one_owns_it(fire):
    report = contend(fire, seed=1, num_rounds=2)
    assert report.num_one_winner == report.num_rounds == 2
    assert report.num_fenced == report.num_paused

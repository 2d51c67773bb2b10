"""Training states through kills, damage, full disks, other worker counts and orders to stop."""

import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cgd_ray.store import LocalStore
from cgd_ray.training.checkpoint import list_checkpoints
from tests.support import train_fire
from tests.support.s3 import BUCKET, s3_under_fire
from tests.support.train_fire import NONE, NUM_STEPS, World, make_world
from tests.support.workers import Kill, run_workers, start_workers


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    root = tmp_path_factory.mktemp("store")
    return make_world(LocalStore(str(root)), str(root), tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def s3_world(tmp_path_factory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("s3")
    with s3_under_fire(folder) as fire:
        yield make_world(fire.direct("training"), f"{BUCKET}/training", folder)


def test_killed_workers_change_nothing(s3_world: World) -> None:
    report = train_fire.kill_workers(s3_world, seed=3)
    assert report.difference == NONE, report
    assert report.num_left == 0


@pytest.mark.parametrize("damage", ["flipped", "manifest truncated"])
def test_a_damaged_state_is_passed_over(world: World, damage: str) -> None:
    report = train_fire.damage_newest(world, 1, damage)
    assert report.passed_over
    assert report.difference == NONE


def test_any_number_of_workers_goes_on_at_any_stage(world: World) -> None:
    shapes = [(2, 3), (1, 0), (2, 2), (1, 1)]
    report = train_fire.reshape(world, "all", shapes[:3])
    assert report.difference.is_rounding, report
    report = train_fire.reshape(world, "back", [shapes[3], (2, 0), shapes[0]])
    assert report.difference.is_rounding, report


def test_bfloat16_goes_on_exactly(world: World) -> None:
    for stage in (0, 3):
        settings = {"dtype": "bfloat16", "zero_stage": stage, "num_workers": 2}
        whole, parts = f"bf16-{stage}", f"bf16-parts-{stage}"
        run_workers(world.task(whole, **settings))
        task = world.task(parts, **settings, checkpoint_every_steps=2)
        run_workers(task, stop_after_step=4)
        run_workers(task)
        assert world.differ(parts, whole) == NONE


def test_sigterm_on_one_worker_saves_and_stops_all(world: World) -> None:
    task = world.task("term", num_workers=2)
    kill = Kill(rank=1, place="batch", call=3, signal=signal.SIGTERM)
    for ended in start_workers(task, 2, [kill]).wait():
        assert ended.status == 1
        assert f"Stopped: after step 2 of {NUM_STEPS}" in ended.output
    (checkpoint,) = list_checkpoints(world.store, "term")
    assert checkpoint.step == 2
    run_workers(task)
    run_workers(world.task("no-term", num_workers=2))
    assert world.differ("term", "no-term") == NONE


def test_a_state_of_other_settings_is_refused(world: World) -> None:
    run_workers(world.task("other", checkpoint_every_steps=2), stop_after_step=2)
    (ended,) = start_workers(world.task("other", learning_rate=2e-3), 1).wait()
    assert ended.status == 1
    assert "train.learning_rate=0.001, this run has train.learning_rate=0.002" in ended.output
    assert [c.step for c in list_checkpoints(world.store, "other")] == [2]


def test_only_the_newest_states_are_kept(world: World) -> None:
    task = world.task("kept", checkpoint_every_steps=1, keep_checkpoints=3)
    run_workers(task, stop_after_step=5)
    assert [c.step for c in list_checkpoints(world.store, "kept")] == [5, 4, 3]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk of a size that can be changed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def resize(size: str) -> Path:
        option = f"remount,size={size}" if folder.is_mount() else f"size={size}"
        command = ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a small disk")
        return folder

    yield resize
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_cleanly_and_costs_no_state(small_disk, tmp_path: Path) -> None:
    root = str(small_disk("16m"))
    store = LocalStore(root)
    world = make_world(store, root, tmp_path)
    run_workers(world.task("whole", num_workers=2))
    task = world.task("full", num_workers=2, checkpoint_every_steps=2)
    run_workers(task, stop_after_step=2)
    used = sum(p.stat().st_blocks * 512 for p in Path(root).rglob("*"))
    small_disk(f"{used + 128 * 1024}")  # less than a state
    for ended in start_workers(task, 2).wait():
        assert ended.status == 1
        assert "UserError: the state after step 4 could not be saved" in ended.output
        assert "No space left on device" in ended.output
    assert [c.step for c in list_checkpoints(store, "full")] == [2]
    small_disk("16m")
    run_workers(task)
    assert world.differ("full", "whole") == NONE


def test_ctrl_c_and_a_killed_rank_on_ray_cost_nothing(world: World, tmp_path: Path) -> None:
    settings = {"num_workers": 2, "zero_stage": 2, "num_epochs": 60, "checkpoint_every_steps": 4}
    run_workers(world.task("calm", **settings))
    task = world.task("disturbed", **settings)
    driver = train_fire.start_driver(tmp_path, task)
    train_fire.wait_for_state(world, task, 4, driver)
    driver.process.send_signal(signal.SIGINT)
    driver.ends(130)
    stopped_at = list_checkpoints(world.store, "disturbed")[0].step
    driver = train_fire.start_driver(tmp_path, task)
    train_fire.wait_for_state(world, task, stopped_at + 4, driver)
    driver.kill_a_rank(random.Random(1))
    driver.ends(0)
    assert world.differ("disturbed", "calm") == NONE

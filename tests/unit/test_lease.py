"""A run has one owner: refused, taken over after death or silence, fenced when it wakes up."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.lease import owned, still_owner, this_process
from cgd_ray.records import Draft
from cgd_ray.shards import read_records
from cgd_ray.store import LocalStore

REPO = Path(__file__).resolve().parents[2]
LEASE_S = 0.9
LIMIT_S = 30
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "root"))


@pytest.fixture
def start(store: LocalStore) -> Iterator[Start]:
    """Return the starter of a driver of the run, a process that then holds the lease or ended."""
    with ExitStack() as stack:

        def starter(
            host: str = "", prepare: Callable[[], None] | None = None
        ) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "tests.support.lease_holder"]
            process = subprocess.Popen(
                [*command, store.root, "run", str(LEASE_S), host],
                cwd=REPO,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=prepare,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            process.first_line = process.stdout.readline().strip()
            return process

        yield starter


def refused(process: subprocess.Popen[str]) -> str:
    """Return the one line of a driver that had to stop."""
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2, errors
    (line,) = errors.strip().splitlines()
    return line


def test_a_second_driver_is_refused_with_one_line_that_names_the_first(start):
    first = start()
    assert first.first_line == "epoch 1"
    line = refused(start())
    assert f"in use by process {first.pid} on {os.uname().nodename} since 20" in line
    assert first.poll() is None
    line = refused(start("elsewhere"))
    assert f"in use by process {first.pid}" in line


@pytest.mark.parametrize("how", ["end", "ctrl_c"])
def test_a_driver_that_ends_frees_the_run_at_once(start, store, how):
    first = start("elsewhere")
    if how == "end":
        first.communicate("", timeout=LIMIT_S)
    else:
        first.send_signal(signal.SIGINT)
    assert first.wait(LIMIT_S) == (0 if how == "end" else 130)
    began = time.monotonic()
    with owned(store, "run", LEASE_S) as lease:
        assert lease.epoch == 2
        assert time.monotonic() - began < LEASE_S / 2


def test_a_killed_driver_of_this_machine_is_replaced_at_once(start, store):
    first = start()
    first.kill()
    first.wait(LIMIT_S)
    began = time.monotonic()
    with owned(store, "run", LEASE_S) as lease:
        assert lease.epoch == 2
        assert time.monotonic() - began < LEASE_S / 2


def test_a_killed_driver_of_another_machine_is_replaced_after_its_lease(start, store):
    first = start("elsewhere")
    first.kill()
    first.wait(LIMIT_S)
    began = time.monotonic()
    with owned(store, "run", 1000.0) as lease:  # the dead owner's promise counts, not ours
        assert lease.epoch == 2
    assert time.monotonic() - began >= LEASE_S


def test_a_paused_owner_finds_itself_fenced_and_its_commits_do_no_harm(start, store):
    # As a script starts it in its background: deaf to Ctrl-C.
    first = start(prepare=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    first.send_signal(signal.SIGSTOP)
    second = start()
    assert second.first_line == "epoch 2"
    assert not still_owner(store, "run", 1)
    assert still_owner(store, "run", 2)
    first.send_signal(signal.SIGCONT)
    assert "taken over by another process" in refused(first)
    second.communicate("", timeout=LIMIT_S)
    assert second.returncode == 0
    rows = read_records(store, "run", Draft)  # both committed the same rows: each is there once
    assert list(rows) == sorted(f"p{n}/0" for n in range(len(rows)))
    assert rows


def test_of_many_contenders_for_a_free_lease_one_wins(store):
    won: list[int] = []
    lines: list[str] = []
    barrier, ended = threading.Barrier(8), threading.Event()

    def contend() -> None:
        barrier.wait()
        try:
            with owned(store, "run", LEASE_S, on_lost=ended.set) as lease:
                won.append(lease.epoch)
                ended.wait(LIMIT_S)
        except UserError as error:
            lines.append(str(error))
            if len(lines) == 7:
                ended.set()

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1]
    assert len(lines) == 7


def test_a_run_is_its_folder(store):
    with owned(store, "a", LEASE_S) as a, owned(store, "b", LEASE_S) as b:
        assert (a.epoch, b.epoch) == (1, 1)


class FlakyStore(LocalStore):
    """A store that fails on demand, and may lose the answer to a successful creation."""

    out = False
    answer_lost = False
    put_s = 0.0

    def put(self, key: str, data: bytes) -> None:
        if self.out:
            raise ConnectionResetError("out")
        super().put(key, data)

    def put_new(self, key: str, data: bytes) -> bool:
        return super().put_new(key, data) and not self.answer_lost

    def get(self, key: str) -> bytes:
        time.sleep(self.put_s)
        return super().get(key)


def test_an_owner_outlives_an_outage_of_the_store(store):
    flaky = FlakyStore(store.root)
    lost = threading.Event()
    with owned(flaky, "run", LEASE_S, on_lost=lost.set) as lease:
        flaky.out = True
        beat = store.get("run/lease/00000001.beat")
        time.sleep(LEASE_S * 0.6)
        assert store.get("run/lease/00000001.beat") == beat
        flaky.out = False
        deadline = time.monotonic() + LIMIT_S
        while store.get("run/lease/00000001.beat") == beat:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        lease.check()
    assert not lost.is_set()


def test_a_slow_answer_does_not_count_as_the_owners_silence(start, store):
    first = start("elsewhere")
    first.send_signal(signal.SIGSTOP)
    slow = FlakyStore(store.root)
    slow.put_s = LEASE_S / 2
    threading.Timer(2 * LEASE_S, lambda: setattr(slow, "put_s", 0.0)).start()
    began = time.monotonic()
    with owned(slow, "run", LEASE_S):
        assert time.monotonic() - began >= 3 * LEASE_S


def test_a_lease_whose_answer_was_lost_is_ours_all_the_same(store):
    flaky = FlakyStore(store.root)
    flaky.answer_lost = True
    with owned(flaky, "run", LEASE_S) as lease:
        assert lease.epoch == 1


def test_a_recycled_pid_is_another_process(store):
    me = this_process()
    before = replace(me, started_ticks=me.started_ticks - 1)
    with owned(store, "run", 1000.0, before) as first:
        assert first.epoch == 1
        with owned(store, "run", 1000.0, me) as second:
            assert second.epoch == 2


def test_a_zombie_is_dead(store):
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    gone = replace(this_process(), pid=process.pid)
    with owned(store, "run", 1000.0, gone), owned(store, "run", 1000.0) as lease:
        assert lease.epoch == 2
    process.wait()


def test_check_of_a_lost_lease_is_one_line_for_the_user(store):
    lost = threading.Event()
    gone = replace(this_process(), started_ticks=1)
    with pytest.raises(UserError, match=r"taken over by another process.*run\.lease_s"):  # noqa: SIM117
        with owned(store, "run", LEASE_S, gone, on_lost=lost.set) as lease:
            lease.check()
            with owned(store, "run", LEASE_S):
                assert lost.wait(LIMIT_S)
                with pytest.raises(UserError, match="taken over"):
                    lease.check()

"""A run has one owner at a time: a lease made of objects in the run's store.

Each owner creates the next `lease/<epoch>.json` (create-only, so of all contenders exactly one gets
it) and then rewrites `lease/<epoch>.beat` three times per lease. A contender measures the owner's
silence on its own monotonic clock; no two machines' clocks are ever compared. An owner that was
paused past its lease finds a higher epoch and stops. What it commits until then does no harm,
because readers take each row once: the lease saves double work, the commits keep the data right.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.store import MissingKey, Store, StoreError

_BEATS_PER_LEASE = 3
_POLLS_PER_BEAT = 2
# Stops the main thread as Ctrl-C does. Not SIGINT itself, which is ignored by whatever a script
# started in its background.
_STOP = signal.SIGUSR2


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that holds, or wants, a lease."""

    host: str
    process_table: str  # where the pid has a meaning: one boot of one kernel, one pid namespace
    pid: int
    started_ticks: int  # kernel clock ticks from boot to the process's start
    token: str  # random: tells this owner's objects from all others'
    since: str  # UTC time, for people only


def this_process() -> Owner:
    """Return the calling process as an owner, with a new token."""
    started_ticks = _started_ticks(os.getpid())
    assert started_ticks is not None  # we are alive
    return Owner(
        host=socket.gethostname(),
        process_table=_process_table(),
        pid=os.getpid(),
        started_ticks=started_ticks,
        token=uuid.uuid4().hex,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


class Lease:
    """A held lease. `epoch` may travel to writers on other machines, for `still_owner`."""

    def __init__(self, store: Store, folder: str, epoch: int, owner: Owner) -> None:
        self.folder = folder
        self.epoch = epoch
        self._owner = owner
        self._store = store
        self._lost = threading.Event()
        self._done = threading.Event()

    @property
    def lost(self) -> bool:
        """Whether another process is known to have taken over."""
        return self._lost.is_set()

    def check(self) -> None:
        """Refuse to go on once the lease is lost. Looks at memory only.

        Raises:
            UserError: another process owns the run.
        """
        if self.lost:
            raise UserError(
                f"{self._store.root}/{self.folder} was taken over by another process while this "
                f"one, {self._owner.pid}, was silent: it stops here and what it made is kept; "
                "raise run.lease_s if it was only slow"
            )

    def beat_until_done(self, lease_s: float, on_lost: Callable[[], None]) -> None:
        """Show signs of life until `release`, or until another process has taken over."""
        number = 1
        while not self._done.wait(lease_s / _BEATS_PER_LEASE):
            try:
                if not still_owner(self._store, self.folder, self.epoch):
                    self._lost.set()
                    if not self._done.is_set():
                        on_lost()
                    return
                _put_beat(self._store, self.folder, self.epoch, number)
            except (StoreError, OSError):
                continue  # an outage silences contenders too, and ends on its own or in a commit
            number += 1

    def stop_beating(self) -> None:
        """Let the beating thread return at its next step."""
        self._done.set()

    def release(self) -> None:
        """Free the lease for the next process at once."""
        # In an outage it is left to expire.
        with contextlib.suppress(StoreError, OSError):
            if not self.lost:
                _put_beat(self._store, self.folder, self.epoch, 0, released=True)


def lease_folder(run: str) -> str:
    """Return the folder in the store that holds the lease of a run of this name."""
    return f"runs/{run}"


@contextmanager
def owned(
    store: Store,
    folder: str,
    lease_s: float,
    me: Owner | None = None,
    on_lost: Callable[[], None] | None = None,
) -> Generator[Lease]:
    """Own a run for the length of the block; it is free at once afterwards, however it ends.

    Args:
        store: of the run.
        folder: of the run in the store.
        lease_s: silence after which another process may take over.
        me: who asks; None: this process.
        on_lost: called in a thread when another process has taken over; None interrupts the main
            thread as Ctrl-C does, and then only the main thread may own a run.

    Raises:
        UserError: another process owns the run, or took it over during the block.
    """
    lease = _acquire(store, folder, lease_s, me or this_process())
    with _stopping() if on_lost is None else nullcontext(on_lost) as stop:
        thread = threading.Thread(target=lease.beat_until_done, args=(lease_s, stop), daemon=True)
        thread.start()
        try:
            try:
                yield lease
            finally:
                lease.stop_beating()
                thread.join(lease_s)
                lease.release()
        except KeyboardInterrupt:
            lease.check()
            raise
    lease.check()


@dataclass(frozen=True, slots=True)
class Holder:
    """The last owner of a run, as anyone sees it."""

    owner: Owner
    lease_s: float  # silence after which another process may take over
    silent_s: float  # since the last sign of life, by the store's clock
    released: bool  # it has ended in order
    dead: bool  # it is known to be gone: its machine is this one

    @property
    def alive(self) -> bool:
        """Whether it is at work, as far as can be told."""
        return not (self.released or self.dead) and self.silent_s <= self.lease_s


def last_holder(store: Store, folder: str) -> Holder | None:
    """Return the last owner of a run; None if it never had one. Reads, and waits for nothing."""
    epoch = _latest_epoch(store, folder)
    if not epoch:
        return None
    held = json.loads(store.get(_key(folder, epoch, "json")))
    owner, beat = Owner(**held["owner"]), _beat(store, folder, epoch)
    ages = [entry.age_s for entry in store.list(_key(folder, epoch, ""))]
    return Holder(
        owner=owner,
        lease_s=float(held["lease_s"]),
        silent_s=max(0.0, min(ages)),
        released=beat is not None and json.loads(beat)["released"],
        dead=_is_dead(owner, this_process()),
    )


def still_owner(store: Store, folder: str, epoch: int) -> bool:
    """Return whether nobody has taken over since an epoch: one list request.

    Epochs have no gaps, so it is enough to look for the next one.
    """
    return next(iter(store.list(_key(folder, epoch + 1, "json"))), None) is None


def _acquire(store: Store, folder: str, lease_s: float, me: Owner) -> Lease:
    data = json.dumps({"lease_s": lease_s, "owner": asdict(me)}).encode()
    while True:
        epoch = _latest_epoch(store, folder)
        if epoch:
            _wait_until_free(store, folder, epoch, me)
        key = _key(folder, epoch + 1, "json")
        # An answer may get lost and the repeated request find the key taken: by us.
        if store.put_new(key, data) or store.get(key) == data:
            _put_beat(store, folder, epoch + 1, 0)
            return Lease(store, folder, epoch + 1, me)


def _wait_until_free(store: Store, folder: str, epoch: int, me: Owner) -> None:
    """Return once an epoch's owner has released it, has died, or was silent for a whole lease.

    Raises:
        UserError: the owner shows signs of life.
    """
    held = json.loads(store.get(_key(folder, epoch, "json")))
    owner, lease_s = Owner(**held["owner"]), float(held["lease_s"])  # its own promise counts
    if _is_dead(owner, me):
        return
    poll_s = lease_s / _BEATS_PER_LEASE / _POLLS_PER_BEAT
    seen, watched_since = _beat(store, folder, epoch), time.monotonic()
    while True:
        if seen is not None and json.loads(seen)["released"]:
            return
        if time.monotonic() - watched_since >= lease_s:
            return
        time.sleep(poll_s)
        asked = time.monotonic()
        latest = _beat(store, folder, epoch)
        if time.monotonic() - asked > lease_s / _BEATS_PER_LEASE:
            watched_since = time.monotonic()  # the store was out: the owner could not beat either
        elif latest is not None and latest != seen and not json.loads(latest)["released"]:
            raise UserError(
                f"{store.root}/{folder} is in use by process {owner.pid} on {owner.host} since "
                f"{owner.since}: wait for it, stop it, or choose another run.name; if it dies, it "
                f"is free after {lease_s:g} silent seconds (run.lease_s)"
            )
        seen = latest


def _latest_epoch(store: Store, folder: str) -> int:
    """Return the highest epoch; 0 if the run never had an owner."""
    keys = [entry.key for entry in store.list(f"{folder}/lease/") if entry.key.endswith(".json")]
    return max((int(Path(key).stem) for key in keys), default=0)


def _key(folder: str, epoch: int, kind: str) -> str:
    return f"{folder}/lease/{epoch:08d}.{kind}"


def _put_beat(
    store: Store, folder: str, epoch: int, number: int, *, released: bool = False
) -> None:
    data = json.dumps({"beat": number, "released": released}).encode()
    store.put(_key(folder, epoch, "beat"), data)


def _beat(store: Store, folder: str, epoch: int) -> bytes | None:
    """Return the last sign of life; None before the first."""
    try:
        return store.get(_key(folder, epoch, "beat"))
    except MissingKey:
        return None


def _is_dead(owner: Owner, me: Owner) -> bool:
    """Return whether an owner is known, from this machine's process table, to be gone."""
    here = (owner.host, owner.process_table) == (me.host, me.process_table)
    return here and _started_ticks(owner.pid) != owner.started_ticks


def _process_table() -> str:
    """Return what tells this process table from those of other boots, machines and containers."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _started_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name, in brackets, may hold anything: count fields after it.
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


@contextmanager
def _stopping() -> Generator[Callable[[], None]]:
    """Yield what interrupts the main thread, out of a blocking call too."""
    ident = threading.main_thread().ident
    assert ident is not None  # it was started
    before = signal.signal(_STOP, signal.default_int_handler)
    try:
        yield lambda: signal.pthread_kill(ident, _STOP)
    finally:
        signal.signal(_STOP, before)

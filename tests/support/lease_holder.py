"""A driver that owns a run until its standard input ends: a process for the tests of leases.

`python -m tests.support.lease_holder ROOT FOLDER LEASE_S [HOST]` prints `epoch N` when it owns the
run, and commits one row a beat until then. Its status is 2, with the one line on standard error,
if it is refused or loses the run, as `cgd`'s is. HOST makes it seem to run on another machine.
"""

import sys
import threading
from dataclasses import replace

from cgd_ray.errors import UserError
from cgd_ray.lease import owned, this_process
from cgd_ray.shards import commit_shard
from cgd_ray.store import open_store
from tests.support.records import draft


def main(root: str, folder: str, lease_s: str, host: str = "") -> int:
    store, me = open_store(root), this_process()
    if host:
        me = replace(me, host=host, process_table=host)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    try:
        with owned(store, folder, float(lease_s), me) as lease:
            print(f"epoch {lease.epoch}", flush=True)
            number = 0
            while not ended.wait(0.05):
                commit_shard(store, folder, [draft(id=f"p{number}/0")])
                number += 1
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

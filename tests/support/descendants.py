"""Processes that this one started, directly or not."""

import os
from pathlib import Path


def descendants(name: str) -> list[int]:
    """Return the ids of our descendants whose command line holds `name`."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            commands[int(folder.name)] = (folder / "cmdline").read_text(errors="replace")
        except OSError:
            continue  # it has ended
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])

    def is_ours(process_id: int) -> bool:
        while process_id in parents:
            process_id = parents[process_id]
            if process_id == os.getpid():
                return True
        return False

    return [pid for pid, command in commands.items() if name in command and is_ours(pid)]

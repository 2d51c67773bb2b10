"""What `cgd run` says at its end, whatever its work was."""

import shlex
from pathlib import Path

from cgd_ray.cli import job

REPO = Path(__file__).parents[2]


def test_the_command_that_serves_can_be_pasted_into_a_shell(tmp_path, capsys):
    run_file = str(REPO / "jobs" / "runs" / "demo.toml")
    overrides = [f"run.work_dir={tmp_path}", "prompts.options={min_terms=2, max_terms=3}"]
    assert job("run", lambda settings, **flags: None, [run_file, *overrides]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(line) == ["serve", "it", "cgd", "serve", run_file, *overrides]

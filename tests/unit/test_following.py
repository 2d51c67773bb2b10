"""Following a job over real sockets that break, and the commands that do it."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cgd_ray.cli import main
from cgd_ray.errors import UserError
from cgd_ray.submission.address import parse_address
from cgd_ray.submission.client import JobsApi, connect
from cgd_ray.submission.following import Following, LogView, follow, heard, missed, pause_s
from cgd_ray.verbs import VERBS
from tests.support.fault_proxy import Fault, FaultProxy, Operation, fault_proxy
from tests.support.jobs_api import ScriptedJobs, scripted_jobs

TOKEN = "token-of-the-cluster"
RUN = """
[run]
name = "small"
root = "{root}"
work_dir = "/var/tmp/cgd"
[prompts]
train = "reasoning-gym:chain_sum"
num_train = 4
num_test = 2
"""


def no_wait(_: float) -> None:
    """Do not wait: the script moves at each look."""


def client(url: str) -> JobsApi:
    return connect(parse_address(url), {"RAY_AUTH_TOKEN": TOKEN})


# The state machine


def test_whole_lines_are_shown_once() -> None:
    state, shown = Following(), ""
    for log in ("", "a", "a\nb", "a\nb\nc\n", "a\nb\nc\n"):
        state, text, note = heard(state, log, 0.0, ended=False)
        shown += text
        assert note is None and (not text or text.endswith("\n"))
    assert shown == "a\nb\nc\n"
    _, text, _ = heard(state, "a\nb\nc\nthe end", 0.0, ended=True)
    assert text == "the end"


def test_a_log_that_is_away_for_a_while_is_not_shown_again() -> None:
    state, text, _ = heard(Following(), "one\ntwo\n", 0.0, ended=False)
    state, text, _ = heard(state, "", 1.0, ended=False)
    assert text == ""
    state, text, _ = heard(state, "one\ntwo\nthree\n", 2.0, ended=False)
    assert text == "three\n"


def test_a_loss_is_said_once_and_so_is_its_end() -> None:
    state, note = missed(Following(shown=5), "reset", 100.0)
    assert note is not None and "reset" in note
    state, note = missed(state, "refused", 130.0)
    assert note is None
    state, text, note = heard(state, "12345\n", 165.0, ended=False)
    assert (text, note) == ("\n", "connected again after 1m05s")
    assert state == Following(shown=6, log_size=6)


def test_patience_has_an_end() -> None:
    state, _ = missed(Following(), "refused", 0.0, patience_s=60)
    state, _ = missed(state, "refused", 59.0, patience_s=60)
    with pytest.raises(UserError, match="no answer for 1m00s: refused; the job may well go on"):
        missed(state, "refused", 60.0, patience_s=60)


def test_pauses_grow_with_failures_and_with_the_log_and_are_bounded() -> None:
    failures = [pause_s(Following(num_misses=number)) for number in range(1, 8)]
    assert failures == [1, 2, 4, 8, 15, 15, 15]
    sizes = [pause_s(Following(log_size=size)) for size in (0, 250_000, 2_500_000, 10**9)]
    assert sizes == [1, 1, 10, 60]


def test_a_log_of_a_gigabyte_does_not_overflow_the_pause() -> None:
    assert pause_s(Following(num_misses=5000)) == 15


# Over a real connection


STEPS = ["drafts 1\n", "drafts 2\ndra", "fts 3 \u00fc\u4e2d\n", "", "done\n"]


@pytest.fixture
def jobs() -> Iterator[ScriptedJobs]:
    with scripted_jobs(token=TOKEN, steps=[*STEPS]) as running:
        running.start("one")
        yield running


@pytest.fixture
def proxy(jobs: ScriptedJobs) -> Iterator[FaultProxy]:
    with fault_proxy(jobs.url) as running:
        yield running


def followed(proxy: FaultProxy) -> tuple[str, list[str]]:
    shown: list[str] = []
    said: list[str] = []
    with client(proxy.url) as api:
        assert follow(api, "one", shown.append, said.append, sleep=no_wait).status == "SUCCEEDED"
    return "".join(shown), said


def test_a_log_is_followed_to_its_end(proxy: FaultProxy) -> None:
    assert followed(proxy) == ("".join(STEPS), [])


@pytest.mark.parametrize("kind", ["cut_before", "cut_after", "truncate", "unavailable", "stall"])
@pytest.mark.parametrize("lost", [range(3, 4), range(4, 9), range(2, 20, 2)])
def test_nothing_is_lost_or_repeated_when_the_connection_is(
    proxy: FaultProxy, kind: str, lost: range
) -> None:
    proxy.plan = lambda op: Fault(kind, 0.05) if op.number in lost else None  # type: ignore[arg-type]
    shown, said = followed(proxy)
    assert shown == "".join(STEPS)
    assert [line.split(" (")[0] for line in said[:1]] == ["lost the connection"]
    losses = [line for line in said if line.startswith("lost")]
    assert len(said) == 2 * len(losses), "each loss is said once, and so is its end"


def test_a_head_that_is_gone_for_good_is_given_up(jobs: ScriptedJobs) -> None:
    with fault_proxy(jobs.url) as proxy, client(proxy.url) as api:
        proxy.plan = lambda _: Fault("cut_before")
        clock = iter(range(0, 10_000, 100))
        said: list[str] = []
        with pytest.raises(UserError, match="no answer for 15m00s"):
            follow(
                api, "one", print, said.append, sleep=no_wait, clock_s=lambda: float(next(clock))
            )
        assert len(said) == 1


def test_a_job_that_the_head_forgot_ends_the_following(jobs: ScriptedJobs) -> None:
    del jobs.jobs["one"]
    with client(jobs.url) as api, pytest.raises(UserError, match="knows no job one"):
        follow(api, "one", print, print, sleep=no_wait)


def test_an_ended_job_whose_log_is_lost_still_ends(jobs: ScriptedJobs, proxy: FaultProxy) -> None:
    jobs.steps, jobs.no_logs = [], True
    shown, said = followed(proxy)
    assert shown == "" and said[0].startswith("lost the connection (it answers 500: ClientConn")
    assert said[1:] == [
        "the rest of its log is lost, perhaps with its node",
        "connected again after 0s",
    ]


# Who is let in


def test_the_token_goes_only_to_a_head_that_asks_for_it(jobs: ScriptedJobs) -> None:
    with client(jobs.url) as api:
        api.jobs()
    assert [given for _, _, given in jobs.seen] == [None, f"Bearer {TOKEN}"]
    with scripted_jobs() as open_jobs, client(open_jobs.url) as api:
        api.jobs()
        assert [given for _, _, given in open_jobs.seen] == [None, None]


def test_a_head_that_asks_for_no_token_is_refused_unless_it_is_this_machine() -> None:
    with scripted_jobs() as jobs:
        # A name that is not loopback by its spelling, and leads here all the same.
        address = parse_address(jobs.url.replace("127.0.0.1", "127.1"))
        assert not address.loopback
        with pytest.raises(UserError, match=r"without a token.*RAY_AUTH_MODE=token"):
            connect(address, {"RAY_AUTH_TOKEN": TOKEN, "NO_PROXY": "*"})
        assert [(path, given) for _, path, given in jobs.seen] == [("/api/version", None)]


def test_a_missing_and_a_wrong_token_are_told_apart(jobs: ScriptedJobs, tmp_path: Path) -> None:
    address = parse_address(jobs.url)
    with pytest.raises(UserError, match=r"wants a token.*get-auth-token"):
        connect(address, {}, tmp_path)
    with connect(address, {"RAY_AUTH_TOKEN": "another"}) as api:
        with pytest.raises(UserError, match=r"refuses the token \(403\)"):
            api.jobs()
        with pytest.raises(UserError, match=r"refuses the token \(403\)"):
            follow(api, "one", print, print, sleep=no_wait)


def test_a_server_that_is_no_head_is_refused(jobs: ScriptedJobs) -> None:
    jobs.token = None
    jobs.ray_version = None
    with pytest.raises(UserError, match="is not the dashboard of a Ray head"):
        connect(parse_address(jobs.url))
    with pytest.raises(UserError, match=r"no answer from http://127\.0\.0\.1:9 "):
        connect(parse_address("http://127.0.0.1:9"))


def test_a_first_answer_that_is_lost_is_asked_for_again(jobs: ScriptedJobs) -> None:
    with fault_proxy(jobs.url) as proxy:
        proxy.plan = lambda op: Fault("cut_after") if op.number <= 2 else None
        with client(proxy.url) as api:
            assert [job.id for job in api.jobs()] == ["one"]
    assert [path for _, path, _ in jobs.seen] == 3 * ["/api/version"] + ["/api/jobs/"]


# Commands


def cgd(*words: object, url: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    with started(*words, url=url, **environment) as process:
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def started(*words: object, url: str = "", **environment: str) -> subprocess.Popen[str]:
    known = {name: v for name, v in os.environ.items() if not name.startswith("RAY_")}
    known |= {"RAY_AUTH_TOKEN": TOKEN, **environment}
    if url:
        known["RAY_API_SERVER_ADDRESS"] = url
    command = [sys.executable, "-m", "cgd_ray.cli", *map(str, words)]
    repository = str(Path(__file__).resolve().parents[2])
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**known, "PYTHONPATH": repository},
    )


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(RUN.format(root=tmp_path / "store"))
    return path


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("ends", "status", "words"),
    [
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, 0, "has succeeded after"),
        ({"status": "FAILED", "driver_exit_code": 2}, 2, "has failed with status 2 after"),
        ({"status": "FAILED", "message": "no node for it"}, 1, "no node for it"),
        ({"status": "FAILED", "driver_exit_code": 127}, 127, "the head has no `python`"),
        ({"status": "STOPPED"}, 130, "has stopped after"),
    ],
)
def test_a_submitted_verb_ends_as_its_job_does(
    jobs: ScriptedJobs, run_file: Path, ends: dict[str, object], status: int, words: str
) -> None:
    jobs.ends, jobs.steps, jobs.printed = ends, [], "drafts 1\ndone\n"
    done = cgd("generate", run_file, "run.seed=3", "--retry-failed", "--address", jobs.url)
    assert (done.returncode, done.stdout) == (status, "drafts 1\ndone\n"), done.stderr
    assert words in done.stderr
    (name,) = (name for name in jobs.jobs if name != "one")
    job = jobs.jobs[name]
    assert job["entrypoint"] == "python -m cgd_ray.cli generate run.toml run.seed=3 --retry-failed"
    assert job["runtime_env"]["working_dir"].removeprefix("gcs://") in jobs.packages
    assert TOKEN not in str(job) and ("cgd jobs resume" in done.stderr) == (status not in (0, 2))


def test_a_verb_is_submitted_once_though_answers_are_lost(
    jobs: ScriptedJobs, run_file: Path
) -> None:
    """Each request that changes something is lost on its way there, then on its way back."""
    tries: dict[tuple[str, str], int] = {}

    def plan(operation: Operation) -> Fault | None:
        key = (operation.method, operation.target)
        tries[key] = tries.get(key, 0) + 1
        if operation.method == "GET":
            return None
        return {1: Fault("cut_before"), 2: Fault("cut_after")}.get(tries[key])

    with fault_proxy(jobs.url) as proxy:
        proxy.plan = plan
        done = cgd("prompts", run_file, "--address", proxy.url, "--no-wait")
    assert done.returncode == 0, done.stderr
    assert len(jobs.jobs) == 2 and done.stdout == ""
    assert re.search(r"submitted small-prompts-\w{8} to .* \(\d+ files, \d+ kB\)", done.stderr)


def test_ctrl_c_leaves_the_job_alone_and_says_how_to_go_on(jobs: ScriptedJobs) -> None:
    jobs.steps = [""] * 10_000
    with started("jobs", "logs", "one", url=jobs.url) as process:
        until(lambda: any(path.endswith("/logs") for _, path, _ in jobs.seen))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"cgd jobs logs one --address {jobs.url}" in err
    assert f"cgd jobs stop one --address {jobs.url}" in err
    assert not any(path.endswith("/stop") for _, path, _ in jobs.seen)
    assert "Traceback" not in err


def test_stop_waits_and_shows_what_the_job_still_says(jobs: ScriptedJobs) -> None:
    jobs.steps, jobs.logs["one"] = [""] * 10_000, "an old line\n"
    done = cgd("jobs", "stop", "one", url=jobs.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "stopping after the calls under way\n"
    assert "has stopped" in done.stderr and "cgd jobs resume one" in done.stderr
    again = cgd("jobs", "stop", "one", url=jobs.url)
    assert again.returncode == 0 and "has stopped after 90 s already" in again.stderr


def test_resume_submits_the_same_job_with_its_files(jobs: ScriptedJobs, run_file: Path) -> None:
    jobs.ends = {"status": "STOPPED"}
    jobs.steps = []
    cgd("generate", run_file, "run.seed=3", "--address", jobs.url)
    (first,) = (name for name in jobs.jobs if name != "one")
    package = jobs.jobs[first]["runtime_env"]["working_dir"].removeprefix("gcs://")
    data = jobs.packages.pop(package)  # as the cluster does with those of ended jobs
    jobs.ends = {"status": "SUCCEEDED"}
    run_file.unlink()
    done = cgd("jobs", "resume", first, url=jobs.url)
    assert done.returncode == 0, done.stderr
    (second,) = (name for name in jobs.jobs if name not in ("one", first))
    for key in ("entrypoint", "runtime_env"):
        assert jobs.jobs[second][key] == jobs.jobs[first][key]
    assert jobs.packages == {package: data}


def test_what_runs_or_was_not_ours_is_not_resumed(jobs: ScriptedJobs) -> None:
    jobs.steps = ["x\n"] * 100
    done = cgd("jobs", "resume", "one", url=jobs.url)
    assert done.returncode == 2 and "one is running: `cgd jobs logs one` follows it" in done.stderr
    jobs.steps = []
    jobs.jobs["one"]["runtime_env"] = {"working_dir": "gcs://_ray_pkg_gone.zip"}
    done = cgd("jobs", "resume", "one", url=jobs.url)
    assert done.returncode == 2 and "which cgd did not submit" in done.stderr


def test_list_is_of_submitted_jobs(jobs: ScriptedJobs) -> None:
    done = cgd("jobs", "list", url=jobs.url)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["id", "one"]


def test_a_key_in_the_run_file_is_not_sent(jobs: ScriptedJobs, run_file: Path) -> None:
    run_file.write_text(run_file.read_text() + "# sk-canary-5f2e81c09d7a\n")
    done = cgd("generate", run_file, "--address", jobs.url)
    assert done.returncode == 2 and "looks like an API key" in done.stderr
    assert jobs.seen == [] and "canary" not in done.stderr


@pytest.mark.parametrize("verb", [name for name, verb in VERBS.items() if verb.job])
def test_every_job_takes_an_address(
    verb: str, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(run_file), "--address", "http://127.0.0.1:9"]) == 2
    said = capsys.readouterr().err
    refused = verb == "serve"
    assert ("no answer from http://127.0.0.1:9 " in said) != refused, said
    assert said.count("\n") == 1


def test_serve_is_refused_and_says_what_serves(jobs: ScriptedJobs, run_file: Path) -> None:
    done = cgd("serve", run_file, "--address", jobs.url)
    assert done.returncode == 2 and "serve deploy serve/guarded.yaml" in done.stderr
    assert jobs.seen == []


def test_a_client_loads_no_cluster_library(jobs: ScriptedJobs, run_file: Path) -> None:
    code = (
        "import sys; from cgd_ray.cli import main; main(sys.argv[1:]); "
        "heavy = {'ray', 'torch', 'vllm', 'transformers', 'boto3', 'pyarrow'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    command = [sys.executable, "-c", code, "prompts", str(run_file), "--address", jobs.url]
    done = subprocess.run(
        [*command, "--no-wait"],
        env={**os.environ, "RAY_AUTH_TOKEN": TOKEN},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# On a terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_stage_s_line_is_redrawn_in_place() -> None:
    screen = Terminal()
    view = LogView(screen)
    view.show("hello\n\ndrafts       1/9 rows  1s\ndrafts       5/9 rows  2s\n")
    view.show("drafts       9/9 rows  3s\nteacher      1/9 rows  4s\n")
    view.close()
    assert screen.getvalue() == (
        "hello\n \ndrafts       1/9 rows  1s\r\x1b[2Kdrafts       5/9 rows  2s"
        "\r\x1b[2Kdrafts       9/9 rows  3s\nteacher      1/9 rows  4s\n"
    ).replace("\n \n", "\n\n")


def test_a_file_gets_every_line() -> None:
    file = io.StringIO()
    view = LogView(file)
    view.show("drafts       1/9 rows  1s\ndrafts       5/9 rows  2s\n")
    view.close()
    assert file.getvalue() == "drafts       1/9 rows  1s\ndrafts       5/9 rows  2s\n"

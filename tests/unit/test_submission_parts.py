"""What is sent to a cluster, and what is refused before anything is sent: pure functions."""

import io
import os
import re
import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.settings import Settings, load
from cgd_ray.submission import package
from cgd_ray.submission.address import find_address, parse_address
from cgd_ray.submission.jobs import Job, job_of, resubmission, submission, table
from cgd_ray.submission.package import is_packed, pack, package_of, run_file_name
from cgd_ray.submission.refuse import (
    refuse_artefacts,
    refuse_client_files,
    refuse_secrets,
    work_dir_on_head,
)
from cgd_ray.submission.token import Token, find_token, keep_token_private

DEMO = Path(__file__).resolve().parents[2] / "jobs" / "runs" / "demo.toml"
ON_S3 = ("local.s3_server=false", "local.tutor=false", "run.root=s3://bucket/runs")


def demo(*overrides: str) -> Settings:
    return load(DEMO, [*ON_S3, *overrides])


def refusal(what: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        what()
    assert "\n" not in str(error.value)
    return str(error.value)


# Addresses


@pytest.mark.parametrize(
    ("text", "url", "loopback", "encrypted"),
    [
        ("https://head:8265", "https://head:8265", False, True),
        ("head:8265", "http://head:8265", False, False),
        ("http://127.0.0.1:8265/", "http://127.0.0.1:8265", True, False),
        ("http://127.8.9.1:8265", "http://127.8.9.1:8265", True, False),
        ("https://localhost:8265", "https://localhost:8265", True, True),
        ("http://[::1]:8265", "http://[::1]:8265", True, False),
        ("http://10.0.0.4:8265", "http://10.0.0.4:8265", False, False),
        ("https://gate.example/ray/one/", "https://gate.example/ray/one", False, True),
        # A name may be pointed anywhere.
        ("http://localhost.example:8265", "http://localhost.example:8265", False, False),
        ("http://127.0.0.1.example:8265", "http://127.0.0.1.example:8265", False, False),
    ],
)
def test_an_address_is_read(text: str, url: str, loopback: bool, encrypted: bool) -> None:
    address = parse_address(text)
    assert (address.url, address.loopback, address.encrypted) == (url, loopback, encrypted)


@pytest.mark.parametrize(
    "text",
    [
        "ray://head:10001",
        "auto",
        "local",
        "",
        "http://",
        "http://head:port",
        "https://head/?token=1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    assert "--address" in refusal(lambda: parse_address(text))


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    said = refusal(lambda: parse_address("https://me:hunter22@head:8265"))
    assert "hunter22" not in said and "RAY_AUTH_TOKEN_PATH" in said


def test_the_address_comes_from_where_ray_s_own_client_takes_it() -> None:
    both = {"RAY_API_SERVER_ADDRESS": "https://a:1", "RAY_ADDRESS": "https://b:2"}
    assert find_address("https://c:3", both).url == "https://c:3"
    assert find_address(None, both).url == "https://a:1"
    assert find_address(None, {"RAY_ADDRESS": "https://b:2"}).url == "https://b:2"
    assert "--address" in refusal(lambda: find_address(None, {}))


# Tokens


def write_token(path: Path, text: str = "secret-of-the-cluster\n", mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_token_is_found_as_ray_finds_it(tmp_path: Path) -> None:
    assert find_token({}, tmp_path) is None
    default = write_token(tmp_path / ".ray" / "auth_token")
    named = write_token(tmp_path / "named", "another")
    assert find_token({}, tmp_path) == Token("secret-of-the-cluster", str(default))
    environment = {"RAY_AUTH_TOKEN_PATH": str(named)}
    assert find_token(environment, tmp_path) == Token("another", str(named))
    environment["RAY_AUTH_TOKEN"] = "third"
    assert find_token(environment, tmp_path) == Token("third", "RAY_AUTH_TOKEN")
    assert "third" not in repr(find_token(environment, tmp_path))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_a_token_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = write_token(tmp_path / ".ray" / "auth_token", mode=mode)
    said = refusal(lambda: find_token({}, tmp_path))
    assert f"chmod 600 {path}" in said and f"{mode:o}" in said and "secret" not in said


def test_a_token_that_is_not_there_is_said(tmp_path: Path) -> None:
    environment = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
    assert "does not exist" in refusal(lambda: find_token(environment, tmp_path))
    empty = write_token(tmp_path / "empty", " \n")
    environment = {"RAY_AUTH_TOKEN_PATH": str(empty)}
    assert "is empty" in refusal(lambda: find_token(environment, tmp_path))


def test_a_ray_that_we_start_gets_a_private_token(tmp_path: Path) -> None:
    path = tmp_path / ".ray" / "auth_token"
    before = os.umask(0)
    try:
        keep_token_private({}, tmp_path)
    finally:
        os.umask(before)
    token = path.read_text()
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert [p.name for p in path.parent.iterdir()] == ["auth_token"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    keep_token_private({"RAY_AUTH_MODE": "token"}, tmp_path)
    assert path.read_text() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "environment",
    [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "x"}, {"RAY_AUTH_TOKEN_PATH": "y"}],
)
def test_another_token_is_left_alone(tmp_path: Path, environment: dict[str, str]) -> None:
    keep_token_private(environment, tmp_path)
    assert list(tmp_path.iterdir()) == []


# Packages


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("cgd_ray/cli.py", True),
        ("cgd_ray/report/page.html", True),
        ("cgd_ray/__pycache__/cli.cpython-311.pyc", False),
        ("cgd_ray/__pycache__/cli.py", False),
        ("cgd_ray/.env", False),
        ("cgd_ray/.venv/lib/x.py", False),
        ("cgd_ray/key.pem", False),
        ("cgd_ray/data.parquet", False),
        ("cgd_ray/.git/config", False),
    ],
)
def test_only_source_is_packed(name: str, packed: bool) -> None:
    assert is_packed(name) == packed


def test_the_package_holds_the_run_file_and_our_source() -> None:
    text = DEMO.read_text()
    packed = pack("jobs/runs/demo.toml", text)
    with zipfile.ZipFile(io.BytesIO(packed.data)) as archive:
        names = archive.namelist()
        assert archive.read("jobs/runs/demo.toml").decode() == text
        assert archive.read("cgd_ray/cli.py") == (DEMO.parents[2] / "cgd_ray/cli.py").read_bytes()
    assert len(names) == packed.num_files
    others = {name for name in names if not name.startswith("cgd_ray/")}
    assert others == {"jobs/runs/demo.toml"}
    assert len(packed.data) < 2_000_000
    assert re.fullmatch(r"gcs://_ray_pkg_[0-9a-f]{32}\.zip", packed.uri)


def test_the_name_of_a_package_is_its_content(tmp_path: Path) -> None:
    source = tmp_path / "ours"
    source.mkdir()
    (source / "a.py").write_text("x = 1\n")
    first = pack("run.toml", "a = 1", source)
    os.utime(source / "a.py", (0, 0))
    (source / "junk.bin").write_bytes(b"junk")
    (source / "link.py").symlink_to("/etc/passwd")
    assert pack("run.toml", "a = 1", source) == first
    assert pack("run.toml", "a = 2", source).uri != first.uri
    assert pack("ran.toml", "a = 1", source).uri != first.uri
    (source / "a.py").write_text("x = 2\n")
    assert pack("run.toml", "a = 1", source).uri != first.uri


def test_a_large_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [("a.py", b"x"), ("run.toml", b"y" * ((1 << 20) + 1))]
    assert package_of(files).num_files == 2
    monkeypatch.setattr(package, "_MAX_BYTES", 1 << 20)
    said = refusal(lambda: package_of(files))
    assert "1 MiB" in said and "run.toml" in said


def test_a_run_file_keeps_the_name_that_was_typed(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    assert run_file_name(Path("jobs/runs/demo.toml"), here) == "jobs/runs/demo.toml"
    assert run_file_name(here / "x" / ".." / "run.toml", here) == "run.toml"
    assert run_file_name(Path("../run.toml"), here) == "run.toml"
    assert run_file_name(Path("/elsewhere/run.toml"), here) == "run.toml"


# Secrets


@pytest.mark.parametrize(
    "line",
    [
        'api_key_env = "sk-proj-0123456789abcdef"',
        'model = "AKIAABCDEFGHIJKLMNOP"',
        "# my token: hf_abcdefghijklmnopqrstuvwxyz",
        "# ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        'base_url = "https://me:hunter22@teacher.example/v1"',
        'train = "https://x.example/p?X-Amz-Signature=0123456789abcdef"',
        "-----BEGIN RSA PRIVATE KEY-----",
        'x = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"',
        "Authorization: Bearer 0123456789abcdef0123",
        "# aws_secret_access_key = wJalrXUtnFEMI",
        'password = "hunter22"',
    ],
)
def test_what_looks_like_a_secret_is_refused_and_not_repeated(line: str) -> None:
    said = refusal(lambda: refuse_secrets({"run.toml": f"[run]\n{line}\n"}, {}))
    assert said.startswith("run.toml, line 2: this looks like ")
    assert re.findall(r"[\w.-]{8,}", line)[-1] not in said


def test_the_value_of_a_key_of_ours_is_refused() -> None:
    environment = {"MY_API_KEY": "plain-words-but-mine", "SHELL_TOKEN": "none", "HOME": "/root"}
    texts = {"run.toml": "[run]\nname = 'x'", "override teacher.model": "plain-words-but-mine"}
    said = refusal(lambda: refuse_secrets(texts, environment))
    assert said.startswith("override teacher.model: this looks like the value of $MY_API_KEY")
    assert "plain-words" not in said
    refuse_secrets({"run.toml": "root = '/root/none'"}, environment)


@pytest.mark.parametrize("path", sorted(DEMO.parent.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_runs_hold_no_secret(path: Path) -> None:
    refuse_secrets({path.name: path.read_text()}, {})


@pytest.mark.parametrize(
    "line",
    [
        'train = "s3://bucket/risk-taking-problems-of-2024.jsonl"',
        'model = "meta-llama/Llama-3.1-8B-Instruct"',
        'api_key_env = "OPENAI_API_KEY"',
        'api_key_file = "/etc/cgd/secrets/teacher-key"',
        'base_url = "http://10.0.0.1:8000/v1"',
        'train = "hf:owner/name?config=main&revision=0123456789abcdef0123456789abcdef01234567"',
        "critique_max_tokens = 1024",
        '"special_token" = "x"',
    ],
)
def test_ordinary_lines_are_no_secrets(line: str) -> None:
    refuse_secrets({"run.toml": line}, {})


# Files and folders


@pytest.mark.parametrize(
    "override",
    [
        "prompts.train=data/train.jsonl",
        "prompts.test=./test.jsonl",
        'prompts.decontaminate=["eval/test.jsonl"]',
        'evaluate.tasks=["gsm8k@data/gsm8k.jsonl"]',
        "evaluate.data_dir=data",
        "student.model=./models/mine",
        "teacher.api_key_file=key",
    ],
)
def test_files_of_this_machine_are_refused(override: str) -> None:
    setting = override.partition("=")[0]
    settings = demo("prompts.test=s3://bucket/test.jsonl", override)
    said = refusal(lambda: refuse_client_files(settings, loopback=True))
    assert said.startswith(f"{setting}=") and "s3://" in said and "every node" in said


def test_absolute_files_are_said_where_the_head_is_another_machine() -> None:
    settings = demo("prompts.test=/data/test.jsonl", "teacher.api_key_file=/etc/key")
    assert refuse_client_files(settings, loopback=True) == []
    lines = refuse_client_files(settings, loopback=False)
    assert [line.split(" ")[0] for line in lines] == [
        "prompts.test=/data/test.jsonl",
        "teacher.api_key_file=/etc/key",
    ]
    remote = demo("prompts.test=s3://bucket/test.jsonl", "student.model=owner/name")
    assert refuse_client_files(remote, loopback=False) == []


def test_artefacts_that_nodes_cannot_share_are_refused() -> None:
    def said(*overrides: str, num_nodes: int = 1) -> str:
        settings = demo(*overrides)
        return refusal(lambda: refuse_artefacts(settings, num_nodes=num_nodes, loopback=True))

    assert said("local.s3_server=true").startswith("local.s3_server=true")
    assert said("run.root=work/store").startswith("run.root=work/store is relative")
    assert "3 nodes" in said("local.tutor=true", num_nodes=3)
    assert refuse_artefacts(demo("local.tutor=true"), num_nodes=1, loopback=True) == []


@pytest.mark.parametrize(
    ("root", "num_nodes", "loopback", "warned"),
    [
        ("/store", 1, True, False),
        ("/store", 2, True, True),
        ("/store", 1, False, True),
        ("s3://b/x", 9, False, False),
    ],
)
def test_a_local_root_is_said_to_need_sharing(
    root: str, num_nodes: int, loopback: bool, warned: bool
) -> None:
    settings = demo(f"run.root={root}")
    assert bool(refuse_artefacts(settings, num_nodes=num_nodes, loopback=loopback)) == warned


def test_the_work_folder_outlives_the_job_s_own() -> None:
    assert work_dir_on_head(".cgd/demo") == 'run.work_dir="$HOME/.cgd/demo"'
    assert work_dir_on_head("/scratch/cgd") is None
    for odd in ("../work", "~/work", "$(reboot)", 'a"b', "a`b`"):
        assert refusal(lambda odd=odd: work_dir_on_head(odd)).startswith(f"run.work_dir={odd}")


# Jobs


def a_job(**changes: object) -> Job:
    told = {
        "submission_id": "demo-run-1",
        "status": "RUNNING",
        "entrypoint": "python -m cgd_ray.cli run demo.toml",
        "start_time": 1_700_000_000_000,
        "metadata": {"cgd_verb": "run", "cgd_run": "demo"},
        "runtime_env": {"working_dir": "gcs://a.zip", "env_vars": {"A": "b"}},
    }
    return job_of(told | changes)


def test_a_submission_says_all_that_it_needs_and_quotes_it() -> None:
    made = submission(
        "run",
        "demo",
        "my runs/demo.toml",
        "text",
        ["teacher.model=a b; reboot", "--retry-failed"],
        "gcs://x.zip",
        work_dir_on_head(".cgd"),
    )
    assert made.entrypoint == (
        "python -m cgd_ray.cli run 'my runs/demo.toml' 'teacher.model=a b; reboot' "
        '--retry-failed run.work_dir="$HOME/.cgd"'
    )
    assert re.fullmatch("demo-run-[0-9a-f]{8}", made.id)
    assert made.body()["runtime_env"]["working_dir"] == "gcs://x.zip"
    assert set(made.body()["runtime_env"]["env_vars"]) == {"RAY_JOB_STOP_WAIT_TIME_S"}
    assert made.metadata["cgd_run_file_text"] == "text"


def test_a_resumed_job_is_the_same_job() -> None:
    job = a_job(status="STOPPED")
    again = resubmission(job, None)
    assert (again.entrypoint, again.runtime_env) == (job.entrypoint, job.runtime_env)
    assert again.id != job.id and again.metadata["cgd_resumes"] == job.id
    moved = resubmission(job, "gcs://b.zip")
    assert moved.runtime_env["working_dir"] == "gcs://b.zip"


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, 0),
        ({"status": "FAILED", "driver_exit_code": 2}, 2),
        ({"status": "FAILED", "driver_exit_code": 130}, 130),
        ({"status": "FAILED", "driver_exit_code": -9}, 1),
        ({"status": "FAILED", "driver_exit_code": None}, 1),
        ({"status": "STOPPED"}, 130),
    ],
)
def test_the_exit_status_is_the_job_s(told: dict[str, object], status: int) -> None:
    assert a_job(**told).exit_status == status


def test_jobs_that_were_submitted_by_hand_have_a_verb_too() -> None:
    job = a_job(metadata=None, entrypoint="python jobs/train.py jobs/runs/demo.toml a.b=1")
    assert (job.verb, job.run) == ("train", "jobs/runs/demo.toml")
    assert a_job(metadata=None, entrypoint="echo hi").verb == ""


def test_the_list_is_a_table_in_the_order_of_time() -> None:
    first = a_job(status="FAILED", driver_exit_code=2, end_time=1_700_000_042_000)
    second = replace(a_job(metadata=None, entrypoint="echo"), id="x", started_ms=1_700_000_100_000)
    lines = table([second, first], 1_700_003_700_000).splitlines()
    assert lines == [
        "id          verb  run   status      started (UTC)        took",
        "demo-run-1  run   demo  failed (2)  2023-11-14 22:13:20  42s",
        "x           -     -     running     2023-11-14 22:15:00  1h00m",
    ]

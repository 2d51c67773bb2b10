"""The exported folder: loaded by the real `datasets` library, with a card that says how it came."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cgd_ray.errors import UserError
from cgd_ray.export.card import CardFacts, dataset_card, template_hashes
from cgd_ray.export.chains import SCHEMA, ChainFolders, Chains
from cgd_ray.export.dataset import export_dataset
from cgd_ray.export.lookup import Lookup
from cgd_ray.records import CuratedRow, Refinement
from cgd_ray.shards import commit_shard
from cgd_ray.store import LocalStore
from tests.support.records import critique, draft, prompt, refinement

FOLDERS = ChainFolders("prompts/train", "drafts", "refinements", "curated")
FACTS = CardFacts(
    name="demo: a run",
    student="small/model",
    teacher="big|model",
    sources=("a.jsonl",),
    finished=True,
    counts={"drafts": 7},
    reasons={"drafts": {"empty": 2}, "curation (rejected)": {"refinement_wrong": 1}},
    tokens={"drafts": 49},
    usd=0.1234,
    settings={"run": {"seed": 1}},
)


def store_with_chains(root: Path, number: int = 7) -> LocalStore:
    """Commit chains in shards that each stage cuts in its own way; three are verified."""
    store = LocalStore(str(root))
    ids = [f"p{i}" for i in range(number)]
    prompts = [prompt(f"What is {i} + 1?", id=i, reference=i[1:]) for i in ids]
    drafts = [draft(f"draft {i}", id=f"{i}/0", prompt_id=i) for i in ids]
    critiques = [critique(f"critique {i}", draft_id=f"{i}/0") for i in ids]
    refinements = [refinement(f"refined {i}", draft_id=f"{i}/0") for i in ids]
    verdicts = [CuratedRow(f"{i}/0", i, False, i != "p1", None) for i in ids[:3]]
    verdicts[1] = CuratedRow("p1/0", "p1", False, False, "refinement_wrong")
    for start in range(0, number, 3):
        commit_shard(store, FOLDERS.prompts, prompts[start : start + 3])
    for start in range(0, number, 2):
        commit_shard(store, FOLDERS.drafts, drafts[start : start + 2])
        part = slice(start, start + 2)
        commit_shard(store, FOLDERS.refinements, [*critiques[part], *refinements[part]])
    commit_shard(store, FOLDERS.curated, verdicts)
    return store


def test_the_folder_loads_with_the_library_that_people_use(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    chains = Chains(store_with_chains(tmp_path / "store"), FOLDERS)
    export_dataset(chains, dataset_card(FACTS), tmp_path / "out", rows_per_file=3)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    rows = {row["draft_id"]: row for row in loaded["train"]}
    assert sorted(rows) == [f"p{i}/0" for i in range(7)]
    assert len(loaded["train"]) == 7
    assert rows["p1/0"] == {
        "draft_id": "p1/0",
        "prompt_id": "p1",
        "source": "test",
        "prompt": "What is p1 + 1?",
        "reference": "1",
        "draft": "draft p1",
        "critique": "critique p1",
        "refinement": "refined p1",
        "draft_correct": False,
        "refinement_correct": False,
        "rejected": "refinement_wrong",
        "teacher": "teacher",
        "critique_template": "t/v1",
        "refinement_template": "t/v1",
        "draft_finish_reason": "stop",
        "draft_tokens": 7,
        "critique_input_tokens": 10,
        "critique_cached_tokens": 0,
        "critique_output_tokens": 5,
        "refinement_input_tokens": 10,
        "refinement_cached_tokens": 0,
        "refinement_output_tokens": 5,
    }
    assert (rows["p2/0"]["rejected"], rows["p2/0"]["refinement_correct"]) == (None, True)
    assert rows["p6/0"]["draft_correct"] is None  # not verified


def test_the_folder_holds_the_rows_and_the_card_alone(tmp_path: Path) -> None:
    chains = Chains(store_with_chains(tmp_path / "store"), FOLDERS)
    told: list[int] = []
    export_dataset(chains, "card", tmp_path / "out", rows_per_file=3, tell=told.append)
    files = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    names = [f"data/train-0000{i}-of-00003.parquet" for i in range(3)]
    assert files == ["README.md", *names]
    tables = [pq.read_table(tmp_path / "out" / name) for name in names]
    assert [table.num_rows for table in tables] == [3, 3, 1]
    assert all(table.schema.equals(SCHEMA) for table in tables)
    assert told[-1] == 7
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_chain_that_was_committed_twice_is_one_row(tmp_path: Path) -> None:
    store = store_with_chains(tmp_path / "store")
    again = [critique(draft_id="p3/0"), refinement("again", draft_id="p3/0")]
    commit_shard(store, FOLDERS.refinements, again)
    chains = Chains(store, FOLDERS)
    ids = [i for table in chains.tables() for i in table["draft_id"].to_pylist()]
    assert len(ids) == len(set(ids)) == len(chains) == 7
    assert chains.counts() == {
        "training prompts": 7,
        "drafts": 7,
        "critiques": 7,
        "refinements": 7,
    }


def test_a_place_that_holds_something_is_refused(tmp_path: Path) -> None:
    chains = Chains(store_with_chains(tmp_path / "store"), FOLDERS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("full", "file"):
        with pytest.raises(UserError, match=f"--out={tmp_path}/{name} holds something already"):
            export_dataset(chains, "card", tmp_path / name)
    export_dataset(chains, "card", tmp_path / "empty")
    assert (tmp_path / "empty" / "README.md").read_text() == "card"


def test_nothing_to_export_leaves_nothing_behind(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"))
    with pytest.raises(UserError, match="no refinement to export yet: run `cgd generate` first"):
        export_dataset(Chains(store, FOLDERS), "card", tmp_path / "out")
    commit_shard(store, FOLDERS.refinements, [refinement(draft_id="lost/0")])
    with pytest.raises(UserError, match="the draft of the chain lost/0 is missing"):
        export_dataset(Chains(store, FOLDERS), "card", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_lookup_finds_what_is_committed(tmp_path: Path) -> None:
    lookup = Lookup(store_with_chains(tmp_path), FOLDERS.refinements, Refinement)
    found = lookup.find(["p4/0", "none", "p0/0"])
    assert [record and record.text for record in found] == ["refined p4", None, "refined p0"]


def test_the_card_states_how_the_rows_were_made() -> None:
    card = dataset_card(FACTS)
    header, body = card.split("---\n")[1:3]
    assert "# license: FILL IN" in header
    assert 'pretty_name: "demo: a run"' in header
    for line in (
        "| teacher | big\\|model |",
        "| teacher's cost | 0.12 US dollars |",
        "| drafts | empty | 2 |",
        "| curation (rejected) | refinement_wrong | 1 |",
        "| drafts | 49 |",
    ):
        assert line in body.splitlines()
    assert "not finished" not in body
    for version, digits in template_hashes().items():
        assert f"| {version} | {digits} |" in body
        assert re.fullmatch("[0-9a-f]{12}", digits)
    assert len(set(template_hashes().values())) == 3


def test_the_card_says_what_is_not_known() -> None:
    facts = {f: getattr(FACTS, f) for f in FACTS.__slots__}
    card = dataset_card(CardFacts(**{**facts, "finished": False, "usd": None}))
    assert "| teacher's cost | not known |" in card
    assert "Generation was not finished when this was exported." in card

"""API keys of the served address: reading, rotation, comparison, and who may go without."""

import os
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.serving.api_keys import KeySource, key_ring, read_keys
from cgd_ray.serving.exposure import exposure_lines, is_loopback, own_key, require_guard
from cgd_ray.settings import ServeSettings

ONE, TWO = "first-key-of-this-test", "second-key-of-this-test"
VARIABLE = "CGD_TEST_API_KEYS"


def key_file(folder: Path, *lines: str, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.unlink(missing_ok=True)
    path.touch(mode)
    path.write_text("\n".join(lines))
    return path


def test_several_keys_are_accepted_and_nothing_else() -> None:
    ring = key_ring([ONE, TWO])
    assert ring.accepts(f"Bearer {ONE}")
    assert ring.accepts(f"bearer  {TWO} ")
    for wrong in (None, "", ONE, f"Basic {ONE}", f"Bearer {ONE}x", "Bearer ", "Bearer é\udcff"):
        assert not ring.accepts(wrong)
    assert not key_ring([]).accepts("Bearer ")


def test_no_key_is_kept_in_the_clear() -> None:
    assert ONE not in repr(key_ring([ONE]))


def test_every_key_is_compared_whatever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(given: bytes, digest: bytes) -> bool:
        compared.append(digest)
        return given == digest

    monkeypatch.setattr("cgd_ray.serving.api_keys.hmac.compare_digest", compare)
    ring = key_ring([ONE, TWO])
    assert ring.accepts(f"Bearer {ONE}")
    assert compared == list(ring.digests)


def test_keys_come_from_a_file_or_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = key_file(tmp_path, "# ours", f"  {ONE}", "", TWO)
    assert read_keys(str(path), VARIABLE) == [ONE, TWO]
    assert read_keys(None, VARIABLE) == []
    monkeypatch.setenv(VARIABLE, f"{ONE}, {TWO},")
    assert read_keys(None, VARIABLE) == [ONE, TWO]


@pytest.mark.parametrize(
    ("lines", "mode", "words"),
    [
        ([ONE], 0o644, "has mode 644, readable by others: `chmod 600"),
        ([ONE], 0o640, "has mode 640"),
        (["# none"], 0o600, "holds no key"),
        (["short"], 0o600, "key 1 has 5 characters, fewer than 16"),
        ([ONE, "two words are no key"], 0o600, "key 2 is not one word"),
    ],
)
def test_unusable_keys_are_one_line(
    tmp_path: Path, lines: list[str], mode: int, words: str
) -> None:
    path = key_file(tmp_path, *lines, mode=mode)
    with pytest.raises(UserError) as raised:
        read_keys(str(path), VARIABLE)
    assert words in str(raised.value)
    assert "serve.api_keys_file" in str(raised.value)
    assert ONE not in str(raised.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_anothers_file_may_be_readable_by_our_group_as_kubernetes_shows_secrets(
    tmp_path: Path,
) -> None:
    path = key_file(tmp_path, ONE, mode=0o440)
    os.chown(path, os.geteuid() + 1, -1)
    assert read_keys(str(path), VARIABLE) == [ONE]
    path.chmod(0o444)
    with pytest.raises(UserError, match="mode 444"):
        read_keys(str(path), VARIABLE)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_keys(str(tmp_path / "none"), VARIABLE)


def test_keys_rotate_without_a_restart(tmp_path: Path) -> None:
    now = [0.0]
    path = key_file(tmp_path, ONE)
    source = KeySource(str(path), VARIABLE, clock=lambda: now[0])
    assert source.current().accepts(f"Bearer {ONE}")
    key_file(tmp_path, ONE, TWO)
    now[0] = 1.0
    assert source.current().accepts(f"Bearer {ONE}")
    assert source.current().accepts(f"Bearer {TWO}")
    key_file(tmp_path, TWO)
    now[0] = 2.0
    assert not source.current().accepts(f"Bearer {ONE}")
    assert source.current().accepts(f"Bearer {TWO}")


def test_a_file_that_breaks_leaves_the_last_good_keys(tmp_path: Path) -> None:
    now = [0.0]
    path = key_file(tmp_path, ONE)
    source = KeySource(str(path), VARIABLE, clock=lambda: now[0])
    source.current()
    for seconds, broken in enumerate(([""], ["short"]), 1):
        key_file(tmp_path, *broken)
        now[0] = float(seconds)
        assert source.current().accepts(f"Bearer {ONE}")
    path.unlink()
    now[0] = 3.0
    assert source.current().accepts(f"Bearer {ONE}")
    key_file(tmp_path, TWO)
    now[0] = 4.0
    assert source.current().accepts(f"Bearer {TWO}")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)]
    + [(h, False) for h in ("0.0.0.0", "::", "10.0.0.1", "", "localhost.evil.example", "a")],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_an_open_address_without_keys_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert require_guard(ServeSettings(api_keys_env=VARIABLE)) == []
    with pytest.raises(UserError, match=r"serve\.host=0\.0\.0\.0 .*set serve\.api_keys_file"):
        require_guard(ServeSettings(host="0.0.0.0", api_keys_env=VARIABLE))
    path = key_file(tmp_path, ONE)
    settings = ServeSettings(host="0.0.0.0", api_keys_file=str(path))
    assert require_guard(settings) == [ONE]
    assert own_key(settings) == ONE
    assert "no TLS" in " ".join(exposure_lines(settings, 1))
    monkeypatch.setenv(VARIABLE, TWO)
    assert own_key(ServeSettings(api_keys_env=VARIABLE)) == TWO

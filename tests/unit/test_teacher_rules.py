"""The teacher's pure parts: addresses, waits, and which answers are accepted."""

import random

import pytest

from cgd_ray.errors import UserError
from cgd_ray.records import Critique, Failure, Refinement
from cgd_ray.teacher.address import check_base_url, refused_address
from cgd_ray.teacher.completion import Completion, TeacherError, rejected_completion
from cgd_ray.teacher.credentials import read_api_key
from cgd_ray.teacher.critique import TEMPLATE as CRITIQUE_TEMPLATE
from cgd_ray.teacher.critique import parse_critique
from cgd_ray.teacher.refinement import TEMPLATE as REFINEMENT_TEMPLATE
from cgd_ray.teacher.refinement import parse_refinement
from cgd_ray.teacher.retry import backoff_s, parse_retry_after
from tests.support.records import completion, critique, draft


class Highest(random.Random):
    """Draws the end of every range, so that a schedule can be read off."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_waits_double_up_to_a_minute() -> None:
    waits = [backoff_s(attempt, None, Highest()) for attempt in range(1, 11)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert backoff_s(1000, None, Highest()) == 60


def test_waits_are_drawn_from_the_whole_range() -> None:
    draw = random.Random(1)
    waits = [backoff_s(5, None, draw) for _ in range(2000)]
    assert 0 <= min(waits) < 0.1
    assert 7.9 < max(waits) <= 8
    assert sum(waits) / len(waits) == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("wish_s", [0.0, 2.0, 600.0])
def test_the_servers_wish_is_a_floor(wish_s: float) -> None:
    assert backoff_s(1, wish_s, Highest()) == wish_s + 0.5
    assert all(backoff_s(3, wish_s, random.Random(i)) >= wish_s for i in range(100))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("2", 2.0),
        ("600", 600.0),
        ("0.5", 0.5),
        (" 3 ", 3.0),
        ("-1", 0.0),
        ("soon", None),
        ("inf", None),
        ("1e400", None),
        ("nan", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 41 Jan 1970 00:00:00 GMT", None),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, now_s=10.0) == seconds


NEVER = "never a teacher"
PRIVATE = "teacher.allow_private_address"


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("8.8.8.8", None),
        ("2606:4700::1111", None),
        ("::ffff:8.8.8.8", None),
        ("64:ff9b::808:808", None),
        ("127.0.0.1", PRIVATE),
        ("127.8.9.1", PRIVATE),
        ("::1", PRIVATE),
        ("10.0.0.1", PRIVATE),
        ("172.31.0.1", PRIVATE),
        ("192.168.1.1", PRIVATE),
        ("fd00::1", PRIVATE),
        ("100.64.0.1", PRIVATE),
        ("240.0.0.1", PRIVATE),
        ("::ffff:127.0.0.1", PRIVATE),
        ("::ffff:10.0.0.1", PRIVATE),
        ("64:ff9b::a00:1", PRIVATE),
        ("2002:7f00:1::", PRIVATE),
        ("::127.0.0.1", PRIVATE),
        ("169.254.169.254", NEVER),
        ("169.254.0.1", NEVER),
        ("fe80::1", NEVER),
        ("fe80::1%eth0", NEVER),
        ("::ffff:169.254.169.254", NEVER),
        ("64:ff9b::a9fe:a9fe", NEVER),
        ("2002:a9fe:a9fe::", NEVER),
        ("100.100.100.200", NEVER),
        ("192.0.0.192", NEVER),
        ("fd00:ec2::254", NEVER),
        ("0.0.0.0", NEVER),
        ("::", NEVER),
        ("224.0.0.1", NEVER),
        ("ff02::1", NEVER),
    ],
)
def test_addresses(address: str, refused: str | None) -> None:
    strictly = refused_address(address, allow_private=False)
    kindly = refused_address(address, allow_private=True)
    if refused is None:
        assert strictly is None
        assert kindly is None
    else:
        assert strictly is not None
        assert refused in strictly
        assert strictly.startswith(address)
        assert kindly == (strictly if refused == NEVER else None)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/v1",
        "https://10.1.2.3/v1",
        "http://[::1]/v1",
        "http://2130706433/v1",
        "http://0x7f.1/v1",
    ],
)
def test_a_private_url_needs_leave(url: str) -> None:
    with pytest.raises(UserError, match=r"private address: set teacher\.allow_private_address"):
        check_base_url(url, allow_private=False)
    check_base_url(url, allow_private=True)


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(UserError, match=r"teacher\.api_key_file") as raised:
        check_base_url("https://me:hunter2@8.8.8.8/v1", allow_private=True)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "http://[::ffff:a9fe:a9fe]"])
def test_a_metadata_url_gets_no_leave(url: str) -> None:
    with pytest.raises(UserError, match="never a teacher"):
        check_base_url(url, allow_private=True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com/v1",
        "ftp://8.8.8.8/v1",
        "file:///etc/passwd",
        "http:///v1",
        "http://[::1/v1",
        "http://8.8.8.8:99999/v1",
        "http://8.8.8.8:port/v1",
        "http://a..b/v1",
        f"http://{'a' * 70}/v1",
    ],
)
def test_a_malformed_url_is_named(url: str) -> None:
    with pytest.raises(UserError) as raised:
        check_base_url(url, allow_private=True)
    assert f"teacher.base_url={url}" in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "reason", "said"),
    [
        (completion(), None, ""),
        (completion(finish_reason="tool_calls"), None, ""),
        (completion(refusal="I will\nnot."), "refusal", "I will not."),
        (completion("", finish_reason="content_filter"), "content_filter", "content filter"),
        (completion("cut", finish_reason="length"), "truncated", "cut off after 5 tokens"),
        (completion(" \n"), "empty", "empty"),
        (completion("", refusal="no", finish_reason="length"), "refusal", "no"),
    ],
)
def test_which_answers_are_accepted(answer: Completion, reason: str | None, said: str) -> None:
    failure = rejected_completion("p/0", "critiques", answer)
    assert (failure and failure.reason) == reason
    if failure is not None:
        assert failure == Failure("p/0", "critiques", failure.reason, failure.detail, True)
        assert said in failure.detail


def test_a_long_refusal_is_one_short_line() -> None:
    failure = rejected_completion("p/0", "critiques", completion(refusal="no\n" * 1000))
    assert failure is not None
    assert len(failure.detail) <= 300
    assert "\n" not in failure.detail


def test_what_a_critique_records() -> None:
    answer = completion(" Wrong. \n", model="served", num_cached_tokens=4)
    made = parse_critique(draft(id="q/1"), answer)
    assert made == Critique("q/1", "Wrong.", "served", CRITIQUE_TEMPLATE, 10, 4, 5)
    failed = parse_critique(draft(id="q/1"), completion(""))
    assert isinstance(failed, Failure)
    assert (failed.row_id, failed.stage) == ("q/1", "critiques")


def test_what_a_refinement_records() -> None:
    made = parse_refinement(critique(draft_id="q/1"), completion(" Right. "))
    assert made == Refinement("q/1", "Right.", "teacher", REFINEMENT_TEMPLATE, 10, 4, 5)
    failed = parse_refinement(critique(draft_id="q/1"), completion(finish_reason="length"))
    assert isinstance(failed, Failure)
    assert (failed.row_id, failed.stage) == ("q/1", "refinements")


def test_an_error_says_why_and_what_to_do() -> None:
    error = TeacherError("rate_limited", "HTTP 429", retry_after_s=2.0)
    assert str(error) == "rate_limited: HTTP 429"
    assert (error.permanent, error.stop, error.retry_after_s) == (False, False, 2.0)


def test_the_key_comes_from_its_file_or_variable(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path_factory.mktemp("key") / "key"
    file.write_text("from-file\n")
    monkeypatch.setenv("SOME_KEY", "from-variable")
    assert read_api_key("SOME_KEY", str(file)) == "from-file"
    assert read_api_key("SOME_KEY", None) == "from-variable"
    monkeypatch.delenv("SOME_KEY")
    assert read_api_key("SOME_KEY", None) is None
    with pytest.raises(UserError, match=r"teacher\.api_key_file=.*No such file"):
        read_api_key("SOME_KEY", f"{file}.no")

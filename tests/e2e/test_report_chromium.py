"""The report page in a real browser: hostile rows stay text, searches work, no requests."""

import html
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cgd_ray.report.data import AnswerRow, LossPoint, ReportData, SampleRow
from cgd_ray.report.page import render_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH: apt-get install -y chromium"
)

OWNED = "document.title='owned'"
HOSTILE = (
    f"</script><script>{OWNED}</script>",
    f'<img src=x onerror="{OWNED}">',
    f"]]><!--<script>{OWNED}//",
    f"<svg onload={OWNED}>",
    f'"><iframe srcdoc="<script>parent.{OWNED}</script>">',
    f"<a href=\"javascript:{OWNED}\">click</a> {{{{constructor.constructor('{OWNED}')()}}}}",
)


def row(text: str, status: str = "kept") -> SampleRow:
    return SampleRow(text, text, text, text, text, status, False, True, text)


def report(rows: tuple[SampleRow, ...]) -> ReportData:
    answers = tuple(AnswerRow(t, t, t, t, False, i % 2 == 0) for i, t in enumerate(HOSTILE))
    return ReportData(
        run="run-7",
        date="2025-06-30",
        objective="cgd",
        student="student",
        teacher="teacher",
        losses=tuple(LossPoint(i, 1 / i, 1e-5) for i in range(1, 40)),
        rows=rows,
        answers=answers,
    )


def browse(tmp_path: Path, address: str) -> tuple[str, str]:
    """Return the page's elements after its script ran, and the browser's log."""
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=2000",
            "--dump-dom",
            address,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, done.stderr


def load(tmp_path: Path, page: str, fragment: str = "") -> tuple[str, str]:
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    return browse(tmp_path, path.as_uri() + fragment)


def table(dom: str, name: str) -> str:
    return dom.split(f'id="{name}"', 1)[1].split("<tbody", 1)[1].split("</tbody>", 1)[0]


def texts(dom: str, name: str) -> list[str]:
    cells = re.findall(
        r'<div class="text[^"]*" dir="auto">(.*?)</div>', table(dom, name), re.DOTALL
    )
    return [html.unescape(re.sub("</?mark[^>]*>", "", cell)) for cell in cells]


def title(dom: str) -> str:
    return dom.split("<title>", 1)[1].split("</title>", 1)[0]


def test_hostile_rows_are_shown_as_text_and_run_nothing(tmp_path):
    dom, log = load(tmp_path, render_page(report(tuple(row(text) for text in HOSTILE))))
    assert title(dom) == "run-7: report"
    assert texts(dom, "rows") == [text for text in HOSTILE for _ in range(4)]
    assert texts(dom, "answers") == [text for text in HOSTILE for _ in range(3)]
    body = table(dom, "rows") + table(dom, "answers")
    assert not re.search("<(script|img|svg|iframe|a)[ >]", body)
    assert "CONSOLE" not in log


def test_policy_stops_markup_that_got_into_the_page_all_the_same(tmp_path):
    page = render_page(report((row("plain"),)))
    injected = f'<script>{OWNED}</script><img src="data:," onerror="{OWNED}">'
    dom, log = load(tmp_path, page.replace("</main>", f"{injected}</main>"))
    assert injected.split(">")[0] in dom
    assert title(dom) == "run-7: report"
    assert "Content Security Policy" in log
    assert texts(dom, "rows") == ["plain"] * 4


def test_search_from_the_address(tmp_path):
    rows = (*(row(f"hay {i}") for i in range(59)), row("a Needle (x+1)"))
    dom, _ = load(tmp_path, render_page(report(rows)), "#q=needle+(X%2B1")
    assert texts(dom, "rows") == ["a Needle (x+1)"] * 4
    assert "1 of 60 rows matches" in dom
    assert '<mark class="">Needle (x+1</mark>' in dom


def test_filter_and_page_from_the_address(tmp_path):
    rows = tuple(row(f"text {i}", "rejected" if i % 2 else "kept") for i in range(60))
    dom, _ = load(tmp_path, render_page(report(rows)), "#status=rejected&page=2")
    assert texts(dom, "rows")[::4] == [f"text {i}" for i in range(41, 60, 2)]
    assert "30 of 60 rows match" in dom
    assert "Page 2 of 2" in dom


def test_search_without_a_match_says_so(tmp_path):
    dom, _ = load(tmp_path, render_page(report((row("hay"),))), "#q=needle")
    assert texts(dom, "rows") == []
    assert "0 of 1 rows match" in dom
    section = dom.split('id="rows"', 1)[1]
    assert 'class="nothing">' in section.split("</section>", 1)[0]


def test_empty_report_runs_clean(tmp_path):
    dom, log = load(tmp_path, render_page(ReportData("r", "d", "cgd", "s", "t")))
    assert "No rows were included" in dom
    assert "CONSOLE" not in log


def test_page_asks_the_network_for_nothing_but_itself(tmp_path):
    page = render_page(report(tuple(row(text) for text in HOSTILE))).encode()
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        dom, _ = browse(tmp_path, f"http://127.0.0.1:{server.server_port}/report.html")
        server.shutdown()
    assert len(texts(dom, "rows")) == 4 * len(HOSTILE)
    assert asked == ["/report.html"]


DRIVER = """
const section = document.getElementById("rows");
const state = () => [section.querySelectorAll("tbody tr").length,
  section.querySelector(".found").textContent, section.querySelector(".place").textContent,
  location.hash].join(" | ");
const seen = [state()];
const press = (selector) => { section.querySelector(selector).click(); seen.push(state()); };
press("[data-turn='1']");
press("[value=rejected]");
const search = section.querySelector("[type=search]");
search.value = "text 5";
search.dispatchEvent(new Event("input", { bubbles: true }));
seen.push(state());
const unfold = section.querySelector(".unfold");
unfold.click();
seen.push(unfold.textContent + " " + section.querySelector("tbody tr").className);
press("[data-clear]");
document.body.append(Object.assign(document.createElement("pre"), {
  id: "seen", textContent: seen.join("\\n") }));
"""


def test_controls_page_filter_search_unfold_and_clear(tmp_path):
    rows = tuple(row(f"text {i}\n" * 30, "rejected" if i % 2 else "kept") for i in range(60))
    page = re.sub("<meta http-equiv[^>]*>", "", render_page(report(rows)))
    dom, _ = load(tmp_path, page.replace("</body>", f"<script>{DRIVER}</script></body>"))
    seen = html.unescape(dom.split('<pre id="seen">', 1)[1].split("</pre>", 1)[0]).split("\n")
    assert seen == [
        "20 | 60 rows | Page 1 of 3 | ",
        "20 | 60 rows | Page 2 of 3 | #page=2",
        "20 | 30 of 60 rows match | Page 1 of 2 | #status=rejected",
        "6 | 6 of 60 rows match | Page 1 of 1 | #q=text+5&status=rejected",
        "Show less open",
        "20 | 60 rows | Page 1 of 3 | ",
    ]

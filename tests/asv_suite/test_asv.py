"""The suite runs under asv: a deliberate slowdown is a regression, and the pages show what they should.

These measure time, start asv and need its packages: they run with JITCONV_ASV=1 only, as `.ci/run` does. The test of
the pages needs the results of `dashboard.py quick`, Playwright, and Chromium: its own or that of JITCONV_CHROMIUM. The
pages load jQuery, Bootstrap and others from the net; where that is cut off, JITCONV_CDN is a folder with these files.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.environ.get("JITCONV_ASV") != "1", reason="set JITCONV_ASV=1: it measures time")
ROOT = Path(__file__).resolve().parent.parent.parent
SUITE = ROOT / "asv_benchmarks"
ARTIFACTS = Path(os.environ.get("JITCONV_ARTIFACTS", SUITE / "html"))


def run(*command, cwd, **options):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **options)


def commit(repository, message):
    run("git", "add", "-A", cwd=repository, check=True)
    names = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    run("git", *names, "commit", "--quiet", "-m", message, cwd=repository, check=True)


@pytest.fixture
def two_commits(tmp_path):
    """A repository whose second commit lets every call use one thread."""
    repository = tmp_path / "repository"
    ignored = shutil.ignore_patterns("__pycache__", "env", "results", "html", "build", "*.egg-info", "*.c")
    for name in ("jitconv", "asv_benchmarks"):
        shutil.copytree(ROOT / name, repository / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, repository)
    conf = repository / "asv_benchmarks" / "asv.conf.json"
    # The Cython variant takes no part: it need not be built.
    lines = [line for line in conf.read_text().splitlines() if "cython_variant" not in line]
    conf.write_text("\n".join(lines).replace('{wheel_file}",', '{wheel_file}"'))
    run("git", "init", "--quiet", "--initial-branch=main", cwd=repository, check=True)
    commit(repository, "As it is")
    threads = repository / "jitconv" / "threads.py"
    threads.write_text(threads.read_text() + "\n\ndef get_num_threads() -> int:\n    return 1\n")
    commit(repository, "One thread")
    return repository


def two_cores():
    """Return how much more two processes do than one in the same time: about 2 unless the machine is busy."""
    code = "import time; t = time.perf_counter(); sum(range(20_000_000)); print(time.perf_counter() - t)"

    def seconds(count):
        children = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(count)]
        return max(float(child.communicate()[0]) for child in children)

    return statistics.median(2 * seconds(1) / seconds(2) for _ in range(3))


def test_a_slowdown_is_a_regression(two_commits):
    """Of three attempts one must find it. Where a second thread has no core, one thread is not slower than two."""
    busy = 0
    for _ in range(3):
        free = two_cores()
        compare = run(
            sys.executable, "asv_benchmarks/dashboard.py", "compare", "HEAD~1", "HEAD",
            "--bench", r"^convolution\.Forward.*\('jitconv', 'vgg_cifar_2', 'float32'", cwd=two_commits, timeout=300,
        )  # fmt: skip
        print(compare.stdout, compare.stderr)
        if compare.returncode == 1:
            break
        busy += min(free, two_cores()) < 1.6
    if compare.returncode == 0 and busy == 3:
        pytest.skip("the second core was busy or is not there: nothing was slower")
    assert compare.returncode == 1
    assert "PERFORMANCE DECREASED" in compare.stdout
    assert "Forward.time_call('jitconv', 'vgg_cifar_2', 'float32')" in compare.stdout


@pytest.fixture
def pages():
    """The address of the published pages."""
    html = SUITE / "html"
    if not (html / "index.html").exists():
        pytest.skip("there are no pages: run `python asv_benchmarks/dashboard.py quick --no-open` first")

    files = os.environ.get("JITCONV_CDN")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def translate_path(self, path):
            return str(Path(files) / path[5:]) if files and path.startswith("/cdn/") else super().translate_path(path)

        def do_GET(self):
            if not files or self.path != "/":
                return super().do_GET()
            text = (html / "index.html").read_text(encoding="utf-8")
            text = re.sub(r' (integrity|crossorigin)="[^"]*"', "", text)
            content = re.sub(r'"https://[^"]*/([^"/]+)"', r'"/cdn/\1"', text).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=html)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def page():
    """A page of headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as started, contextlib.ExitStack() as stack:
        try:
            browser = started.chromium.launch(executable_path=os.environ.get("JITCONV_CHROMIUM") or None)
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}; `playwright install chromium` or JITCONV_CHROMIUM")
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        yield page


def series(page, address):
    """Open a graph, and return the names in its legend."""
    page.goto(address)
    page.wait_for_selector("#main-graph .flot-base", timeout=15_000)
    page.wait_for_function("document.querySelectorAll('#main-graph .legendLabel').length > 0", timeout=15_000)
    return page.locator("#main-graph .legendLabel").all_inner_texts()


def test_the_pages_show_everyone(pages, page):
    page.goto(pages)
    page.wait_for_selector("text=Forward", timeout=15_000)
    assert "jitconv" in page.title()
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / "index.png")

    graph = "#convolution.Forward.time_call?p-layer='one image, 6 to 16'&p-dtype='float32'&y-axis-scale=log"
    names = "\n".join(series(page, f"{pages}/{graph}"))
    page.screenshot(path=ARTIFACTS / "forward.png")
    for implementation in ("jitconv", "jitconv NHWC", "NumPy", "NumPy loops"):
        assert implementation in names

    names = "\n".join(series(page, f"{pages}/#ratios.Forward.track_ratio?p-layer='vgg_cifar_2'&p-dtype='float32'"))
    page.screenshot(path=ARTIFACTS / "ratios.png")
    assert "NumPy" in names
    assert not page.problems

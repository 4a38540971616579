"""A browser for tests of pages: the Chromium of this machine, or the one of its Debian packages, unpacked into tests/.cache."""

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / "tests/.cache/chromium"
SCREENSHOTS = ROOT / "tests/.cache/screenshots"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-dejavu-core")

# Fonts of the packages and of the machine. The files that Debian's own configuration includes may not be there.
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{root}/usr/share/fonts</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>{home}/fonts</cachedir>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
  <match target="pattern"><edit name="family" mode="append_last"><string>DejaVu Sans</string></edit></match>
</fontconfig>
"""


class Missing(Exception):
    """What this machine lacks for a browser."""


def find_browser():
    """The path of a browser and the environment that it needs. The first call may fetch 120 MB."""
    for name in NAMES:
        path = shutil.which(name)
        if path and starts(path, {}):
            return path, {}
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Missing(f"none of {', '.join(NAMES)} found, nor apt-get to fetch Chromium with")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        # Workers begin at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (CACHE / "complete").exists():
            fetch()
            (CACHE / "fonts.conf").write_text(FONTS.format(root=CACHE / "root", home=CACHE))
            (CACHE / "complete").touch()
    path, environment = unpacked()
    if not starts(path, environment):
        raise Missing(f"the Chromium in {CACHE.relative_to(ROOT)} does not start")
    return path, environment


def starts(path, environment):
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([path, "--version"], env={**os.environ, **environment}, capture_output=True, timeout=60).returncode == 0
    return False


def fetch():
    """Unpacks Chromium and those of its dependencies that are not installed, without installing any."""
    for part in ("lists", "archives", "root"):
        shutil.rmtree(CACHE / part, ignore_errors=True)
        (CACHE / part).mkdir()
    for directory in (CACHE / "lists/partial", CACHE / "archives/partial"):
        directory.mkdir()
    apt = ["apt-get", "-q", "-y", "-o", f"Dir::State::lists={CACHE / 'lists'}", "-o", f"Dir::Cache={CACHE}",
           "-o", f"Dir::Cache::archives={CACHE / 'archives'}", "-o", "Debug::NoLocking=1", "-o", f"APT::Sandbox::User={user()}",
           "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=2"]
    # A source that cannot be reached does not matter where the others have the packages.
    subprocess.run([*apt, "update"], capture_output=True, text=True)
    fetched = subprocess.run([*apt, "--no-install-recommends", "--download-only", "install", *PACKAGES], capture_output=True, text=True)
    if fetched.returncode != 0:
        reasons = [line for line in fetched.stderr.splitlines() if line.startswith("E: ")]
        raise Missing(f"none of {', '.join(NAMES)} found, and apt-get cannot fetch Chromium: {' '.join(reasons)}")
    for package in sorted((CACHE / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, CACHE / "root"], check=True)
        package.unlink()
    shutil.rmtree(CACHE / "lists")


def user():
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def unpacked():
    root = CACHE / "root"
    libraries = [path for usr in ("usr/lib", "lib") for pattern in ("*-linux-gnu", "*-linux-gnu/pulseaudio")
                 for path in sorted((root / usr).glob(pattern))]
    known = [os.environ["LD_LIBRARY_PATH"]] if os.environ.get("LD_LIBRARY_PATH") else []
    environment = {"LD_LIBRARY_PATH": os.pathsep.join([*map(str, libraries), *known]), "FONTCONFIG_FILE": str(CACHE / "fonts.conf")}
    return str(root / "usr/lib/chromium/chromium"), environment


@contextlib.contextmanager
def launched():
    """A headless browser, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    path, environment = find_browser()
    # Its sandbox needs a user who is not root and namespaces, and containers often have neither. /dev/shm is small in them.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments, env={**os.environ, **environment})
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page of a browser, with everything that it asked for and complained about. Attributes are those of Playwright's page."""

    def __init__(self, browser, **options):
        """`options` are those of a context: `viewport`, `color_scheme`, `java_script_enabled`…"""
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(60_000)
        self.page = self.context.new_page()
        self.requests, self.problems, self.expected = [], [], []
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("dialog", self._dialog)

    def __getattr__(self, name):
        return getattr(self.page, name)

    def _console(self, message):
        # An answer that is not a 2xx is not a fault of the page.
        known = message.text.startswith("Failed to load resource: the server responded") or any(text in message.text for text in self.expected)
        if message.type in ("error", "warning") and not known:
            self.problems.append(f"{message.type}: {message.text}")

    def _dialog(self, dialog):
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def complains(self, text):
        """Waits until the console has this, which is no problem then, however often it comes."""
        end = time.monotonic() + 60
        while not any(text in problem for problem in self.problems):
            assert time.monotonic() < end, self.problems
            self.page.wait_for_timeout(50)
        self.expected.append(text)
        self.problems = [problem for problem in self.problems if text not in problem]

    def origins(self):
        """The origins that requests went to. Data URLs and blobs go nowhere."""
        urls = [urllib.parse.urlsplit(request.url) for request in self.requests]
        return {f"{url.scheme}://{url.netloc}" for url in urls if url.scheme not in ("data", "blob")}

    def overflow(self):
        """By how many pixels the page is wider than its viewport."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def show(self, name):
        """Writes tests/.cache/screenshots/NAME.png, the whole page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{re.sub(r'[^a-z0-9-]+', '-', name.lower())}.png", full_page=True)

    def close(self):
        self.context.close()

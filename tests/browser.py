"""A real headless browser for tests: Chromium over the DevTools protocol, without a package of ours."""

import base64
import itertools
import json
import os
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_TEXT = """() => {
  const all = node => {
    if (!node || ["SCRIPT", "STYLE", "TEMPLATE"].includes(node.nodeName)) return "";
    if (node.nodeType === Node.TEXT_NODE) return node.textContent;
    return [...(node.shadowRoot ? node.shadowRoot.childNodes : []), ...node.childNodes].map(all).join(" ");
  };
  return all(document.body).replace(/\\s+/g, " ");
}"""
_VISIBLE = """selector => {
  const count = root => [...root.querySelectorAll("*")].reduce((sum, element) => {
    const box = element.getBoundingClientRect();
    const own = element.matches(selector) && (box.width || box.height) ? 1 : 0;
    return sum + own + (element.shadowRoot ? count(element.shadowRoot) : 0);
  }, 0);
  return count(document);
}"""
_MIDDLE = """text => {
  const find = node => {
    for (const child of [...(node.shadowRoot ? node.shadowRoot.children : []), ...node.children]) {
      const found = find(child);
      if (found) return found;
    }
    const box = node.getBoundingClientRect();
    if (node.textContent.trim() !== text || !box.width) return null;
    return {x: box.x + box.width / 2, y: box.y + box.height / 2};
  };
  return find(document.body);
}"""


class Browser:
    """One page. Chromium reads commands from file descriptor 3 and answers on 4, each ended by a zero byte."""

    def __init__(self, executable, profile):
        to_child, self._commands = os.pipe()
        self._answers, from_child = os.pipe()

        def place():
            for source, target in ((os.dup(to_child), 3), (os.dup(from_child), 4)):
                os.dup2(source, target)

        self._process = subprocess.Popen(
            [
                executable, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-sandbox",
                "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run",
            ],
            preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_child)
        os.close(from_child)
        self._numbers, self._rest, self._session = itertools.count(1), b"", None
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.command("Page.enable")

    def command(self, method, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                read = os.read(self._answers, 1 << 20)
                assert read, f"the browser ended: {self._process.wait()}"
                self._rest += read
            line, self._rest = self._rest.split(b"\0", 1)
            answer = json.loads(line)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def size(self, width, height, *, mobile=False):
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )

    def offline(self):
        self.command("Network.enable")
        self.command("Network.setBlockedURLs", urls=["http://*", "https://*"])

    def open(self, url):
        self.command("Page.navigate", url=url)

    def value(self, script):
        result = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_until(self, done, *, seconds=60):
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"not within {seconds} s; the page says: {self.text()[:4000]}"
            time.sleep(0.2)

    def wait_for(self, *texts):
        """Until all texts are on the page."""
        self.wait_until(lambda: all(text in shown for shown in [self.text()] for text in texts))

    def call(self, function, *arguments):
        return self.value(f"({function})({', '.join(map(json.dumps, arguments))})")

    def text(self):
        """All text of the page, that in shadow roots too."""
        return self.call(_TEXT)

    def visible(self, selector):
        """How many elements, those in shadow roots included, match and take up room on the page."""
        return self.call(_VISIBLE, selector)

    def click(self, text):
        """Clicks the middle of the first visible element, those in shadow roots included, with this text alone."""
        place = self.call(_MIDDLE, text)
        assert place, f"nothing to click with the text {text!r}"
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, **place, button="left", clickCount=1)

    def screenshot(self, path, *, whole_page=False):
        parameters = {}
        if whole_page:
            size = self.command("Page.getLayoutMetrics")["cssContentSize"]
            parameters = {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", **parameters)["data"]))

    def close(self):
        self.command("Browser.close")
        os.close(self._commands)
        os.close(self._answers)
        self._process.wait(timeout=30)

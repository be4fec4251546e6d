"""A headless Chromium, driven through its debugging pipe: what a page does, and what a person sees of it."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
)

# Faults of a page for those who read it on a phone, without a mouse, or hear it: a list of texts.
CHECKS = r"""(() => {
const faults = [];
const all = (selector) => [...document.querySelectorAll(selector)];
const fault = (what, element) => faults.push(`${what}: ${element.outerHTML.slice(0, 120)}`);
if (!document.documentElement.lang || !document.title) faults.push("no language or title");
if (all("main").length !== 1 || all("h1").length !== 1) faults.push("not one main part and one h1");
if (document.documentElement.scrollWidth > innerWidth) faults.push(`${document.documentElement.scrollWidth} wide`);
for (const element of all("body *")) {
  const box = element.getBoundingClientRect();
  if (box.width && box.right > innerWidth + 1 && !element.closest(".wide")) fault("overflows", element);
  if (element.tabIndex > 0) fault("positive tabindex", element);
}
let level = 0;
for (const heading of all("h1, h2, h3, h4")) {
  if (heading.tagName[1] > level + 1) fault("heading out of order", heading);
  level = Number(heading.tagName[1]);
}
if (/user-scalable=no|maximum-scale/.test(all("meta[name=viewport]").map((meta) => meta.content))) {
  faults.push("cannot be enlarged");
}
const ids = all("[id]").map((element) => element.id);
for (const element of all("[id]")) {
  if (ids.indexOf(element.id) !== ids.lastIndexOf(element.id)) fault("id twice", element);
}
for (const element of all("button, a[href], summary, h1, h2, h3, h4")) {
  if (!(element.ariaLabel || element.title || element.textContent).trim()) fault("no name", element);
}
for (const element of all("input, select, textarea")) {
  if (!element.ariaLabel && !element.labels?.length && element.checkVisibility()) fault("no name", element);
}
for (const element of all("li")) if (!element.closest("ul, ol, menu")) fault("not in a list", element);
for (const element of all("ul > :not(li), ol > :not(li)")) fault("no item of a list", element);
for (const img of all("img")) if (!img.alt.trim()) fault("no alternative text", img);
for (const img of all("svg, [role=img], [role=region]")) if (!img.ariaLabel) fault("no label", img);
for (const table of all("table")) if (!table.caption?.textContent.trim()) fault("no caption", table);
for (const th of all("th")) if (!th.scope || !th.textContent.trim()) fault("th without scope or text", th);
for (const wide of all(".wide")) {
  if (wide.scrollWidth > wide.clientWidth && wide.tabIndex < 0) fault("cannot be scrolled by keys", wide);
}
for (const caption of all("caption")) {
  if (caption.getBoundingClientRect().width > innerWidth) fault("wider than the page", caption);
}
for (const text of all("svg text")) {
  const size = parseFloat(getComputedStyle(text).fontSize) * text.getCTM().a;
  if (size < 9) fault(`${size} pixels are too small`, text);
}

for (const element of all("button, summary")) {
  const { height, width } = element.getBoundingClientRect();
  if (width && height < 24) fault(`${height} pixels are too low`, element);
}

const numbers = (colour) => {
  const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
  return [r, g, b, a];
};
const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
const behind = (element) => {
  if (!element) return [255, 255, 255];
  const own = numbers(getComputedStyle(element).backgroundColor);
  return own[3] === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
};
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || element.closest("script, title")) continue;
  if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
  const style = getComputedStyle(element);
  const back = behind(element);
  const colour = over(numbers(element.closest("svg") ? style.fill : style.color), back);
  const [dark, light] = [luminance(colour), luminance(back)].sort((a, b) => a - b);
  const contrast = (light + 0.05) / (dark + 0.05);
  if (contrast < 4.5) fault(`contrast ${contrast.toFixed(2)}`, element);
}
for (const element of all("button, summary, .wide")) {
  element.focus({ focusVisible: true });
  const { outlineStyle, outlineWidth } = getComputedStyle(element);
  if (document.activeElement !== element || outlineStyle === "none" || parseFloat(outlineWidth) < 2) {
    fault("focus is not seen", element);
  }
}
return [...new Set(faults)];
})()"""


class Browser:
    """One tab. Give `open` a page, then ask.

    Attributes:
        complaints: what the page's console and its exceptions said since `open`.
        requests: addresses that were asked for since `open`, the page's own and its data: left out.
    """

    def __init__(self, profile):
        to_browser, from_browser = os.pipe(), os.pipe()
        # Bash makes them 3 and 4, which they must not be before.
        given = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (to_browser[0], from_browser[1])]
        self._write, self._read, self._rest, self._number = to_browser[1], from_browser[0], b"", 0
        self._events, self.complaints, self.requests = [], [], []
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{given[0]} 4>&{given[1]}', CHROMIUM, *FLAGS,
             f"--user-data-dir={profile}", "about:blank"],
            pass_fds=given, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for fd in (*given, to_browser[0], from_browser[1]):
            os.close(fd)
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def close(self):
        with contextlib.suppress(OSError):
            os.close(self._write)
        os.close(self._read)
        self._process.kill()
        self._process.wait()

    def call(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            said = self._receive()
            if said.get("id") == self._number:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                return said["result"]

    def open(self, path, width=1280, scheme="light"):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self._events, self.complaints, self.requests = [], [], []
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._receive()
        self.requests = [url for url in self.requests if url != path.as_uri() and not url.startswith("data:")]

    def ask(self, expression):
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"])
        return found["result"].get("value")

    def press(self, key):
        code = {"Enter": 13, "Tab": 9}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def click(self, selector):
        place = f"document.querySelector({json.dumps(selector)})"
        x, y = self.ask(
            f"(() => {{ {place}.scrollIntoView({{block: 'center'}}); const b = {place}.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _receive(self):
        until = time.monotonic() + 120
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(until - time.monotonic(), 0))[0]:
                raise TimeoutError("the browser says nothing")
            got = os.read(self._read, 2**20)
            if not got:
                raise RuntimeError("the browser ended")
            self._rest += got
        message, self._rest = self._rest.split(b"\0", 1)
        said = json.loads(message)
        method = said.get("method", "")
        self._events.append(method)
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(said["params"])
        if method == "Network.requestWillBeSent":
            self.requests.append(said["params"]["request"]["url"])
        return said

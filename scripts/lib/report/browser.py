"""A headless Chromium, driven through chromedriver's WebDriver protocol with the standard library.

The model: one process of chromedriver, one session. It logs every console message and every
request of the browser; this module reads the log, so that a check can say that there were none.
"""
import base64
import json
import os
import subprocess
import urllib.error
import urllib.request

KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Backspace": "\ue003",
        "ArrowLeft": "\ue012", "ArrowUp": "\ue013", "ArrowRight": "\ue014", "ArrowDown": "\ue015",
        "End": "\ue010", "Home": "\ue011"}


class Browser:
    """`with Browser(DIR) as browser`: its profile and logs are below DIR."""

    def __init__(self, directory, width=1280, height=900):
        self.directory, self.size = directory, (width, height)

    def __enter__(self):
        environment = dict(os.environ, HOME=self.directory, TMPDIR=self.directory)
        for name in list(environment):
            if name.lower().endswith("_proxy"):
                del environment[name]
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                self.base = "http://127.0.0.1:%d" % int(line.rstrip(".\n").split()[-1])
                break
        else:
            raise RuntimeError("chromedriver does not start")
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        options = {"args": [
            "--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--hide-scrollbars", "--force-device-scale-factor=1", "--disable-dev-shm-usage",
            "--disable-background-networking", "--disable-component-update", "--lang=en",
            "--user-data-dir=" + os.path.join(self.directory, "profile"),
            "--window-size=%d,%d" % self.size]}
        if os.geteuid() == 0:
            options["args"].append("--no-sandbox")
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}}}, session=False)
        self.session = answer["sessionId"]
        return self

    def __exit__(self, *_):
        try:
            if hasattr(self, "session"):
                self.call("DELETE", "", None)
        finally:
            self.driver.terminate()
            self.driver.wait()

    def call(self, method, path, body, session=True):
        """One request of the protocol; its value."""
        url = self.base + ("/session/" + self.session if session else "") + path
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"},
                                         method=method)
        try:
            with self.opener.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            told = json.load(error)["value"]
            raise RuntimeError("%s %s: %s" % (method, path, told["message"])) from None

    def open(self, path):
        """Opens a file, and waits until the page is drawn or shows an error."""
        self.call("POST", "/timeouts", {"script": 60_000, "pageLoad": 60_000})
        self.call("POST", "/url", {"url": "file://" + os.path.abspath(path)})
        self.settled()

    def settled(self):
        """Waits for two frames; then the page is drawn."""
        self.call("POST", "/execute/async", {"args": [], "script":
                  "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"})

    def run(self, script, *arguments):
        """The result of a script."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, x, y):
        """Clicks at a point of the window."""
        self.actions([{"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"},
                       "actions": [{"type": "pointerMove", "duration": 0, "x": int(x), "y": int(y)},
                                   {"type": "pointerDown", "button": 0},
                                   {"type": "pointerUp", "button": 0}]}])

    def hover(self, x, y):
        """Moves the pointer to a point of the window."""
        self.actions([{"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"},
                       "actions": [{"type": "pointerMove", "duration": 0,
                                    "x": int(x), "y": int(y)}]}])

    def press(self, *keys):
        """Presses keys, one after the other."""
        strokes = []
        for key in keys:
            value = KEYS.get(key, key)
            strokes += [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self.actions([{"type": "key", "id": "keys", "actions": strokes}])

    def actions(self, actions):
        """Performs actions of mouse or keyboard."""
        self.call("POST", "/actions", {"actions": actions})
        self.settled()

    def devtools(self, command, **parameters):
        """A command of Chromium's own protocol."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def prefer(self, scheme):
        """Sets the colour scheme of the system: light or dark."""
        self.devtools("Emulation.setEmulatedMedia",
                      features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.settled()

    def resize(self, width, height):
        """The size of the page, whatever the window can be."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height,
                      deviceScaleFactor=1, mobile=False)
        self.settled()

    def console(self):
        """The messages on the console since the last call."""
        return [entry["level"] + ": " + entry["message"]
                for entry in self.call("POST", "/se/log", {"type": "browser"})]

    def requests(self):
        """Addresses that were requested since the last call."""
        found = []
        for entry in self.call("POST", "/se/log", {"type": "performance"}):
            message = json.loads(entry["message"])["message"]
            # The browser's own start page makes requests too.
            if message["method"] == "Network.requestWillBeSent" and \
                    message["params"]["documentURL"].startswith("file:"):
                found.append(message["params"]["request"]["url"])
        return found

    def picture(self, path, clip=None):
        """The page as PNG, or the part `clip` (x, y, width, height)."""
        more = {"captureBeyondViewport": True}
        if clip:
            more["clip"] = dict(zip(("x", "y", "width", "height"), clip), scale=1)
        data = self.devtools("Page.captureScreenshot", format="png", **more)["data"]
        with open(path, "wb") as out:
            out.write(base64.b64decode(data))

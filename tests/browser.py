"""A real browser for tests: headless Chromium, driven by W3C WebDriver over plain HTTP."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
)
START_SECONDS = 60.0  # a cold start on a busy machine
_DRIVER_READY = b"started successfully on port "


def _found(*names: str) -> str:
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    pytest.skip(f"{names[0]} is not installed")


@dataclass(frozen=True, slots=True)
class Page:
    """One browser window."""

    client: httpx2.AsyncClient
    session: str

    async def _command(self, path: str, **body: Any) -> Any:
        answer = await self.client.post(f"{self.session}/{path}", json=body)
        assert answer.status_code == 200, answer.json()["value"]["message"]
        return answer.json()["value"]

    async def open(self, url: str) -> None:
        """Go to an address and wait until it has loaded."""
        await self._command("url", url=url)

    async def run(self, script: str, *arguments: Any) -> Any:
        """The value that a function body returns in the page."""
        return await self._command("execute/sync", script=script, args=arguments)

    async def wait_for(self, condition: str, seconds: float = 30) -> Any:
        """The first truthy value of an expression, looked at on every frame of the page.

        Fails with the page's last word when it does not come in time.
        """
        script = """
            const [condition, milliseconds, done] = arguments;
            const look = new Function("return " + condition);
            const notice = () => document.querySelector("#notice")?.textContent;
            const end = performance.now() + milliseconds;
            const step = () => {
                const value = look();
                if (value) done({ value });
                else if (performance.now() > end) done({ late: notice() });
                else setTimeout(step, 15);
            };
            step();
        """
        got = await self._command("execute/async", script=script, args=[condition, 1000 * seconds])
        assert "value" in got, f"not in {seconds} s: {condition} ({got['late']})"
        return got["value"]

    async def press(self, text: str) -> None:
        """Type into whatever has the focus; `\\ue007` is Enter, `\\ue004` is Tab."""
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        await self._command("actions", actions=[{"type": "key", "id": "keys", "actions": keys}])

    async def resize(self, width: int, height: int) -> None:
        """Set the window's outer size, in pixels."""
        await self._command("window/rect", width=width, height=height)

    async def prefer(self, scheme: str) -> None:
        """Make the page believe that the user likes `dark` or `light`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self._command(
            "goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"features": features}
        )

    async def screenshot(self, path: Path) -> bytes:
        """What the window shows, as PNG; also kept at `path`."""
        answer = await self.client.get(f"{self.session}/screenshot")
        picture = base64.b64decode(answer.json()["value"])
        await trio.Path(path).write_bytes(picture)
        return picture

    async def complaints(self) -> list[str]:
        """Errors in the browser's console since the last call: failed loads, CSP, exceptions."""
        answer = await self.client.post(f"{self.session}/se/log", json={"type": "browser"})
        return [line["message"] for line in answer.json()["value"] if line["level"] == "SEVERE"]


@asynccontextmanager
async def open_browser(profile: Path, width: int = 1280, height: int = 900) -> AsyncIterator[Page]:
    """A fresh browser with an empty profile; skips the test where there is none."""
    binary, driver = _found("chromium", "chromium-browser", "google-chrome"), _found("chromedriver")
    options = {
        "binary": binary,
        "args": [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"],
    }
    capabilities = {
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"browser": "ALL"},
        "timeouts": {"script": 120_000, "pageLoad": 60_000},
    }
    async with trio.open_nursery() as nursery:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        run_driver = partial(trio.run_process, check=False, **pipes)
        process = await nursery.start(run_driver, [driver, "--port=0"])
        with trio.fail_after(START_SECONDS):
            port = await _announced_port(process)
        nursery.start_soon(_drain, process)
        address = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=address, timeout=150, trust_env=False) as client:
            asked = {"capabilities": {"alwaysMatch": capabilities}}
            made = (await client.post("/session", json=asked)).json()["value"]
            assert "sessionId" in made, made.get("message")
            session = f"/session/{made['sessionId']}"
            try:
                yield Page(client, session)
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(20):
                    await client.delete(session)  # the driver ends the browser
        process.terminate()


async def _announced_port(process: trio.Process) -> int:
    said = b""
    while _DRIVER_READY not in said or not said.endswith(b"\n"):
        assert process.stdout is not None
        part = await process.stdout.receive_some()
        assert part, f"chromedriver ended: {said.decode(errors='replace')}"
        said += part
    return int(said.split(_DRIVER_READY)[1].split(b"\n")[0].strip(b". \r"))


async def _drain(process: trio.Process) -> None:
    assert process.stdout is not None
    while await process.stdout.receive_some():
        pass

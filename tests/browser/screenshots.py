"""
Make the pictures of the manual from the demo's file: `make screenshots`.

Three pictures, each light and dark: a conversation, the same at an earlier version, and two branches.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

from agents_eventlog.adapters.cli.demo import command as demo
from tests.browser.conftest import CHROMIUM, serving

PICTURES = {
    "conversation": "/session?id=demo&branch=main",
    "version": "/session?id=demo&branch=main&v=10",
    "compare": "/session/compare?id=demo&a=main&b=rainy-oslo",
}
SIZE = {"width": 1280, "height": 800}


def main(folder: Path) -> None:
    """Write the pictures to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "conversations.db"
        writing = threading.Thread(target=demo.write, args=(path,))  # with an event loop of its own
        writing.start()
        writing.join()
        with serving(path) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    base_url=address, viewport=SIZE, color_scheme=scheme, device_scale_factor=1
                )
                page = context.new_page()
                for name, place in PICTURES.items():
                    page.goto(place)
                    if name == "conversation":
                        page.locator(".work summary").first.click()
                    page.wait_for_timeout(300)
                    page.screenshot(path=folder / f"{name}-{scheme}.png")
                context.close()
            browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

# SPDX-License-Identifier: Apache-2.0
"""A person with a browser: headless Chromium by Selenium, both from Debian's packages."""

import os
import shutil
import tempfile
import unittest

from daemon import TEMPLATE, Daemon, copy_project

try:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait
except ImportError:
    webdriver = None

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1200,900",
]
WAIT_SECONDS = 30


@unittest.skipIf(webdriver is None, "python3-selenium is not installed")
@unittest.skipUnless(shutil.which("chromedriver"), "chromium-driver is not installed")
class Blog(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-browser-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def open_browser(self):
        options = webdriver.ChromeOptions()
        for flag in FLAGS:
            options.add_argument(flag)
        options.add_argument(f"--user-data-dir={self.folder}/profile")
        browser = webdriver.Chrome(
            service=Service(shutil.which("chromedriver")), options=options)
        self.addCleanup(browser.quit)
        return browser

    def until(self, browser, condition):
        return WebDriverWait(browser, WAIT_SECONDS).until(lambda _: condition())

    def fill(self, browser, **fields):
        for name, value in fields.items():
            box = browser.find_element(By.NAME, name)
            box.clear()
            box.send_keys(value)

    def test_an_editor_logs_in_writes_a_post_and_finds_it_on_the_page(self):
        with Daemon(copy_project(TEMPLATE, self.folder), options=["--create-admin"]) as daemon:
            daemon.wait_output("password")
            with open(os.path.join(daemon.state, "admin-password"), encoding="utf-8") as file:
                password = file.read().strip()
            site = f"http://127.0.0.1:{daemon.port}"
            browser = self.open_browser()
            browser.get(site + "/")
            self.assertIn("No posts yet", browser.page_source)
            colour = browser.find_element(By.TAG_NAME, "header").value_of_css_property("display")
            self.assertEqual(colour, "flex", "the style sheet has not been applied")
            browser.get(site + "/__run_migrations__/")
            self.assertIn("success", browser.page_source)
            browser.get(site + "/__create_admin__/")
            self.assertIn("already exists", browser.page_source)
            browser.get(site + "/admin/")
            self.fill(browser, username="admin", password=password)
            browser.find_element(By.CSS_SELECTOR, "input[type=submit]").click()
            self.until(browser, lambda: "Site administration" in browser.page_source)
            browser.get(site + "/admin/blog/post/add/")
            self.fill(browser, title="Seen by a browser", body="Words with umlauts: äöü")
            # The admin's own script fills the slug in from the title.
            slug = browser.find_element(By.NAME, "slug")
            self.until(browser, lambda: slug.get_attribute("value"))
            browser.find_element(By.NAME, "_save").click()
            self.until(browser, lambda: "was added successfully" in browser.page_source)
            browser.get(site + "/")
            browser.find_element(By.LINK_TEXT, "Seen by a browser").click()
            self.until(browser, lambda: "äöü" in browser.page_source)
            self.assertTrue(browser.current_url.endswith("/posts/seen-by-a-browser/"))


if __name__ == "__main__":
    unittest.main()

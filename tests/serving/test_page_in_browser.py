"""The chat page in a browser: what a person does there, and that nothing a model says is ever run."""

import shutil
from dataclasses import replace

import pytest
from selenium import webdriver
from selenium.common.exceptions import JavascriptException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys as Key
from selenium.webdriver.support.ui import WebDriverWait

from ree.generation.generator import Completion, Generator, Request
from ree.generation.model import NO_TEMPLATE
from ree.generation.receipt import Receipt
from ree.generation.request import Sampling
from ree.generation.verification import check_receipt
from ree.serving.receipts import Receipts
from ree.signing import SigningKey

from .conftest import model_of, serving
from .test_page import other_text, planted

KEY = "0123456789abcdef"
HOSTILE = (
    "<img src=x onerror='window.ran=1'><script>window.ran=1</script>"
    "<style>body{display:none}</style></p><svg onload='window.ran=1'>"
)
REACHED = ["again", "Verify", "Download", "Copy digest", "text", "send", "Settings"]
CHROMIUM, DRIVER = (shutil.which(n) for n in ("chromium", "chromedriver"))

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="the chat page was NOT tried in a browser: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=900,900",
                 "--disable-background-networking", "--disable-component-update"):  # fmt: skip
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """A person at the page."""

    def __init__(self, driver, url):
        self.driver = driver
        driver.get_log("browser")
        driver.get(url)

    def find(self, css):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def until(self, what):
        return WebDriverWait(self.driver, 60, 0.05).until(lambda _: what())

    def ready(self):
        self.until(lambda: self.find("#send").is_enabled())
        return self

    def set(self, **fields):
        self.driver.execute_script("document.querySelector('details').open = true")
        for name, value in fields.items():
            field = self.find(f"#{name}")
            field.clear()
            field.send_keys(str(value))

    def say(self, text):
        """Type and send; the last answer with its receipt."""
        before = len(self.driver.find_elements(By.CSS_SELECTOR, ".receipt dl, .problem"))
        self.find("#text").send_keys(text, Key.ENTER)
        self.until(
            lambda: (
                len(self.driver.find_elements(By.CSS_SELECTOR, ".receipt dl, .problem")) > before
            )
        )
        return self.find("#log > li:last-child")

    def errors(self):
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE"]

    def run(self, script, *args):
        return self.driver.execute_script(f"return {script}", *args)


def want(messages, seed, most):
    request = Request(
        messages=messages, sampling=Sampling(temperature=0.5, seed=seed), max_tokens=most
    )
    return Generator(model_of(), threads=1).generate(request)[0]


def test_a_conversation_with_receipts_that_are_verified(browser, downloads, tmp_path):
    signer = SigningKey(bytes(32))
    with serving(receipts=Receipts(tmp_path, signer)) as client:
        page = Page(browser, client.url).ready()
        page.set(temperature=0.5, seed=7, max_tokens=12)
        messages = []
        for text in ("hi", "and more\nof it"):
            messages.append({"role": "user", "content": text})
            receipt = want(messages, 7, 12)
            item = page.say(text.replace("\n", Key.SHIFT + Key.ENTER + Key.SHIFT))
            said = page.run("arguments[0].querySelector('.said').textContent", item)
            assert said == receipt.text
            messages.append({"role": "assistant", "content": receipt.text})
            digest = receipt.digest.hex()
            shown = item.find_element(By.CSS_SELECTOR, ".receipt").text
            assert digest[:8] in shown
            assert "Seed\n7" in shown
            assert f"{len(receipt.prompt_tokens)} given, 12 drawn" in shown
            assert signer.key.hex()[:8] in shown
            assert "not of the answer" not in shown
        item.find_element(By.CSS_SELECTOR, "a[download]").click()
        file = downloads / f"{digest[:16]}.json"
        page.until(file.exists)
        assert file.read_bytes() == (tmp_path / f"{digest}.json").read_bytes()
        assert check_receipt(Receipt.of(file.read_bytes()), model_of(), threads=1) is None
        item.find_element(By.XPATH, ".//button[text()='Verify']").click()
        page.until(lambda: page.find(".checks"))
        marks = [
            e.get_attribute("data-mark") for e in item.find_elements(By.CSS_SELECTOR, ".checks li")
        ]
        assert marks == ["✓"] * 3
        assert f"ree verify {digest[:16]}.json --artifact ART.ree" in item.text
        assert "convinces only you" in item.text
        planted(client, digest, other_text)
        item.find_element(By.XPATH, ".//button[text()='Verify']").click()
        page.until(lambda: item.find_elements(By.CSS_SELECTOR, ".checks .bad"))
        assert "its parts give" in item.text
        assert item.text.count("not reached") == 2
        assert page.errors() == []


def test_what_a_model_says_is_text_and_never_runs(browser, monkeypatch):
    """The stream's pieces and the receipt are planted; then scripts that are in the page after all."""
    take = Completion.take

    def hostile(self, token):
        piece = replace(take(self, token), text=HOSTILE)
        self._pieces[-1:] = [HOSTILE]
        return piece

    with serving() as client:
        page = Page(browser, client.url).ready()
        page.set(max_tokens=2)
        monkeypatch.setattr(Completion, "take", hostile)
        item = page.say(HOSTILE)
        assert page.run("arguments[0].querySelector('.said').textContent", item) == HOSTILE * 2
        assert (
            page.run(
                "document.querySelectorAll('main img, main script, main style, main svg').length"
            )
            == 0
        )
        assert page.run("document.querySelector('.user .said').textContent") == HOSTILE
        assert page.run("window.ran") is None
        assert page.errors() == []
        for script in (
            "document.body.innerHTML = '<p>'",
            "document.body.setAttribute('onclick', '1')",
        ):
            with pytest.raises(JavascriptException, match="Trusted"):
                page.run(script)
        browser.execute_script(
            "const s = document.createElement('script'); s.append('window.ran = 1'); document.body.append(s)"
        )
        assert page.run("window.ran") is None
        assert any("will not be executed" in e for e in page.errors())


def test_a_model_without_a_template_goes_on_with_the_text(browser, monkeypatch):
    with serving() as client:
        model = client.server.services["tiny"].model
        monkeypatch.setattr(model, "template", None)
        monkeypatch.setattr(model, "template_id", NO_TEMPLATE)
        page = Page(browser, client.url).ready()
        page.set(max_tokens=8, seed=3, temperature=1)
        for text in ("the thing", "another"):
            item = page.say(text)
            request = Request(prompt=text, sampling=Sampling(seed=3), max_tokens=8)
            receipt = Generator(model_of(), threads=1).generate(request)[0]
            assert page.run("arguments[0].querySelector('.said').textContent", item) == receipt.text
            assert "not of the answer" not in item.text


def test_a_server_with_keys_asks_for_one(browser):
    with serving(keys=[KEY]) as client:
        page = Page(browser, client.url)
        browser.execute_script("sessionStorage.clear()")
        page = Page(browser, client.url)
        door = page.find("#door")
        page.until(door.is_displayed)
        assert page.run("document.activeElement.id") == "key"
        page.find("#key").send_keys("wrong", Key.ENTER)
        page.until(lambda: "does not know" in page.find("#door-problem").text)
        page.find("#key").send_keys(KEY, Key.ENTER)
        page.ready()
        assert not door.is_displayed()
        page.set(max_tokens=3)
        item = page.say("hi")
        assert item.find_elements(By.CSS_SELECTOR, ".receipt dl")
        page = Page(browser, client.url).ready()  # the tab still has the key
        assert not page.find("#door").is_displayed()
        browser.execute_script("sessionStorage.clear()")


def test_an_answer_is_stopped_and_a_refusal_is_told(browser, slow):
    with serving() as client:
        page = Page(browser, client.url).ready()
        page.set(max_tokens=400, temperature=1)
        page.find("#text").send_keys("hi", Key.ENTER)
        page.until(lambda: len(page.find(".assistant .said").text) > 3)
        page.find("#stop").click()
        page.until(lambda: "no receipt" in page.find("#log").text)
        client.quiet()
        page.find("#again").click()
        item = page.say("a" * 600)
        assert "tokens" in item.find_element(By.CSS_SELECTOR, ".problem").text
        assert page.find("#text").get_attribute("value") == "a" * 600  # to be sent again, shorter


@pytest.mark.parametrize("width", [320, 900])
def test_it_fits_is_labelled_and_works_by_keyboard(browser, client, width):
    browser.set_window_size(width, 700)
    page = Page(browser, client.url).ready()
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    page.set(max_tokens=40, seed=1)
    page.say("word" * 50).find_element(By.XPATH, ".//button[text()='Verify']").send_keys(Key.ENTER)
    page.until(lambda: page.find(".checks"))
    assert page.run("document.documentElement.scrollWidth") <= width
    unlabelled = (
        "[...document.querySelectorAll('input, textarea, select')].filter(e => !e.labels.length)"
    )
    assert page.run(f"{unlabelled}.length") == 0
    browser.execute_script("document.querySelector('details').open = false")
    page.find("#model").send_keys("")  # the focus
    seen = []
    for _ in range(9):
        browser.switch_to.active_element.send_keys(Key.TAB)
        here = browser.switch_to.active_element
        seen.append(here.get_attribute("id") or here.text)
    assert [x for x in seen if x in REACHED] == REACHED
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

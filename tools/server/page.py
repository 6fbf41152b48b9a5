"""Draws two regions on the page of `mos serve`, starts, and gets the picture.

page.py ADDRESS BROWSER [FOLDER FOR SCREENSHOTS]: BROWSER is a path, or `playwright` for its own.
"""

import json
import sys
import urllib.request
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

address, browser_path = sys.argv[1:3]
shots = Path(sys.argv[3]) if len(sys.argv) > 3 else None


def shoot(page, name: str) -> None:
    if shots:
        shots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=shots / f"{name}.png", full_page=True)


def drag(page, left: float, top: float, right: float, bottom: float) -> None:
    page.locator("#canvas").scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()
    place = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.mouse.move(*place(left, top))
    page.mouse.down()
    page.mouse.move(*place((left + right) / 2, (top + bottom) / 2))
    page.mouse.move(*place(right, bottom))
    page.mouse.up()


def jobs() -> list[dict]:
    with urllib.request.urlopen(address + "/api/jobs") as answer:
        return json.load(answer)["jobs"]


def last_job() -> dict:
    return jobs()[-1]


def start(page, button: str):
    """Presses a button that begins a job, and gives the card of that very job.

    The page hears of it a little later: until then the first card is the job before.
    """
    before = {job["id"] for job in jobs()}
    page.get_by_role("button", name=button).click()
    for _ in range(100):
        if new := {job["id"] for job in jobs()} - before:
            return page.locator(f"#job-{new.pop()}")
        page.wait_for_timeout(100)
    raise AssertionError(f"{button} began no job")


def two_regions(page) -> None:
    page.goto(address)
    expect(page.locator("#about")).to_contain_text("version")
    page.get_by_label("Prompt", exact=True).first.fill("in the snow")
    page.locator("#ask [name=steps]").fill("40")
    page.locator("#ask [name=seed]").fill("3")
    drag(page, 0.02, 0.2, 0.48, 0.95)
    drag(page, 0.52, 0.2, 0.98, 0.95)
    cards = page.locator("#region-list > li")
    expect(cards).to_have_count(2)
    cards.nth(0).get_by_label("Prompt", exact=True).fill("a red cat")
    cards.nth(1).get_by_label("Prompt", exact=True).fill("a blue dog")
    shoot(page, "regions")
    job = start(page, "Make it")
    # Progress is seen: it samples, and is not done at once.
    expect(job).to_contain_text("sample", timeout=60_000)
    shoot(page, "sampling")
    expect(job).to_contain_text("done in", timeout=300_000)
    picture = job.locator("img:not(.preview)")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 128
    told = last_job()
    assert told["state"] == "done" and told["asked"]["regions"] == 2, told
    expect(page.locator("#gallery img")).not_to_have_count(0)
    shoot(page, "done")


def settings_come_back(page) -> None:
    page.reload()
    page.get_by_role("button", name="Take the settings").first.click()
    expect(page.get_by_label("Prompt", exact=True).first).to_have_value("in the snow")
    cards = page.locator("#region-list > li")
    expect(cards).to_have_count(2)
    expect(cards.nth(1).get_by_label("Prompt", exact=True)).to_have_value("a blue dog")


def other_shapes(page) -> None:
    page.reload()
    expect(page.locator("#about")).to_contain_text("version")
    box = page.locator("#canvas").bounding_box()
    page.get_by_label("Polygon").check()
    page.locator("#canvas").scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()
    for x, y in [(0.1, 0.1), (0.45, 0.15), (0.3, 0.6)]:
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.locator("#canvas").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Brush", exact=True).check()
    drag(page, 0.6, 0.5, 0.9, 0.8)
    cards = page.locator("#region-list > li")
    expect(cards).to_have_count(2)
    cards.nth(0).get_by_label("Prompt", exact=True).fill("a red cat")
    cards.nth(1).get_by_label("Prompt", exact=True).fill("a blue dog")
    page.locator("#ask [name=steps]").fill("2")
    shoot(page, "shapes")
    job = start(page, "Make it")
    expect(job).to_contain_text("done in", timeout=300_000)
    expect(job).to_contain_text("2 regions")
    # For the command line, which makes it again.
    print("kept:", last_job()["pictures"][0]["file"])


def previews(page) -> None:
    """What will be is seen while it is sampled, and changes."""
    page.reload()
    expect(page.locator("#about")).to_contain_text("version")
    page.get_by_label("Prompt", exact=True).first.fill("a red cat in the snow")
    for name, value in [("width", "192"), ("height", "192"), ("steps", "100"), ("seed", "4")]:
        page.locator(f"#ask [name={name}]").fill(value)
    job = start(page, "Make it")
    seen = job.locator("img.preview")
    expect(seen).to_be_visible(timeout=120_000)
    wide = "image => image.decode().then(() => image.naturalWidth)"
    assert seen.evaluate(wide) == 192
    first = seen.get_attribute("src")
    shoot(page, "preview")
    expect(seen).not_to_have_attribute("src", first, timeout=120_000)
    expect(job).to_contain_text("done in", timeout=300_000)
    expect(seen).to_be_hidden()


def by_keyboard(page) -> None:
    """Without a mouse: from the prompt to a region that is moved, resized and removed."""
    page.reload()
    expect(page.locator("#about")).to_contain_text("version")
    page.locator("#add-box").focus()
    page.keyboard.press("Enter")
    edges = page.locator("#region-list .edges input")
    before = edges.nth(0).input_value(), edges.nth(2).input_value()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    after = edges.nth(0).input_value(), edges.nth(2).input_value()
    assert float(after[0]) > float(before[0]) and float(after[1]) > float(before[1]) + 0.01
    page.keyboard.press("Delete")
    expect(page.locator("#region-list > li")).to_have_count(0)
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('input, textarea, select, button')].filter("
        "e => !e.labels?.length && !e.ariaLabel && !e.textContent.trim()).map(e => e.outerHTML)")
    assert not unnamed, unnamed


def problems_are_told(page) -> None:
    page.locator("#ask [name=width]").fill("72")
    page.locator("#ask [name=steps]").fill("150")
    page.locator("#ask [name=batch]").fill("16")
    page.locator("#ask [name=seed]").fill("99999999999999999999999")
    page.get_by_role("button", name="Make it").click()
    expect(page.locator("#problem")).to_contain_text("64 bits")
    page.locator("#ask [name=seed]").fill("")
    job = start(page, "Make it")
    job.get_by_role("button", name="Cancel").click()
    expect(job).to_contain_text("cancelled", timeout=60_000)


def taught(page) -> None:
    """A concept is taught and fused; both can be chosen at once."""
    page.reload()
    page.get_by_text("Teach a concept").click()
    form = page.locator("#teach")
    form.locator("[name=pictures]").select_option("zorp")
    form.locator("[name=name]").fill("zorp")
    form.locator("[name=words]").fill("<zorp1> <zorp2>")
    form.locator("[name=class_word]").fill("man")
    form.locator("[name=steps]").fill("12")
    job = start(page, "Teach it")
    expect(job).to_contain_text("teach zorp")
    expect(job).to_contain_text("done in", timeout=300_000)
    expect(job.locator("svg.curve")).to_be_visible()
    expect(page.locator("#concept-list")).to_contain_text("<zorp1> <zorp2>")
    shoot(page, "taught")
    page.get_by_text("Fuse concepts").click()
    page.locator("#fuse [name=name]").fill("both")
    page.locator("#fuse [name=steps]").fill("2")
    page.locator("#fuse-list input").first.check()
    job = start(page, "Fuse them")
    expect(job).to_contain_text("fuse zorp into both")
    expect(job).to_contain_text("done in", timeout=600_000)
    expect(job).to_contain_text("Report on both")
    expect(page.locator("#ask [name=model] option", has_text="both")).to_have_count(1)
    shoot(page, "fused")


def small_and_dark(browser) -> None:
    for width, scheme in [(400, "light"), (400, "dark"), (1280, "dark")]:
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.goto(address)
        expect(page.locator("#gallery img").first).to_be_visible()
        page.locator("#add-box").click()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} pixels at {width}"
        shoot(page, f"{scheme}-{width}")
        page.close()


with sync_playwright() as playwright:
    own = {} if browser_path == "playwright" else {"executable_path": browser_path}
    browser = playwright.chromium.launch(args=["--no-sandbox"], **own)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    two_regions(page)
    settings_come_back(page)
    other_shapes(page)
    previews(page)
    by_keyboard(page)
    problems_are_told(page)
    taught(page)
    small_and_dark(browser)
    # A request that is refused is told of there too, once.
    complaints = [text for text in complaints if "422" not in text]
    assert not complaints, complaints
    browser.close()
print("the page: regions were drawn, the picture came")

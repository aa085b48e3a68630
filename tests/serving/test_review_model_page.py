"""What the model finds, in the Review view in a browser: label errors, near-duplicates, what to label next."""

import pytest

from helpers.browser import CHROMIUM
from helpers.page_server import page_server
from helpers.review_page import (
    SERVE,
    ask,
    click,
    clip_of,
    import_path,
    press,
    review_page,
    shot,
    wait_message,
    write_review_folder,
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_review_folder(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="module")
def server(folder):
    with page_server(folder, *SERVE) as address:
        ask(address, "import", {"path": str(folder / "sounds.csv")})
        yield address


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    with review_page(server, tmp_path_factory.mktemp("profile")) as page:
        page.wait("document.querySelectorAll('.review-card').length > 3", 30)
        yield page


def test_the_model_finds_the_wrong_label_and_a_key_accepts_its_suggestion(page, server):
    click(page, "Find label errors")
    page.wait("document.querySelector('.review-jobs .hint').textContent.includes('has looked at')", 90)
    click(page, "Label errors")
    page.wait("document.querySelector('.review-clip .suggestion')?.checkVisibility()")
    wrong = next(n for n in range(1, 30) if "_040000" in clip_of(server, n)["name"])
    page.wait(f"document.querySelector('.review-card[data-number=\"{wrong}\"]')")
    page.run(f"document.querySelector('.review-card[data-number=\"{wrong}\"]').click()")
    page.wait("document.querySelector('.suggestion button')?.textContent.includes('middle')")
    shot(page, "suspects")
    press(page, "a", "Labels middle")
    assert clip_of(server, wrong)["labels"] == ["middle"]
    click(page, "Near-duplicates")
    page.wait("document.querySelectorAll('.comparison .side').length === 2")
    page.wait("[...document.querySelectorAll('.side img')].every((one) => one.naturalWidth === 320)")
    shot(page, "duplicates")
    page.press("n")
    page.wait("document.querySelector('.queues').textContent.includes('Sounds like this')")
    page.wait("document.querySelectorAll('.review-card').length > 5")
    shot(page, "similar")
    click(page, "All clips")


def test_suggestions_for_a_folder_without_labels(page, folder):
    page.press("i")
    page.wait("document.querySelector('.review-dialog .import-form')")
    shot(page, "add")
    import_path(page, folder, "new")
    wait_message(page, "3 clips added", 40)
    click(page, "Suggest what to label")
    page.wait("document.querySelector('.queues').textContent.match(/Label next [1-9]/)", 60)
    click(page, "Label next")
    page.wait("document.querySelector('.suggestion')?.textContent.includes('Why this clip')")
    shot(page, "suggestions")
    click(page, "All clips")


def test_a_table_is_dropped_on_the_page(page, folder):
    name = sorted((folder / "sounds").iterdir())[-1]
    table = f'fname,labels\n"{name}",dropped label\n'
    page.run(f"""(() => {{
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([{table!r}], 'more.csv', {{ type: 'text/csv' }}));
        document.querySelector('.review-view').dispatchEvent(new DragEvent('drop', {{ dataTransfer, bubbles: true }}));
    }})()""")
    page.wait("document.querySelector('.review-dialog .chosen-path')?.textContent === 'more.csv'")
    click(page, "Add the clips")
    wait_message(page, "0 clips added, 1 changed", 40)

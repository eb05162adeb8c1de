"""The five interactive pages of the site: each shows what its title says, in a real Chromium too."""

import numpy as np
import pytest

from browser import needs_browser, run
from experiments import pages
from experiments.site import contents

pytestmark = pytest.mark.project


@pytest.fixture(scope="module")
def explained():
    return {make: make() for make in pages.PAGES}


def values(explanation):
    return {equation.left: equation.value for equation in explanation.equations}


def test_the_digit_is_read_and_its_pixels_are_one_column(explained):
    found = values(explained[pages.digit])
    assert found["a^{0}"].shape == (784,)
    assert np.argmax(found["a^{2}"]) == explained[pages.digit].y


def test_a_dead_relu_learns_nothing_and_its_neighbours_do(explained):
    found = values(explained[pages.dead_relu])
    assert found[r"\delta^{1}"][1] == 0
    assert not found[r"\partial C/\partial W^{1}"][1].any()
    assert found[r"\partial C/\partial W^{1}"][[0, 2]].all()
    assert found["g^{1}"][1] != 0


def test_the_gradient_vanishes_towards_the_input(explained):
    found = values(explained[pages.vanishing_gradient])
    sizes = [np.abs(found[rf"\delta^{{{n}}}"]).max() for n in range(1, 9)]
    assert sizes == sorted(sizes)
    assert sizes[0] < 1e-3 * sizes[-1]


def test_the_wrong_derivation_is_found_at_every_hidden_layer_and_nowhere_else(explained):
    bad = [equation.left for equation in explained[pages.wrong_derivation].equations if equation.wrong]
    assert bad == [r"\delta^{2}", r"\delta^{1}"]
    others = [explained[make] for make in pages.PAGES if make is not pages.wrong_derivation]
    assert not any(equation.wrong for explanation in others for equation in explanation.equations)


def test_the_site_links_to_every_page():
    text = contents.interactive()
    for make in pages.PAGES:
        assert f'href="../../pages/{pages.file_name(make)}"' in text


@pytest.mark.process
@needs_browser
@pytest.mark.parametrize("width", [390, 1366])
def test_all_five_fit_their_window_and_leave_the_console_silent(tmp_path_factory, width):
    for file in pages.write(tmp_path_factory.mktemp("gallery")):
        script = "location.hash = '#step=9'; return [document.documentElement.scrollWidth, innerWidth];"
        (widest, window), console = run(file, script, width=width)
        assert widest <= window == width
        assert not console

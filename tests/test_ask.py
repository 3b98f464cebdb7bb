"""`ask_table` and `emuinfer ask`: tables of any size in, tables of answers out, whole or not at all."""

import equinox as eqx
import jax
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from test_networks import SIZES, VOCABULARY, K, jiggled

from emuinfer.errors import NetworkError, TokenError
from emuinfer.networks import FLAGS, AnyToAny, Network, ask_table, list_networks, load_network, save_network
from emuinfer.networks import ask as module
from emuinfer.networks.context import SPECTRA, context_of
from emuinfer.networks.outliers import ordinary_scores
from emuinfer.tokens import Kind, TokenSet, Vocabulary, example_stars

ROWS = 12


@pytest.fixture(scope="module")
def network():
    kinds = [
        Kind(**{**kind.__dict__, "lower": -3.0, "upper": 3.0}) if kind.name == "colour" else kind for kind in VOCABULARY
    ]
    net = eqx.filter_jit(lambda key: jiggled(AnyToAny(K, (7, 8), SIZES, key=key)))(jax.random.key(0))  # compiled once
    return Network(net, Vocabulary(kinds, "toy"), {"hash": "abc"})


@pytest.fixture
def table(tmp_path):
    """Twelve objects as CSV; of the fourth nothing is known, and the fifth has a colour that none in the training had."""
    generator = np.random.default_rng(0)
    columns = {"source_id": 4_000_000_000_000_000_000 + np.arange(ROWS)}
    columns |= {f"bin_{i}": np.exp(generator.normal(size=ROWS)) for i in range(6)}
    columns |= {"colour": generator.normal(size=ROWS), "teff": np.full(ROWS, 5000.0)}
    made = Table(columns, masked=True)
    for name in made.colnames[1:]:
        made[name].mask[3] = name != "teff"
    made["colour"][4] = 41.0
    made.write(tmp_path / "stars.csv", format="ascii.csv")
    return tmp_path / "stars.csv"


def read(path):
    """Columns as plain arrays: astropy masks NaN and empty texts."""
    found = Table.read(path)
    found.convert_bytestring_to_unicode()
    blank = {"U": "", "f": np.nan}
    return {
        name: np.asarray(np.ma.filled(found[name], blank.get(found[name].dtype.kind, 0))) for name in found.colnames
    }


def ask(network, table, output, want=("teff", "logg"), **options):
    return ask_table(network, table, list(want), output, progress=False, **options)


def test_one_row_for_each_row(network, table, tmp_path):
    asked = ask(network, table, tmp_path / "a.fits")
    found, given = read(asked.path), Table.read(table)
    assert asked.rows == ROWS and np.array_equal(found["source_id"], given["source_id"])
    assert Table.read(asked.path)["teff"].unit == "K" and not list(tmp_path.glob("*.run"))
    assert np.isnan(found["teff"][3]) and found["flag"][3] == FLAGS["nothing_known"]
    assert found["flag"][4] & FLAGS["outside"] and "colour = 41" in found["note"][4]
    assert asked.flags["nothing_known"] == asked.flags["outside"] == 1
    known = np.arange(ROWS) != 3
    direct = network.ask(network.tokens(given)[known], ["teff", "logg"])
    assert np.allclose(found["teff"][known], direct["teff"], rtol=1e-6)
    assert np.allclose(found["logg_p97_5"][known], direct.quantiles[0.975][:, 1], rtol=1e-5)
    with fits.open(asked.path) as hdus:
        hdus.verify("exception")
        header = hdus[1].header
        at = {header[f"TTYPE{i}"]: i for i in range(1, header["TFIELDS"] + 1)}
        assert header[f"TUCD{at['teff']}"] == "phys.temperature.effective;stat.median"
        assert "standard deviation" in header[f"TCOMM{at['e_logg']}"] and f"TUNIT{at['logg']}" not in header
        assert any(line.startswith("flag 2: outside") for line in header["COMMENT"])


@pytest.mark.parametrize("suffix", [".csv", ".ecsv", ".xml"])
def test_formats_hold_the_same(network, table, tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(module, "NUMBERS", 30)  # parts of five rows with draws, so that pieces are put together
    more = {} if suffix == ".csv" else {"draws": 3}
    ask(network, table, tmp_path / "a.fits", outliers=False, **more)
    ask(network, table, tmp_path / f"a{suffix}", outliers=False, **more)
    one, other = read(tmp_path / "a.fits"), read(tmp_path / f"a{suffix}")
    assert list(one) == list(other) and len(other["flag"]) == ROWS
    assert np.array_equal(one.pop("note"), other.pop("note"))
    for name in one:
        assert np.allclose(one[name], other[name], rtol=1e-6, equal_nan=True), name
    if suffix != ".csv":
        assert one["teff_draws"].shape == (ROWS, 3) and one["log_prob"].shape == (ROWS, 3)
        other = Table.read(tmp_path / f"a{suffix}")
        assert other["teff"].unit == "K" and "deviation" in other["e_teff"].description


def test_a_killed_run_goes_on(network, table, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "NUMBERS", 24)  # four rows in a part
    whole = read(ask(network, table, tmp_path / "whole.fits", draws=3).path)
    part, made = module._Asking.part, []

    def killed(self, tokens, number, bar):
        if number == 2 and len(made) < 3:
            made.append("killed")
            raise KeyboardInterrupt
        made.append(number)
        return part(self, tokens, number, bar)

    monkeypatch.setattr(module._Asking, "part", killed)
    with pytest.raises(KeyboardInterrupt):
        ask(network, table, tmp_path / "a.fits", draws=3)
    assert not (tmp_path / "a.fits").exists()
    with pytest.raises(NetworkError, match=r"other settings \(seed: 0 there, 1 now\)"):
        ask(network, table, tmp_path / "a.fits", draws=3, seed=1)
    again = read(ask(network, table, tmp_path / "a.fits", draws=3).path)
    assert made == [0, 1, "killed", 2]
    for name in whole:
        assert np.array_equal(whole[name], again[name], equal_nan=name != "note"), name
    with pytest.raises(NetworkError, match="exists"):
        ask(network, table, tmp_path / "a.fits")


def test_what_is_given_and_what_is_wanted(network, table, tmp_path):
    ask(network, table, tmp_path / "a.fits", want=["teff"], given=["colour"])
    given = Table.read(table)
    known = np.arange(ROWS) != 3
    direct = network.ask({"colour": np.asarray(given["colour"][known])}, "teff")
    assert np.allclose(read(tmp_path / "a.fits")["teff"][known], direct["teff"])
    with pytest.raises(TokenError, match=r"no kind 'tef'.*teff"):
        ask(network, table, tmp_path / "b.fits", want=["tef"])
    with pytest.raises(TokenError, match="nothing is left"):
        ask(network, table, tmp_path / "b.fits", want=["teff"], given=["teff"])
    with pytest.raises(NetworkError, match="CSV has no place for draws"):
        ask(network, table, tmp_path / "b.csv", draws=5)
    with pytest.raises(NetworkError, match=r"\.txt.*\.fits"):
        ask(network, table, tmp_path / "b.txt")
    with pytest.raises(TokenError, match="no file or folder"):
        ask(network, tmp_path / "nothing.csv", tmp_path / "b.fits")


def test_a_column_in_the_wrong_unit_is_told(network, table, tmp_path):
    wrong = Table.read(table)
    wrong["colour"] *= 1000
    wrong.write(tmp_path / "wrong.csv", format="ascii.csv")
    asked = ask(network, tmp_path / "wrong.csv", tmp_path / "a.fits")
    assert any("colour" in note and "Times 0.001" in note for note in asked.notes)
    assert asked.flags["outside"] > ROWS / 2


def test_the_command(network, table, tmp_path, cli):
    save_network(network, tmp_path / "toy", {"title": "Toy"})
    status, out, err = cli("ask", tmp_path / "toy", table, "--want", "teff,logg", "-o", tmp_path / "a.ecsv", "-q")
    assert status == 0 and "12 objects" in out and "nothing_known 1" in " ".join(out.split())
    assert Table.read(tmp_path / "a.ecsv")["teff"].unit == "K"
    status, out, err = cli("ask", tmp_path / "toy", "--list")
    assert status == 0 and "bins" in out and "teff [K]" in out
    status, out, err = cli("ask", tmp_path / "toy", table, "--want", "tef", "-o", tmp_path / "b.fits")
    assert status == 1 and "no kind 'tef'" in err
    status, out, err = cli("ask", tmp_path / "toy", table, "--want", "logg", "--column", "teff=", "--column", "colour=bin_0,mmag",
                           "-o", tmp_path / "c.fits", "-q")  # fmt: skip
    assert status == 0, err
    assert (
        cli("ask", tmp_path / "toy")[0] == 1
        and cli("ask", tmp_path / "toy", table, "--want", "teff", "--column", "x")[0] == 1
    )


def two_spectra():
    groups = [(SPECTRA[0], "identity", False)] * 3 + [(SPECTRA[1], "log", True)] * 3 + [("labels", "identity", False)]
    return Vocabulary(Kind(f"k{i}", "", group, how, relative=rel) for i, (group, how, rel) in enumerate(groups))


def test_a_context_never_holds_a_spectrum_twice():
    vocabulary = two_spectra()
    values = np.ones((4, 7))
    values[1, 0] = np.nan  # not all coefficients: the bins
    values[2, 1:6] = np.nan  # one coefficient alone
    values[3, 4] = np.nan  # not all bins: the coefficients
    tokens = TokenSet(vocabulary, values)
    seen = context_of(tokens, [6]).seen
    assert seen.tolist() == [
        [1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 1, 0],
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
    ]
    assert context_of(tokens, [4]).seen[0].tolist() == [0, 0, 0, 1, 0, 1, 1]
    with pytest.raises(TokenError, match="same spectrum twice"):
        context_of(tokens, [0, 4])


def test_outlier_scores(network):
    """Untrained weights: an object whose value lies far from all that is said of it stands out, and p counts those above it."""
    generator = np.random.default_rng(1)
    values = np.column_stack(
        [np.exp(generator.normal(size=(400, 6))), generator.normal(size=400), np.full((400, 2), np.nan)]
    )
    tokens = TokenSet(network.vocabulary, values)
    ordinary = ordinary_scores(network, tokens)
    measured = Network(network.net, network.vocabulary, {"outliers": ordinary})
    found = measured.outlier_score(tokens)
    assert np.allclose(np.mean(found.p < 0.5), 0.5, atol=0.05) and np.all(found.score >= 0)
    wild = values.copy()
    wild[0, 6] = 50.0
    again = measured.outlier_score(TokenSet(network.vocabulary, wild))
    assert again.score[0] > found.score[0] and again.p[0] < 0.002 and np.array_equal(again.score[1:], found.score[1:])
    alone = measured.outlier_score(TokenSet(network.vocabulary, np.where(np.arange(K) == 6, wild, np.nan)[:2]))
    assert np.isnan(alone.score).all()


def test_saved_scores_are_used(network, tmp_path):
    save_network(network, tmp_path / "toy", {"outliers": {"none": [0.0] * 35}})
    assert len(load_network(tmp_path / "toy").card["outliers"]["none"]) == 35


@pytest.mark.skipif("stars-xp" not in list_networks(), reason="the network 'stars-xp' is not in this checkout")
def test_joint_draws_have_the_margins_that_are_answered():
    """Of real stars: a label drawn given others is, over all draws, distributed as the label asked for alone."""
    network = load_network("stars-xp")
    stars = network.tokens(example_stars()[:8])
    assert np.isfinite(network.outlier_score(stars).p).all()  # the card has what they are compared with
    answer = network.ask(stars, ["logg", "fe_h"], draws=200)
    low, high = np.quantile(answer.draws, [0.16, 0.84], axis=1)
    width = answer.quantiles[0.84] - answer.quantiles[0.16]
    assert np.all(np.abs(np.median(answer.draws, 1) - answer.quantiles[0.5]) < 0.8 * width)
    assert np.allclose(np.median((high - low) / width, 0), 1, atol=0.25)

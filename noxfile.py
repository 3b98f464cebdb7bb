"""The commands of a contributor: `nox` lists them, `nox -s tests` runs one. They use the environment that is active."""

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"  # `pip install -e ".[dev]"` has installed everything
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_external_run = False


@nox.session
def lint(session):
    """ruff: rules and format. With `-- --fix`, mend what can be mended."""
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")


@nox.session
def types(session):
    """mypy over the package."""
    session.run("mypy", *session.posargs)


@nox.session
def tests(session):
    """The tests; what follows `--` goes to pytest."""
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def slow(session):
    """All tests, those of a minute or more too."""
    session.run("python", "-m", "pytest", "--slow", *session.posargs)


@nox.session
def comparison(session):
    """The tests against independent codes and published values."""
    session.run("python", "-m", "pytest", "-m", "comparison", "--slow", *session.posargs)


@nox.session
def docs(session):
    """The documentation site, strictly, in site/."""
    session.run("python", "docs/benchmarks.py", "--check")
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def tutorials(session):
    """Run the notebooks at full length and keep their outputs; name some after `--` to run only those."""
    session.run("python", "docs/refresh_tutorials.py", *session.posargs)


@nox.session
def build(session):
    """Wheel and sdist in dist/, with their contents checked."""
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, Path("dist").glob("*")))
    session.run("python", "-m", "pytest", "-n", "0", "--slow", "tests/test_wheel.py")

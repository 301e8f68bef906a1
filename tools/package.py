"""Build what is released: sdist, wheel, Debian package, list of components (CycloneDX), licences.

    python tools/package.py [--out dist]

The wheel is built from the sdist. Everything has the locked versions of tools/locks. Each build of
a commit gives the same bytes: all times are the commit's (SOURCE_DATE_EPOCH).

The Debian package is for the release of Debian or Ubuntu that it is built on: it uses the system's
Python, and brings its own libraries, in /usr/lib/mitml4.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, distributions
from pathlib import Path
from textwrap import indent

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "tools/locks/runtime.txt"
# Debian's own, which runs the Debian package.
DEBIAN_PYTHON = Path("/usr/bin/python3")
LICENCES = ("LICENSE", "LICENCE", "COPYING", "NOTICE")
HOME = Path("usr/lib/mitml4")
CONTROL = """\
Package: mitml4
Version: {version}-1
Architecture: {architecture}
Maintainer: The mitml4 developers <mitml4@localhost>
Depends: {python}, nftables, iproute2
Section: net
Priority: optional
Installed-Size: {size}
Description: transparent man in the middle for TCP
 mitml4 puts itself between clients and servers, names the protocol stack of
 every TCP connection, opens TLS, and shows it in a table or as JSON lines.
"""


def run(*command: str | Path, **options: object) -> str:
    """The output of a command. Raises SystemExit with what it printed if it fails."""
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if result.returncode:
        raise SystemExit(f"error: {command[0]} failed\n{result.stdout}{result.stderr}")
    return str(result.stdout)


def time_of_commit() -> str:
    """Seconds since 1970: when the commit was made, or SOURCE_DATE_EPOCH."""
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        return epoch
    return run("git", "-C", ROOT, "log", "-1", "--format=%ct").strip()


def build(out: Path) -> Path:
    """Build the sdist, and the wheel from it. Gives the wheel."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    (wheel,) = out.glob("*.whl")
    return wheel


def install(wheel: Path, python: str | Path, home: Path) -> Path:
    """Make an environment with the wheel and the locked versions, and start it.

    Gives its `site-packages`.
    """
    run(python, "-m", "venv", "--without-pip", home)
    pip = (sys.executable, "-m", "pip", "--python", home / "bin/python", "--quiet", "install")
    options = ("--disable-pip-version-check", "--no-compile")
    run(*pip, *options, "--no-deps", "--require-hashes", "--requirement", LOCK)
    run(*pip, *options, "--no-deps", wheel)
    assert run(home / "bin/mitml4", "--version").endswith(f"{version_of(wheel)}\n")
    (packages,) = home.glob("lib/python3*/site-packages")
    return packages


def version_of(wheel: Path) -> str:
    return wheel.name.split("-")[1]


def licences(packages: Path) -> str:
    """The name, version, licence and licence texts of every distribution."""

    def name_of(item: Distribution) -> str:
        return item.metadata["Name"].lower()

    def licence_of(item: Distribution) -> str:
        expression, classifiers, text = (
            item.metadata.get_all(field) or []
            for field in ("License-Expression", "Classifier", "License")
        )
        named = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License")]
        return ", ".join(expression or named or text) or "unknown"

    def texts_of(item: Distribution) -> list[str]:
        inside = [file for file in sorted(item.files or []) if ".dist-info" in str(file)]
        return [indent(file.read_text(), "  ") for file in inside if file.stem.upper() in LICENCES]

    parts = []
    for item in sorted(distributions(path=[str(packages)]), key=name_of):
        parts += [f"{name_of(item)} {item.version}: {licence_of(item)}\n", *texts_of(item)]
    return "\n".join(parts)


def write_components(home: Path, file: Path) -> None:
    """Write what the environment consists of (CycloneDX 1.6)."""
    run(
        *(sys.executable, "-m", "cyclonedx_py", "environment", home / "bin/python"),
        *(
            "--output-reproducible",
            "--no-validate",
            "--gather-license-texts",
            "--pyproject",
            ROOT / "pyproject.toml",
        ),
        *("--output-file", file),
    )


def write_debian_package(root: Path, packages: Path, version: str, out: Path) -> None:
    """Make a Debian package of an environment in `root`, with man pages and completions."""
    home = root / HOME
    move_shared(home / "share", root)
    make_movable(home)
    documents = root / "usr/share/doc/mitml4"
    documents.mkdir(parents=True)
    shutil.copy(out / "licences.txt", documents / "copyright")
    shutil.copy(ROOT / "README.md", documents)
    write_compressed(documents / "changelog.gz", (ROOT / "CHANGELOG.md").read_bytes())
    # Again what was compiled when it was started, with the time and the temporary directory.
    compiling = ("-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash")
    run(DEBIAN_PYTHON, *compiling, "-s", root, "-p", "/", packages)

    architecture = run("dpkg", "--print-architecture").strip()
    (root / "DEBIAN").mkdir()
    # Directories have the size of what was ever in them at the same time.
    size = sum(each.lstat().st_size for each in root.rglob("*") if not each.is_dir()) // 1024
    control = CONTROL.format(
        version=version, architecture=architecture, python=f"python{python_version()}", size=size
    )
    (root / "DEBIAN/control").write_text(control)
    package = out / f"mitml4_{version}-1_{architecture}.deb"
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", root, package)


def python_version() -> str:
    """Of Debian's Python: `3.11`."""
    return run(DEBIAN_PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()


def move_shared(share: Path, root: Path) -> None:
    """Man pages and completions go where the system's programs look for them."""
    (root / "usr/share").mkdir(parents=True)
    for name in ("bash-completion", "fish"):
        shutil.move(share / name, root / "usr/share" / name)
    zsh = root / "usr/share/zsh/vendor-completions"
    zsh.mkdir(parents=True)
    shutil.move(share / "zsh/site-functions/_mitml4", zsh)
    pages = root / "usr/share/man/man1"
    pages.mkdir(parents=True)
    for page in sorted((share / "man/man1").glob("mitml4*")):
        write_compressed(pages / f"{page.name}.gz", page.read_bytes())
    shutil.rmtree(share)


def make_movable(home: Path) -> None:
    """The environment was made in a temporary directory, and is used in /usr/lib/mitml4."""
    for file in (home / "bin").iterdir():
        if file.name != "mitml4" and not file.name.startswith("python"):
            file.unlink()
    command = home / "bin/mitml4"
    first, _, rest = command.read_text().partition("\n")
    assert first.startswith("#!")
    command.write_text(f"#!/{HOME}/bin/python\n{rest}")
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    for record in home.rglob("RECORD"):
        record.unlink()  # dpkg knows the files
    for file in home.rglob("direct_url.json"):
        file.unlink()  # names the temporary directory
    link = home.parent.parent / "bin/mitml4"
    link.parent.mkdir()
    link.symlink_to("../lib/mitml4/bin/mitml4")


def write_compressed(file: Path, data: bytes) -> None:
    file.write_bytes(gzip.compress(data, mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description="Build what is released.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.environ["SOURCE_DATE_EPOCH"] = time_of_commit()
    os.umask(0o022)
    wheel = build(out)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "root")
        is_debian = DEBIAN_PYTHON.exists() and bool(shutil.which("dpkg-deb"))
        packages = install(wheel, DEBIAN_PYTHON if is_debian else sys.executable, root / HOME)
        write_components(root / HOME, out / f"mitml4-{version_of(wheel)}.cdx.json")
        (out / "licences.txt").write_text(licences(packages))
        if is_debian:
            write_debian_package(root, packages, version_of(wheel), out)
    for file in sorted(out.iterdir()):
        print(f"{file.stat().st_size:>10,}  {file.name}")


if __name__ == "__main__":
    main()

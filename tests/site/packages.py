"""Pinned packages of other ecosystems, installed under `target` by whichever way the machine has."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()


def by_environment(folder, pins):
    """A virtual environment; gives its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    pip([python, "-m", "pip"], pins, [])
    return [python], {}


def by_pip(folder, pins):
    """pip alone, into a folder; for a Python without ensurepip."""
    pip([sys.executable, "-m", "pip"], pins, ["--target", folder / "lib"])
    return [sys.executable], {"PYTHONPATH": str(folder / "lib")}


def by_system(folder, pins):
    """What a Debian system lacks for a virtual environment, where it may be installed."""
    debian(["python3-venv", "python3-pip"])
    return by_environment(folder, pins)


def pip(command, pins, more):
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*command, "install", *quiet, *more, "-r", pins], check=True)


def debian(packages):
    """Installs packages of Debian, where that may be done."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise OSError("not root, or no apt-get")
    surroundings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=surroundings)
    subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages],
                   check=True, env=surroundings, stdout=subprocess.DEVNULL)


def python_with(name, pins):
    """The command of a Python that has the packages of `pins`, and what its surroundings need; or
    None."""
    print(f"{name}: {', '.join(pins.read_text().split())}", flush=True)
    mark = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:16]
    for way in (by_environment, by_pip, by_system):
        folder = TARGET / name / f"{way.__name__}-{mark}"
        done = folder / "done"
        if done.exists():
            inside = folder / "bin/python"
            lib = {"PYTHONPATH": str(folder / "lib")} if way is by_pip else {}
            return [inside if inside.exists() else sys.executable], lib
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            found = way(folder, pins)
            done.touch()
            return found
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"  {way.__name__}: {error}", flush=True)
    return None


def node_with(name, package, version):
    """A folder whose `node_modules` holds a package of npm; or None."""
    folder = TARGET / name / f"node-{package}-{version}"
    if not (folder / "done").exists():
        if not shutil.which("npm"):
            return None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = ["npm", "install", "--silent", "--no-save", "--no-audit", "--no-fund",
                   "--ignore-scripts", "--prefix", folder, f"{package}@{version}"]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"  npm: {error}", flush=True)
            return None
        (folder / "done").touch()
    return folder


def again(found, script):
    """Runs `script` once more, with the Python that was found; gives its exit code."""
    command, more = found
    command = [str(part) for part in command] + [str(script), "--installed"]
    return subprocess.run(command, env={**os.environ, **more}).returncode

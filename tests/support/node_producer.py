"""Makes a folder with the Node example and its node_modules, for the tests that run it."""
import fcntl
import os
import shutil
import subprocess

SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
                      "examples", "producers", "node")


def prepare(folder):
    """None, or why it cannot be. Several tests may ask at once; only the first fetches anything."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "node or npm is not installed"
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lockfile = os.path.join(SOURCE, "package-lock.json")
        fetched = os.path.join(folder, "fetched.json")  # the lock file of what is there
        is_there = os.path.exists(fetched) and open(fetched, "rb").read() == open(lockfile, "rb").read()
        for name in os.listdir(SOURCE):
            if name != "node_modules":  # whole at any time: another test may run it
                copy = shutil.copy2(os.path.join(SOURCE, name), os.path.join(folder, "copy"))
                os.replace(copy, os.path.join(folder, name))
        if not is_there:
            done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False)
            if done.returncode:
                return "npm could not fetch zeromq: " + done.stdout.strip()[-300:]
            shutil.copy2(lockfile, fetched)
    return None

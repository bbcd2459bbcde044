"""Print the digests of the mix as JSON, computed in the ways that the arguments name."""

import json
import sys
import threading

import mix
from start_methods import by_fork

import jitconv


def in_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(mix.digests()))
    thread.start()
    thread.join()
    return found[0]


def compute(way):
    """Return the digests, computed in a way."""
    if way in ("thread", "fork"):
        return in_a_thread() if way == "thread" else by_fork(mix.digests)
    kind, number = way.split()
    with jitconv.num_threads(int(number) if kind == "threads" else 2):
        return mix.digests()


if __name__ == "__main__":
    print(json.dumps({way: compute(way) for way in sys.argv[1:]}))

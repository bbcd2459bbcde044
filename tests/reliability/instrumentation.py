"""Compiled code with a check before each of its loads and stores, as AddressSanitizer has, but exact: by array.

Numba's own bounds checks know arrays; kernels have addresses, and most of their accesses are emitted by intrinsics. So
the checks are put into the LLVM code of every module that Numba makes, before it is optimised: into each load, store,
copy, fill, masked load or store, gather and scatter but those of a function's own variables, which hold what Numba
keeps between two statements. Variables that are indexed at run time are checked against their own size.

What touches memory in a way that is not known here is refused, so that nothing escapes.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from checked_accesses import FUNCTIONS
from llvmlite import ir
from numba.core import codegen
from numba.core.registry import cpu_target

I64 = ir.IntType(64)
COPIES, FILLS = ("llvm.memcpy.", "llvm.memmove."), ("llvm.memset.",)
# What takes addresses and touches nothing; arrays over addresses have no reference count.
HARMLESS = ("llvm.prefetch.", "llvm.lifetime.", "llvm.stacksave", "llvm.stackrestore", "NRT_incref", "NRT_decref")
# Wrappers take Python objects apart and call the function.
WRAPPERS = ("_ZN7cpython", "cfunc.")

# What each check stands before: the function, and the instruction. Twice its place, and 1 for a store, is a site.
sites: list[tuple[str, str]] = []
instrumented: set[str] = set()  # functions


def readable(name: str) -> str:
    """Return the dotted name of a function from its mangled one."""
    parts, rest = [], name.removeprefix("_ZN")
    while match := re.match(r"(\d+)", rest):
        length = int(match[1])
        parts.append(rest[match.end() : match.end() + length])
        rest = rest[match.end() + length :]
    return ".".join(parts) or name


@functools.cache
def _size(kind: str) -> int:
    """Return the bytes of an LLVM type."""
    import llvmlite.binding as llvm

    with llvm.parse_assembly(f"@x = external global {kind}") as module:
        return int(
            cpu_target.target_context.target_data.get_abi_size(module.get_global_variable("x").global_value_type)
        )


def size_of(kind: Any) -> int:
    """Return the bytes that an access of an LLVM type touches."""
    return kind.count * size_of(kind.element) if isinstance(kind, ir.VectorType) else _size(str(kind))


def _origin(pointer: Any) -> tuple[Any, bool]:
    """Return what a pointer was computed from, and whether all offsets on the way are constants."""
    constant = True
    while True:
        if isinstance(pointer, ir.GEPInstr):
            constant = constant and all(isinstance(index, ir.Constant) for index in pointer.indices)
            pointer = pointer.pointer
        elif isinstance(pointer, ir.CastInstr) and pointer.opname in ("bitcast", "addrspacecast"):
            pointer = pointer.operands[0]
        else:
            return pointer, constant


def _variable(origin: Any) -> int | None:
    """Return the bytes of a variable of the function or of a constant, None for anything else."""
    if isinstance(origin, ir.AllocaInstr):
        count = origin.operands[0].constant if origin.operands else 1
        return count * size_of(origin.allocated_type)
    if isinstance(origin, ir.GlobalVariable):
        return size_of(origin.value_type)
    return None


def _is_frame(origin: Any) -> bool:
    """Return whether a pointer is where Numba's calling convention puts results and errors: the caller's variables."""
    return isinstance(origin, ir.Argument) and origin.name in ("retptr", "excinfo")


class _Checks:
    """Puts checks into one function."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._builder = ir.IRBuilder()

    def _site(self, instruction: Any, write: bool) -> Any:
        sites.append((readable(self._function.name), str(instruction).strip()[:200]))
        instruction._clear_string_cache()  # of llvmlite: the instruction is about to change
        return ir.Constant(I64, 2 * (len(sites) - 1) + write)

    def _call(self, address: int, arguments: list[Any]) -> Any:
        kind = ir.FunctionType(I64, [I64] * len(arguments))
        function = self._builder.inttoptr(ir.Constant(I64, address), kind.as_pointer())
        return self._builder.call(function, arguments)

    def _address(self, pointer: Any) -> Any:
        return self._builder.ptrtoint(pointer, I64)

    def access(self, instruction: Any, operand: int, kind: Any, write: bool) -> None:
        """Check a load or a store, whose address is one of its operands."""
        pointer = instruction.operands[operand]
        origin, constant = _origin(pointer)
        extent = _variable(origin)
        if constant and (extent is not None or _is_frame(origin)):
            return
        self._builder.position_before(instruction)
        size = ir.Constant(I64, size_of(kind))
        site = self._site(instruction, write)
        if extent is not None:
            arguments = [self._address(pointer), size, self._address(origin), ir.Constant(I64, extent), site]
            allowed = self._call(FUNCTIONS.local, arguments)
        else:
            # A vector that is not aligned as the code says is a fault of the CPU, a number is not.
            align = instruction.align or size_of(kind)
            checked = align if isinstance(kind, ir.VectorType) else 1
            allowed = self._call(FUNCTIONS.place, [self._address(pointer), size, ir.Constant(I64, checked), site])
        instruction.operands[operand] = self._builder.inttoptr(allowed, pointer.type)

    def run(self, call: Any, places: dict[int, bool], length: int) -> None:
        """Check a copy or fill: `places` are the arguments that are addresses, and whether they are written."""
        self._builder.position_before(call)
        size = call.args[length]
        for place, write in places.items():
            if _variable(_origin(call.args[place])[0]) is None:
                arguments = [self._address(call.args[place]), self._builder.zext(size, I64), self._site(call, write)]
                size = self._builder.trunc(self._call(FUNCTIONS.length, arguments), size.type)
        call.operands[1 + length] = size

    def masked(self, call: Any, pointer: int, mask: int, kind: Any, write: bool) -> None:
        """Check a masked load or store: its lanes, one after the other in memory."""
        self._builder.position_before(call)
        bits = self._builder.bitcast(call.args[mask], ir.IntType(kind.count))
        wide = self._builder.zext(bits, I64)
        element = ir.Constant(I64, size_of(kind.element))
        arguments = [self._address(call.args[pointer]), element, wide, self._site(call, write)]
        self._mask(call, mask, self._call(FUNCTIONS.lanes, arguments), kind)

    def indirect(self, call: Any, pointers: int, mask: int, kind: Any, write: bool) -> None:
        """Check a gather or scatter: each lane has an address of its own."""
        self._builder.position_before(call)
        bits = self._builder.zext(self._builder.bitcast(call.args[mask], ir.IntType(kind.count)), I64)
        element, one, site = ir.Constant(I64, size_of(kind.element)), ir.Constant(I64, 1), self._site(call, write)
        kept = ir.Constant(I64, 0)
        for lane in range(kind.count):
            shift = ir.Constant(I64, lane)
            pointer = self._builder.extract_element(call.args[pointers], ir.Constant(ir.IntType(32), lane))
            alone = self._builder.and_(self._builder.lshr(bits, shift), one)
            allowed = self._call(FUNCTIONS.lanes, [self._address(pointer), element, alone, site])
            kept = self._builder.or_(kept, self._builder.shl(allowed, shift))
        self._mask(call, mask, kept, kind)

    def _mask(self, call: Any, place: int, bits: Any, kind: Any) -> None:
        narrow = self._builder.trunc(bits, ir.IntType(kind.count)) if kind.count < 64 else bits
        call.operands[1 + place] = self._builder.bitcast(narrow, call.args[place].type)

    def call(self, call: Any) -> None:
        """Check what a call touches, if it is one of LLVM's operations on memory."""
        if isinstance(call.callee, ir.InlineAsm):
            assert not call.callee.asm, f"assembler in {self._function.name}"
            return
        name = getattr(call.callee, "name", "")
        if name.startswith("llvm.masked.load"):
            self.masked(call, 0, 2, call.type, False)
        elif name.startswith("llvm.masked.store"):
            self.masked(call, 1, 3, call.args[0].type, True)
        elif name.startswith("llvm.masked.gather"):
            self.indirect(call, 0, 2, call.type, False)
        elif name.startswith("llvm.masked.scatter"):
            self.indirect(call, 1, 3, call.args[0].type, True)
        elif name.startswith(COPIES):
            self.run(call, {0: True, 1: False}, 2)
        elif name.startswith(FILLS):
            self.run(call, {0: True}, 2)
        elif not name.startswith((*HARMLESS, "_ZN")):
            # Another function of Numba's checks for itself; one of C must not get an address of a kernel's memory.
            taken = [one for one in call.args if isinstance(one.type, ir.PointerType)]
            own = all(_variable(_origin(one)[0]) is not None or _is_frame(_origin(one)[0]) for one in taken)
            assert own, f"{self._function.name} calls {name or call}, which is not known"


def _instrument(function: Any) -> None:
    checks = _Checks(function)
    for block in function.blocks:
        for instruction in list(block.instructions):
            if isinstance(instruction, ir.LoadInstr):
                checks.access(instruction, 0, instruction.type, False)
            elif isinstance(instruction, ir.StoreInstr):
                checks.access(instruction, 1, instruction.operands[0].type, True)
            elif isinstance(instruction, ir.CallInstr):
                checks.call(instruction)
            else:
                known = not instruction.opname.startswith(("atomicrmw", "cmpxchg", "load atomic", "store atomic"))
                assert known, f"{instruction.opname} in {function.name}"


def install() -> None:
    """Instrument all that Numba compiles from now on. Nothing of it may be kept on disk."""
    plain = codegen.CPUCodeLibrary.add_ir_module

    def add_ir_module(self: Any, module: Any) -> None:
        for function in module.functions:
            if not function.is_declaration and not function.name.startswith(WRAPPERS):
                _instrument(function)
                instrumented.add(function.name)
        plain(self, module)

    codegen.CPUCodeLibrary.add_ir_module = add_ir_module

"""Each mistake that the interpreter knows is found, at its instruction; its absence is not."""

from __future__ import annotations

import numpy as np
import pytest
from interpreter import Fault, GlobalMemory
from interpreter import faults as kinds
from ptx_text import kernel, launch

THREAD = """
\tmov.u32 %r0, %tid.x;
\tshr.u32 %r8, %r0, 5;
\tmov.u32 %r1, tile;
\tshl.b32 %r2, %r0, 2;
\tadd.s32 %r3, %r1, %r2;
\tld.param.u64 %rd1, [p0];
\tmul.wide.u32 %rd2, %r0, 4;
\tadd.s64 %rd3, %rd1, %rd2;
"""
#: A thread's word, and that of the thread in the other of two warps.
OTHER = "\txor.b32 %r4, %r2, 128;\n\tadd.s32 %r4, %r1, %r4;\n"


def play(body: str, threads: int = 64, shared: int = 1024, **more) -> None:
    memory = GlobalMemory(1 << 16)
    data = memory.add(np.arange(64, dtype=np.uint32))
    launch(kernel(THREAD + OTHER + body, shared=shared), memory, (data,), (threads, 1, 1), **more)


def fault(body: str, kind: str, text: str, **more) -> None:
    """Assert that a body shows a fault of this kind at an instruction with this text."""
    with pytest.raises(Fault) as found:
        play(body, **more)
    assert found.value.kind == kind, found.value
    assert text in found.value.where, found.value


def test_read_after_write():
    body = "\tst.shared.u32 [%r3], %r0;\n{}\tld.shared.u32 %r5, [%r4];"
    fault(body.format(""), kinds.RACE, "ld.shared.u32 %r5")
    fault(body.format("\tbar.warp.sync -1;\n"), kinds.RACE, "ld.shared.u32 %r5")
    play(body.format("\tbar.sync 0;\n"))
    play(body.format("").replace("[%r4]", "[%r3]"))


def test_write_after_read():
    body = (
        "\tst.shared.u32 [%r3], %r0;\n\tbar.sync 0;\n\tld.shared.u32 %r5, [%r4];\n{}"
        "\tst.shared.u32 [%r3], %r5;"
    )
    fault(body.format(""), kinds.RACE, "st.shared.u32 [%r3], %r5")
    play(body.format("\tbar.sync 1, 64;\n"))


def test_two_warps_write_one_word():
    fault("\tst.shared.u32 [tile], 1;", kinds.RACE, "st.shared.u32 [tile]")
    play("\tst.shared.u32 [tile], 1;", threads=32)


def test_two_warps_write_what_is_there():
    """Where it is allowed: then, or one after the other; another value is a race still."""
    twice = "\tst.shared.u32 [tile], 1;\n\tst.shared.u32 [tile], 1;"
    play(twice, equal_writes=True)
    fault("\tst.shared.u32 [tile], %r8;", kinds.RACE, "st.shared.u32 [tile]", equal_writes=True)
    later = f"{twice}\n\tst.shared.u32 [tile], %r8;"
    fault(later, kinds.RACE, "[tile], %r8", equal_writes=True)


def test_bytes_of_one_word_are_apart():
    play("\tadd.s32 %r6, %r1, %r8;\n\tst.shared.u8 [%r6], %r0;")


def test_a_barrier_of_others_orders_nothing():
    """Warps 0 and 1 meet; warp 2 reads what warp 0 wrote."""
    body = """
\tsetp.eq.s32 %p1, %r8, 2;
\t@%p1 bra $LREAD;
\tst.shared.u32 [%r3], %r0;
\tbar.sync 1, 64;
\tbra.uni $LEND;
$LREAD:
\tbar.sync 2, 32;
\tld.shared.u32 %r5, [%r3+-256];
$LEND:"""
    # One order of warps reads what was never written, the other too early.
    with pytest.raises(Fault) as found:
        play(body, threads=96)
    assert found.value.kind in (kinds.RACE, kinds.UNINITIALISED)


COPY = """
\tshl.b32 %r6, %r0, 4;
\tand.b32 %r6, %r6, 127;
\tcvt.u64.u32 %rd5, %r6;
\tadd.s64 %rd5, %rd1, %rd5;
\tshl.b32 %r6, %r0, 4;
\tadd.s32 %r7, %r1, %r6;
\tcp.async.cg.shared.global [%r7], [%rd5], 16;
"""


def test_copies_are_waited_for():
    read = "\tld.shared.u32 %r5, [%r7];"
    fault(COPY + read, kinds.RACE, "ld.shared.u32")
    fault(COPY + "\tcp.async.commit_group;\n\tcp.async.wait_group 1;\n" + read, kinds.RACE, "ld.sh")
    play(COPY + "\tcp.async.commit_group;\n\tcp.async.wait_group 0;\n" + read)
    play(COPY + "\tcp.async.wait_all;\n" + read)


def test_copies_are_waited_for_by_who_made_them():
    """Behind a barrier alone another warp's copies are not there."""
    wait, meet = "\tcp.async.wait_all;\n", "\tbar.sync 0;\n"
    read = "\txor.b32 %r9, %r6, 512;\n\tadd.s32 %r9, %r9, %r1;\n\tld.shared.u32 %r5, [%r9];"
    play(COPY + wait + meet + read)
    fault(COPY + meet + wait + read, kinds.RACE, "ld.shared.u32")


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ("\tld.global.u32 %r5, [%rd3+4];", kinds.OUT_OF_BOUNDS, "ld.global.u32 %r5"),
        ("\tld.global.u32 %r5, [%rd3+-4];", kinds.OUT_OF_BOUNDS, "ld.global"),
        ("\tld.global.u32 %r5, [%rd1+2];", kinds.MISALIGNED, "ld.global"),
        ("\tld.global.v4.u32 {%r5, %r6, %r7, %r9}, [%rd1+4];", kinds.MISALIGNED, "v4"),
        ("\tst.global.u32 [%rd3], %r0;", kinds.READ_ONLY, "st.global.u32"),
        ("\tcvt.u64.u32 %rd4, %r2;\n\tld.global.u32 %r5, [%rd4];", kinds.OUT_OF_BOUNDS, "[%rd4]"),
        ("\tst.shared.u32 [%r3+1000], %r0;", kinds.OUT_OF_BOUNDS, "st.shared"),
        ("\tst.shared.u32 [%r1+-4], %r0;", kinds.OUT_OF_BOUNDS, "st.shared"),
        ("\tst.shared.u32 [%r3+2], %r0;", kinds.MISALIGNED, "st.shared"),
        ("\tld.shared.u32 %r5, [%r3];", kinds.UNINITIALISED, "ld.shared"),
        ("\t.local .align 4 .b8 depot[8];\n\tld.local.u32 %r5, [depot];", kinds.UNINITIALISED,
         "ld.local"),
        ("\t.local .align 4 .b8 depot[8];\n\tst.local.u32 [depot+8], %r0;", kinds.OUT_OF_BOUNDS,
         "st.local"),
        ("\tld.param.u32 %r5, [p0+8];", kinds.OUT_OF_BOUNDS, "ld.param"),
        ("\tprefetch.global.L2 [%rd3+4];", kinds.OUT_OF_BOUNDS, "prefetch"),
        ("\tsetp.lt.s32 %p1, %r0, 3;\n\t@%p1 trap;", kinds.TRAP, "trap"),
        ("\tsetp.lt.s32 %p1, %r0, 3;\n\t@%p1 bar.sync 0;", kinds.DIVERGENT, "bar.sync"),
        ("\tsetp.lt.s32 %p1, %r0, 3;\n\t@%p1 shfl.sync.bfly.b32 %r5, %r0, 1, 31, -1;",
         kinds.DIVERGENT, "shfl.sync"),
        ("\tsetp.lt.s32 %p1, %r0, 3;\n\t@!%p1 ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r5}, "
         "[%r1];", kinds.DIVERGENT, "ldmatrix"),
        ("\tbar.sync 1, 32;", kinds.BARRIER, "bar.sync 1"),
        ("\tmbarrier.arrive.shared::cta.b64 _, [tile];", kinds.BARRIER, "mbarrier.arrive"),
        ("\tmbarrier.init.shared::cta.b64 [tile+4], 1;", kinds.MISALIGNED, "mbarrier.init"),
        ("\tsetmaxnreg.inc.sync.aligned.u32 231;", kinds.INVALID, "setmaxnreg"),
    ],
)  # fmt: skip
def test_single_instructions(body, kind, text):
    fault(body, kind, text)


def test_the_nearest_buffer_is_named():
    with pytest.raises(Fault, match=r"1 lanes\), 256 bytes into a buffer of 256"):
        play("\tld.global.u32 %r5, [%rd3+4];")


def test_threads_that_have_ended_are_not_waited_for():
    play("\tsetp.ge.s32 %p1, %r0, 40;\n\t@%p1 ret;\n\tbar.sync 0;")


def test_reads_of_results_that_nobody_wrote():
    memory = GlobalMemory(1 << 16)
    out = memory.add_result(64)
    with pytest.raises(Fault, match="uninitialised read: global"):
        launch(kernel("\tld.param.u64 %rd1, [p0];\n\tld.global.u32 %r1, [%rd1];"), memory, (out,))


def test_deadlocks_name_who_waits():
    body = "\tsetp.lt.s32 %p1, %r0, 32;\n\t@%p1 bar.sync 1, 64;"
    with pytest.raises(Fault, match=r"(?s)deadlock: .*32 lanes.*bar\.sync 1, 64"):
        play(body)


#: Warp 0 initialises a barrier of one arrival, writes a word and arrives; warp 1 waits and reads.
PHASES = """
\tsetp.ne.s32 %p1, %r0, 0;
\t@%p1 bra $LREADY;
\tmbarrier.init.shared::cta.b64 [tile+512], 1;
$LREADY:
{ready}
\tsetp.ge.s32 %p2, %r0, 32;
\t@%p2 bra $LWAIT;
{write}
\t@!%p1 mbarrier.arrive.shared::cta.b64 _, [tile+512];
\tbra.uni $LEND;
$LWAIT:
{wait}
\tld.shared.u32 %r5, [%r3+-128];
$LEND:"""
STEPS = {
    "ready": "\tbar.sync 0;",
    "write": "\tst.shared.u32 [%r3], %r0;\n\tbar.warp.sync -1;",
    "wait": "\tmbarrier.try_wait.parity.shared::cta.b64 %p3, [tile+512], 0;",
}


def test_phases_order_what_they_wait_for():
    play(PHASES.format(**STEPS))
    fault(PHASES.format(**{**STEPS, "ready": ""}), kinds.RACE, "mbarrier")
    with pytest.raises(Fault) as found:
        play(PHASES.format(**{**STEPS, "wait": ""}))
    assert found.value.kind == kinds.RACE
    with pytest.raises(Fault, match="deadlock"):  # nobody ends the next phase
        play(PHASES.format(**{**STEPS, "wait": STEPS["wait"][:-2] + "1;"}))


def test_arrivals_beyond_the_count():
    body = "\tsetp.eq.s32 %p1, %r0, 0;\n\t@%p1 mbarrier.init.shared::cta.b64 [tile], 3;\n"
    arrive = "\tmbarrier.arrive.shared::cta.b64 _, [tile];\n"
    play(body + f"\t@%p1 {arrive}" * 2, threads=32)
    with pytest.raises(Fault, match="deadlock"):
        play(body + f"\t@%p1 {arrive}" * 2 + "\tmbarrier.try_wait.parity.shared::cta.b64 %p3, "
             "[tile], 0;", threads=32)  # fmt: skip
    # A phase takes 3 of 32, so that ten pass, and two are left.
    wait = "\tmbarrier.try_wait.parity.shared::cta.b64 %p3, [tile], {};\n"
    play(body + "\tbar.warp.sync -1;\n" + arrive + wait.format(1), threads=32)
    with pytest.raises(Fault, match="deadlock"):
        play(body + "\tbar.warp.sync -1;\n" + arrive + wait.format(0), threads=32)


def test_the_source_line_is_named():
    body = '\t.loc 1 77 3\n\tst.global.u32 [%rd3], %r0;\n\t.file 1 "some/where/source.cuh"\n'
    with pytest.raises(Fault, match=r"source\.cuh:77"):
        play(body)

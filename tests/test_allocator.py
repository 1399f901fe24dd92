"""A process gives back what large messages took: run in a process of its own."""

import platform
import subprocess
import sys
import textwrap

import pytest

PROGRAM = textwrap.dedent(
    """
    import gc, sys
    from federation.apps.operating.allocator import collect, map_large_blocks, set_aside

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    class Connection:
        def __init__(self) -> None:
            self.own, self.body = self, bytes([1]) * (1 << 22)

    map_large_blocks()
    set_aside()
    gc.disable()
    before = resident()
    for _ in range(8):
        Connection()
    held = resident() - before
    {collect}
    print(held >> 20, (resident() - before) >> 20)
    """
)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("does", [True, False])
def test_what_ended_connections_held_goes_back_to_the_system(does: bool) -> None:
    program = PROGRAM.replace("{collect}", "collect()" if does else "")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    held, left = map(int, done.stdout.split())
    assert held >= 32
    assert (left < 4) is does


FRAGMENTS = textwrap.dedent(
    """
    from federation.apps.operating.allocator import map_large_blocks

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    {first}
    small, before = [], resident()
    bytes(24 << 20)  # once freed, glibc would hold the like of it
    for _ in range(3):
        large = [bytes([1]) * (8 << 20) for _ in range(6)]
        small.append(bytes(100_000))
        del large
    print((resident() - before) >> 20)
    """
)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have other ways")
def test_a_large_block_goes_back_whatever_was_freed_before() -> None:
    def left(first: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", FRAGMENTS.replace("{first}", first)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return int(done.stdout)

    assert left("map_large_blocks()") < 4
    assert left("") > 40

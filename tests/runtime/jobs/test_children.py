from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ChildDied, Failed, InvalidInput, NotFound, NotVerified, OutOfMemory, UserCodeFailed
from runtime.jobs import process, zygote_link
from runtime.jobs.child import Child
from runtime.jobs.children import MOST_IDLE, Children
from runtime.jobs.inline import InlineJobs
from runtime.jobs.job import Profile, Seal, sealed_environment
from tests.runtime.jobs import jobs_for_tests
from tests.runtime.jobs.jobs_for_tests import Given, Order
from tests.zygotes import BEGUN

PLAIN = Profile(torch=False)
JOBS = "tests.runtime.jobs.jobs_for_tests"
AnyChild = Child[Any, Any, Any]


@pytest.fixture(autouse=True)
def _started_as_in_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zygote_link, "start_process", BEGUN)


@pytest.fixture
async def children() -> AsyncIterator[Children]:
    children = Children()
    yield children
    await children.close()


@pytest.fixture(params=[Children, lambda: InlineJobs({"train"})], ids=["forked", "inline"])
async def either(request: pytest.FixtureRequest) -> AsyncIterator[Children]:
    children = request.param()
    yield children
    await children.close()


def start(children: Children, function: str, args: dict[str, Any] | None = None, **more: Any) -> Any:
    job = getattr(jobs_for_tests, function)
    job = replace(job, purpose=more.pop("purpose", job.purpose))
    options = {"profile": PLAIN, "session": "00-s"} | more
    return children.job(job, Given(**args or {}), **options)


async def outcome(children: Children, function: str, args: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    async with start(children, function, args, **more) as child:
        result: dict[str, Any] = await child.wait()
        return result


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def first(child: AnyChild) -> Any:
    return (await anext(aiter(child))).data


# What a job says and hears; the same in a fork and in a thread.


async def test_a_job_gives_its_result(either: Children) -> None:
    async with start(either, "double", {"value": 21}) as child:
        assert await child.wait() == {"doubled": 42}
        assert (child.exit.code, child.exit.signal) == (0, None)


async def test_progress_arrives_in_order_and_before_the_result(either: Children) -> None:
    async with start(either, "count", {"to": 100}) as child:
        heard = [(frame.kind, frame.data["number"]) async for frame in child]
        assert heard == [("counted", number) for number in range(100)]
        assert child.result == {"counted": 100}


async def test_orders_reach_a_job_while_it_works(either: Children) -> None:
    async with start(either, "obey") as child:
        await first(child)
        await child.order(Order("change", {"learning_rate": "0x1p-3"}))
        assert await first(child) == {"kind": "change", "data": {"learning_rate": "0x1p-3"}}
        await child.order(Order("stop"))
        assert await child.wait() == {"ended_by": "stop"}


async def test_a_job_that_holds_waits_for_its_order(either: Children) -> None:
    async with start(either, "hold") as child:
        assert await first(child) == {"early": False}
        await child.order(Order("apply", {"step": 400}))
        assert await child.wait() == {"order": "apply", "step": 400}


async def test_a_slow_reader_loses_no_frame(either: Children) -> None:
    async with start(either, "count", {"to": 3000, "filling": 1000}) as child:
        await asyncio.sleep(0.2)  # the job fills the socket and waits
        assert child.exit is None
        assert [frame.data["number"] async for frame in child] == list(range(3000))


async def test_a_reader_that_is_cancelled_and_comes_back_loses_no_frame(either: Children) -> None:
    heard: list[int] = []

    async def read(child: AnyChild) -> None:
        async for frame in child:
            heard.append(frame.data["number"])  # noqa: PERF401 - it is cancelled between any two

    async with start(either, "count", {"to": 2000, "filling": 100}) as child:
        while child.result is None:
            reading = asyncio.create_task(read(child))
            await asyncio.wait([reading], timeout=0.001)
            reading.cancel()
            await asyncio.wait([reading])
    assert heard == list(range(2000))


async def test_large_arguments_and_frames_pass(either: Children) -> None:
    value = "x" * 5_000_000
    assert await outcome(either, "double", {"value": value}) == {"doubled": value * 2}


async def test_orders_that_were_never_read_do_not_cost_the_result(either: Children) -> None:
    async with start(either, "answer_and_ignore_orders") as child:
        await first(child)
        await child.order(Order("change"))
        assert await child.wait() == {"answered": True}
        with pytest.raises(ChildDied, match="cannot be ordered to 'Order'"):
            await child.order(Order("change"))


async def test_a_job_may_answer_before_it_cleans_up(either: Children) -> None:
    async with start(either, "answer_early") as child:
        assert [frame.kind async for frame in child] == ["cleaned"]
        assert child.result == {"early": True}


async def test_a_job_answers_once(either: Children) -> None:
    with pytest.raises(InvalidInput, match="one result"):
        await outcome(either, "answer_twice")


@pytest.mark.parametrize(
    "told",
    [
        'Heard {"value": {}}',
        'Told {"value": {"kind": "x"}}',
        'Told {"value": {"kind": "x", "data": {}, "more": 1}}',
        'Told {"value": {"kind": 1, "data": {}}}',
        'Told {"kind": "x"}',
        'result {"value": 3}',
        "result {}",
    ],
)
async def test_a_job_that_tells_what_it_never_declared_is_ended_and_named_as_the_users(
    children: Children, told: str
) -> None:
    async with start(children, "babble", {"value": told}) as child:
        with pytest.raises(UserCodeFailed, match="told something that no computation gives"):
            await child.wait()
        await child.ended()
        assert child.exit.signal == signal.SIGKILL


async def test_an_order_or_a_word_that_a_job_does_not_declare_is_refused_by_whom_it_is_asked(either: Children) -> None:
    async with start(either, "obey") as child:
        await first(child)
        with pytest.raises(InvalidInput, match="knows no order 'Given'"):
            await child.order(Given())
        await child.cancel(grace=30)
    with pytest.raises(InvalidInput, match="cannot tell 'Order'"):
        await outcome(either, "misspeak")


async def test_an_exception_names_the_users_last_line(either: Children) -> None:
    async with start(either, "divide_by_zero", {"divisor": 0}) as child:
        with pytest.raises(UserCodeFailed, match="ZeroDivisionError: division by zero") as failed:
            await child.wait()
    assert 'in divide_by_zero: return {"quotient": 1 / given.divisor}' in failed.value.message
    assert failed.value.path.endswith("jobs_for_tests.py:" + str(child.raised["frame"]["line"]))
    assert child.raised["traceback"][-1] == "ZeroDivisionError: division by zero"
    assert child.exit.code == 1


async def test_an_exception_inside_a_library_names_the_users_line_that_called_it(either: Children) -> None:
    with pytest.raises(UserCodeFailed, match=r"statistics\.StatisticsError.*\n.*in sort_the_unsortable"):
        await outcome(either, "sort_the_unsortable")


async def test_an_error_of_ours_comes_back_as_itself(either: Children) -> None:
    with pytest.raises(NotVerified) as failed:
        await outcome(either, "refuse")
    assert (
        failed.value.as_json()
        == NotVerified("The state root differs.", cure="Use an older checkpoint.", path="state").as_json()
    )


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("run_out_of_memory", OutOfMemory, "not enough memory: MemoryError"),
        ("leave", UserCodeFailed, r"SystemExit: .* called exit\(7\)"),
    ],
)
async def test_an_exception_that_is_no_error_is_told_too(
    either: Children, function: str, kind: type[Failed], message: str
) -> None:
    with pytest.raises(kind, match=message):
        await outcome(either, function)


@pytest.mark.parametrize("name", ["no_such_module:main", f"{JOBS}:no_such", f"{JOBS}:NOT_A_FUNCTION", f"{JOBS}:"])
async def test_a_function_that_does_not_exist_is_named(either: Children, name: str) -> None:
    def misplaced(given: Given) -> None:
        """A function that its process does not find where it says it is."""

    misplaced.__module__, _, misplaced.__qualname__ = name.partition(":")
    with pytest.raises((Failed, InvalidInput), match=name.partition(":")[0]):
        await either.run(jobs_for_tests.train(misplaced), Given(), profile=PLAIN)


async def test_a_job_that_is_cancelled_ends_by_itself(either: Children) -> None:
    async with start(either, "obey") as child:
        await first(child)
        await child.cancel(grace=30)
        assert await child.wait() == {"ended_by": "cancel"}


async def test_leaving_the_context_ends_a_job_that_swallows_every_error(either: Children) -> None:
    async with start(either, "deaf_to_its_host_until_it_goes") as child:
        await first(child)
    assert child.exit is not None
    assert either.running() == [running for running in either.running() if running.purpose == "zygote"]


async def test_a_task_that_is_cancelled_leaves_no_job_behind(either: Children) -> None:
    begun = asyncio.Event()
    seen: list[AnyChild] = []

    async def work() -> None:
        async with start(either, "obey") as child:
            seen.append(child)
            begun.set()
            await child.wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert seen[0].exit is not None


async def test_jobs_cancelled_at_any_moment_leave_nothing_behind(either: Children) -> None:
    async def cut_short(after: float) -> None:
        task = asyncio.create_task(outcome(either, "obey"))
        await asyncio.wait([task], timeout=after)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    await outcome(either, "double", {"value": 0})
    before = len(list(Path("/proc/self/fd").iterdir()))
    for after in range(40):
        await asyncio.gather(*(cut_short((after + part / 3) / 10_000) for part in range(3)))
    await until(lambda: all(running.purpose == "zygote" for running in either.running()))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Processes.


async def test_a_job_that_ignores_its_cancellation_is_killed_after_the_grace(children: Children) -> None:
    async with start(children, "deaf") as child:
        await first(child)
        await child.cancel(grace=0.05)
        assert child.exit.signal == signal.SIGKILL
        with pytest.raises(ChildDied, match="ended by its host"):
            await child.wait()


async def test_a_job_killed_from_outside_is_reported_with_signal_and_memory(children: Children, tmp_path: Path) -> None:
    async with start(children, "deaf", log=tmp_path / "training.log") as child:
        os.kill((await first(child))["pid"], signal.SIGKILL)
        with pytest.raises(ChildDied, match=r"train job of session 00-s \(pid \d+\) .* SIGKILL .* MiB") as died:
            await child.wait()
    assert "training.log" in died.value.cure
    assert "memory" in died.value.cure


async def test_a_crash_in_native_code_is_an_event_and_leaves_its_stacks(children: Children, tmp_path: Path) -> None:
    log = tmp_path / "training.log"
    with pytest.raises(ChildDied, match="crashed with SIGSEGV"):
        await outcome(children, "crash", log=log)
    assert log.read_text().startswith("before the crash\nFatal Python error: Segmentation fault")
    assert await outcome(children, "double", {"value": 1}) == {"doubled": 2}


async def test_the_log_has_the_whole_traceback_of_an_error_that_is_none_of_ours(
    children: Children, tmp_path: Path
) -> None:
    log = tmp_path / "training.log"
    with pytest.raises(UserCodeFailed) as failed:
        await outcome(children, "sort_the_unsortable", log=log)
    told = log.read_text()
    assert told.startswith("Traceback (most recent call last):")
    assert [part in told for part in ("in perform", "in sort_the_unsortable", "statistics.py")] == [True] * 3
    assert "The whole traceback is in the session's training.log." in failed.value.cure
    with pytest.raises(NotVerified):
        await outcome(children, "refuse", log=log)
    assert log.read_text() == told


async def test_what_runs_outside_of_a_session_names_no_log_that_goes_with_its_folder(
    children: Children, tmp_path: Path
) -> None:
    with pytest.raises(UserCodeFailed) as failed:
        await outcome(children, "divide_by_zero", {"divisor": 0}, log=tmp_path / "log", session="")
    assert "traceback" not in failed.value.cure


async def test_an_exit_without_a_result_is_reported_with_its_code(children: Children) -> None:
    with pytest.raises(ChildDied, match="ended with code 9 and gave no result"):
        await outcome(children, "leave_at_once")


async def test_the_peak_memory_of_a_job_is_reported(children: Children) -> None:
    async with start(children, "remember", {"bytes": 64 * 2**20}) as child:
        await child.wait()
    assert 64 * 2**20 < child.exit.max_rss_bytes < 200 * 2**20


async def test_a_killed_zygote_takes_its_jobs_along_and_is_replaced(children: Children) -> None:
    async with start(children, "deaf") as child:
        await first(child)
        started = process.start_time(child.pid)
        (zygote,) = [running.pid for running in children.running() if running.purpose == "zygote"]
        os.kill(zygote, signal.SIGKILL)
        with pytest.raises(ChildDied, match="died with the zygote"):
            await child.wait()
        await until(lambda: not process.alive(child.pid, started or 0))
    assert await outcome(children, "double", {"value": 1}) == {"doubled": 2}
    assert zygote not in [running.pid for running in children.running()]


async def test_a_signal_to_everybody_is_left_to_the_host(children: Children) -> None:
    """A terminal, a container or a supervisor signals whole groups while the host still drains."""
    async with start(children, "obey") as child:
        await first(child)
        for running in children.running():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(running.pid, number)
        await child.order(Order("stop"))
        assert (await child.wait())["ended_by"] == "stop"


async def test_nothing_that_a_job_started_outlives_it(children: Children) -> None:
    for then in ("wait", "leave"):
        async with start(children, "beget", {"then": then}) as child:
            begot = await first(child)
            if then == "wait":
                child.kill()
            else:
                await child.wait()
        await until(lambda begot=begot: not process.alive(begot["pid"], begot["started"]))


async def test_a_job_gets_a_clean_process(children: Children) -> None:
    async with start(children, "look_around") as child:
        seen = await child.wait()
        zygote = children.running()[0].pid
    assert sorted(name.partition(":")[0] for name in seen["open"]) == ["/dev/null"] * 3 + ["socket"]
    assert seen["threads"] == 1
    assert seen["main_thread"]
    assert seen["signals_reset"]
    assert seen["parent"] == zygote
    assert seen["pid"] == child.pid
    assert not {"asyncio", "anyio", "nats", "torch"} & set(seen["modules"])


async def test_the_environment_is_sealed(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "PYTHONSTARTUP", "PYTHONWARNINGS", "ATEN_CPU_CAPABILITY", "MKL_CBWR", "SECRET"):
        monkeypatch.setenv(name, "17")
    seen = (await outcome(children, "look_around", profile=Profile(threads=2, torch=False)))["environment"]
    assert seen["OMP_NUM_THREADS"] == "2"
    assert seen["PYTHONHASHSEED"] == "0"
    assert seen["MKL_CBWR"] == "AUTO"
    assert "17" not in seen.values()


async def test_whatever_the_device_a_job_sees_the_gpus_that_its_host_may_use(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    seen = (await outcome(children, "look_around", profile=Profile(torch=False)))["environment"]
    assert seen["CUDA_VISIBLE_DEVICES"] == "3"
    assert sealed_environment(Profile(device="cuda"))["CUDA_VISIBLE_DEVICES"] == "3"


async def test_a_log_that_cannot_be_written_is_told_with_its_path(children: Children, tmp_path: Path) -> None:
    log = tmp_path / "none" / "log"
    with pytest.raises(NotFound) as refused:
        await outcome(children, "double", {"value": 2}, log=log)
    assert refused.value.path == str(log)


async def test_what_a_job_and_its_descendants_print_goes_to_its_log(children: Children, tmp_path: Path) -> None:
    log = tmp_path / "training.log"
    log.write_text("an earlier attempt\n")
    await outcome(children, "speak", log=log)
    assert log.read_text().splitlines() == [
        "an earlier attempt",
        "to stdout",
        "to stderr",
        "by descriptor",
        "from a descendant",
    ]


async def test_fifty_jobs_in_a_row_leave_nothing_behind(children: Children) -> None:
    def descriptors() -> tuple[int, ...]:
        return tuple(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in ("self", zygote))

    await outcome(children, "double", {"value": 0})
    zygote = children.running()[0].pid
    before = descriptors()
    for value in range(50):
        assert await outcome(children, "double", {"value": value}) == {"doubled": 2 * value}
    assert descriptors() == before
    assert Path(f"/proc/{zygote}/task/{zygote}/children").read_text() == ""


async def test_many_jobs_run_at_once(children: Children) -> None:
    results = await asyncio.gather(*(outcome(children, "double", {"value": value}) for value in range(20)))
    assert results == [{"doubled": 2 * value} for value in range(20)]
    assert len(children.running()) == 1, "one zygote, however many asked first"


async def test_every_process_is_listed_with_its_purpose(children: Children) -> None:
    assert children.running() == []
    async with start(children, "deaf", purpose="evaluate") as child:
        zygote, job = children.running()
        assert (zygote.purpose, zygote.session) == ("zygote", "")
        assert job == (child.pid, "evaluate", "00-s")
    assert [running.purpose for running in children.running()] == ["zygote"]


@pytest.mark.skipif(not process.LINUX, reason="only Linux says how much memory is free")
async def test_code_that_wants_more_memory_than_is_free_is_told_so_and_others_take_what_they_need(
    children: Children,
) -> None:
    with pytest.raises(OutOfMemory, match=r"it wants more than the 0\.06 GiB that were free"):
        await outcome(children, "take_memory", {"free": 64 << 20, "wanted": 80, "after": 0})
    within = {"free": 64 << 20, "wanted": 40, "after": 60}
    assert await outcome(children, "take_memory", within) == {"taken": 100}


async def test_zygotes_that_nobody_uses_are_ended_the_longest_unused_first(children: Children) -> None:
    async with start(children, "double", {"value": 1}) as busy:
        for threads in range(2, 3 + MOST_IDLE):
            await outcome(children, "double", {"value": threads}, profile=Profile(threads=threads, torch=False))
            zygotes = [one for one in children.running() if one.purpose == "zygote"]
            assert len(zygotes) <= 1 + MOST_IDLE
        assert await busy.wait() == {"doubled": 2}
    assert len(zygotes) == 1 + MOST_IDLE
    assert not any(profile.threads == 2 for profile in children._zygotes)
    assert await outcome(children, "double", {"value": 4}, profile=Profile(threads=2, torch=False)) == {"doubled": 8}


async def test_closing_ends_every_process() -> None:
    children = Children()
    async with start(children, "deaf") as child:
        pids = {running.pid: process.start_time(running.pid) for running in children.running()}
        await children.close()
        assert not any(process.alive(pid, started or 0) for pid, started in pids.items())
        with pytest.raises(ChildDied):
            await child.wait()
    assert children.running() == []


async def test_a_module_that_cannot_be_imported_is_named(children: Children) -> None:
    with pytest.raises(UserCodeFailed, match="No module named 'no_such_module'"):
        await children.warm(Profile(torch=False, modules=("no_such_module",)))
    assert children.running() == []


async def test_a_zygote_whose_imports_start_a_thread_refuses_to_fork(children: Children) -> None:
    with pytest.raises(Failed, match="2 threads"):
        await children.warm(Profile(torch=False, modules=("tests.runtime.jobs.starts_a_thread",)))


async def test_a_zygote_that_dies_unnoticed_costs_the_next_job_nothing(children: Children) -> None:
    await children.warm(PLAIN)
    zygote = children.running()[0].pid
    process.end(zygote, process.start_time(zygote) or 0, grace=0)  # blocks the loop, so that nobody hears of it
    assert await outcome(children, "double", {"value": 3}) == {"doubled": 6}


async def test_a_look_for_orders_is_cheap_enough_for_every_step(children: Children) -> None:
    assert (await outcome(children, "look_often"))["microseconds"] < 20


async def test_a_fork_of_a_warm_zygote_is_quick(children: Children) -> None:
    await children.warm(PLAIN)
    took = []
    for _ in range(5):
        began = time.perf_counter()
        async with start(children, "deaf"):
            took.append(time.perf_counter() - began)
    assert min(took) < 0.05


HOST = """
import asyncio
from runtime.jobs.children import Children
from tests.runtime.jobs.jobs_for_tests import Given, deaf
async def main():
    children = Children()
    async with children.job(deaf, Given()) as child:
        await anext(aiter(child))
        print(*(running.pid for running in children.running()), flush=True)
        await child.wait()
asyncio.run(main())
"""


async def test_the_death_of_the_host_is_the_end_of_its_children() -> None:
    with subprocess.Popen([sys.executable, "-c", HOST], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        pids = [int(word) for word in host.stdout.readline().split()]
        started = {pid: process.start_time(pid) for pid in pids}
        assert len(pids) == 2
        host.kill()
    await until(lambda: not any(process.alive(pid, at or 0) for pid, at in started.items()))


async def test_torch_is_there_when_the_job_begins_and_computes(children: Children) -> None:
    profile = Profile()
    await children.warm(profile)
    for value in (1, 2):
        result = await outcome(children, "add_tensors", {"value": value}, profile=profile)
        assert result == {"sum": (64.0**3).hex(), "loaded_before": value}


# Only in a thread.


async def test_jobs_that_run_here_run_one_after_the_other_and_others_are_forked() -> None:
    children = InlineJobs({"train"})
    async with (
        start(children, "hold") as training,
        start(children, "double", {"value": 1}, purpose="evaluate") as other,
    ):
        assert training.pid == os.getpid() != other.pid
        assert await other.wait() == {"doubled": 2}
        second = asyncio.create_task(outcome(children, "double", {"value": 2}))
        await first(training)
        assert not second.done()
        await training.order(Order("apply"))
        await training.wait()
    assert await second == {"doubled": 4}
    await children.close()


async def test_a_job_that_wants_other_threads_than_this_process_has_is_not_begun_here() -> None:
    children = InlineJobs({"train"}, threads=1)
    fitting, wanting = ({"value": 1, "seal": Seal(threads)} for threads in (1, 2))
    assert await outcome(children, "double", fitting) == {"doubled": 2}
    waiting = asyncio.create_task(outcome(children, "double", wanting))
    await children.misfit.wait()
    assert (children.wanted, waiting.done()) == (2, False)
    waiting.cancel()
    await children.close()

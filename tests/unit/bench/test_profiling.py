"""What is made of a sampler's stacks and of threads' times."""

from bench.profiling import shares, thread_rows

_RUN = "<module> (proxy/__main__.py:7);run (asyncio/runners.py:118)"
STACKS = {
    _RUN: 100,
    f"{_RUN};send (h11_impl.py:490)": 300,
    f"{_RUN};send (h11_impl.py:9);send (h11_impl.py:7);f (a.py:1)": 400,
    f"{_RUN};x.<locals>.y (b (of) c.py:1);x.<locals>.y (b.py)": 200,
}


def test_a_file_has_its_own_samples_and_those_of_what_it_calls() -> None:
    assert shares(STACKS) == [
        ["a.py", "40.0 %", "40.0 %"],
        ["h11_impl.py", "30.0 %", "70.0 %"],
        ["b.py", "20.0 %", "20.0 %"],
        ["asyncio/runners.py", "10.0 %", "100.0 %"],
    ]


def test_threads_come_by_what_they_took_a_clip() -> None:
    spent = {"idle": 0.00001, "epollEventLoopG": 0.5, "W-#": 1.5}
    assert thread_rows(spent, count=1_000) == [["W-#", "1.50"], ["epollEventLoopG", "0.50"]]

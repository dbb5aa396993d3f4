"""Results of other threads arrive in one place, on the thread that polls."""

from __future__ import annotations

import threading

import pytest
from toys import picture

from app.headless import open_image, wait
from hrviewer.errors import HrviewerError


def test_results_arrive_with_a_poll_on_its_thread(app):
    found = []

    def done(value):
        found.append((value, threading.current_thread()))

    task = app.background.submit("test", lambda task: threading.current_thread().name, done)
    task.future.result(10)
    assert found == []
    wait(app, lambda: found)
    name, thread = found[0]
    assert name.startswith("hrviewer-test")
    assert thread is threading.main_thread()
    assert not task.is_pending


def test_tasks_of_a_lane_follow_each_other(app):
    order = []
    for i in range(20):
        app.background.submit("test", lambda task, i=i: i, order.append)
    wait(app, lambda: len(order) == 20)
    assert order == list(range(20))


def test_of_several_reports_in_a_tick_the_last_counts(app):
    seen, done = [], []

    def work(task):
        for i in range(100):
            task.report(i)

    task = app.background.submit("test", work, done.append, progress=seen.append)
    task.future.result(10)
    app.background.poll()
    assert seen[-1] == 99
    assert len(seen) < 100


@pytest.mark.parametrize("error", [HrviewerError("no such thing"), ValueError("oops")])
def test_an_error_is_reported_in_one_line(app, error):
    def work(task):
        raise error

    app.background.submit("test", work, lambda value: None)
    wait(app, lambda: any(app.errors))
    assert app.errors[-1] in ("no such thing", "ValueError: oops")
    failed = []
    app.background.submit("test", work, lambda value: None, failed=failed.append)
    wait(app, lambda: failed)
    assert failed == [error]


def test_what_is_cancelled_or_belongs_to_a_closed_image_is_dropped(app):
    gate, found = threading.Event(), []
    session = open_image(app, picture(60, 80))
    first = app.background.submit("test", lambda task: gate.wait(10), found.append)
    second = app.background.submit("test", lambda task: 2, found.append, owner=session)
    third = app.background.submit("test", lambda task: 3, found.append)
    first.cancel()
    app.state.close_image(session)
    gate.set()
    wait(app, lambda: found)
    assert found == [3]
    assert not any(task.is_pending for task in (first, second, third))


def test_messages_are_called_in_order_by_the_next_poll(app):
    found = []
    thread = threading.Thread(
        target=lambda: [app.background.post(lambda i=i: found.append(i)) for i in range(50)]
    )
    thread.start()
    thread.join()
    assert found == []
    app.background.poll()
    assert found == list(range(50))
    app.close()
    app.background.post(lambda: found.append("late"))
    app.background.poll()
    assert len(found) == 50

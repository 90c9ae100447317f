"""Crash states: record what a driver or job does, and judge everything a crash could have left of it.

How to use it
-------------
Record. `Recorder` holds files in memory; every change of any of them goes to one `Log`, in one order:

    recorder = Recorder(seed=1)
    recorder.add("disk.qcow2", content)                       # durable before anything else; add all files first
    file = await recorder.child(ground, "disk.qcow2")         # an interface Child over driver `recording`
    driver = await Qcow2Driver.open(options, ground.context({"file": file}))
    guest = Guest(recorder.log, DriverChild(driver, ...), initial=b"")   # initial: what the guest sees at first
    await guest.write(0, 65536)                               # unique bytes; marks "begun" and "acked" in the log
    await guest.flush()

For the graph: `with recorder.registered():` makes the driver `recording` (option `filename`) known to the
catalogue while it lasts. For requests sent by other means: `number = guest.begin("write", offset, length, data)`,
send, `guest.acked(number)`. Anything else that the world is told is a mark: `recorder.log.mark("job", id=...,
state=...)`. A durable commit of a job store is a mark too, made right after the commit returned. Files that
appear, are renamed or removed: `recorder.create(name)`, `log.rename`, `log.unlink`, `log.sync_directory()`.

Judge. An oracle is a picklable object with `problems(crash: Crash) -> list[str]`, whose class lives in an
importable module. There are `QemuCheck(image)`, `GuestContent(image, readers=("qemu", "us"))` and `Every(...)` to
join them. `Crash` gives the files (`directory`; `copy()` for changes), the `cut`, and `marks(kind)` said before
it. A job's oracle compares the marks with the files, for instance: after the mark COMPLETED the target holds
everything.

    report = replay(recorder.log, Every(QemuCheck("disk.qcow2"), GuestContent("disk.qcow2")), budget(2000))
    assert not report.findings, report

Prove that it bites. Each flush of the driver must matter: `surviving_barriers(log, oracle, limit)` lists those
whose loss is not noticed, `log.without_barriers()` is the history on a disk that ignores flushes; judging it must
fail.

What a crash may leave is defined in `timeline`, what is allowed of the guest's sectors in `guest`, which states
are tried in `states`. A finding prints the cut and the changes that arrived; `state.cut` and `log.entries` tell
the rest, and the same seed makes the same states.
"""

from tests.support.crash.guest import Guest, History
from tests.support.crash.log import DIRECTORY, Entry, Log, Op
from tests.support.crash.oracles import Crash, Every, GuestContent, Oracle, QemuCheck
from tests.support.crash.reading import open_chain, read_by_qemu, read_by_us
from tests.support.crash.recording import Recorder, RecordingDriver
from tests.support.crash.replay import Finding, Report, budget, judge, replay, surviving_barriers
from tests.support.crash.states import State, Tear, states
from tests.support.crash.timeline import Timeline

__all__ = [
    "Recorder",
    "RecordingDriver",
    "Log",
    "Entry",
    "Op",
    "DIRECTORY",
    "Guest",
    "History",
    "Timeline",
    "State",
    "Tear",
    "states",
    "Oracle",
    "Crash",
    "Every",
    "QemuCheck",
    "GuestContent",
    "read_by_qemu",
    "read_by_us",
    "open_chain",
    "replay",
    "judge",
    "budget",
    "surviving_barriers",
    "Report",
    "Finding",
]

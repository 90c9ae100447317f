"""The entry of a replay worker process."""

from tests.support.crash.replay import work

if __name__ == "__main__":
    work()

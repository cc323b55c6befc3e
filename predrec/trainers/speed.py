"""Rates by a clock that never goes back, whatever happens to the time of day."""

import time


class SpeedLog:
    """Replaces the Trainer's own run times, which it takes from the time of day.

    The run time is that of the whole run, rates are those of this call alone.

    Args:
        name (`str`): What is timed, as it stands before `_runtime` in the log.
    """

    def __init__(self, name: str):
        self.name, self.start = name, time.perf_counter()
        self.samples = self.steps = 0
        self.before = 0.0

    @property
    def seconds(self) -> float:
        """Run time so far, that of earlier calls, `before`, included."""
        return self.before + time.perf_counter() - self.start

    def add(self, samples: int) -> None:
        """Counts a step of so many samples."""
        self.samples, self.steps = self.samples + samples, self.steps + 1

    def correct(self, logs: dict[str, float]) -> None:
        """Puts run time and rates into a log line that has the run time of this; leaves others as they are."""
        if f"{self.name}_runtime" in logs:
            seconds = self.seconds - self.before
            logs[f"{self.name}_runtime"] = round(self.seconds, 4)
            logs[f"{self.name}_samples_per_second"] = round(self.samples / max(seconds, 1e-9), 3)
            logs[f"{self.name}_steps_per_second"] = round(self.steps / max(seconds, 1e-9), 3)

"""Rates by a clock that never goes back, whatever happens to the time of day."""

import time


class SpeedLog:
    """Replaces the Trainer's own run times, which it takes from the time of day.

    Args:
        name (`str`): What is timed, as it stands before `_runtime` in the log.
    """

    def __init__(self, name: str):
        self.name, self.start = name, time.perf_counter()
        self.samples = self.steps = 0

    def add(self, samples: int) -> None:
        """Counts a step of so many samples."""
        self.samples, self.steps = self.samples + samples, self.steps + 1

    def correct(self, logs: dict[str, float]) -> None:
        """Puts run time and rates into a log line that has the run time of this; leaves others as they are."""
        if f"{self.name}_runtime" in logs:
            seconds = time.perf_counter() - self.start
            logs[f"{self.name}_runtime"] = round(seconds, 4)
            logs[f"{self.name}_samples_per_second"] = round(self.samples / max(seconds, 1e-9), 3)
            logs[f"{self.name}_steps_per_second"] = round(self.steps / max(seconds, 1e-9), 3)

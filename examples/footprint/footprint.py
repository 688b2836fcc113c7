"""A guest: an agent from outside, with a key and a lane of its own. It tells what a session cost in energy."""

from stigmergy import Agent, Event, on
from contracts.resource_monitor import ResourcesSummarised

WATTS_PER_CORE, GRAMS_PER_KWH = 8.0, 380.0


class FootprintEstimated(Event, wire="footprint.estimated"):
    """What the session took, by the time its cores and its GPUs were busy."""

    watt_hours: float
    grams_co2: float


class Footprint(Agent):
    """Tells what a session cost in energy."""

    @on
    async def weigh(self, seen: ResourcesSummarised) -> FootprintEstimated:
        watts = WATTS_PER_CORE * seen.cpu_percent_mean / 100 + sum(gpu.get("watts_mean", 0.0) for gpu in seen.gpus)
        hours = seen.seconds / 3600
        return FootprintEstimated(watt_hours=watts * hours, grams_co2=watts * hours * GRAMS_PER_KWH / 1000)

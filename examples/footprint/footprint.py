"""A guest: an agent from outside, with a key and a lane of its own. It reads one kind of event and says another."""

from contracts.resource_monitor import ResourcesSummarised
from stigmergy import Agent, Event, on

WATTS, GRAMS_PER_KWH = 65.0, 380.0  # of a machine that is busy; of its electricity


class FootprintEstimated(Event, wire="footprint.estimated"):
    """What the session took, by how busy the machine and its GPUs were."""

    watt_hours: float
    grams_co2: float


class Footprint(Agent):
    """Tells what a session cost in energy."""

    @on
    async def weigh(self, seen: ResourcesSummarised) -> FootprintEstimated:
        joules = WATTS * seen.cpu_percent_mean / 100 * seen.seconds + sum(gpu["joules"] for gpu in seen.gpus)
        return FootprintEstimated(watt_hours=joules / 3600, grams_co2=joules / 3.6e6 * GRAMS_PER_KWH)
